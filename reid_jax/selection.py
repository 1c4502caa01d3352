"""Which samples of a clustering are reliable enough to train on (PUL, section III)."""

from functools import partial

import jax
import jax.numpy as jnp

from reid_jax import distances

COMPARED = ("own", "any", "none")
_BLOCK = 2048  # rows whose similarities to all centres are held at a time


@jax.jit
def center_indices(x: jax.Array, labels: jax.Array, centroids: jax.Array) -> jax.Array:
    """Finds the centre of every cluster: its row that is nearest to its centroid (PUL Algorithm 1, line 5).

    Only a cluster's own rows are candidates, so that its centre, which is always reliable, has its label.

    Args:
        x: [N, D] float, the rows that were clustered, as they were clustered.
        labels: [N] int, in 0..K-1.
        centroids: [K, D] float.

    Returns:
        [K] int32 indices of rows; of equally near ones the lowest; -1 for a cluster without rows.
    """
    sq_distances = jnp.sum(jnp.square(x - centroids[labels]), axis=1)
    least = jax.ops.segment_min(sq_distances, labels, len(centroids))
    candidates = jnp.where(sq_distances == least[labels], jnp.arange(len(x)), len(x))
    centers = jax.ops.segment_min(candidates, labels, len(centroids))
    return jnp.where(centers < len(x), centers, -1).astype(jnp.int32)


def select_reliable(
    embeddings: jax.Array, labels: jax.Array, centers: jax.Array, *, threshold: float, compared: str = "own"
) -> jax.Array:
    """Selects the samples that are like a centre (PUL eq. (2); Algorithm 1, lines 7 to 16).

    The centres themselves are always selected, so that every cluster keeps a sample.

    Args:
        embeddings: [N, D] float, L2-normalised.
        labels: [N] int, the samples' clusters.
        centers: [K] int, from `center_indices`.
        threshold: lambda, what the cosine similarity must exceed.
        compared: "own": to the centre of the sample's own cluster, as eq. (2) has it; "any": to the centre of any
            cluster, as the reference code does; "none": nothing is compared, every sample is selected. Static.

    Returns:
        [N] bool.

    Raises:
        ValueError: shapes do not fit, or an unknown way of comparing.
    """
    if embeddings.ndim != 2 or labels.shape != embeddings.shape[:1] or centers.ndim != 1:
        raise ValueError(
            f"embeddings must be [N, D], labels [N] and centers [K], got {embeddings.shape}, {labels.shape} and "
            f"{centers.shape}"
        )
    if compared not in COMPARED:
        raise ValueError(f"compared must be one of {', '.join(COMPARED)}, got {compared!r}")
    return _select_reliable(embeddings, labels, centers, threshold, compared=compared)


@partial(jax.jit, static_argnames="compared")
def _select_reliable(embeddings, labels, centers, threshold, *, compared: str) -> jax.Array:
    if compared == "none":
        return jnp.ones(len(embeddings), bool)
    if compared == "own":
        similarities = jnp.sum(embeddings * embeddings[centers[labels]], axis=1)
    else:
        similarities = _greatest_similarity(embeddings, centers)
    # An empty cluster's -1 would count from the end.
    is_center = (
        jnp.zeros(len(embeddings), bool).at[jnp.where(centers < 0, len(embeddings), centers)].set(True, mode="drop")
    )
    return (similarities > threshold) | is_center  # PUL eq. (2)


def _greatest_similarity(embeddings: jax.Array, centers: jax.Array) -> jax.Array:
    center_rows = embeddings[centers]

    def block(start, size):
        rows = jax.lax.dynamic_slice_in_dim(embeddings, start, size)
        products = jnp.matmul(rows, center_rows.T, precision=jax.lax.Precision.HIGHEST)
        return jnp.max(jnp.where(centers < 0, -jnp.inf, products), axis=1)

    return distances.by_row_blocks(block, len(embeddings), _BLOCK)
