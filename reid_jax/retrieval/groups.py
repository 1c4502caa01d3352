"""Embeddings sorted into people: dense groups, or so many as there are people."""

import numpy as np

from reid_jax import density_clusters, distances, image_count, linkage
from reid_jax.embeddings import l2_normalize

# The encodings of an image and of the nearest one are averaged. Over six, as in training, an image that is like no other
# has mostly its neighbours' encodings, and joins them (docs/measured_runs.md, "Groups").
_K2 = 2
_FEW_NEIGHBORS = 4  # the least that `choose_k1` chooses
MIN_IMAGES = 3  # fewer have no neighbours to compare


def group(
    embeddings: np.ndarray,
    *,
    eps: float | None = None,
    min_samples: int = 2,
    k1: int | None = None,
    num_groups: int | None = None,
) -> np.ndarray:
    """Groups embeddings by person.

    Args:
        embeddings: [N, D] float, N >= 3; L2-normalised here.
        eps: how far apart neighbours in a group may be, 0..1; greater: fewer, larger groups. None: `choose_eps`.
        min_samples: neighbours within eps, itself included, that make an image a group's core.
        k1: nearest images that are looked at, up to twice as many as there are of a person; None: `choose_k1`.
        num_groups: how many people there are, where that is known: the nearest groups are merged until so many are
            left, which holds all pairs' distances.

    Returns:
        [N] int64, 0..C-1, by size, the largest first.

    Raises:
        ValueError: embeddings are not such, or an option is out of its range.
    """
    embeddings = np.asarray(embeddings, np.float32)
    if embeddings.ndim != 2 or len(embeddings) < MIN_IMAGES:
        raise ValueError(f"embeddings must be [N, D] with N of at least {MIN_IMAGES}, got shape {embeddings.shape}")
    if num_groups is not None and not 1 <= num_groups < len(embeddings):
        raise ValueError(
            f"num_groups must be in 1..{len(embeddings) - 1}, less than the number of images, got {num_groups}"
        )
    embeddings = l2_normalize(embeddings)
    k1 = choose_k1(embeddings) if k1 is None else k1
    if num_groups is None:
        eps = choose_eps(k1) if eps is None else eps
        return find_groups(embeddings, eps=eps, min_samples=min_samples, k1=k1)
    return merge_to(embeddings, num_groups, k1=k1)


def choose_k1(embeddings: np.ndarray) -> int:
    """Chooses how many nearest images are looked at where the user does not say, by how many there seem to be of a person.

    Of few images of each person most among 20 nearest are somebody else (docs/measured_runs.md, "Groups").

    Args:
        embeddings: [N, D] float.
    """
    return image_count.num_neighbors(image_count.estimate_images_per_identity(embeddings))


def choose_eps(k1: int) -> float:
    """Chooses how far apart neighbours may be: less where there are two or three images of a person.

    Then few neighbours are looked at, and two strangers have one in common sooner (docs/measured_runs.md, "Groups").

    Args:
        k1: how many nearest images are looked at.
    """
    return 0.5 if k1 <= _FEW_NEIGHBORS else 0.6


def find_groups(embeddings: np.ndarray, *, eps: float, min_samples: int, k1: int) -> np.ndarray:
    """Groups embeddings where they lie densely; who is alone is a group of one.

    Args:
        embeddings: [N, D] float32, L2-normalised.
        eps: as in `density_clusters.jaccard_dbscan`.
        min_samples: as there.
        k1: as there; at most N - 1 are used.

    Returns:
        [N] int64, 0..C-1, by size, the largest first.
    """
    k1 = min(k1, len(embeddings) - 1)
    return with_singletons(density_clusters.jaccard_dbscan(embeddings, eps=eps, min_samples=min_samples, k1=k1, k2=_K2))


def merge_to(embeddings: np.ndarray, num_groups: int, *, k1: int) -> np.ndarray:
    """Merges the groups nearest on average by the Jaccard distance until so many are left: labels as `find_groups`."""
    k1 = min(k1, len(embeddings) - 1)
    known = distances.jaccard_distances(embeddings, k1=k1, k2=min(_K2, k1)).tocoo()
    matrix = np.ones(known.shape, np.float32)  # what is not stored has nothing in common
    matrix[known.row, known.col] = known.data
    np.fill_diagonal(matrix, 0)
    num_steps = len(embeddings) - num_groups
    return by_size(np.asarray(linkage.agglomerate(matrix, num_merges=1, num_steps=num_steps)))


def with_singletons(labels: np.ndarray) -> np.ndarray:
    """Gives each image of a negative label [N] a group of its own, and numbers groups as `by_size`."""
    is_singleton = labels < 0
    return by_size(np.where(is_singleton, labels.max() + np.cumsum(is_singleton), labels))


def by_size(labels: np.ndarray) -> np.ndarray:
    """Numbers groups [N] from 0 by their sizes, the largest first, equally large ones by their first image."""
    _, firsts, groups, counts = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    return np.argsort(np.lexsort((firsts, -counts)))[groups]


def centre_distances(embeddings: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Returns how far each embedding [N, D] is from its group's mean: 1 - cosine, [N]."""
    centres = np.zeros((groups.max() + 1, embeddings.shape[1]), np.float32)
    np.add.at(centres, groups, embeddings)
    return np.maximum(1 - np.einsum("nd,nd->n", embeddings, l2_normalize(centres)[groups]), 0)
