import jax.numpy as jnp
import numpy as np
import pytest
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from reid_jax import linkage
from reid_jax.linkage import cluster_distances


@pytest.fixture(params=["host", "device"])
def place(request, monkeypatch):
    """Runs a test with both kinds of cluster distances, the accelerator's on the CPU as well."""
    monkeypatch.setattr(cluster_distances, "is_on_host", lambda array: request.param == "host")
    return np.asarray if request.param == "host" else jnp.asarray


def slow_agglomerate(
    distances, *, num_merges, num_steps, linkage="average", size_penalty=0.0, embeddings=None, initial_labels=None
):
    """The definition: all pairs of clusters, sorted, from the sample distances alone."""
    labels = np.arange(len(distances)) if initial_labels is None else np.asarray(initial_labels)
    for _ in range(num_steps):
        _, firsts = np.unique(labels, return_index=True)
        clusters = [np.flatnonzero(labels == labels[first]) for first in np.sort(firsts)]
        pairs = []
        for a, members in enumerate(clusters):
            for b in range(a + 1, len(clusters)):
                part = distances[np.ix_(members, clusters[b])].astype(np.float64)
                kinds = {"average": part.sum() / part.size, "single": part.min(), "complete": part.max()}
                distance = kinds.get(linkage)
                if linkage == "centroid":
                    distance = np.linalg.norm(embeddings[members].mean(0) - embeddings[clusters[b]].mean(0))
                pairs.append((distance + size_penalty * (len(members) + len(clusters[b])), a, b))
        group, unions = list(range(len(clusters))), 0
        for _, a, b in sorted(pairs):
            if group[a] != group[b] and unions < num_merges:
                old, new = group[b], group[a]
                group = [new if other == old else other for other in group]
                unions += 1
        for cluster, members in enumerate(clusters):
            labels = labels.copy()
            labels[members] = -1 - group[cluster]
        labels = -1 - labels
    return first_occurrence(labels)


def first_occurrence(labels):
    _, firsts, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(firsts))[inverse]


def random_case(seed, kind, num_items):
    """Points and their distances: as they are, with duplicates, or replaced by few integers, which tie."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(num_items, 3)).astype(np.float32)
    if kind == "duplicates":
        points = np.round(points)[rng.integers(0, num_items, num_items)]
    distances = np.sqrt(((points[:, None] - points) ** 2).sum(-1))
    if kind == "ties":
        distances = np.triu(rng.integers(1, 5, (num_items, num_items)), 1).astype(np.float32)
        distances = distances + distances.T
    num_merges = int(rng.integers(1, max(2, num_items // 2)))
    num_steps = int(rng.integers(1, (num_items - 1) // num_merges + 1))
    return distances, points, dict(num_merges=num_merges, num_steps=num_steps)


@pytest.mark.parametrize("method", ["average", "single", "complete"])
@pytest.mark.parametrize("kind", ["ties", "duplicates", "points"])
def test_equals_the_definition(place, method, kind):
    for seed in range(25 if place is np.asarray else 8):
        # One size on the "device", where every size compiles.
        num_items = 2 + seed if place is np.asarray else 21
        distances, _, steps = random_case(seed, kind, num_items)
        if kind == "duplicates":
            distances = np.round(distances)  # sums of integers are exact, so that ties stay ties
        for size_penalty in (0.0, 0.25):  # a power of two, for the same reason
            options = dict(steps, linkage=method, size_penalty=size_penalty)
            labels = linkage.agglomerate(place(distances), **options)
            np.testing.assert_array_equal(labels, slow_agglomerate(distances, **options), err_msg=f"seed {seed}")
            assert labels.dtype == np.int32
            assert labels.max() + 1 == num_items - steps["num_merges"] * steps["num_steps"]


def test_equals_the_definition_over_many_blocks(place):
    distances, _, _ = random_case(1, "points", 150 if place is np.asarray else 64)
    distances = np.round(distances * 20)
    options = dict(num_merges=len(distances) // 14, num_steps=13)
    labels = linkage.agglomerate(place(distances), **options)
    np.testing.assert_array_equal(labels, slow_agglomerate(distances, **options))


def test_centroid_linkage_equals_the_definition(place):
    for seed in range(10 if place is np.asarray else 4):
        distances, points, steps = random_case(seed, "points", 21)
        for size_penalty in (0.0, 0.02):
            options = dict(steps, linkage="centroid", embeddings=place(points), size_penalty=size_penalty)
            labels = linkage.agglomerate(place(distances), **options)
            options["embeddings"] = points
            np.testing.assert_array_equal(labels, slow_agglomerate(distances, **options), err_msg=f"seed {seed}")


@pytest.mark.parametrize("method", ["average", "single", "complete", "centroid"])
def test_starts_from_initial_labels(place, method):
    for seed in range(4):
        distances, points, _ = random_case(seed, "points", 21)
        initial = np.random.default_rng(seed).integers(5, 17, 21) ** 2
        count = len(np.unique(initial))
        options = dict(num_merges=2, num_steps=(count - 1) // 2, initial_labels=initial)
        options.update(linkage=method, embeddings=points)
        labels = linkage.agglomerate(place(distances), **options)
        np.testing.assert_array_equal(labels, slow_agglomerate(distances, **options))
        kept = linkage.agglomerate(place(distances), **dict(options, num_steps=0))
        np.testing.assert_array_equal(kept, first_occurrence(initial))


@pytest.mark.parametrize("method", ["average", "single", "complete"])
def test_single_merges_equal_scipy(method):
    _, points, _ = random_case(0, "points", 120)
    distances = np.sqrt(((points[:, None] - points) ** 2).sum(-1))
    tree = hierarchy.linkage(squareform(distances.astype(np.float64), checks=False), method=method)
    for num_clusters in (1, 2, 17, 100):
        labels = linkage.agglomerate(distances, num_merges=1, num_steps=120 - num_clusters, linkage=method)
        expected = hierarchy.cut_tree(tree, n_clusters=num_clusters)[:, 0]
        np.testing.assert_array_equal(labels, first_occurrence(expected))


def test_by_hand():
    # On a line: 0 1 | 3.5 4 | 9. Step 1 unites (3.5, 4) and (0, 1); step 2 the two pairs' means, 3.25 apart.
    points = np.array([0.0, 3.5, 1.0, 9.0, 4.0])
    distances = np.abs(points[:, None] - points)
    assert linkage.agglomerate(distances, num_merges=1, num_steps=1).tolist() == [0, 1, 2, 3, 1]
    assert linkage.agglomerate(distances, num_merges=2, num_steps=1).tolist() == [0, 1, 0, 2, 1]
    assert linkage.agglomerate(distances, num_merges=1, num_steps=3).tolist() == [0, 0, 0, 1, 0]
    # A step is one look at the matrix: a pair that ties with a later one goes by its first and second cluster.
    equal = np.ones((5, 5)) - np.eye(5)
    assert linkage.agglomerate(equal, num_merges=2, num_steps=1).tolist() == [0, 0, 0, 1, 2]
    # With the penalty two samples that are alone go before a third joins the pair: 1.5 + 2 < 1.25 + 3.
    points = np.array([0.0, 1.0, 1.75, 10.0, 11.5])
    options = dict(num_merges=1, num_steps=2, linkage="single")
    assert linkage.agglomerate(np.abs(points[:, None] - points), **options).tolist() == [0, 0, 0, 1, 2]
    options["size_penalty"] = 1.0
    assert linkage.agglomerate(np.abs(points[:, None] - points), **options).tolist() == [0, 1, 1, 2, 2]


def test_order_of_samples_does_not_matter(place, rng):
    distances, _, _ = random_case(3, "points", 64)
    order = rng.permutation(64)
    options = dict(num_merges=4, num_steps=13)
    labels = linkage.agglomerate(place(distances), **options)
    permuted = linkage.agglomerate(place(distances[np.ix_(order, order)]), **options)
    np.testing.assert_array_equal(permuted, first_occurrence(labels[order]))


def test_given_matrix_is_not_changed(place):
    distances, _, _ = random_case(4, "points", 21)
    given, before = place(distances), distances.copy()
    labels = linkage.agglomerate(given, num_merges=3, num_steps=5)
    np.testing.assert_array_equal(given, before)
    # What the diagonal holds is not used.
    for value in (0.5, distances.max()):
        np.fill_diagonal(distances, value)
        np.testing.assert_array_equal(linkage.agglomerate(place(distances), num_merges=3, num_steps=5), labels)


def test_edges():
    assert linkage.agglomerate(np.zeros((1, 1)), num_merges=0, num_steps=4).tolist() == [0]
    assert linkage.agglomerate(np.zeros((6, 6)), num_merges=5, num_steps=1).tolist() == [0] * 6
    # The number of clusters of HCT's Table 3 in small: exactly m unions a step.
    distances, _, _ = random_case(5, "points", 400)
    assert linkage.agglomerate(distances, num_merges=28, num_steps=13).max() + 1 == 400 - 13 * 28


def test_errors():
    square, steps = np.ones((4, 4)), dict(num_merges=1, num_steps=1)
    bad = square.copy()
    bad[1, 2] = np.nan
    with pytest.raises(ValueError, match=r"distances must"):
        linkage.agglomerate(square[:3], **steps)
    for value in (np.nan, np.inf, -1.0):
        bad[1, 2] = value
        with pytest.raises(ValueError, match="distances must"):
            linkage.agglomerate(bad, **steps)
    with pytest.raises(ValueError, match=r"less than the 4 clusters at the start, got 2 \* 2"):
        linkage.agglomerate(square, num_merges=2, num_steps=2)
    with pytest.raises(ValueError, match="num_merges and num_steps must"):
        linkage.agglomerate(square, num_merges=-1, num_steps=2)
    with pytest.raises(ValueError, match="linkage must"):
        linkage.agglomerate(square, **steps, linkage="ward")
    with pytest.raises(ValueError, match="size_penalty must"):
        linkage.agglomerate(square, **steps, size_penalty=-0.1)
    with pytest.raises(ValueError, match=r"embeddings must"):
        linkage.agglomerate(square, **steps, linkage="centroid")
    with pytest.raises(ValueError, match=r"initial_labels must"):
        linkage.agglomerate(square, **steps, initial_labels=np.zeros(3, int))
    with pytest.raises(ValueError, match="initial_labels must"):
        linkage.agglomerate(square, **steps, initial_labels=np.array([0, -1, 1, 2]))
