"""Against torchvision: the golden outputs are made by tests/support/data/make_convnet_golden.py."""

import functools

import convnet_golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reid_jax import errors
from reid_jax.models import mobilenet, pretrained

IMAGES = convnet_golden.random_images()


@pytest.fixture(scope="module")
def golden():
    return convnet_golden.load("mobilenet_v2")


@pytest.fixture(scope="module")
def variables():
    return convnet_golden.random_variables(mobilenet.mobilenet_v2())


def applied(model, variables, images, **options):
    return jax.jit(functools.partial(model.apply, **options))(variables, images)


@pytest.mark.parametrize("last_stride", [1, 2])
def test_evaluation_equals_torchvision(golden, variables, last_stride):
    feature_map = applied(mobilenet.mobilenet_v2(last_stride=last_stride), variables, IMAGES, train=False)
    assert feature_map.shape == (4, 4 // last_stride, 2 // last_stride, 1280)
    convnet_golden.assert_close(feature_map[..., :: convnet_golden.CHANNEL_STEP], golden[f"eval/{last_stride}"])


def test_training_equals_torchvision(golden, variables):
    feature_map, updated = applied(
        mobilenet.mobilenet_v2(last_stride=1), variables, IMAGES, train=True, mutable=["batch_stats"]
    )
    convnet_golden.assert_close(feature_map[..., :: convnet_golden.CHANNEL_STEP], golden["train"], tolerance=1e-4)
    convnet_golden.assert_statistics_close({**variables, **updated}, mobilenet.mobilenet_v2(), golden)


def test_names_and_shapes_are_torchvisions(golden, variables):
    model = mobilenet.mobilenet_v2()
    reference = {name: np.zeros(shape, np.float32) for name, shape in golden["shapes"].items()}
    ours = pretrained.to_state(variables, model)
    canonical = model.canonical_state(reference, {})
    assert {name: array.shape for name, array in canonical.items()} == {name: a.shape for name, a in ours.items()}
    assert set(reference) - set(canonical) == {
        name for name in reference if name.startswith("classifier.") or name.endswith("num_batches_tracked")
    }


def flat_name(name):
    """The name that networks without nested modules in their blocks have for a torchvision name."""
    parts = name.split(".")
    if parts[2] != "conv":
        return name
    # How many modules come before each place: a convolution, its norm, its relu.
    has_expansion = parts[1] != "1"
    starts = {"0": 0, "1": 3, "2": 6, "3": 7} if has_expansion else {"0": 0, "1": 3, "2": 4}
    is_nested = len(parts) == 6
    place = starts[parts[3]] + (int(parts[4]) if is_nested else 0)
    return ".".join([*parts[:3], str(place), parts[-1]])


def test_names_without_nesting_are_known(variables):
    model = mobilenet.mobilenet_v2()
    state = pretrained.to_state(variables, model)
    flat = {flat_name(name): array for name, array in state.items()}
    assert {"features.1.conv.4.weight", "features.17.conv.7.running_mean", "features.0.1.bias"} <= set(flat)
    flat["classifier.1.weight"] = np.zeros((1000, 1280), np.float32)
    renamed = model.canonical_state(flat, {})
    assert set(renamed) == set(state)
    assert all(renamed[name] is state[name] for name in state)
    # What is unknown stays, for the caller to tell.
    assert "features.2.conv.9.weight" in model.canonical_state({**flat, "features.2.conv.9.weight": np.ones(1)}, {})


def test_frozen_stages_learn_nothing_and_keep_their_statistics(variables):
    model = mobilenet.mobilenet_v2(last_stride=1, frozen_stages=5)
    weights = np.random.default_rng(1).normal(size=(4, 4, 2, 1280))

    @jax.jit
    def compute(params):
        def loss(params):
            now = {**variables, "params": params}
            feature_map, updated = model.apply(now, IMAGES, train=True, mutable=["batch_stats"])
            return jnp.mean(feature_map * weights), updated["batch_stats"]

        return jax.grad(loss, has_aux=True)(params)

    gradients, statistics = compute(variables["params"])
    frozen_modules = {"features_0_0", "features_0_1", *(f"features_{place}" for place in range(1, 14))}
    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        is_frozen = name.startswith(model.frozen_prefixes())
        assert is_frozen == (name.split("/")[0] in frozen_modules)
        assert np.isfinite(gradient).all() and gradient.any() != is_frozen, name
    for name, module in statistics.items():
        same = jax.tree.map(lambda a, b: bool((a == b).all()), module, variables["batch_stats"][name])
        assert all(jax.tree.leaves(same)) == (name in frozen_modules), name
    assert mobilenet.mobilenet_v2().frozen_prefixes() == ()
    assert len(mobilenet.mobilenet_v2(frozen_stages=7).frozen_prefixes()) == 1 + 17


def test_bfloat16_is_finite_and_near_float32(variables):
    result, expected = (
        applied(mobilenet.mobilenet_v2(dtype=dtype), variables, IMAGES, train=False)
        for dtype in (jnp.bfloat16, jnp.float32)
    )
    assert result.dtype == jnp.bfloat16
    np.testing.assert_allclose(result.astype(jnp.float32), expected, atol=0.05 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"last_stride": 3}, "last_stride must be 1 or 2, got 3"),
        ({"frozen_stages": 8}, r"frozen_stages must be in 0\.\.7, the number of stages, got 8"),
        ({"bn_group_size": -1}, "bn_group_size must be at least 0"),
    ],
)
def test_fields_are_checked(fields, message):
    with pytest.raises(errors.UserError, match=message):
        mobilenet.mobilenet_v2(**fields)


def test_batch_norm_groups_must_divide_the_batch(variables):
    model = mobilenet.mobilenet_v2(bn_group_size=3)
    with pytest.raises(errors.UserError, match="bn_group_size must divide the batch of 4 images"):
        apply = functools.partial(model.apply, train=True, mutable=["batch_stats"])
        jax.eval_shape(apply, variables, IMAGES)
