"""Clusters that hold items of a batch are split into parts, where they fall apart (HCD, section 4.2).

A cluster consists of units, the clusters of the level below; a part is what follows one of its anchors. All arrays have
static sizes: of a cluster so many units propagate as the graph has room for, the others follow the anchor they are the
most similar to. Most clusters have few units, so that small graphs are compiled for as well as large ones, and clusters
are split in chunks of similar size.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from reid_jax.cluster_dynamics.anchors import best_anchor, choose_anchors
from reid_jax.cluster_dynamics.choices import Options
from reid_jax.cluster_dynamics.label_names import relabel_by_lowest_item
from reid_jax.cluster_dynamics.neighborhood import Batch
from reid_jax.cluster_dynamics.unit_graphs import affinity_of, connections, propagate, unit_similarities
from reid_jax.embeddings import l2_normalize

_CHUNK = 8  # clusters that are split at a time
_NEVER = 1e-9  # a share below this is rounding


class _Level(NamedTuple):
    """What is split: the clusters of one level, one for every item of the batch.

    Attributes:
        labels: [N] int32, of this level.
        is_unit: [N] bool, the items that the units of the level below are called after.
        means: [N, D] float32, the units' mean features by label.
        batch: from `find_neighborhoods`.
        own: [B] int32, the label of each item's cluster.
        active: [B] bool, whether that is to be split, and for this item.
        num_units: [B] int32, the units of active clusters, 0 for others.
    """

    labels: jax.Array
    is_unit: jax.Array
    means: jax.Array
    batch: Batch
    own: jax.Array
    active: jax.Array
    num_units: jax.Array


class _Parts(NamedTuple):
    """What a cluster, or a chunk of them, falls into; everything is called by its label.

    Attributes:
        units: [..., n] int32, those that propagated; N where there is none, or the cluster stays whole.
        followed: [..., n] int32, the anchor that each follows.
        anchors: [..., K] int32.
        is_anchor: [..., K] bool.
        rest: [..., N] bool, the units that there was no room for.
    """

    units: jax.Array
    followed: jax.Array
    anchors: jax.Array
    is_anchor: jax.Array
    rest: jax.Array


def split(
    labels: jax.Array, units: jax.Array, means: jax.Array, batch: Batch, key: jax.Array | None, options: Options
) -> jax.Array:
    """Splits the clusters that hold items of the batch, a cluster only once, and returns the new labels [N].

    Args:
        labels: [N] int32, of this level.
        units: [N] int32, labels of the level below.
        means: [N, D] float32, the units' mean features by label.
        batch: from `find_neighborhoods`; of a cluster's items in it the first counts: its similarities order the units.
        key: jax PRNG key for random anchors, or None.
        options: `Options`.
    """
    level = _level(labels, units, means, batch, options)
    # The clusters with the most units first, so that those of a chunk need graphs of about the same size.
    order = jnp.argsort(-level.num_units, stable=True)
    order = jnp.pad(order, (0, -len(order) % _CHUNK), constant_values=order[-1])
    num_chunks = (jnp.sum(level.active) + _CHUNK - 1) // _CHUNK
    split_chunk = partial(_split_chunk, order=order, level=level, key=key, options=options)
    names = jax.lax.fori_loop(0, num_chunks, split_chunk, labels)  # by unit
    return relabel_by_lowest_item(names[units])


def _level(labels, units, means, batch: Batch, options: Options) -> _Level:
    """Finds the clusters that are to be split."""
    num_items, batch_size = len(labels), len(batch.items)
    is_unit = units == jnp.arange(num_items)  # a unit's label is an item of it, by which it is found
    own = labels[batch.items]
    again = jnp.any((own[:, None] == own) & batch.is_valid & jnp.tri(batch_size, k=-1, dtype=bool), axis=1)
    num_own, num_units = (
        jnp.zeros(num_items, jnp.int32).at[labels].add(counted)[own] for counted in (1, is_unit.astype(jnp.int32))
    )
    active = batch.is_valid & ~again & (num_own > options.min_split_size) & (num_units > 1)
    return _Level(labels, is_unit, means, batch, own, active, jnp.where(active, num_units, 0))


def _graph_sizes(num_items: int, options: Options) -> list[int]:
    """Returns the numbers of units that are compiled for: most clusters have few."""
    sizes = sorted({max(options.max_units // part, options.max_anchors) for part in (4, 1)})
    return [min(size, num_items) for size in sizes]


def _split_chunk(index, names, *, order, level: _Level, key, options: Options):
    """Splits the clusters of one chunk: names [N] by unit, before and after."""
    sizes = _graph_sizes(len(names), options)
    positions = jax.lax.dynamic_slice_in_dim(order, index * _CHUNK, _CHUNK)
    most = level.num_units[positions[0]]  # the order is by the number of units
    kind = jnp.sum(most > jnp.array(sizes[:-1]), dtype=jnp.int32)
    branches = [partial(_split_positions, size=size, level=level, key=key, options=options) for size in sizes]
    return jax.lax.switch(kind, branches, positions, names)


def _split_positions(positions, names, *, size: int, level: _Level, key, options: Options):
    """Splits the clusters at positions [chunk] of the batch, in graphs of `size` units."""
    parts = jax.vmap(partial(_parts_of, size=size, level=level, key=key, options=options))(positions)
    names = names.at[parts.units].set(parts.followed, mode="drop")
    return jax.lax.cond(jnp.any(parts.rest), lambda: _with_rest(names, level.means, parts, options), lambda: names)


def _parts_of(position, *, size: int, level: _Level, key, options: Options) -> _Parts:
    """Finds the parts of the cluster at one position of the batch."""
    num_items, batch = len(level.labels), level.batch
    inside = (level.labels == level.own[position]) & level.is_unit
    nearness, members = jax.lax.top_k(jnp.where(inside, batch.similarities[position], -jnp.inf), size)
    valid = nearness > -jnp.inf
    similarities = unit_similarities(level.means, members, options)
    anchor_key = None if key is None else jax.random.fold_in(key, batch.items[position])
    anchors, is_anchor, followed = _followed_anchors(similarities, valid, batch.min_similarity, anchor_key, options)
    is_split = level.active[position] & (jnp.sum(is_anchor) > 1)
    # A part is called after its anchor: an item of this cluster, and of no other part.
    names = members[anchors]
    rest = inside & is_split & (jnp.sum(inside) > size)
    rest = rest.at[members].set(False)
    return _Parts(jnp.where(valid & is_split, members, num_items), names[followed], names, is_anchor, rest)


def _followed_anchors(similarities, valid, min_similarity, key, options: Options):
    """Chooses anchors [K] among the n units of a graph; returns them, is_anchor [K], and which each unit follows [n].

    A unit follows the anchor of which the most reaches it; where nothing does, the one it is the most similar to.
    """
    affinity = affinity_of(connections(similarities, valid, min_similarity, options), similarities, options)
    anchors, is_anchor = choose_anchors(similarities, affinity, valid, key, options)
    followed = best_anchor(similarities[:, anchors], is_anchor)
    if options.criterion == "propagation":
        one_hot = jax.nn.one_hot(anchors, len(valid), axis=0) * is_anchor
        shares = propagate(affinity, one_hot, options.alpha_split, options)
        reached = jnp.max(shares, axis=1) > _NEVER
        followed = jnp.where(reached, best_anchor(shares, is_anchor), followed)
    return anchors, is_anchor, followed


def _with_rest(names, means, parts: _Parts, options: Options):
    """Names the units of a chunk that there was no room for after their most similar anchors."""
    everything = means if options.criterion == "average_linkage" else l2_normalize(means)
    chosen = everything[parts.anchors]  # [chunk, K, D]
    similarities = jnp.einsum("nd,ckd->cnk", everything, chosen, precision=jax.lax.Precision.HIGHEST)
    best = best_anchor(similarities, parts.is_anchor[:, None])
    for cluster in range(len(parts.anchors)):
        names = jnp.where(parts.rest[cluster], parts.anchors[cluster][best[cluster]], names)
    return names
