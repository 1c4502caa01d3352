"""The hierarchical label bank: online pseudo labels by splitting and merging clusters (HCD, section 4).

Labels are updated for one batch of items at a time. Every item of the batch first joins the item it most likely
belongs with, or stands alone; then, from the lowest level to the highest, the clusters that hold items of the batch are
split into their units (the clusters of the level below) where these fall apart, and united with clusters near by where
label propagation connects them. The items of a batch work on what the step before left: they are placed together, by
the labels from before the batch; a cluster that holds several of them is split once, for the first of them in the
batch's order; and what they would unite is united transitively.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from reid_jax import memory
from reid_jax.cluster_dynamics.choices import Options, check_options
from reid_jax.cluster_dynamics.merge import merge
from reid_jax.cluster_dynamics.neighborhood import find_neighborhoods
from reid_jax.cluster_dynamics.placement import place
from reid_jax.cluster_dynamics.split import split


class LabelBank(NamedTuple):
    """The labels of every item at every level.

    Attributes:
        labels: [H, N] int32, lowest level first. A cluster's label is the lowest index of its items, so labels are
            distinct within a level and have gaps. Items of one cluster are of one cluster at all levels above, too
            (the cluster preserve property, `preserves_clusters`).
    """

    labels: jax.Array


def init_label_bank(num_items: int, *, num_levels: int = 3) -> LabelBank:
    """Returns the bank in which every item is alone at every level.

    Args:
        num_items: N, at least 2.
        num_levels: H, at least 1.

    Raises:
        ValueError: an argument is out of its range.
    """
    if num_items < 2 or num_levels < 1:
        raise ValueError(f"num_items must be at least 2 and num_levels at least 1, got {num_items} and {num_levels}")
    return LabelBank(jnp.tile(jnp.arange(num_items, dtype=jnp.int32), (num_levels, 1)))


def label_bank_from(pseudo_labels: np.ndarray, *, num_levels: int = 3) -> LabelBank:
    """Returns the bank with the same labels at every level.

    Args:
        pseudo_labels: [N] integer; items with a negative one are alone.
        num_levels: H, at least 1.

    Raises:
        ValueError: an argument is out of its range.
    """
    bank = init_label_bank(len(pseudo_labels), num_levels=num_levels)
    labels = memory.first_index_labels(pseudo_labels)
    return LabelBank(jnp.broadcast_to(jnp.asarray(labels, jnp.int32), bank.labels.shape))


def preserves_clusters(bank: LabelBank) -> bool:
    """Returns whether the items of every cluster share a cluster at the level above (HCD, section 4.1)."""
    labels = np.asarray(bank.labels, np.int64)
    pairs = zip(labels[:-1], labels[1:])
    return all(len(np.unique(low * len(low) + high)) == len(np.unique(low)) for low, high in pairs)


def update_label_bank(
    bank: LabelBank,
    features: jax.Array,
    indices: jax.Array,
    *,
    key: jax.Array | None = None,
    num_similar_now: float | jax.Array | None = None,
    **options,
) -> LabelBank:
    """Updates the labels for one batch of items, at every level (HCD, section 4.2).

    Args:
        bank: the labels before.
        features: [N, D] float, L2-normalised; better centred, as a batch-norm neck leaves them: of features that are
            all >= 0 everything is similar to everything.
        indices: [B] integer, 0..N-1, the batch's items; negative: none.
        key: jax PRNG key; only needed with anchors="random".
        num_similar_now: scalar, above 0 and less than N - 1, in place of the options' num_similar and min_similarity;
            unlike theirs it may be another in every update without compiling anew. None: theirs.
        **options: of `Options`.

    Returns:
        The labels after; the cluster preserve property holds if it held before.

    Raises:
        ValueError: shapes do not fit, or an option is out of its range.
        TypeError: an unknown option.
    """
    chosen = Options(**options)
    num_items = bank.labels.shape[1]
    if features.ndim != 2 or len(features) != num_items:
        raise ValueError(f"features must be [N, D] with N = {num_items}, the bank's items, got {features.shape}")
    if indices.ndim != 1:
        raise ValueError(f"indices must be [B], got shape {indices.shape}")
    check_options(chosen, num_items)
    if chosen.anchors == "random" and key is None:
        raise ValueError("key must be given with anchors='random'")
    if num_similar_now is not None:
        num_similar_now = jnp.float32(num_similar_now)
    return LabelBank(_update(bank.labels, features.astype(jnp.float32), indices, key, num_similar_now, options=chosen))


@partial(jax.jit, static_argnames="options")
def _update(labels, features, indices, key, num_similar, *, options: Options):
    batch = find_neighborhoods(features, indices, options, num_similar)
    labels = place(labels, batch, options)
    num_levels, num_items = labels.shape
    # The clusters of a level are the units of the next; below the lowest level every item is one.
    items = jnp.arange(num_items, dtype=labels.dtype), features

    def step(level, carry):
        labels, units, unit_means = carry
        level_key = None if key is None else jax.random.fold_in(key, level)
        return _update_level(labels, level, units, unit_means, features, batch, level_key, options)

    return jax.lax.fori_loop(0, num_levels, step, (labels, *items))[0]  # for h = 1..H (section 4.2)


def _update_level(labels, level, units, unit_means, features, batch, key, options: Options):
    """Splits, then merges the clusters of a level that hold items of the batch.

    Returns:
        (labels [H, N] with those of the level renewed, the level's own [N], its clusters' means [N, D]).
    """
    own, num_levels = labels[level], len(labels)
    if options.split:
        own = split(own, units, unit_means, batch, key, options)
    # Clusters are merged inside a cluster of the level above; above the top one everything is one.
    above = jnp.where(level + 1 < num_levels, labels[jnp.minimum(level + 1, num_levels - 1)], 0)
    own = merge(own, above, memory.class_means(features, own)[0], batch, options)
    return labels.at[level].set(own), own, memory.class_means(features, own)[0]
