import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reid_jax import errors
from reid_jax.models.batch_norm import BatchNorm
from reid_jax.models.instance_norm import InstanceBatchNorm, InstanceNorm


def test_every_channel_of_every_image_is_normalised(rng):
    x = (3 + 2 * rng.normal(size=(3, 5, 4, 6))).astype(np.float32)
    scale, bias = rng.normal(size=(2, 6)).astype(np.float32)
    result = InstanceNorm().apply({"params": {"scale": scale, "bias": bias}}, x)
    for image, normalized in zip(x.astype(np.float64), result):
        expected = (image - image.mean((0, 1))) / np.sqrt(image.var((0, 1)) + 1e-5) * scale + bias
        np.testing.assert_allclose(normalized, expected, atol=1e-5)


def test_a_large_mean_loses_no_digits(rng):
    x = (1000 + rng.normal(size=(2, 8, 8, 3))).astype(np.float32)
    parameters = {"params": {"scale": np.ones(3, np.float32), "bias": np.zeros(3, np.float32)}}
    result = InstanceNorm().apply(parameters, x)
    exact = x.astype(np.float64) - x.astype(np.float64).mean((1, 2), keepdims=True)
    np.testing.assert_allclose(result, exact / exact.std((1, 2), keepdims=True), atol=1e-3)


def test_a_constant_channel_becomes_the_bias_and_has_a_finite_gradient():
    x = jnp.full((1, 4, 4, 2), 7.0)
    parameters = {"params": {"scale": jnp.ones(2), "bias": jnp.array([1.0, -2.0])}}
    np.testing.assert_array_equal(InstanceNorm().apply(parameters, x)[0, 0, 0], [1.0, -2.0])
    gradient = jax.grad(lambda x: jnp.sum(InstanceNorm().apply(parameters, x) ** 2))(x)
    assert np.isfinite(gradient).all()


def test_bfloat16_is_computed_in_float32(rng):
    x = jnp.asarray(100 + rng.normal(size=(2, 8, 8, 3)), jnp.bfloat16)
    parameters = {"params": {"scale": jnp.ones(3), "bias": jnp.zeros(3)}}
    result = InstanceNorm(dtype=jnp.bfloat16).apply(parameters, x)
    assert result.dtype == jnp.bfloat16
    expected = InstanceNorm().apply(parameters, x.astype(jnp.float32))
    np.testing.assert_allclose(result.astype(jnp.float32), expected, rtol=2**-8)


def test_a_single_place_is_refused():
    with pytest.raises(errors.UserError, match=r"more than one place per image and channel, got \(2, 1, 1, 3\)"):
        InstanceNorm().init(jax.random.key(0), jnp.zeros((2, 1, 1, 3)))


def test_half_of_the_channels_is_normalised_by_image(rng):
    x = (1 + rng.normal(size=(4, 3, 3, 5))).astype(np.float32)
    model = InstanceBatchNorm(group_size=2)
    variables = model.init(jax.random.key(0), x, train=False)
    result, updated = model.apply(variables, x, train=True, mutable=["batch_stats"])
    by_image = InstanceNorm().apply({"params": variables["params"]["IN"]}, x[..., :2])
    batch_norm = {"params": variables["params"]["BN"], "batch_stats": variables["batch_stats"]["BN"]}
    by_batch, expected = BatchNorm(group_size=2).apply(batch_norm, x[..., 2:], train=True, mutable=["batch_stats"])
    np.testing.assert_array_equal(result, np.concatenate([by_image, by_batch], axis=-1))
    np.testing.assert_array_equal(updated["batch_stats"]["BN"]["mean"], expected["batch_stats"]["mean"])
    np.testing.assert_array_equal(model.apply(variables, x, train=False)[..., :2], by_image)
