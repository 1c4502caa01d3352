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
    losses = jax.nn.softplus(gap) if soft_margin else jax.nn.relu(margin + gap)  # HCT eq. (2)
    losses = jnp.where(has_negative, losses, 0.0)
    return jnp.mean(losses) if reduction == "mean" else jnp.sum(losses)


def repelled(
    embeddings: jax.Array,
    labels: jax.Array,
    table: jax.Array,
    *,
    temperature: float = 0.1,
    num_classes: jax.Array | int | None = None,
) -> jax.Array:
    """Repelled loss: cross-entropy over the cosine similarities to a lookup table (BUC eq. 2, 3).

    Args:
        embeddings: [B, D] float, L2-normalised.
        labels: [B] integer, 0..C-1.
        table: [N, D] float, one row per class (`memory.LookupTable`); no gradient flows into it.
        temperature: tau, greater than 0.
        num_classes: C; rows from C on count for nothing. None: N.

    Returns:
        Scalar float32, the mean over the batch.

    Raises:
        ValueError: wrong shapes.
    """
    in_use = None if num_classes is None else jnp.arange(len(table)) < num_classes
    return unified_contrastive(embeddings, labels, table, temperature=temperature, in_use=in_use)


def softened(
    embeddings: jax.Array,
    labels: jax.Array,
    reliable: jax.Array,
    table: jax.Array,
    *,
    own_weight: float = 0.6,
    temperature: float = 0.1,
) -> jax.Array:
    """Softened cross-entropy: a part of the target goes to the k reliable classes (SSL eq. 3, 4).

    With own_weight 1, or with the own class in all k places, it is the repelled loss.

    Args:
        embeddings: [B, D] float, L2-normalised.
        labels: [B] integer, 0..N-1, the own classes.
        reliable: [B, k] integer, 0..N-1, the reliable classes.
        table: [N, D] float; see `repelled`.
        own_weight: lambda, the own class's share, 0..1.
        temperature: tau, greater than 0.

    Returns:
        Scalar float32, the mean over the batch.

    Raises:
        ValueError: wrong shapes.
    """
    if reliable.ndim != 2 or len(reliable) != len(labels) or not reliable.shape[1]:
        raise ValueError(f"reliable must be [B, k] with B = {len(labels)} and k >= 1, got {reliable.shape}")
    log_probabilities = _class_log_probabilities(embeddings, labels, table, temperature)
    own = jnp.take_along_axis(log_probabilities, labels[:, None], axis=1)[:, 0]
    others = jnp.mean(jnp.take_along_axis(log_probabilities, reliable, axis=1), axis=1)
    return -jnp.mean(own_weight * own + (1 - own_weight) * others)  # SSL eq. (3), (4)


def unified_contrastive(
    embeddings: jax.Array,
    labels: jax.Array,
    prototypes: jax.Array,
    *,
    temperature: float = 0.05,
    in_use: jax.Array | None = None,
    counted: jax.Array | None = None,
) -> jax.Array:
    """Unified contrastive loss: cross-entropy over all classes' prototypes, of source and target alike (HCD eq. 1).

    Args:
        embeddings: [B, D] float, L2-normalised.
        labels: [B] integer, 0..N-1, rows of `prototypes`.
        prototypes: [N, D] float, w_k and c_k: mean features, of norm 1 or less; no gradient flows into them.
        temperature: tau, greater than 0.
        in_use: [N] bool; other rows count for nothing. None: all.
        counted: [B] bool, the samples whose loss counts; their classes must be in use. None: all.

    Returns:
        Scalar float32, the mean over the samples that count; 0 where none does.

    Raises:
        ValueError: wrong shapes.
    """
    log_probabilities = _class_log_probabilities(embeddings, labels, prototypes, temperature, in_use)
    own = jnp.take_along_axis(log_probabilities, labels[:, None], axis=1)
    if counted is None:
        return -jnp.mean(own)
    # Others may be at -inf, or nan where no class is in use: both end here.
    return -jnp.sum(jnp.where(counted, own[:, 0], 0.0)) / jnp.maximum(jnp.sum(counted), 1)


def _class_log_probabilities(embeddings, labels, table, temperature, in_use=None):
    """Returns log p(c | x) [B, N] float32; -inf for classes that are not in use, [N] bool."""
    if embeddings.ndim != 2 or labels.shape != embeddings.shape[:1]:
        raise ValueError(f"embeddings must be [B, D] and labels [B], got {embeddings.shape} and {labels.shape}")
    if table.ndim != 2 or table.shape[1] != embeddings.shape[1]:
        raise ValueError(f"table must be [N, D] with D = {embeddings.shape[1]}, got {table.shape}")
    table = jax.lax.stop_gradient(table)
    # BUC eq. (2), SSL eq. (1), HCD eq. (1)
    logits = jnp.matmul(embeddings, table.T, precision=jax.lax.Precision.HIGHEST) / temperature
    if in_use is not None:
        logits = jnp.where(in_use, logits, -jnp.inf)
    return jax.nn.log_softmax(logits.astype(jnp.float32), axis=1)
