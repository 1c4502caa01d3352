import jax
import numpy as np
import pytest
from sklearn import cluster
from tiny_data import SHARED_DATA

from reid_jax import kmeans

RNG = np.random.default_rng(0)
CENTRES = RNG.normal(size=(12, 6)).astype(np.float32)
# Far from the origin, where the expanded squares would lose their digits.
X = 50 + CENTRES[np.arange(205) % 12] + 0.5 * RNG.normal(size=(205, 6)).astype(np.float32)
KEY = jax.random.key(0)


@pytest.mark.parametrize("mesh_number", [0, 1])
@pytest.mark.parametrize("num_clusters", [1, 7, 12, 60])
def test_lloyd_is_scikit_learns_from_the_same_centroids(meshes, mesh_number, num_clusters, rng):
    initial = X[rng.permutation(len(X))[:num_clusters]]
    found = kmeans.kmeans(KEY, X, num_clusters=num_clusters, initial_centroids=initial, mesh=meshes[mesh_number])
    expected = cluster.KMeans(num_clusters, init=initial, n_init=1, tol=0).fit(X.astype(np.float64))
    np.testing.assert_array_equal(found.labels, expected.labels_)
    np.testing.assert_allclose(found.centroids, expected.cluster_centers_, atol=1e-4)
    np.testing.assert_allclose(found.inertia, expected.inertia_, rtol=1e-4)
    assert bool(found.converged) and int(found.num_iterations) == expected.n_iter_


def test_by_hand():
    x = np.array([[0.0], [1.0], [9.0], [11.0]])
    found = kmeans.kmeans(KEY, x, num_clusters=2, initial_centroids=np.array([[0.0], [1.0]]))
    np.testing.assert_array_equal(found.labels, [0, 0, 1, 1])
    np.testing.assert_allclose(found.centroids, [[0.5], [10.0]], atol=1e-6)
    # 0 | 1, 9, 11; then 0, 1 | 9, 11 around 0 and 7; then around 0.5 and 10, where nothing changes.
    assert float(found.inertia) == pytest.approx(2.5) and int(found.num_iterations) == 3 and bool(found.converged)


@pytest.mark.parametrize("num_clusters", [12, 60])
def test_seeds_are_as_good_as_scikit_learns(num_clusters):
    ours = [float(kmeans.kmeans(jax.random.key(s), X, num_clusters=num_clusters).inertia) for s in range(5)]
    theirs = [cluster.KMeans(num_clusters, n_init=1, random_state=s, tol=0).fit(X).inertia_ for s in range(5)]
    assert np.mean(ours) < 1.02 * np.mean(theirs)


@pytest.mark.parametrize("num_clusters", [50, 334])
def test_inertia_on_real_features_is_as_low_as_scikit_learns(num_clusters):
    path = SHARED_DATA / "coil100_mobilenet_features.npz"
    if not path.exists():
        pytest.skip("the COIL-100 features are not part of the repository")
    with np.load(path) as arrays:
        x = arrays["embeddings"][arrays["split"] == "train"].astype(np.float32)
    ours = kmeans.kmeans(KEY, x, num_clusters=num_clusters)
    theirs = [cluster.KMeans(num_clusters, n_init=1, random_state=s, tol=0).fit(x).inertia_ for s in range(3)]
    assert bool(ours.converged) and float(ours.inertia) < 1.01 * np.mean(theirs)


def test_more_seedings_keep_the_best_and_a_key_fixes_the_result():
    runs = [kmeans.kmeans(KEY, X, num_clusters=20, num_init=number) for number in (1, 1, 8)]
    np.testing.assert_array_equal(runs[0].labels, runs[1].labels)
    several = [kmeans.kmeans(jax.random.key(number), X, num_clusters=20).inertia for number in range(8)]
    assert float(runs[2].inertia) <= np.median(several)


def test_a_cluster_that_loses_its_rows_is_put_onto_the_farthest():
    x = np.array([[0.0], [1.0], [2.0], [30.0], [33.0]])
    # Nothing is nearest to 1,000: 33, farthest from its centroid 2, goes there, and 2 and 30 have the mean 16, to which
    # nothing is nearest then: 30, farthest from its centroid 33, goes there.
    found = kmeans.kmeans(KEY, x, num_clusters=3, initial_centroids=np.array([[0.0], [1000.0], [2.0]]))
    np.testing.assert_array_equal(found.labels, [0, 0, 0, 2, 1])
    np.testing.assert_allclose(found.centroids, [[1.0], [33.0], [30.0]], atol=1e-5)
    assert bool(found.converged)


def test_fewer_different_rows_than_clusters(rng):
    x = np.repeat(np.eye(3, dtype=np.float32), 5, axis=0)
    found = kmeans.kmeans(KEY, x, num_clusters=5)
    assert len(np.unique(found.labels)) == 3 and float(found.inertia) == pytest.approx(0, abs=1e-10)
    assert np.isfinite(found.centroids).all()
    for seed in range(5):
        x = np.repeat(rng.normal(size=(6, 4)).astype(np.float32), 4, axis=0)
        found = kmeans.kmeans(jax.random.key(seed), x, num_clusters=10)
        assert bool(found.converged) and float(found.inertia) == pytest.approx(0, abs=1e-9)


def test_it_says_that_it_did_not_converge_and_its_labels_are_its_centroids():
    found = kmeans.kmeans(KEY, X, num_clusters=30, max_iterations=1)
    assert not bool(found.converged) and int(found.num_iterations) == 1
    sq_distances = np.square(X[:, None] - np.asarray(found.centroids)).sum(axis=2)
    np.testing.assert_array_equal(found.labels, sq_distances.argmin(axis=1))
    np.testing.assert_allclose(found.inertia, sq_distances.min(axis=1).sum(), rtol=1e-4)


def test_as_many_clusters_as_rows():
    found = kmeans.kmeans(KEY, X[:9], num_clusters=9)
    assert len(np.unique(found.labels)) == 9 and float(found.inertia) == pytest.approx(0, abs=1e-6)


def test_on_eight_devices_as_on_one(meshes):
    one, eight = (kmeans.kmeans(KEY, X, num_clusters=12, mesh=mesh) for mesh in meshes)
    np.testing.assert_array_equal(one.labels, eight.labels)
    np.testing.assert_allclose(one.centroids, eight.centroids, rtol=1e-5)


def test_errors():
    with pytest.raises(ValueError, match=r"x must"):
        kmeans.kmeans(KEY, X[:, 0], num_clusters=3)
    for number in (0, 206):
        with pytest.raises(ValueError, match="num_clusters must"):
            kmeans.kmeans(KEY, X, num_clusters=number)
    with pytest.raises(ValueError, match="max_iterations and num_init must"):
        kmeans.kmeans(KEY, X, num_clusters=3, max_iterations=0)
    with pytest.raises(ValueError, match=r"initial_centroids must"):
        kmeans.kmeans(KEY, X, num_clusters=3, initial_centroids=X[:2])
