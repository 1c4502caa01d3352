import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from reid_jax import errors, sharding
from reid_jax.models.batch_norm import BatchNorm

SHAPES = ((8, 5), (8, 3, 2, 5))


def random_batch(shape, seed=0):
    return np.random.default_rng(seed).normal(2.0, 3.0, shape).astype(np.float32)


def random_variables(channels=5):
    rng = np.random.default_rng(1)
    draw = lambda low, high: jnp.asarray(rng.uniform(low, high, channels), jnp.float32)
    return {
        "params": {"scale": draw(0.5, 2), "bias": draw(-1, 1)},
        "batch_stats": {"mean": draw(-1, 1), "var": draw(0.5, 2)},
    }


def expected_training(x, variables, group_size):
    """(result, running mean, running variance) by numpy in float64."""
    params, stats = variables["params"], variables["batch_stats"]
    outputs, means, variances = [], [], []
    for start in range(0, len(x), group_size):
        group = x[start : start + group_size].astype(np.float64)
        flat = group.reshape(-1, group.shape[-1])
        normalized = (group - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-5)
        outputs.append(normalized * params["scale"] + params["bias"])
        means.append(flat.mean(0))
        variances.append(flat.var(0, ddof=1))
    move = lambda running, groups: 0.9 * running + 0.1 * np.mean(groups, axis=0)
    return np.concatenate(outputs), move(stats["mean"], means), move(stats["var"], variances)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("group_size", [0, 2, 4, 8])
def test_training_equals_numpy(shape, group_size):
    x, variables = random_batch(shape), random_variables()
    y, updated = BatchNorm(group_size=group_size).apply(variables, x, train=True, mutable=["batch_stats"])
    expected, mean, var = expected_training(x, variables, group_size or len(x))
    np.testing.assert_allclose(y, expected, atol=1e-5)
    np.testing.assert_allclose(updated["batch_stats"]["mean"], mean, rtol=1e-5)
    np.testing.assert_allclose(updated["batch_stats"]["var"], var, rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_evaluation_uses_running_statistics(shape):
    x, variables = random_batch(shape), random_variables()
    params, stats = variables["params"], variables["batch_stats"]
    expected = (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-5) * params["scale"] + params["bias"]
    # A group size that does not divide the batch is no error here: an embedding batch may have any size.
    np.testing.assert_allclose(BatchNorm(group_size=3).apply(variables, x, train=False), expected, atol=1e-5)


def test_hand_example():
    x = jnp.array([[1.0], [3.0], [10.0], [30.0]])
    norm = BatchNorm(group_size=2, epsilon=0.0, momentum=0.0)
    y, updated = norm.apply(norm.init(jax.random.key(0), x, train=True), x, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(y, [[-1], [1], [-1], [1]])
    # Unbiased variances 2 and 200, means 2 and 20.
    np.testing.assert_allclose(updated["batch_stats"]["mean"], [11])
    np.testing.assert_allclose(updated["batch_stats"]["var"], [101])


def test_large_mean_keeps_its_variance():
    x = random_batch((64, 1)) + 10_000
    y, _ = BatchNorm().apply(random_variables(1), x, train=True, mutable=["batch_stats"])
    variables = random_variables(1)
    expected, _, _ = expected_training(x, variables, 64)
    np.testing.assert_allclose(y, expected, atol=2e-3)


def test_statistics_stay_float32_in_bfloat16():
    x, variables = random_batch(SHAPES[1]), random_variables()
    norm = BatchNorm(dtype=jnp.bfloat16)
    y, updated = norm.apply(variables, jnp.asarray(x, jnp.bfloat16), train=True, mutable=["batch_stats"])
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(updated)} == {jnp.dtype(jnp.float32)}
    np.testing.assert_allclose(updated["batch_stats"]["mean"], expected_training(x, variables, 8)[1], atol=5e-3)


def test_without_bias_has_no_bias_parameter():
    variables = BatchNorm(use_bias=False).init(jax.random.key(0), jnp.zeros((1, 5)), train=True)
    assert set(variables["params"]) == {"scale"}


@pytest.mark.parametrize("group_size", [0, 2, 4])
def test_sharded_equals_unsharded(meshes, group_size):
    x, variables = random_batch((16, 3, 2, 5)), random_variables()
    results = []
    for mesh in meshes:
        whole, split = sharding.replicated(mesh), sharding.batch_sharded(mesh)
        apply = lambda v, x: BatchNorm(group_size=group_size).apply(v, x, train=True, mutable=["batch_stats"])
        results.append(jax.jit(apply, in_shardings=(whole, split), out_shardings=(split, whole))(variables, x))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *results)


def test_gradient_equals_flax():
    x, variables = random_batch(SHAPES[1]), random_variables()
    weights = random_batch(SHAPES[1], seed=2)
    theirs = nn.BatchNorm(use_running_average=False)
    ours_of = lambda x: jnp.sum(BatchNorm().apply(variables, x, train=True, mutable=["batch_stats"])[0] * weights)
    theirs_of = lambda x: jnp.sum(theirs.apply(variables, x, mutable=["batch_stats"])[0] * weights)
    np.testing.assert_allclose(jax.grad(ours_of)(x), jax.grad(theirs_of)(x), atol=1e-5)


@pytest.mark.parametrize("group_size", [3, 16, -2])
def test_group_size_must_divide_the_batch(group_size):
    with pytest.raises(errors.UserError, match=f"divide the batch of 8 images.*got {group_size}"):
        BatchNorm(group_size=group_size).apply(
            random_variables(), random_batch(SHAPES[0]), train=True, mutable=["batch_stats"]
        )


def test_a_group_of_one_value_is_refused():
    with pytest.raises(errors.UserError, match="more than one value"):
        BatchNorm(group_size=1).apply(random_variables(), random_batch((8, 5)), train=True, mutable=["batch_stats"])
