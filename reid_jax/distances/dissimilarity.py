"""How unlike two samples are: the global feature, its parts, and whether one camera saw both (SSL eq. 5-7).

D = (1 - part_weight) d + part_weight d_part + (camera_penalty where the cameras are the same), with d a distance of
the global features and d_part the mean over the stripes of the distances of their features.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from reid_jax import distances
from reid_jax.embeddings import Features

_BLOCK_SIZE = 512  # tiles that stay in a core's cache


def dissimilarities(
    features: Features,
    *,
    camids: np.ndarray | None = None,
    part_weight: float = 0.0,
    camera_penalty: float = 0.0,
    metric: str = "euclidean",
    block_size: int = _BLOCK_SIZE,
) -> jax.Array:
    """Computes the dissimilarity of every sample to every other (SSL eq. 7).

    Args:
        features: of N samples, L2-normalised; with stripes where part_weight is not 0.
        camids: [N] integer, all known; only needed with a camera penalty.
        part_weight: lambda_p, 0..1.
        camera_penalty: lambda_c >= 0, in units of the distance.
        metric: one of `distances.METRICS`. Static.
        block_size: rows and columns at a time, which bounds what is needed beside the result. Static.

    Returns:
        [N, N] float32, symmetric up to rounding; the diagonal is 0.

    Raises:
        ValueError: shapes do not fit, or an option is out of its range.
    """
    stripes, camids = _check_arguments(features, camids, part_weight, camera_penalty, metric)
    return _dissimilarities(
        features.embeddings, stripes, camids, part_weight, camera_penalty, metric=metric, block_size=block_size
    )


def most_similar(
    features: Features,
    *,
    k: int,
    camids: np.ndarray | None = None,
    part_weight: float = 0.0,
    camera_penalty: float = 0.0,
    metric: str = "euclidean",
    block_size: int = _BLOCK_SIZE,
) -> jax.Array:
    """Finds the k samples least dissimilar to each, itself excluded, without holding N x N dissimilarities.

    Args:
        features: as the others, as in `dissimilarities`.
        k: 1..N-1. Static.
        camids: as there.
        part_weight: as there.
        camera_penalty: as there.
        metric: as there.
        block_size: rows at a time. Static.

    Returns:
        [N, k] int32 in ascending order of dissimilarity; of equal ones the lower index first.

    Raises:
        ValueError: shapes do not fit, or an option is out of its range.
    """
    stripes, camids = _check_arguments(features, camids, part_weight, camera_penalty, metric)
    if not 1 <= k < len(features.embeddings):
        raise ValueError(f"k must be in 1..{len(features.embeddings) - 1}, the number of other samples, got {k}")
    return _most_similar(
        features.embeddings, stripes, camids, part_weight, camera_penalty, k=k, metric=metric, block_size=block_size
    )


def _check_arguments(features, camids, part_weight, camera_penalty, metric):
    """Returns what the options need: (stripes or None, camids or None)."""
    embeddings, stripes = features
    if embeddings.ndim != 2:
        raise ValueError(f"features.embeddings must be [N, D], got shape {embeddings.shape}")
    if metric not in distances.METRICS:
        raise ValueError(f"metric must be one of {distances.METRICS}, got {metric!r}")
    if not 0 <= part_weight <= 1:
        raise ValueError(f"part_weight must be in 0..1, got {part_weight}")
    if not 0 <= camera_penalty < np.inf:
        raise ValueError(f"camera_penalty must be at least 0, got {camera_penalty}")
    if part_weight and (stripes is None or stripes.ndim != 3 or len(stripes) != len(embeddings)):
        shape = None if stripes is None else stripes.shape
        raise ValueError(
            f"features.stripes must be [N, S, D] with N = {len(embeddings)} for a part_weight, got {shape}"
        )
    if camera_penalty and (camids is None or np.shape(camids) != (len(embeddings),) or np.min(camids) < 0):
        raise ValueError(f"camids must be [N] with N = {len(embeddings)}, all known, for a camera_penalty")
    return stripes if part_weight else None, jnp.asarray(camids) if camera_penalty else None


def _prepare(embeddings, stripes, camids, metric):
    """Returns a pytree of arrays with one row per sample."""
    num_parts = 0 if stripes is None else stripes.shape[1]
    parts = [distances.prepare(stripes[:, part], metric=metric) for part in range(num_parts)]
    return distances.prepare(embeddings, metric=metric), parts, camids


def _between(samples, others, part_weight, camera_penalty, metric):
    """Returns the dissimilarities [R, C] of some samples to others, both prepared."""
    (embeddings, parts, camids), (other_embeddings, other_parts, other_camids) = samples, others
    dissimilarity = distances.prepared_distances(embeddings, other_embeddings, metric=metric)
    if parts:
        part_distances = (
            distances.prepared_distances(part, other, metric=metric)
            for part, other in zip(parts, other_parts, strict=True)
        )
        sum_of_parts = sum(part_distances)
        dissimilarity = (1 - part_weight) * dissimilarity + part_weight / len(parts) * sum_of_parts  # eq. (5), (7)
    if camids is not None:
        dissimilarity += camera_penalty * (camids[:, None] == other_camids)  # eq. (6)
    return dissimilarity


@partial(jax.jit, static_argnames=("metric", "block_size"))
def _dissimilarities(embeddings, stripes, camids, part_weight, camera_penalty, *, metric, block_size):
    samples = _prepare(embeddings, stripes, camids, metric)

    def tile(row, column, size):
        rows, columns = (distances.some_rows(samples, start, size) for start in (row, column))
        dissimilarity = _between(rows, columns, part_weight, camera_penalty, metric)
        return jnp.where(distances.is_self(row - column, dissimilarity.shape), 0.0, dissimilarity)

    return distances.by_symmetric_blocks(tile, len(embeddings), block_size)


@partial(jax.jit, static_argnames=("k", "metric", "block_size"))
def _most_similar(embeddings, stripes, camids, part_weight, camera_penalty, *, k, metric, block_size):
    samples = _prepare(embeddings, stripes, camids, metric)

    def block(start, size):
        dissimilarity = _between(
            distances.some_rows(samples, start, size), samples, part_weight, camera_penalty, metric
        )
        return jax.lax.top_k(jnp.where(distances.is_self(start, dissimilarity.shape), -jnp.inf, -dissimilarity), k)[1]

    return distances.by_row_blocks(block, len(embeddings), block_size)
