import numpy as np
import pytest
from sklearn.cluster import DBSCAN

from reid_jax import density_clusters, distances
from reid_jax.embeddings import l2_normalize

EPS = (0.6, 0.3, 0.5, 0.3)


@pytest.fixture(scope="module")
def features():
    """Twelve clouds of different density and single points, in no order."""
    rng = np.random.default_rng(0)
    clouds = [rng.normal(size=8) + spread * rng.normal(size=(12, 8)) for spread in np.linspace(0.1, 0.6, 12)]
    return l2_normalize(rng.permutation(np.concatenate([*clouds, rng.normal(size=(30, 8))])).astype(np.float32))


def test_it_is_scikit_learns_dbscan_of_the_dense_matrix(features):
    found = density_clusters.jaccard_dbscan(features, eps=0.5, min_samples=4, k1=10, k2=3)
    known = distances.jaccard_distances(features, k1=10, k2=3).tocoo()
    dense = np.ones(known.shape, np.float32)
    dense[known.row, known.col] = known.data
    np.testing.assert_array_equal(found, DBSCAN(eps=0.5, min_samples=4, metric="precomputed").fit_predict(dense))
    assert found.max() > 3 and found.min() == -1


def test_several_at_once_are_each_as_it_is_alone(features, monkeypatch):
    options = {"min_samples": 4, "k1": 10, "k2": 3}
    alone = [density_clusters.jaccard_dbscan(features, eps=eps, **options) for eps in EPS]
    calls, compute = [], density_clusters.jaccard_distances
    monkeypatch.setattr(
        density_clusters, "jaccard_distances", lambda *args, **kwargs: calls.append(args) or compute(*args, **kwargs)
    )
    together = density_clusters.jaccard_dbscans(features, eps=EPS, **options)
    assert len(calls) == 1 and len(together) == len(EPS)
    for one, other in zip(alone, together):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype == np.int64
    assert len({labels.tobytes() for labels in together}) == 3


def test_two_clouds_by_hand():
    rows = l2_normalize(
        np.array([[1, 0, 0.01 * i] for i in range(4)] + [[0, 1, 0.01 * i] for i in range(4)], np.float32)
    )
    found = density_clusters.jaccard_dbscans(rows, eps=(0.6, 0.7), min_samples=2, k1=3, k2=1)
    assert [labels.tolist() for labels in found] == [[0, 0, 0, 0, 1, 1, 1, 1]] * 2


def test_errors(features):
    for eps in (0.0, 1.0):
        with pytest.raises(ValueError, match=f"eps must be greater than 0 and less than 1, got {eps}"):
            density_clusters.jaccard_dbscan(features, eps=eps)
        with pytest.raises(ValueError, match=f"less than 1, got {eps}"):
            density_clusters.jaccard_dbscans(features, eps=(0.5, eps), min_samples=4, k1=10, k2=3)
    with pytest.raises(ValueError, match="min_samples must be at least 1, got 0"):
        density_clusters.jaccard_dbscan(features, min_samples=0)
