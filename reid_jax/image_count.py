"""How many images there are of an identity, guessed from embeddings without labels."""

import numpy as np

from reid_jax import density_clusters, postprocess

# How neighbours are looked for at first, and at most: as many as the methods' papers do.
_MOST_NEIGHBORS, _LEAST_NEIGHBORS = 30, 4
_ROUNDS = 5
# Of the variance: of networks' embeddings one direction holds more, of whitened ones less (benchmarks/images_per_identity.py).
_MOST_OF_WHITE = 0.05
_EPS, _MIN_SAMPLES, _K2 = 0.6, 2, 2


def num_neighbors(images_per_identity: float) -> int:
    """Returns k1, how many nearest images are looked at: of 17 images of an identity 30, as SpCL has it for Market-1501."""
    return int(np.clip(round(1.75 * images_per_identity), _LEAST_NEIGHBORS, _MOST_NEIGHBORS))


def greatest_share(embeddings: np.ndarray) -> float:
    """Returns what part of the variance of embeddings [N, D], L2-normalised here, one direction holds: 0..1."""
    variances = np.linalg.eigvalsh(np.cov(postprocess.apply(None, embeddings), rowvar=False))
    return float(variances[-1] / variances.sum())


def estimate_images_per_identity(embeddings: np.ndarray) -> float:
    """Guesses how many images there are of an identity.

    Embeddings, whitened unless they are so already, are grouped by DBSCAN on the k-reciprocal Jaccard distance, and the
    groups of two or more have some mean size; neighbourhoods of twice that size are looked at in the next round, until it
    no longer changes. A rough guess, within a factor of two where the embeddings tell identities apart and too low where they hardly do
    (docs/measured_runs.md, "Images per identity").

    Args:
        embeddings: [N, D] float, N >= 1.

    Returns:
        At least 2, where N is; N where all embeddings are the same.

    Raises:
        ValueError: embeddings are not [N, D], or there is none.
    """
    if np.ndim(embeddings) != 2 or not len(embeddings):
        raise ValueError(f"embeddings must be [N, D], at least one, got shape {np.shape(embeddings)}")
    num_images = len(embeddings)
    if num_images <= _LEAST_NEIGHBORS:
        return float(min(num_images, 2))
    if not postprocess.is_spread(embeddings):
        return float(num_images)
    # Whitened twice, images of one identity would lie apart.
    is_white = greatest_share(embeddings) < _MOST_OF_WHITE
    fitted = None if is_white else postprocess.fit("pca_whiten", embeddings)
    rows = postprocess.apply(fitted, embeddings)
    # Where everybody is among everybody's nearest, all are one group: of few images fewer are looked at.
    most = int(np.clip(num_images // 3, _LEAST_NEIGHBORS, _MOST_NEIGHBORS))
    guess, seen, looked_at = 2.0, set(), most
    for _ in range(_ROUNDS):
        labels = density_clusters.jaccard_dbscan(rows, eps=_EPS, min_samples=_MIN_SAMPLES, k1=looked_at, k2=_K2)
        sizes = np.bincount(labels[labels >= 0])
        if not len(sizes):
            break
        guess = float(sizes.mean())
        seen.add(looked_at)
        looked_at = int(np.clip(round(2 * guess), _LEAST_NEIGHBORS, most))
        if looked_at in seen:
            break
    return max(guess, 2.0)
