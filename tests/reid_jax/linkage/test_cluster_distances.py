import jax.numpy as jnp
import numpy as np
import pytest

from reid_jax.linkage import cluster_distances
from reid_jax.linkage.device import DeviceCentroids, DeviceClusters
from reid_jax.linkage.host import HostCentroids, HostClusters


@pytest.fixture(params=["host", "device"])
def place(request, monkeypatch):
    """Runs a test with both kinds of cluster distances, the accelerator's on the CPU as well."""
    monkeypatch.setattr(cluster_distances, "is_on_host", lambda array: request.param == "host")
    return np.asarray if request.param == "host" else jnp.asarray


def expected_distance(distances, points, members, others, linkage, size_penalty):
    part = distances[np.ix_(members, others)]
    kinds = {"average": part.mean(), "single": part.min(), "complete": part.max()}
    centroids = np.linalg.norm(points[members].mean(0) - points[others].mean(0))
    return kinds.get(linkage, centroids) + size_penalty * (len(members) + len(others))


def random_unions(rng, roots):
    """Unites a third of the clusters by threes: singletons together, with merged clusters, and these together."""
    united, live = np.arange(len(roots)), np.unique(roots)
    for group in np.array_split(rng.permutation(live)[: len(live) // 3], len(live) // 9):
        united[group] = group.min()
    return united


@pytest.mark.parametrize("linkage", cluster_distances.LINKAGES)
@pytest.mark.parametrize("size_penalty", [0.0, 0.1])
def test_distances_equal_the_definition_after_every_merge(place, linkage, size_penalty):
    rng = np.random.default_rng(0)
    points = rng.normal(size=(80, 3)).astype(np.float32)  # more than a block of rows
    distances = np.sqrt(np.square(points[:, None] - points).sum(-1))
    clusters = cluster_distances.cluster_distances(
        place(distances), linkage=linkage, size_penalty=size_penalty, embeddings=place(points)
    )
    roots = np.arange(len(points))
    for _ in range(4):
        united = random_unions(rng, roots)
        clusters.merge(united)
        roots = united[roots]
        live = np.unique(roots)
        members = [np.flatnonzero(roots == root) for root in live]
        expected = np.array(
            [[expected_distance(distances, points, a, b, linkage, size_penalty) for b in members] for a in members]
        )
        np.fill_diagonal(expected, np.inf)
        among = clusters.distances_among(live).copy()
        np.fill_diagonal(among, np.inf)
        np.testing.assert_allclose(among, expected, rtol=1e-4, atol=1e-4)
        nearest, distance = clusters.nearest()
        np.testing.assert_array_equal(nearest[live], live[expected.argmin(axis=1)])
        np.testing.assert_allclose(distance[live], expected.min(axis=1), rtol=1e-4, atol=1e-4)


def test_the_last_cluster_has_no_neighbour(place):
    clusters = cluster_distances.cluster_distances(place(np.ones((3, 3))), linkage="average", size_penalty=0.0)
    clusters.merge(np.zeros(3, int))
    nearest, distance = clusters.nearest()
    assert nearest[0] == -1 and distance[0] == np.inf


def test_clusters_are_where_the_distances_are(place):
    kinds = (HostClusters, HostCentroids) if place is np.asarray else (DeviceClusters, DeviceCentroids)
    for linkage, kind in zip(("single", "centroid"), kinds):
        clusters = cluster_distances.cluster_distances(
            place(np.ones((3, 3))), linkage=linkage, size_penalty=0.0, embeddings=place(np.ones((3, 2)))
        )
        assert type(clusters) is kind
