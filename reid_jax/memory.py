"""What a training loss remembers between batches: arrays and pure updates of them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from reid_jax.embeddings import l2_normalize

MEMORY_RULES = ("each", "hardest", "mean")


class LookupTable(NamedTuple):
    """One vector per class, the classifier of BUC and SSL: state, never a parameter.

    It has as many rows as there are samples, so that its shape stays while the number of classes changes.

    Attributes:
        rows: [N, D] float32, of norm 1, or 0 for a class not seen yet.
        num_classes: scalar int32, C; rows from C on are not in use.
    """

    rows: jax.Array
    num_classes: jax.Array


def init_lookup_table(num_samples: int, dim: int, *, num_classes: int | None = None) -> LookupTable:
    """Returns the table before any sample was seen: all rows 0.

    Args:
        num_samples: N, the greatest number of classes.
        dim: D.
        num_classes: C; None: N.
    """
    num_classes = num_samples if num_classes is None else num_classes
    return LookupTable(jnp.zeros((num_samples, dim), jnp.float32), jnp.int32(num_classes))


def update_lookup_table(
    table: jax.Array, embeddings: jax.Array, labels: jax.Array, *, momentum: float = 0.5
) -> jax.Array:
    """Moves each sample's row towards its embedding, sample by sample in batch order.

    V_y <- normalise(momentum V_y + (1 - momentum) v), BUC section 3.2; the normalisation is the reference code's.
    A label that occurs twice in the batch is updated twice, the second time from the first one's result.

    Args:
        table: [N, D] float32.
        embeddings: [B, D] float.
        labels: [B] integer below N; a sample with a negative label changes nothing.
        momentum: the share of the old row, 0..1.

    Returns:
        [N, D] float32.

    Raises:
        ValueError: shapes do not fit.
    """
    _check_shapes(table, embeddings, labels)
    embeddings = embeddings.astype(jnp.float32)
    # How many samples before this one have its label. Samples of one turn have different labels, so they can be
    # written together; turns follow each other as the batch's order says.
    turns = jnp.sum(jnp.tril(labels[:, None] == labels, k=-1), axis=1)

    def take_turn(carry):
        turn, table = carry
        mixed = momentum * table[labels] + (1 - momentum) * embeddings  # BUC sec. 3.2, HCD sec. 5.1
        rows = l2_normalize(mixed)
        places = jnp.where((turns == turn) & (labels >= 0), labels, len(table))
        return turn + 1, table.at[places].set(rows, mode="drop")

    last_turn = jnp.max(turns)
    return jax.lax.while_loop(lambda carry: carry[0] <= last_turn, take_turn, (jnp.zeros_like(last_turn), table))[1]


def update_class_vectors(
    table: jax.Array, embeddings: jax.Array, labels: jax.Array, *, momentum: float, rule: str
) -> jax.Array:
    """Moves the vectors of a batch's classes towards its samples (Cluster Contrast, Dai et al., ACCV 2022).

    c_y <- normalise(momentum c_y + (1 - momentum) v); the rules differ in v. With one sample per class all are the same.

    Args:
        table: [N, D] float32, one row per class.
        embeddings: [B, D] float, L2-normalised.
        labels: [B] integer below N; a sample with a negative label changes nothing.
        momentum: the share of the old row, 0..1.
        rule: one of `MEMORY_RULES`; static. "each": one sample after the other, as in `update_lookup_table`. "hardest":
            once, by the class's sample that is least similar to the row as it was before the batch, the first of equal
            ones. "mean": once, by the mean of the class's samples, which is not re-normalised.

    Returns:
        [N, D] float32.

    Raises:
        ValueError: shapes do not fit, or an unknown rule.
    """
    if rule not in MEMORY_RULES:
        raise ValueError(f"rule must be one of {', '.join(MEMORY_RULES)}, got {rule!r}")
    if rule == "each":
        return update_lookup_table(table, embeddings, labels, momentum=momentum)
    _check_shapes(table, embeddings, labels)
    table, embeddings = jnp.asarray(table), jnp.asarray(embeddings, jnp.float32)
    same = labels[:, None] == labels
    earlier = jnp.tril(jnp.ones_like(same), k=-1)  # [i, j]: j comes before i
    if rule == "hardest":
        similarities = jnp.sum(embeddings * table[labels], axis=1)
        harder = (similarities < similarities[:, None]) | (earlier & (similarities == similarities[:, None]))
        updates, writes = embeddings, ~jnp.any(same & harder, axis=1)
    else:
        weights = same / jnp.sum(same, axis=1, keepdims=True, dtype=jnp.float32)
        updates = jnp.matmul(weights, embeddings, precision=jax.lax.Precision.HIGHEST)
        writes = ~jnp.any(same & earlier, axis=1)
    rows = l2_normalize(momentum * table[labels] + (1 - momentum) * updates)
    # One sample of each class writes, so that no two write the same row.
    return table.at[jnp.where(writes & (labels >= 0), labels, len(table))].set(rows, mode="drop")


def _check_shapes(table, embeddings, labels):
    if table.ndim != 2 or embeddings.ndim != 2 or table.shape[1] != embeddings.shape[1]:
        raise ValueError(f"table must be [N, D] and embeddings [B, D], got {table.shape} and {embeddings.shape}")
    if labels.shape != embeddings.shape[:1]:
        raise ValueError(f"labels must be [B] with B = {len(embeddings)}, got {labels.shape}")


def first_index_labels(labels: np.ndarray) -> np.ndarray:
    """Labels every class by the index of its first sample, as `class_means` takes labels: 0..N-1 with gaps.

    Args:
        labels: [N] integer; a sample with a negative one is a class of its own.

    Returns:
        [N] int64.
    """
    labels = np.asarray(labels)
    _, firsts, groups = np.unique(labels, return_index=True, return_inverse=True)
    return np.where(labels < 0, np.arange(len(labels)), firsts[groups])


def class_means(features: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Computes the mean feature of every class (HCD eq. 1; SpCL, section 3.2).

    Args:
        features: [N, D] float.
        labels: [N] integer, 0..N-1, with gaps or without; negative: of no class.

    Returns:
        (means [N, D] float32 by label, not re-normalised, and 0 where no sample has the label; [N] int32, the
        samples of each label).
    """
    # It drops what is out of its range, negative labels too.
    sums, counts = (
        jax.ops.segment_sum(values, labels, num_segments=len(labels))
        for values in (features.astype(jnp.float32), jnp.ones(len(labels), jnp.int32))
    )
    return sums / jnp.maximum(counts, 1)[:, None], counts


class ClassMemory(NamedTuple):
    """What a contrastive loss over classes remembers (SpCL: every sample; Cluster Contrast: every cluster).

    Attributes:
        rows: [N, D] float32: the last feature of every sample, or, in the rows that are classes' labels, one vector
            per class.
        labels: [N] int32, the class of every sample, 0..N-1, as `first_index_labels` gives them; -1: none.
    """

    rows: jax.Array
    labels: jax.Array


def init_class_memory(features: np.ndarray, labels: np.ndarray, *, per_cluster: bool) -> ClassMemory:
    """Returns the memory at the beginning of an iteration.

    Args:
        features: [N, D] float, L2-normalised.
        labels: [N] integer, 0..N-1; -1: of no class.
        per_cluster: one vector per class, the mean feature of norm 1 (Cluster Contrast), not all features (SpCL).
    """
    if per_cluster:
        means, _ = class_means(jnp.asarray(features), jnp.asarray(labels))
        features = l2_normalize(np.asarray(means))
    return ClassMemory(jnp.asarray(features), jnp.asarray(labels, jnp.int32))
