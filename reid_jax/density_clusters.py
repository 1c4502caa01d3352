"""DBSCAN on the k-reciprocal Jaccard distance, as the methods that label once per epoch use it (SpCL, section 3.3)."""

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
    if not 0 < eps < 1:  # pairs at distance 1 are not stored
        raise ValueError(f"eps must be greater than 0 and less than 1, got {eps}")
    if min_samples < 1:
        raise ValueError(f"min_samples must be at least 1, got {min_samples}")
    from sklearn.cluster import DBSCAN  # its import takes a second, which no other labeller owes it

    distances = jaccard_distances(features, k1=k1, k2=k2)
    return DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed").fit_predict(distances)
