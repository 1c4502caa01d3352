"""Contrastive losses against several vectors per cluster: one per camera (CAP), or support samples (ISE).

Pure, differentiable, float32. Each is the mean over the samples that count, and 0 where none does; their gradients are
finite everywhere.
"""

import jax
import jax.numpy as jnp

from reid_jax.embeddings import unit_vectors


def camera_proxies(
    embeddings: jax.Array,
    labels: jax.Array,
    table: jax.Array,
    row_labels: jax.Array,
    *,
    in_use: jax.Array,
    temperature: float = 0.07,
    num_negatives: int = 50,
    own_cameras: jax.Array | None = None,
    row_cameras: jax.Array | None = None,
) -> jax.Array:
    """Pulls samples to their cluster's vectors of all cameras and away from the most similar others.

    The inter-camera loss of CAP (Wang et al., AAAI 2021), which ICE and O2CAP share: cross-entropy with the target 1/|P|
    over the positives P, in a softmax over P and the negatives. With cameras it is PPLR's (Cho et al., CVPR 2022): the
    vectors of the sample's own cluster and camera are then neither positives nor negatives.

    CAP sums the means over each camera's samples, PPLR divides by B; here every sample that counts weighs the same.

    Args:
        embeddings: [B, D] float, L2-normalised.
        labels: [B] integer, the samples' clusters; a sample with a negative one, or without a positive, does not count.
        table: [N, D] float, one row per pair of cluster and camera; no gradient flows into it.
        row_labels: [N] integer, the rows' clusters; a row in use with a negative one is nobody's positive.
        in_use: [N] bool; other rows count for nothing.
        temperature: tau, greater than 0.
        num_negatives: how many rows of other clusters, 1 or more; all where there are fewer. Static.
        own_cameras: [B] integer, the samples' cameras; None: a row of any camera is a positive.
        row_cameras: [N] integer, the rows' cameras; with own_cameras.

    Returns:
        Scalar float32.

    Raises:
        ValueError: wrong shapes, num_negatives is out of its range, or cameras on one side only.
    """
    logits = _table_logits(embeddings, table, temperature)
    _check_vectors(logits, {"labels": labels}, {"row_labels": row_labels, "in_use": in_use})
    if num_negatives < 1:
        raise ValueError(f"num_negatives must be at least 1, got {num_negatives}")
    own = (labels[:, None] == row_labels) & in_use & (labels >= 0)[:, None]
    positives = own & _of_other_cameras(logits, own_cameras, row_cameras)
    # Reference: where there are fewer others than num_negatives, CAP's code takes positives a second time.
    negatives, _ = jax.lax.top_k(jnp.where(in_use & ~own, logits, -jnp.inf), min(num_negatives, len(table)))
    total = jax.nn.logsumexp(jnp.concatenate([jnp.where(positives, logits, -jnp.inf), negatives], axis=1), axis=1)
    positive = jnp.sum(jnp.where(positives, logits, 0.0), axis=1) / jnp.maximum(jnp.sum(positives, axis=1), 1)
    return _mean_where(jnp.any(positives, axis=1), total - positive)


def intra_camera(
    embeddings: jax.Array,
    cameras: jax.Array,
    rows: jax.Array,
    table: jax.Array,
    row_cameras: jax.Array,
    *,
    in_use: jax.Array,
    temperature: float = 0.07,
) -> jax.Array:
    """Tells a sample's cluster from the others of the same camera: cross-entropy over that camera's rows.

    The intra-camera loss of CAP (Wang et al., AAAI 2021). CAP sums the means over each camera's samples; here every
    sample that counts weighs the same.

    Args:
        embeddings: [B, D] float, L2-normalised.
        cameras: [B] integer, the samples' cameras.
        rows: [B] integer, 0..N-1, the samples' own rows, in use and of their camera; a sample with a negative one does
            not count.
        table: [N, D] float, one row per pair of cluster and camera; no gradient flows into it.
        row_cameras: [N] integer, the rows' cameras.
        in_use: [N] bool; other rows count for nothing.
        temperature: tau, greater than 0.

    Returns:
        Scalar float32; not finite where the own row of a sample is not in use or of another camera.

    Raises:
        ValueError: wrong shapes.
    """
    logits = _table_logits(embeddings, table, temperature)
    _check_vectors(logits, {"cameras": cameras, "rows": rows}, {"row_cameras": row_cameras, "in_use": in_use})
    logits = jnp.where((cameras[:, None] == row_cameras) & in_use, logits, -jnp.inf)
    own = jnp.take_along_axis(logits, jnp.maximum(rows, 0)[:, None], axis=1)[:, 0]
    return _mean_where(rows >= 0, jax.nn.logsumexp(logits, axis=1) - own)


def implicit_support(
    embeddings: jax.Array, labels: jax.Array, table: jax.Array, *, in_use: jax.Array, strength: jax.Array | float
) -> jax.Array:
    """Makes of each sample another one nearer to the next cluster (ISE, Zhang et al., CVPR 2022).

    normalise(f + strength (c_near - c_own)), where c_near is the row that is most similar to f, the own one left out.

    Args:
        embeddings: [B, D] float, L2-normalised; the gradient flows through f, not through the choice of c_near.
        labels: [B] integer below N, the samples' own rows; a sample with a negative one is not moved.
        table: [N, D] float, one row per cluster; no gradient flows into it.
        in_use: [N] bool; other rows are not near to any sample. Without another row in use a sample is not moved.
        strength: scalar, 0 or greater; `support_strength`.

    Returns:
        [B, D] float32, of norm 1.

    Raises:
        ValueError: wrong shapes.
    """
    table = jax.lax.stop_gradient(table).astype(jnp.float32)
    similarities = _table_logits(jax.lax.stop_gradient(embeddings), table, 1.0)
    _check_vectors(similarities, {"labels": labels}, {"in_use": in_use})
    others = in_use & (jnp.arange(len(table)) != labels[:, None])
    near = jnp.argmax(jnp.where(others, similarities, -jnp.inf), axis=1)
    is_moved = jnp.any(others, axis=1) & (labels >= 0)
    directions = jnp.where(is_moved[:, None], table[near] - table[labels], 0.0)
    return unit_vectors(embeddings.astype(jnp.float32) + strength * directions)


def support_strength(step: jax.Array | int, num_steps: int, *, base: float = 1.0) -> jax.Array:
    """Returns how far ISE moves support samples at a step: from 0, fast at first, to base / 4 at the end.

    ISE's lambda(t) = base / 2 ln((e - 1) t / T + 1), of which the authors' code takes half.

    Args:
        step: t, integer scalar, 0..T.
        num_steps: T, the steps of the run, 1 or more.
        base: lambda's scale.

    Returns:
        Scalar float32.

    Raises:
        ValueError: num_steps is less than 1.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}")
    return 0.25 * base * jnp.log1p((jnp.e - 1) * jnp.asarray(step, jnp.float32) / num_steps)


def support_consistency(
    embeddings: jax.Array, supports: jax.Array, labels: jax.Array, *, temperature: float = 0.6
) -> jax.Array:
    """Label-preserving loss: each sample against its least similar own support and every other class's most similar one.

    ISE (Zhang et al., CVPR 2022): -log softmax over the similarities to one support sample per class of the batch.

    Args:
        embeddings: [B, D] float, L2-normalised.
        supports: [B, D] float, L2-normalised, made of the same samples (`implicit_support`); the gradient flows into
            both.
        labels: [B] integer, the classes; a sample with a negative one does not count, and neither does its support.
        temperature: tau, greater than 0.

    Returns:
        Scalar float32.

    Raises:
        ValueError: wrong shapes.
    """
    if embeddings.ndim != 2 or supports.shape != embeddings.shape:
        raise ValueError(f"embeddings and supports must both be [B, D], got {embeddings.shape} and {supports.shape}")
    logits = _logits(embeddings, supports, temperature)
    _check_vectors(logits, {"labels": labels}, {})
    same = labels[:, None] == labels
    positive = jnp.min(jnp.where(same, logits, jnp.inf), axis=1)
    # Reference: the authors' code, which finds the classes by position, needs a batch ordered by equally large classes.
    first = jnp.argmax(same, axis=1)  # the first sample of each sample's class stands for the class
    hardest = jax.ops.segment_max(logits.T, first, num_segments=len(labels)).T
    is_class = (first == jnp.arange(len(labels))) & (labels >= 0)
    negatives = jnp.where(is_class & ~same, hardest, -jnp.inf)
    total = jax.nn.logsumexp(jnp.column_stack([positive, negatives]), axis=1)
    return _mean_where(labels >= 0, total - positive)


def _logits(embeddings, rows, temperature):
    return (jnp.matmul(embeddings, rows.T, precision=jax.lax.Precision.HIGHEST) / temperature).astype(jnp.float32)


def _table_logits(embeddings, table, temperature):
    """Returns the similarities [B, N] float32 to the rows of a table without gradient, over the temperature."""
    if embeddings.ndim != 2 or table.ndim != 2 or table.shape[1] != embeddings.shape[1]:
        raise ValueError(f"embeddings must be [B, D] and table [N, D], got {embeddings.shape} and {table.shape}")
    return _logits(embeddings, jax.lax.stop_gradient(table), temperature)


def _check_vectors(logits, of_samples, of_rows):
    """Raises unless what samples have is [B] and what rows have is [N]."""
    for length, letter, vectors in zip(logits.shape, "BN", (of_samples, of_rows)):
        for name, vector in vectors.items():
            if vector.shape != (length,):
                raise ValueError(f"{name} must be [{letter}] with {letter} = {length}, got {vector.shape}")


def _of_other_cameras(logits, own_cameras, row_cameras):
    """Returns which rows are of another camera than a sample, [B, N] bool; without cameras all are."""
    if (own_cameras is None) != (row_cameras is None):
        raise ValueError("own_cameras and row_cameras must be given together, got only one of them")
    if own_cameras is None:
        return jnp.ones(logits.shape, bool)
    _check_vectors(logits, {"own_cameras": own_cameras}, {"row_cameras": row_cameras})
    return own_cameras[:, None] != row_cameras


def _mean_where(counts, losses):
    """Returns the mean of losses [B] where counts [B] bool, or 0.

    Elsewhere a loss can be nan, and so its gradient over no row at all; that ends at the rows' own where.
    """
    return jnp.sum(jnp.where(counts, losses, 0.0)) / jnp.maximum(jnp.sum(counts), 1)
