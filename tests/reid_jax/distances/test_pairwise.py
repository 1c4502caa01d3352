import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import distance

from reid_jax import distances

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(37, 19)).astype(np.float32), RNG.normal(size=(23, 19)).astype(np.float32)


@pytest.mark.parametrize("metric", distances.METRICS)
@pytest.mark.parametrize("block_size", [None, 8, 100])
def test_pairwise_equals_scipy_whatever_the_block(metric, block_size):
    for y in (Y, None):
        computed = distances.pairwise_distances(jnp.asarray(X), y, metric=metric, block_size=block_size)
        expected = distance.cdist(X.astype(np.float64), (X if y is None else y).astype(np.float64), metric)
        assert computed.shape == expected.shape and computed.dtype == jnp.float32
        np.testing.assert_allclose(computed, expected, atol=2e-5)


@pytest.mark.parametrize("metric", distances.METRICS)
@pytest.mark.parametrize("block_size", [None, 8])
def test_pairwise_is_symmetric_with_zero_diagonal_and_never_negative(metric, block_size, rng):
    # Far from the origin and close together, where rounding takes the sum below zero.
    x = np.float32(100) + np.repeat(rng.normal(size=(10, 19)).astype(np.float32), 2, axis=0)
    computed = np.asarray(distances.pairwise_distances(x, metric=metric, block_size=block_size))
    assert (np.diag(computed) == 0).all() and (computed >= 0).all() and np.isfinite(computed).all()
    np.testing.assert_allclose(computed, computed.T, atol=1e-6 if metric == "cosine" else 0.3)


def test_pairwise_by_hand():
    x = np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 2.0]])
    expected = np.array([[0, 5, 2], [5, 0, 13**0.5], [2, 13**0.5, 0]], np.float32)
    np.testing.assert_array_equal(distances.pairwise_distances(x), expected)
    np.testing.assert_array_equal(distances.pairwise_distances(x, x[1:2], metric="sqeuclidean"), [[25], [0], [13]])
    # A row of zeros has no direction.
    cosine = distances.pairwise_distances(x, metric="cosine")
    np.testing.assert_allclose(cosine, [[0, 1, 1], [1, 0, 0.2], [1, 0.2, 0]], atol=1e-7)


@pytest.mark.parametrize("metric", distances.METRICS)
@pytest.mark.parametrize("block_size", [None, 1, 8])
def test_neighbors_equal_a_full_sort(metric, block_size):
    for y in (Y, None):
        nearest, indices = distances.nearest_neighbors(X, y, k=5, metric=metric, block_size=block_size)
        full = np.asarray(distances.pairwise_distances(X, y, metric=metric)).copy()
        if y is None:
            np.fill_diagonal(full, np.inf)
        expected = np.argsort(full, axis=1, kind="stable")[:, :5]
        np.testing.assert_array_equal(indices, expected)
        np.testing.assert_allclose(nearest, np.take_along_axis(full, expected, axis=1), rtol=1e-6, atol=1e-6)
        assert indices.dtype == jnp.int32 and nearest.dtype == jnp.float32


def test_neighbors_break_ties_by_index_and_leave_out_themselves():
    # Integers on a line, so that every distance is exact: 0 0 1 2 2.
    x = np.array([[0.0], [0.0], [1.0], [2.0], [2.0]])
    nearest, indices = distances.nearest_neighbors(x, k=4, block_size=2)
    np.testing.assert_array_equal(indices, [[1, 2, 3, 4], [0, 2, 3, 4], [0, 1, 3, 4], [4, 2, 0, 1], [3, 2, 0, 1]])
    np.testing.assert_array_equal(nearest, [[0, 1, 2, 2], [0, 1, 2, 2], [1, 1, 1, 1], [0, 1, 2, 2], [0, 1, 2, 2]])


def test_neighbors_never_hold_all_distances():
    shape = jax.ShapeDtypeStruct((4096, 8), jnp.float32)
    lowered = distances.neighbors._nearest_neighbors.lower(shape, None, k=4, metric="euclidean", block_size=64)
    assert lowered.compile().memory_analysis().temp_size_in_bytes < 4096 * 4096 * 4 / 8


@pytest.mark.parametrize("block_size", [1, 8, 37, 100])
def test_blocks_together_are_the_whole(block_size):
    blocks = list(distances.distance_blocks(X, Y, metric="cosine", block_size=block_size))
    assert [start for start, _ in blocks] == list(range(0, 37, min(block_size, 37)))
    expected = distances.pairwise_distances(X, Y, metric="cosine")
    np.testing.assert_allclose(np.concatenate([block for _, block in blocks]), expected, atol=1e-6)


def test_errors():
    with pytest.raises(ValueError, match=r"x must"):
        distances.pairwise_distances(X[0])
    with pytest.raises(ValueError, match=r"y must"):
        distances.pairwise_distances(X, Y[:, 1:])
    with pytest.raises(ValueError, match="metric must"):
        distances.pairwise_distances(X, metric="manhattan")
    with pytest.raises(ValueError, match="block_size must"):
        distances.nearest_neighbors(X, k=1, block_size=0)
    with pytest.raises(ValueError, match=r"k must"):
        distances.nearest_neighbors(X, k=37)
    with pytest.raises(ValueError, match=r"k must"):
        distances.nearest_neighbors(X, Y, k=0)
