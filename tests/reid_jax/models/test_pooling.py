import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reid_jax import errors
from reid_jax.models import pooling


@pytest.fixture
def feature_map():
    return np.random.default_rng(0).uniform(0.1, 2.0, (3, 6, 2, 4)).astype(np.float32)


def test_average_pool(feature_map):
    np.testing.assert_allclose(pooling.average_pool(feature_map), feature_map.mean((1, 2)), rtol=1e-6)


@pytest.mark.parametrize("p", [1.0, 3.0, 6.5])
def test_gem_pool_equals_its_formula(feature_map, p):
    expected = np.mean(feature_map.astype(np.float64) ** p, axis=(1, 2)) ** (1 / p)
    np.testing.assert_allclose(pooling.gem_pool(feature_map, p), expected, rtol=1e-5)


def test_gem_pool_hand_example():
    x = jnp.array([1.0, 2.0, 0.0, -5.0]).reshape(1, 2, 2, 1)
    np.testing.assert_allclose(pooling.gem_pool(x, 3.0), [[(9 / 4) ** (1 / 3)]], rtol=1e-6)


def test_gem_pool_goes_to_the_maximum(feature_map):
    np.testing.assert_allclose(pooling.gem_pool(feature_map, 500.0), feature_map.max((1, 2)), rtol=0.01)


@pytest.mark.parametrize("p", [3.0, 20.0])
def test_gem_pool_of_zeros_has_a_finite_gradient(p):
    gradients = jax.grad(lambda x, p: pooling.gem_pool(x, p).sum(), argnums=(0, 1))(jnp.zeros((1, 2, 2, 3)), p)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_stripe_pool_is_the_mean_of_each_stripe(feature_map):
    stripes = pooling.stripe_pool(feature_map, 3)
    assert stripes.shape == (3, 3, 4)
    for stripe in range(3):
        expected = feature_map[:, 2 * stripe : 2 * stripe + 2].mean((1, 2))
        np.testing.assert_allclose(stripes[:, stripe], expected, rtol=1e-6)


def test_one_stripe_is_the_average(feature_map):
    np.testing.assert_allclose(pooling.stripe_pool(feature_map, 1)[:, 0], pooling.average_pool(feature_map), rtol=1e-6)


@pytest.mark.parametrize("num_stripes", [4, 0, 12])
def test_stripes_must_divide_the_height(feature_map, num_stripes):
    with pytest.raises(errors.UserError, match=f"height 6, got {num_stripes}"):
        pooling.stripe_pool(feature_map, num_stripes)


def test_frame_mean_is_over_neighbours():
    x = jnp.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]])
    np.testing.assert_allclose(pooling.frame_mean(x, 2), [[2.0, 3.0], [6.0, 7.0]])
    assert pooling.frame_mean(x, 1) is x
