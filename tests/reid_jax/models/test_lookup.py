import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from reid_jax import errors
from reid_jax.models.batch_norm import BatchNorm
from reid_jax.models.lookup import LookupModel
from reid_jax.models.reid import ReidModel

IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(12, 16, 8, 3)), jnp.float32)


class Backbone(nn.Module):
    @nn.compact
    def __call__(self, images, *, train):
        return nn.relu(BatchNorm()(nn.Conv(6, (3, 3), strides=(2, 2))(images), train=train))


def test_its_variables_serve_a_plain_reid_model():
    model = LookupModel(Backbone(), head_dim=5)
    variables = model.init(jax.random.key(0), IMAGES, train=False)
    features, embeddings = model.apply(variables, IMAGES, train=False)
    assert features.embeddings.shape == (12, 6) and embeddings.shape == (12, 5)
    plain = ReidModel(Backbone()).apply(variables, IMAGES, train=False)
    np.testing.assert_array_equal(plain.embeddings, features.embeddings)


def test_the_head_sees_the_mean_over_a_samples_frames():
    whole = LookupModel(Backbone(), num_frames=3)
    variables = whole.init(jax.random.key(0), IMAGES, train=False)
    features, embeddings = whole.apply(variables, IMAGES, train=False)
    assert features.embeddings.shape == (12, 6) and embeddings.shape == (4, 6)
    linear, bn = (variables["params"]["head"][name] for name in ("linear", "bn"))
    x = features.embeddings.reshape(4, 3, 6).mean(1) @ linear["kernel"] + linear["bias"]
    x = x / np.sqrt(1 + 1e-5) * bn["scale"] + bn["bias"]
    np.testing.assert_allclose(embeddings, x / jnp.linalg.norm(x, axis=1, keepdims=True), rtol=1e-4, atol=1e-6)


def test_dropout_follows_its_key():
    model = LookupModel(Backbone())
    variables = model.init(jax.random.key(0), IMAGES, train=False)

    def embed(seed):
        rngs = {"dropout": jax.random.key(seed)}
        return model.apply(variables, IMAGES, train=True, mutable=["batch_stats"], rngs=rngs)[0][1]

    np.testing.assert_array_equal(embed(1), embed(1))
    assert (embed(1) != embed(2)).any()


def test_errors():
    with pytest.raises(errors.UserError, match="head.dim must be at least 0 .* got -1"):
        LookupModel(Backbone(), head_dim=-1)
    for dropout in (-0.1, 1.0):
        with pytest.raises(errors.UserError, match="head.dropout must be at least 0 and less than 1"):
            LookupModel(Backbone(), dropout=dropout)
    with pytest.raises(errors.UserError, match="bn_group_size must be a multiple of the 3 frames of a sample, got 4"):
        LookupModel(Backbone(), num_frames=3, bn_group_size=4)


class WithoutNorm(nn.Module):
    @nn.compact
    def __call__(self, images, *, train):
        return nn.relu(nn.Conv(6, (3, 3), strides=(2, 2))(images))


def test_batch_norm_groups_are_of_images():
    model = LookupModel(WithoutNorm(), num_frames=3, bn_group_size=6, dropout=0.0)
    variables = model.init(jax.random.key(0), IMAGES, train=False)

    def embed(model, images):
        rngs = {"dropout": jax.random.key(1)}
        return model.apply(variables, images, train=True, mutable=["batch_stats"], rngs=rngs)[0][1]

    # Six images are two samples: the head's group.
    together, pair = embed(model, IMAGES), embed(model.clone(bn_group_size=0), IMAGES[6:])
    np.testing.assert_allclose(together[2:], pair, rtol=1e-4, atol=1e-5)
    assert not np.allclose(embed(model.clone(bn_group_size=0), IMAGES)[2:], pair, atol=1e-3)
