"""Training losses on a batch: pure, differentiable, float32."""

import jax
import jax.numpy as jnp

from reid_jax.distances import pairwise_distances

# Below this squared distance the square root is flat: its gradient at 0 would be infinite.
_MIN_SQ_DISTANCE = 1e-12


def batch_hard_triplet(
    embeddings: jax.Array,
    labels: jax.Array,
    *,
    margin: float = 0.5,
    soft_margin: bool = False,
    reduction: str = "mean",
) -> jax.Array:
    """Batch-hard triplet loss: every image against its farthest positive and its nearest negative in the batch.

    HCT eq. (2) with the hinge of Hermans et al. 2017, eq. (5), which the paper leaves out but means:
    max(0, margin + max_p D(a, p) - min_n D(a, n)), D Euclidean. An image is its own positive at distance 0; one
    without a negative in the batch costs nothing.

    Args:
        embeddings: [B, D] float.
        labels: [B] integer.
        margin: in units of the embedding distance; not used with soft_margin.
        soft_margin: softplus in place of the hinge (Hermans et al., section 3.1); static.
        reduction: "mean" over the batch, or "sum" as eq. (2) is written; static.

    Returns:
        Scalar float32.

    Raises:
        ValueError: wrong shapes or an unknown reduction.
    """
    if embeddings.ndim != 2 or labels.shape != embeddings.shape[:1]:
        raise ValueError(f"embeddings must be [B, D] and labels [B], got {embeddings.shape} and {labels.shape}")
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction must be 'mean' or 'sum', got {reduction!r}")
    sq_distances = pairwise_distances(embeddings, metric="sqeuclidean")
    distances = jnp.sqrt(jnp.maximum(sq_distances, _MIN_SQ_DISTANCE))
    same = labels[:, None] == labels[None, :]
    hardest_positive = jnp.max(jnp.where(same, distances, 0.0), axis=1)
    hardest_negative = jnp.min(jnp.where(same, jnp.inf, distances), axis=1)
    has_negative = jnp.any(~same, axis=1)
    # The inner where keeps infinity out of the arithmetic, whose gradient would be nan even where masked.
    gap = hardest_positive - jnp.where(has_negative, hardest_negative, 0.0)
    losses = jax.nn.softplus(gap) if soft_margin else jax.nn.relu(margin + gap)
    losses = jnp.where(has_negative, losses, 0.0)
    return jnp.mean(losses) if reduction == "mean" else jnp.sum(losses)
