"""Bottom-up clustering in large steps: many merges from one matrix of cluster distances (HCT, BUC).

This module decides which pairs merge. What it needs to know of the matrix, every cluster's nearest neighbour and the
distances among the few clusters that are near enough to merge, `cluster_distances.py` keeps up to date.

A cluster is known by its first sample, its root, so that clusters stay in the order of their first samples.
"""

import jax
import numpy as np

from reid_jax.linkage import cluster_distances


def agglomerate(
    distances: np.ndarray | jax.Array,
    *,
    num_merges: int,
    num_steps: int,
    linkage: str = "average",
    size_penalty: float = 0.0,
    embeddings: np.ndarray | jax.Array | None = None,
    initial_labels: np.ndarray | None = None,
) -> np.ndarray:
    """Merges clusters bottom-up: num_steps steps of exactly num_merges unions each (HCT eq. 1; BUC eq. 4).

    A step takes the pairs of clusters in ascending order of their distance at its beginning, equal ones by lower
    (first, second) cluster in order of first samples, and unites the two clusters' components where these still
    differ, until it has united num_merges times: the cheapest edges of the minimum spanning forest. With
    num_merges = 1 this is classical hierarchical clustering.

    Matrices in host memory are clustered on the host, others on their accelerator, where a copy is worked on. On
    the host the given matrix is only read; rows of their own for clusters of two and more take up to half its size.

    Args:
        distances: [N, N] float, symmetric, >= 0; the diagonal is not used.
        num_merges: m, unions per step (HCT, BUC: int(mp * N)).
        num_steps: s; C = clusters at the start - m * s clusters are left.
        linkage: a pair's distance: "average" (mean over all pairs of samples, UPGMA), "single" (least),
            "complete" (greatest) or "centroid" (Euclidean, of the mean embeddings).
        size_penalty: lambda >= 0; lambda * (|A| + |B|) is added to a pair's distance (BUC eq. 6).
        embeddings: [N, D] float, only for "centroid", with `distances` their Euclidean distances.
        initial_labels: [N] integer >= 0, the clusters to start from; None: every sample alone.

    Returns:
        [N] int32 labels 0..C-1 in order of first samples.

    Raises:
        ValueError: shapes do not fit, a distance is negative or not finite, an option is out of its range, or fewer
            than one cluster would be left.
    """
    if cluster_distances.is_on_host(distances):
        distances = np.asarray(distances)
    num_items = _check_arguments(distances, num_merges, num_steps, linkage, size_penalty, embeddings)
    roots = _initial_roots(initial_labels, num_items)
    num_clusters = len(np.unique(roots))
    if num_merges * num_steps >= num_clusters:
        raise ValueError(
            f"num_merges * num_steps must be less than the {num_clusters} clusters at the start, "
            f"got {num_merges} * {num_steps}"
        )
    if num_merges and num_steps:
        clusters = cluster_distances.cluster_distances(
            distances, linkage=linkage, size_penalty=size_penalty, embeddings=embeddings
        )
        clusters.merge(roots)
        for step in range(num_steps):
            united = _cheapest_unions(clusters, num_merges)
            roots = united[roots]
            if step + 1 < num_steps:
                clusters.merge(united)
    return np.unique(roots, return_inverse=True)[1].astype(np.int32)


def _check_arguments(distances, num_merges, num_steps, linkage, size_penalty, embeddings) -> int:
    """Checks all but the labels; returns N."""
    if distances.ndim != 2 or distances.shape[0] != distances.shape[1]:
        raise ValueError(f"distances must be [N, N], got shape {distances.shape}")
    num_items = distances.shape[0]
    if num_merges < 0 or num_steps < 0:
        raise ValueError(f"num_merges and num_steps must be at least 0, got {num_merges} and {num_steps}")
    if linkage not in cluster_distances.LINKAGES:
        raise ValueError(f"linkage must be one of {cluster_distances.LINKAGES}, got {linkage!r}")
    if not 0 <= size_penalty < np.inf:
        raise ValueError(f"size_penalty must be at least 0, got {size_penalty}")
    if linkage == "centroid" and (embeddings is None or embeddings.ndim != 2 or len(embeddings) != num_items):
        shape = None if embeddings is None else embeddings.shape
        raise ValueError(f"embeddings must be [N, D] with N = {num_items} for linkage 'centroid', got {shape}")
    # Blocks of rows stay in the host's cache for the second pass; an accelerator takes all at once.
    block_rows = 32 if cluster_distances.is_on_host(distances) else num_items
    for start in range(0, num_items, block_rows):
        least, greatest = distances[start : start + block_rows].min(), distances[start : start + block_rows].max()
        if not (least >= 0 and greatest < np.inf):
            raise ValueError(f"distances must be finite and at least 0, got values from {least} to {greatest}")
    return num_items


def _initial_roots(initial_labels, num_items: int) -> np.ndarray:
    """Returns [N]: for every sample the first sample with the same label."""
    if initial_labels is None:
        return np.arange(num_items)
    initial_labels = np.asarray(initial_labels)
    if initial_labels.shape != (num_items,):
        raise ValueError(f"initial_labels must be [N] with N = {num_items}, got shape {initial_labels.shape}")
    if initial_labels.min(initial=0) < 0:
        raise ValueError(f"initial_labels must be at least 0, got {initial_labels.min()}")
    _, firsts, inverse = np.unique(initial_labels, return_index=True, return_inverse=True)
    return firsts[inverse]


def _cheapest_unions(clusters, num_merges: int) -> np.ndarray:
    """Chooses one step's unions; returns [N], for every root the root of its component.

    The m-th union among the nearest-neighbour pairs alone bounds the m-th union of all: any forest of m pairs
    does. So no heavier pair takes part, nor a cluster whose nearest neighbour is farther, which leaves at most
    2 m clusters to look at. With more than half the clusters to merge there may be no such bound; then all are.
    """
    nearest, distance = clusters.nearest()
    rows = np.flatnonzero(nearest >= 0)
    first, second = np.minimum(rows, nearest[rows]), np.maximum(rows, nearest[rows])
    order = np.lexsort((second, first, distance[rows]))
    first, second = first[order], second[order]
    taken, _ = _unite(first, second, num_merges)
    bounded = len(taken) == num_merges
    near = np.unique([first[: taken[-1] + 1], second[: taken[-1] + 1]]) if bounded else np.unique([first, second])
    # The upper triangle decides: a pair's two directions were summed in different orders, as `distance` may have
    # been too, and can differ in the last bit.
    weights = clusters.distances_among(near)
    bound = weights[np.searchsorted(near, first[taken]), np.searchsorted(near, second[taken])].max()
    pairs = np.nonzero(np.triu(weights <= (bound if bounded else np.inf), k=1))
    # Pairs come row by row, so that a stable sort breaks ties by row and column.
    order = np.argsort(weights[pairs], kind="stable")
    _, parent = _unite(near[pairs[0][order]], near[pairs[1][order]], num_merges)
    united = np.arange(len(nearest))
    for root in parent:
        united[root] = _find(parent, root)
    return united


def _unite(first: np.ndarray, second: np.ndarray, num_merges: int) -> tuple[list[int], dict[int, int]]:
    """Kruskal: unites pairs in their order until num_merges of them have joined two components.

    Returns:
        The positions of the pairs that did, and a parent for every item that is not its component's least.
    """
    parent, taken = {}, []
    for position, pair in enumerate(zip(first.tolist(), second.tolist())):
        a, b = (_find(parent, item) for item in pair)
        if a != b:
            parent[max(a, b)] = min(a, b)
            taken.append(position)
            if len(taken) == num_merges:
                break
    return taken, parent


def _find(parent: dict[int, int], item: int) -> int:
    """Returns the least item of the component; halves the path to it."""
    while item in parent:
        above = parent[item]
        if above in parent:
            parent[item] = parent[above]
        item = above
    return item
