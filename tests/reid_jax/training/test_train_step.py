import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from reid_jax import augment, errors, features, losses
from reid_jax.data.batches import device_batches
from reid_jax.data.images import CachedImages
from reid_jax.data.samples import Samples
from reid_jax.embeddings import Features
from reid_jax.models.batch_norm import BatchNorm
from reid_jax.models.reid import ReidModel
from reid_jax.training import epochs as epochs_lib
from reid_jax.training import optimizers, train_step

IMAGES = CachedImages(np.random.default_rng(0).integers(0, 256, (40, 16, 8, 3), dtype=np.uint8))
LABELS = np.repeat(np.arange(10), 4)
EVERY = np.arange(41)
SAMPLES = Samples(EVERY[:-1], EVERY, LABELS, LABELS, LABELS.astype(str))


class Backbone(nn.Module):
    """A user's own: one convolution and a batch norm."""

    @nn.compact
    def __call__(self, images, *, train):
        x = nn.Conv(8, (3, 3), strides=(2, 2))(images)
        return nn.relu(BatchNorm()(x, train=train))


@functools.cache
def make(mesh, learning_rate=0.05):
    model = ReidModel(Backbone())
    optimizer = optimizers.make_optimizer("sgd", learning_rate, weight_decay=5e-4)
    step = train_step.make_train_step(
        model,
        lambda outputs, labels, memory: losses.batch_hard_triplet(outputs.embeddings, labels),
        optimizer,
        functools.partial(augment.augment, padding=2, erasing_probability=0.5),
        mesh,
    )
    variables = model.init(jax.random.key(0), jnp.zeros((1, 16, 8, 3)), train=False)
    return model, step, lambda: train_step.init_train_state(variables, optimizer, mesh)


def run(mesh, num_epochs=3, **options):
    _, step, new_state = make(mesh, **options)
    state, found = new_state(), []
    index_batches = np.random.default_rng(1).permutation(40).reshape(5, 8)
    batches = device_batches(IMAGES, np.concatenate([index_batches] * num_epochs), mesh)
    for _ in range(num_epochs):
        state, epoch = epochs_lib.train_epoch(step, state, jax.random.key(3), batches, LABELS[index_batches], mesh)
        found.append(epoch)
    return state, np.concatenate(found)


def test_trains_and_compiles_once(meshes):
    state, found = run(meshes[0], num_epochs=12)
    assert int(state.step) == 60 and found.shape == (60,)
    assert found[-10:].mean() < 0.8 * found[:10].mean()
    assert make(meshes[0])[1]._cache_size() == 1


def test_one_and_eight_devices_give_the_same(meshes):
    (one, losses_one), (eight, losses_eight) = (run(mesh) for mesh in meshes)
    np.testing.assert_allclose(losses_one, losses_eight, rtol=1e-4)
    for a, b in zip(jax.tree.leaves(one.variables), jax.tree.leaves(eight.variables)):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_the_same_again_bit_for_bit(meshes):
    (first, _), (again, _) = (run(meshes[0]) for _ in range(2))
    assert all((np.asarray(a) == np.asarray(b)).all() for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(again)))


def test_a_loss_that_is_not_finite_names_its_step(meshes):
    with pytest.raises(errors.NonFiniteLossError, match=r"the loss is (nan|inf) at step \d+ \(of steps 0..4"):
        run(meshes[0], learning_rate=1e30)


def test_embeddings_come_in_index_order_on_any_mesh(meshes):
    found = []
    for mesh in meshes:
        model, _, new_state = make(mesh)
        variables = new_state().variables
        step = features.make_embed_step(model, mesh)
        for batch_size in (8, 16):
            found.append(
                features.embed_samples(step, variables, IMAGES, SAMPLES, mesh, batch_size=batch_size).embeddings
            )
        plain = model.apply(variables, augment.normalize(IMAGES.array), train=False).embeddings
        found.append(np.asarray(plain))
    assert all(each.shape == (40, 8) for each in found)
    for each in found[1:]:
        np.testing.assert_allclose(each, found[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e25])
def test_embeddings_that_float32_cannot_normalise_are_named(meshes, value):
    def embed_step(variables, batch):
        embeddings = np.ones((len(batch), 8), np.float32)
        embeddings[3, 2] = value
        return Features(embeddings)

    with pytest.raises(errors.NonFiniteLossError, match=f"1 of 40 embeddings are not .* that of {SAMPLES.names[3]};"):
        features.embed_samples(embed_step, {}, IMAGES, SAMPLES, meshes[0], batch_size=40)


def test_the_average_follows_the_model_and_is_what_is_kept(meshes):
    model, _, _ = make(meshes[0])
    optimizer = optimizers.make_optimizer("sgd", 0.05, weight_decay=0.0)
    step = train_step.make_train_step(
        model,
        lambda outputs, labels, memory: losses.batch_hard_triplet(outputs.embeddings, labels),
        optimizer,
        functools.partial(augment.augment, padding=2),
        meshes[0],
        average_decay=0.5,
    )
    variables = model.init(jax.random.key(0), jnp.zeros((1, 16, 8, 3)), train=False)
    state = train_step.init_train_state(variables, optimizer, meshes[0], averaged=True)
    expected = jax.tree.map(np.asarray, variables)
    for number, kept in enumerate((1 / 10, 2 / 11, 3 / 12)):  # (1 + n) / (10 + n), below the decay
        rows = np.arange(8) + 8 * number
        (images,) = device_batches(IMAGES, rows[None], meshes[0])
        state, _ = step(state, jax.random.key(1), images, LABELS[rows])
        expected = jax.tree.map(lambda old, new: kept * old + (1 - kept) * np.asarray(new), expected, state.trained)
    for a, b in zip(jax.tree.leaves(state.variables), jax.tree.leaves(expected)):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    late = train_step.move_average({"w": jnp.float32(1)}, {"w": jnp.float32(3)}, jnp.int32(1000), decay=0.75)
    assert float(late["w"]) == pytest.approx(0.75 * 1 + 0.25 * 3)


def test_what_was_fitted_reaches_the_loss_and_stays(meshes):
    model, _, new_state = make(meshes[0])
    optimizer = optimizers.make_optimizer("sgd", 0.05, weight_decay=5e-4)
    step = train_step.make_train_step(
        model,
        lambda outputs, targets, memory: jnp.sum(targets["fitted"]["mean"]) + 0 * jnp.sum(outputs.embeddings),
        optimizer,
        functools.partial(augment.augment, padding=2),
        meshes[0],
    )
    state = new_state()._replace(fitted={"mean": jnp.float32([1, 2.5])})
    (images,) = device_batches(IMAGES, np.arange(8)[None], meshes[0])
    state, loss = step(state, jax.random.key(1), images, {"labels": LABELS[:8]})
    assert float(loss) == 3.5 and state.fitted["mean"].tolist() == [1, 2.5]
