"""DBSCAN on the k-reciprocal Jaccard distance, as the methods that label once per epoch use it (SpCL, section 3.3)."""

from collections.abc import Sequence

import numpy as np

from reid_jax.distances import jaccard_distances


def jaccard_dbscan(
    features: np.ndarray, *, eps: float = 0.6, min_samples: int = 4, k1: int = 20, k2: int = 6
) -> np.ndarray:
    """Clusters features where they lie densely.

    Args:
        features: [N, D] float, L2-normalised.
        eps: the greatest distance of neighbours, greater than 0 and less than 1.
        min_samples: neighbours that make a core sample, itself included.
        k1: as in `jaccard_distances`.
        k2: as in `jaccard_distances`.

    Returns:
        [N] int64: the cluster, 0..C-1; -1 for samples that are in none.

    Raises:
        ValueError: an option is out of its range.
    """
    return jaccard_dbscans(features, eps=(eps,), min_samples=min_samples, k1=k1, k2=k2)[0]


def jaccard_dbscans(
    features: np.ndarray, *, eps: Sequence[float], min_samples: int, k1: int, k2: int
) -> list[np.ndarray]:
    """Clusters features once for each eps, from distances that are computed once (SpCL has three).

    Args:
        features: [N, D] float; this and the other options as in `jaccard_dbscan`.
        eps: one for each clustering.
        min_samples: of all of them.
        k1: as in `jaccard_distances`.
        k2: as in `jaccard_distances`.

    Returns:
        As many labelings [N] int64 as eps has values, each as `jaccard_dbscan` gives it.

    Raises:
        ValueError: an option is out of its range.
    """
    for radius in eps:
        if not 0 < radius < 1:  # pairs at distance 1 are not stored
            raise ValueError(f"eps must be greater than 0 and less than 1, got {radius}")
    if min_samples < 1:
        raise ValueError(f"min_samples must be at least 1, got {min_samples}")
    from sklearn.cluster import DBSCAN  # its import takes a second, which no other labeller owes it

    distances = jaccard_distances(features, k1=k1, k2=k2)
    return [DBSCAN(eps=each, min_samples=min_samples, metric="precomputed").fit_predict(distances) for each in eps]
