"""Label propagation against a direct inverse and scikit-learn, affinity and anchors against their definitions."""

import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.semi_supervised import LabelSpreading

from reid_jax import propagation


def unit_rows(seed, shape):
    rows = np.random.default_rng(seed).normal(size=shape)
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def blobs(seed, num_blobs, size, spread=0.15, dim=8):
    rng = np.random.default_rng(seed)
    rows = np.repeat(unit_rows(seed, (num_blobs, dim)), size, axis=0) + spread * rng.normal(
        size=(num_blobs * size, dim)
    )
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def plain_mutual(similarities, k, valid):
    """Pairs among each other's k most similar, by sorting."""
    n = len(similarities)
    nearest = []
    for i in range(n):
        others = [j for j in range(n) if j != i and valid[i] and valid[j]]
        nearest.append(set(sorted(others, key=lambda j: -similarities[i, j])[:k]))
    return np.array([[j in nearest[i] and i in nearest[j] for j in range(n)] for i in range(n)])


@pytest.mark.parametrize("k", [1, 3, 10, 11, 40])
@pytest.mark.parametrize("num_valid", [12, 7])
def test_mutual_neighbors_equal_their_definition(k, num_valid):
    rows = unit_rows(0, (12, 5))
    similarities, valid = rows @ rows.T, np.arange(12) < num_valid
    found = propagation.mutual_neighbors(jnp.asarray(similarities), k=k, valid=jnp.asarray(valid))
    np.testing.assert_array_equal(found, plain_mutual(similarities, k, valid))


def test_affinity_is_the_cosine_of_mutual_neighbors_whatever_the_norm():
    rows = unit_rows(1, (20, 6))
    cosines = rows.astype(np.float64) @ rows.T
    expected = np.where(plain_mutual(cosines, 4, np.ones(20, bool)), np.maximum(cosines, 0), 0)
    scaled = rows * np.linspace(0.1, 9, 20, dtype=np.float32)[:, None]
    np.testing.assert_allclose(propagation.mutual_neighbor_affinity(jnp.asarray(scaled), k=4), expected, atol=1e-6)


@pytest.mark.parametrize("self_loop", [0.0, 1.0])
def test_normalized_by_hand(self_loop):
    affinity = jnp.array([[0.0, 2.0, 0.0], [2.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    expected = np.zeros((3, 3))
    expected[0, 1] = expected[1, 0] = 2 / (2 + self_loop)
    np.testing.assert_allclose(propagation.normalize_affinity(affinity, self_loop=self_loop), expected, rtol=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.99])
def test_propagated_equals_the_direct_inverse(alpha):
    affinity = propagation.normalize_affinity(propagation.mutual_neighbor_affinity(blobs(2, 3, 6), k=5))
    labels = np.eye(18, 4, dtype=np.float32)
    expected = np.linalg.inv(np.eye(18) - alpha * np.asarray(affinity, np.float64)) @ labels
    np.testing.assert_allclose(
        propagation.propagate_labels(affinity, labels, alpha=alpha), expected, rtol=2e-3, atol=1e-4
    )


def test_propagated_is_the_fixed_point_of_label_spreading():
    x = blobs(3, 3, 8, spread=0.3)
    known = np.full(24, -1)
    known[[0, 8, 16]] = 0, 1, 2
    model = LabelSpreading(kernel="rbf", gamma=2.0, alpha=0.9, max_iter=3000, tol=1e-12).fit(x, known)
    sq_distances = np.sum((x[:, None].astype(np.float64) - x) ** 2, axis=2)
    affinity = np.exp(-2.0 * sq_distances) - np.eye(24)
    shares = propagation.propagate_labels(
        propagation.normalize_affinity(jnp.asarray(affinity)), jax.nn.one_hot(known, 3), alpha=0.9
    )
    # scikit-learn scales the rows to sum 1.
    np.testing.assert_allclose(shares / shares.sum(axis=1, keepdims=True), model.label_distributions_, atol=1e-4)


def test_mapped_over_graphs_is_the_same_as_one_after_another():
    graphs = jnp.stack([propagation.normalize_affinity(propagation.mutual_neighbor_affinity(blobs(seed, 2, 5), k=4))
                        for seed in range(4)])  # fmt: skip
    labels = jnp.eye(10, 3)
    alone = jnp.stack([propagation.propagate_labels(graph, labels) for graph in graphs])
    mapped = jax.jit(jax.vmap(lambda graph: propagation.propagate_labels(graph, labels)))(graphs)
    np.testing.assert_allclose(mapped, alone, rtol=1e-5, atol=1e-5)
    twice = jax.vmap(jax.vmap(propagation.propagate_labels, (0, None)), (0, None))(graphs.reshape(2, 2, 10, 10), labels)
    np.testing.assert_allclose(twice.reshape(4, 10, 3), alone, rtol=1e-5, atol=1e-5)


INDEPENDENT_SOLVES = """
import jax
import jax.numpy as jnp
from reid_jax import propagation

@jax.jit
def solve(x):
    solved = []
    for scale in (1, 2, 3):
        affinity = jax.nn.softmax(jnp.einsum("bud,bvd->buv", scale * x, x))
        solved.append(jax.vmap(propagation.propagate_labels)(affinity, jnp.ones((64, 65, 1))))
    return solved

x = jax.random.normal(jax.random.key(0), (64, 65, 128))
for _ in range(40):
    jax.block_until_ready(solve(x))
"""


def test_independent_solves_in_one_program_come_to_an_end():
    # LAPACK's batched factorisation deadlocks here on two cores (see _solve_all).
    command = [sys.executable, "-c", INDEPENDENT_SOLVES]
    assert subprocess.run(command, timeout=120, env=os.environ | {"XLA_FLAGS": ""}).returncode == 0


def plain_density_peaks(centers, num_anchors):
    """rho: sum of exp(-d^2); delta: distance to the nearest denser one, of the densest the greatest; rho delta."""
    n = len(centers)
    d = np.array([[np.linalg.norm(a - b) for b in centers] for a in centers.astype(np.float64)])
    rho = [sum(np.exp(-(d[i, j] ** 2)) for j in range(n) if j != i) for i in range(n)]
    delta = [min((d[i, j] for j in range(n) if rho[j] > rho[i]), default=d.max()) for i in range(n)]
    return sorted(range(n), key=lambda i: -rho[i] * delta[i])[:num_anchors]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_density_peaks_equal_their_definition_and_find_each_blob(seed):
    centers = blobs(seed, 4, 7, spread=0.05)
    found = np.asarray(propagation.density_peaks(jnp.asarray(centers), num_anchors=6))
    assert found.tolist() == plain_density_peaks(centers, 6)
    assert set(found[:4] // 7) == {0, 1, 2, 3}


def test_density_peaks_of_equal_units_are_the_first():
    assert propagation.density_peaks(jnp.ones((4, 2)), num_anchors=2).tolist() == [0, 1]


def test_farthest_points_by_hand():
    places = jnp.array([0.0, 1.0, 10.0, 4.0, 99.0])
    similarities = -jnp.abs(places[:, None] - places)
    find = functools.partial(propagation.farthest_points, similarities, valid=jnp.arange(5) < 4)
    anchors, is_anchor = find(num_anchors=3)
    assert anchors.tolist() == [0, 2, 3] and is_anchor.all()
    anchors, is_anchor = find(num_anchors=5, start=1)
    assert anchors[:4].tolist() == [1, 2, 3, 0] and is_anchor.tolist() == [True] * 4 + [False]


def test_errors():
    square = jnp.zeros((3, 3))
    with pytest.raises(ValueError, match="k must"):
        propagation.mutual_neighbors(square, k=0)
    with pytest.raises(ValueError, match=r"centers must"):
        propagation.mutual_neighbor_affinity(jnp.zeros(3), k=1)
    with pytest.raises(ValueError, match=r"affinity must"):
        propagation.normalize_affinity(square[:, :2])
    with pytest.raises(ValueError, match=r"initial_labels must"):
        propagation.propagate_labels(square, square[:2])
    for alpha in (1.0, -0.1):
        with pytest.raises(ValueError, match="alpha must"):
            propagation.propagate_labels(square, square, alpha=alpha)
    for num_anchors in (0, 4):
        with pytest.raises(ValueError, match="num_anchors must"):
            propagation.density_peaks(square, num_anchors=num_anchors)
        with pytest.raises(ValueError, match="num_anchors must"):
            propagation.farthest_points(square, num_anchors=num_anchors)
