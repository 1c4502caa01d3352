import numpy as np
import pytest

from reid_jax import selection
from reid_jax.embeddings import l2_normalize

RNG = np.random.default_rng(0)
X = RNG.normal(size=(70, 5)).astype(np.float32)
X[40:] = X[:30] + 0.2 * X[40:]
LABELS = RNG.integers(0, 9, 70)
LABELS[LABELS == 4] = 3  # cluster 4 is empty
CENTROIDS = np.stack([X[LABELS == c].mean(axis=0) if (LABELS == c).any() else np.zeros(5) for c in range(9)])


def plain_selection(x, labels, centroids, threshold, compared):
    """Algorithm 1, lines 5 to 16, sample by sample."""
    centers = []
    for cluster in range(len(centroids)):
        members = np.flatnonzero(labels == cluster)
        gaps = [np.linalg.norm(x[i] - centroids[cluster]) for i in members]
        centers.append(members[np.argmin(gaps)] if len(members) else None)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    selected = np.zeros(len(x), bool)
    for cluster, center in enumerate(centers):
        if center is None:
            continue
        for i in range(len(x)):
            counts = compared == "any" or labels[i] == cluster
            selected[i] |= i == center or (counts and unit[i] @ unit[center] > threshold)
    return [-1 if center is None else center for center in centers], selected


@pytest.mark.parametrize("threshold", [0.0, 0.6, 0.85, 0.99, 1.0])
@pytest.mark.parametrize("compared", ["own", "any"])
def test_it_is_the_papers_algorithm(threshold, compared):
    centers, expected = plain_selection(X, LABELS, CENTROIDS, threshold, compared)
    found = selection.center_indices(X, LABELS, CENTROIDS)
    np.testing.assert_array_equal(found, centers)
    selected = selection.select_reliable(l2_normalize(X), LABELS, found, threshold=threshold, compared=compared)
    np.testing.assert_array_equal(selected, expected)
    assert 8 <= selected.sum() and (threshold < 1 or selected.sum() == 8)


def test_any_selects_more_than_own_and_none_compares_nothing():
    centers = selection.center_indices(X, LABELS, CENTROIDS)
    own, any_center, all_samples = (
        np.asarray(selection.select_reliable(l2_normalize(X), LABELS, centers, threshold=0.6, compared=compared))
        for compared in ("own", "any", "none")
    )
    assert (own <= any_center).all() and own.sum() < any_center.sum() < 70 and all_samples.all()


def test_of_equally_near_rows_the_lowest_is_the_centre():
    x = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    centers = selection.center_indices(x, np.array([0, 0, 0, 0]), np.array([[0.5, 0.5]]))
    np.testing.assert_array_equal(centers, [0])
    # Exactly the threshold is not above it; the centre counts all the same.
    selected = selection.select_reliable(x, np.zeros(4, int), centers, threshold=1.0)
    np.testing.assert_array_equal(selected, [True, False, False, False])


def test_errors():
    with pytest.raises(ValueError, match=r"labels \[N\] and centers \[K\], got \(70, 5\), \(69,\) and \(9,\)"):
        selection.select_reliable(X, LABELS[1:], np.arange(9), threshold=0.5)
    with pytest.raises(ValueError, match="compared must"):
        selection.select_reliable(X, LABELS, np.arange(9), threshold=0.5, compared="other")
