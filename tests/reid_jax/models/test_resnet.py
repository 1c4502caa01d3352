"""Against torchvision: the golden outputs are made by make_resnet_golden.py in tests/support/data.

Those with instance norms are torchreid's, made by make_convnet_golden.py.
"""

import functools
import importlib.util

import convnet_golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_data import DATA

from reid_jax import errors
from reid_jax.models import pretrained, resnet

_spec = importlib.util.spec_from_file_location("make_resnet_golden", DATA / "make_resnet_golden.py")
golden_script = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(golden_script)

IMAGES = golden_script.random_images()
ARCHITECTURES = {"resnet18": resnet.resnet18, "resnet50": resnet.resnet50}


@pytest.fixture(scope="module")
def golden():
    with np.load(DATA / "resnet_golden.npz") as arrays:
        return dict(arrays)


@functools.cache
def torch_weights(architecture):
    """The variables of the golden script's torch model."""
    return random_weights(ARCHITECTURES[architecture]())


def random_weights(model):
    """The golden script's random weights, by name. (Compiling the model's own initialisation takes seconds.)"""
    shapes = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), IMAGES)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    state = pretrained.to_state(zeros, model)
    drawn = {name: golden_script.random_array(name, array.shape) for name, array in state.items()}
    return pretrained.to_variables(drawn, shapes, model)


def assert_close(ours, golden):
    """Within 1e-5 of the golden values' scale."""
    assert ours.shape == golden.shape
    assert np.abs(np.asarray(ours) - golden).max() <= 1e-5 * np.abs(golden).max()


@pytest.mark.parametrize("last_stride", [1, 2])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_evaluation_equals_torchvision(golden, architecture, last_stride):
    model = ARCHITECTURES[architecture](last_stride=last_stride)
    feature_map = jax.jit(functools.partial(model.apply, train=False))(torch_weights(architecture), IMAGES)
    assert feature_map.shape == (4, 4 // last_stride, 2 // last_stride, 512 if architecture == "resnet18" else 2048)
    step = golden_script.CHANNEL_STEP[architecture]
    assert_close(feature_map[..., ::step], golden[f"{architecture}/eval/{last_stride}"])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_training_equals_torchvision(golden, architecture):
    model = ARCHITECTURES[architecture](last_stride=1)
    apply = jax.jit(functools.partial(model.apply, train=True, mutable=["batch_stats"]))
    feature_map, updated = apply(torch_weights(architecture), IMAGES)
    step = golden_script.CHANNEL_STEP[architecture]
    assert_close(feature_map[..., ::step], golden[f"{architecture}/train/1"])
    state = pretrained.to_state(torch_weights(architecture) | updated, model)
    for statistic in ("running_mean", "running_var"):
        values = np.concatenate([state[name] for name in sorted(state) if name.endswith(statistic)])
        assert_close(values[:: golden_script.STATISTICS_STEP], golden[f"{architecture}/{statistic}"])


@functools.cache
def ibn_weights():
    return convnet_golden.random_variables(resnet.resnet50_ibn_a())


@pytest.mark.parametrize("last_stride", [1, 2])
def test_evaluation_with_instance_norms_equals_torchreid(last_stride):
    model = resnet.resnet50_ibn_a(last_stride=last_stride)
    feature_map = jax.jit(functools.partial(model.apply, train=False))(ibn_weights(), IMAGES)
    step = convnet_golden.CHANNEL_STEP
    convnet_golden.assert_close(feature_map[..., ::step], convnet_golden.load("resnet50_ibn_a")[f"eval/{last_stride}"])


def test_training_with_instance_norms_equals_torchreid():
    model, golden = resnet.resnet50_ibn_a(last_stride=1), convnet_golden.load("resnet50_ibn_a")
    apply = jax.jit(functools.partial(model.apply, train=True, mutable=["batch_stats"]))
    feature_map, updated = apply(ibn_weights(), IMAGES)
    convnet_golden.assert_close(feature_map[..., :: convnet_golden.CHANNEL_STEP], golden["train"])
    convnet_golden.assert_statistics_close({**ibn_weights(), **updated}, model, golden)


def test_names_of_instance_norms_are_torchreids():
    model = resnet.resnet50_ibn_a()
    shapes = convnet_golden.load("resnet50_ibn_a")["shapes"]
    assert {"layer3.5.bn1.IN.bias", "layer3.5.bn1.BN.running_var", "layer4.0.bn1.running_var"} <= set(shapes)
    canonical = model.canonical_state({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, {})
    ours = pretrained.to_state(ibn_weights(), model)
    assert {name: array.shape for name, array in canonical.items()} == {name: a.shape for name, a in ours.items()}


def test_heads_and_counters_are_dropped_from_a_state_and_unknown_names_are_not():
    state = {
        name: np.zeros(1) for name in ("fc.weight", "classifier.bias", "bn1.num_batches_tracked", "conv1.weight", "x")
    }
    assert set(resnet.resnet18().canonical_state(state, {})) == {"conv1.weight", "x"}


def test_resnet34_has_torchvisions_size():
    shapes = jax.eval_shape(functools.partial(resnet.resnet34().init, train=False), jax.random.key(0), IMAGES)
    # torchvision's 21,797,672 parameters without its classifier of 512 x 1000 + 1000.
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == 21_797_672 - 513_000


@pytest.fixture(scope="module")
def small():
    """A small ResNet with batch-norm groups and a loss of its map: (model, variables, loss)."""
    model = resnet.ResNet((1, 1), "bottleneck", width=4, bn_group_size=2)
    variables = random_weights(model)
    weights = np.random.default_rng(1).normal(size=(4, 8, 4, 32))

    def loss(params, images):
        variables_now = {"params": params, "batch_stats": variables["batch_stats"]}
        return jnp.mean(model.apply(variables_now, images, train=True, mutable=["batch_stats"])[0] * weights)

    return model, variables, loss


def test_gradient_reaches_every_parameter(small):
    _, variables, loss = small
    gradients = jax.jit(jax.grad(loss))(variables["params"], IMAGES)
    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0, path


def test_groups_do_not_see_each_other(small):
    model, variables, _ = small
    apply = jax.jit(lambda images: model.apply(variables, images, train=True, mutable=["batch_stats"])[0])
    changed = IMAGES.copy()
    changed[2:] *= 3.0
    changed[2:] += np.random.default_rng(2).normal(size=changed[2:].shape)
    np.testing.assert_array_equal(apply(IMAGES)[:2], apply(changed)[:2])


def test_initial_kernels_are_kaiming_fan_out():
    model = resnet.ResNet((1, 1), "basic", width=32)

    @jax.jit
    def initial_kernels(key):
        # What is not returned is not compiled.
        params = model.init(key, IMAGES, train=False)["params"]
        return params["conv1"]["kernel"], params["layer2_0"]["conv1"]["kernel"]

    # fan_out: output channels times kernel area, whatever the input channels.
    first, later = initial_kernels(jax.random.key(0))
    np.testing.assert_allclose(first.std(), np.sqrt(2 / (32 * 49)), rtol=0.03)
    np.testing.assert_allclose(later.std(), np.sqrt(2 / (64 * 9)), rtol=0.03)


def test_bfloat16_is_finite_and_near_float32(small):
    model, variables, _ = small

    def apply(model):
        return jax.jit(functools.partial(model.apply, train=True, mutable=["batch_stats"]))(variables, IMAGES)[0]

    result, expected = apply(model.clone(dtype=jnp.bfloat16)), apply(model)
    assert result.dtype == jnp.bfloat16
    assert np.isfinite(result).all()
    np.testing.assert_allclose(result.astype(jnp.float32), expected, atol=0.05 * np.abs(expected).max())


@pytest.mark.parametrize(
    "fields",
    [
        {"stage_sizes": (2,)},
        {"stage_sizes": (2, 0)},
        {"block": "wide"},
        {"width": 0},
        {"last_stride": 3},
        {"bn_group_size": -1},
        {"ibn": "b"},
    ],
)
def test_fields_are_checked(fields):
    (name,) = fields
    with pytest.raises(errors.UserError, match=name):
        resnet.ResNet(**{"stage_sizes": (1, 1), "block": "basic", **fields})


def test_the_cifar_stem_keeps_the_resolution():
    model = resnet.resnet18(width=4, stem="cifar")
    images = jnp.zeros((1, 32, 32, 3))
    variables = model.init(jax.random.key(0), images, train=False)
    assert model.apply(variables, images, train=False).shape == (1, 4, 4, 32)
    assert variables["params"]["conv1"]["kernel"].shape == (3, 3, 3, 4)


def test_frozen_stages_learn_nothing_and_keep_their_statistics():
    images = jnp.asarray(np.random.default_rng(0).normal(size=(2, 32, 32, 3)), jnp.float32)
    model = resnet.resnet18(width=4, frozen_stages=2)
    variables = model.init(jax.random.key(0), images, train=False)

    def total(params):
        map_, updated = model.apply({**variables, "params": params}, images, train=True, mutable=["batch_stats"])
        return jnp.sum(map_**2), updated["batch_stats"]

    gradients, statistics = jax.grad(total, has_aux=True)(variables["params"])
    frozen = model.frozen_prefixes()
    for name in variables["params"]:
        is_frozen = f"{name}/".startswith(frozen)
        assert is_frozen == (name in ("conv1", "bn1", "layer1_0", "layer1_1", "layer2_0", "layer2_1"))
        assert any(leaf.any() for leaf in jax.tree.leaves(gradients[name])) != is_frozen, name
        if name in statistics:
            same = jax.tree.map(lambda a, b: bool((a == b).all()), statistics[name], variables["batch_stats"][name])
            assert all(jax.tree.leaves(same)) == is_frozen, name
    assert model.clone(frozen_stages=0).frozen_prefixes() == ()


def test_stem_and_frozen_stages_are_checked():
    with pytest.raises(errors.UserError, match="stem must be one of imagenet, cifar, got 'tiny'"):
        resnet.resnet18(stem="tiny")
    with pytest.raises(errors.UserError, match="frozen_stages must be in 0..4, the number of stages, got 5"):
        resnet.resnet18(frozen_stages=5)
