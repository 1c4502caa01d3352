import jax.numpy as jnp
import numpy as np
import pytest

from reid_jax.cluster_dynamics import similarity_bounds


def test_chance_ends_at_three_sigmas():
    cosines = np.random.default_rng(0).normal(0.05, 0.1, (64, 5000)).astype(np.float32)
    cosines[:, :50] = 0.9  # the few of the same identity
    assert float(similarity_bounds.chance_similarity(jnp.asarray(cosines))) == pytest.approx(0.35, abs=0.02)


def test_as_many_are_similar_as_were_asked_for():
    # More columns than the distribution is read from; nan where an item meets itself.
    cosines = np.random.default_rng(0).uniform(-1, 1, (64, 5001)).astype(np.float32)
    cosines[np.arange(64), np.arange(64)] = np.nan
    bound = similarity_bounds.similarity_of_nearest(jnp.asarray(cosines), 500.0)
    assert (cosines > float(bound)).sum(axis=1).mean() == pytest.approx(500, rel=0.03)
    exact = similarity_bounds.similarity_of_nearest(jnp.array([[jnp.nan, 0.1, 0.2, 0.3, 0.4]]), 1.0)
    assert float(exact) == pytest.approx(0.1 + 0.3 * (1 - 1 / 4))
