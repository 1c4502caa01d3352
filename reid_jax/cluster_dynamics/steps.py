"""What one batch does to the hierarchical label bank: its items are placed, clusters split, clusters united."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from reid_jax import propagation
from reid_jax.cluster_dynamics import similarity_bounds
from reid_jax.cluster_dynamics.choices import Options
from reid_jax.embeddings import l2_normalize

_CHUNK = 8  # clusters that are split at a time
_NEVER = 1e-9  # a share below this is rounding


class Batch(NamedTuple):
    """What a batch's items have around them.

    Attributes:
        items: [B] int32.
        used: [B] bool; others only fill the batch.
        similarities: [B, N] to all items.
        around: [B, M + 1] int32, each item itself, then its nearest ones in descending order.
        around_similarities: [B, M + 1, M + 1], between those.
        connected: [B, M + 1, M + 1] bool, mutual neighbours among those, and similar enough.
        min_similarity: scalar.
    """

    items: jax.Array
    used: jax.Array
    similarities: jax.Array
    around: jax.Array
    around_similarities: jax.Array
    connected: jax.Array
    min_similarity: jax.Array


def _min_similarity(similarities, options: Options):
    if options.min_similarity is not None:
        return jnp.float32(options.min_similarity)
    if options.num_similar:
        return similarity_bounds.similarity_of_nearest(similarities, options.num_similar)
    bound = similarity_bounds.chance_similarity(similarities)
    if options.k >= similarities.shape[1] - 1:
        return bound
    # Of features with few directions the bulk is so wide that chance would end above every cosine there is.
    return jnp.minimum(bound, similarity_bounds.similarity_of_nearest(similarities, options.k))


def look_around(features, indices, options: Options) -> Batch:
    """Finds what the batch's items have around them.

    Args:
        features: [N, D] float32, L2-normalised.
        indices: [B] integer; negative: none. An item given twice counts twice in the estimate of min_similarity.
        options: `Options`.
    """
    used = indices >= 0
    items = jnp.where(used, indices, 0).astype(jnp.int32)
    similarities = jnp.matmul(features[items], features.T, precision=jax.lax.Precision.HIGHEST)
    others = similarities.at[jnp.arange(len(items)), items].set(-jnp.inf)
    nearest = jax.lax.top_k(others, min(options.num_neighbors, len(features) - 1))[1]
    min_similarity = _min_similarity(jnp.where(used[:, None] & (others > -jnp.inf), others, jnp.nan), options)
    around = jnp.concatenate([items[:, None], nearest], axis=1)
    near = jax.vmap(lambda units: _unit_similarities(features, units, options))(around)
    connected = jax.vmap(partial(propagation.mutual_neighbors, k=options.k))(near) & (near > min_similarity)
    return Batch(items, used, similarities, around, near, connected, min_similarity)


def place(labels, batch: Batch, options: Options):
    """Gives every item of the batch all labels of the item it joins, or labels of its own.

    The labels taken are those from before the batch: two items that choose each other exchange theirs.

    Args:
        labels: [H, N] int32.
        batch: from `look_around`.
        options: `Options`.

    Returns:
        [H, N] int32.
    """
    num_items = labels.shape[1]
    if options.placement == "nearest":
        joined, joins = batch.around[:, 1], jnp.ones(len(batch.items), bool)
    elif options.criterion == "average_linkage":
        joined, joins = batch.around[:, 1], batch.around_similarities[:, 0, 1] > batch.min_similarity
    else:
        shares = jax.vmap(partial(_own_shares, options=options))(batch.connected, batch.around_similarities)
        best = 1 + jnp.argmax(shares[:, 1:], axis=1, keepdims=True)
        joined = jnp.take_along_axis(batch.around, best, axis=1)[:, 0]
        joins = jnp.take_along_axis(shares, best, axis=1)[:, 0] > options.threshold
    # N + item is a label that no other item has.
    placed = jnp.where(joins, labels[:, joined], num_items + batch.items)
    labels = labels.at[:, jnp.where(batch.used, batch.items, num_items)].set(placed, mode="drop")
    return jax.vmap(_renamed)(labels)


def split(labels, units, means, batch: Batch, key, options: Options):
    """Splits the clusters that hold items of the batch, a cluster only once, and returns the new labels [N].

    Args:
        labels: [N] int32, of this level.
        units: [N] int32, labels of the level below.
        means: [N, D] float32, the units' mean features by label.
        batch: from `look_around`; of a cluster's items in it the first counts: its similarities order the units.
        key: jax PRNG key for random anchors, or None.
        options: `Options`.
    """
    num_items, batch_size = len(labels), len(batch.items)
    is_unit = units == jnp.arange(num_items)  # a unit's label is an item of it, by which it is found
    own = labels[batch.items]
    again = jnp.any((own[:, None] == own) & batch.used & jnp.tri(batch_size, k=-1, dtype=bool), axis=1)
    num_own, num_units_of_own = (
        jnp.zeros(num_items, jnp.int32).at[labels].add(counted)[own] for counted in (1, is_unit.astype(jnp.int32))
    )
    active = batch.used & ~again & (num_own > options.min_split_size) & (num_units_of_own > 1)
    num_units_of_own = jnp.where(active, num_units_of_own, 0)
    order = jnp.argsort(-num_units_of_own, stable=True)

    def parts_of(position, num_units):
        """Returns a cluster's units, the anchor each follows, and whether it is split."""
        inside = (labels == own[position]) & is_unit
        nearness, members = jax.lax.top_k(jnp.where(inside, batch.similarities[position], -jnp.inf), num_units)
        valid = nearness > -jnp.inf
        similarities = _unit_similarities(means, members, options)
        affinity = _affinity(_connected(similarities, valid, batch, options), similarities, options)
        anchor_key = None if key is None else jax.random.fold_in(key, batch.items[position])
        anchors, is_anchor = _anchors(similarities, affinity, valid, anchor_key, options)
        nearest_anchor = _best(similarities[:, anchors], is_anchor)
        if options.criterion == "propagation":
            one_hot = jax.nn.one_hot(anchors, num_units, axis=0) * is_anchor
            shares = _propagate(affinity, one_hot, options.alpha_split, options)
            reached = jnp.max(shares, axis=1) > _NEVER
            nearest_anchor = jnp.where(reached, _best(shares, is_anchor), nearest_anchor)
        is_split = active[position] & (jnp.sum(is_anchor) > 1)
        # A part is called after its anchor: an item of this cluster, and of no other part.
        names = members[anchors]
        rest = inside & is_split & (jnp.sum(inside) > num_units)
        rest = rest.at[members].set(False)
        return jnp.where(valid & is_split, members, num_items), names[nearest_anchor], names, is_anchor, rest

    def split_positions(positions, names, num_units):
        members, found, anchors, is_anchor, rest = jax.vmap(partial(parts_of, num_units=num_units))(positions)
        names = names.at[members].set(found, mode="drop")
        return jax.lax.cond(
            jnp.any(rest), lambda: _with_rest(names, means, anchors, is_anchor, rest, options), lambda: names
        )

    def split_chunk(index, names):
        positions = jax.lax.dynamic_slice_in_dim(order, index * _CHUNK, _CHUNK)
        most = num_units_of_own[positions[0]]  # the order is by the number of units
        kind = jnp.sum(most > jnp.array(sizes[:-1]), dtype=jnp.int32)
        return jax.lax.switch(kind, [partial(split_positions, num_units=size) for size in sizes], positions, names)

    sizes = [min(size, num_items) for size in _graph_sizes(options)]
    order = jnp.pad(order, (0, -batch_size % _CHUNK), constant_values=order[-1])
    num_chunks = (jnp.sum(active) + _CHUNK - 1) // _CHUNK
    names = jax.lax.fori_loop(0, num_chunks, split_chunk, labels)  # by unit
    return _renamed(names[units])


def _graph_sizes(options: Options) -> list[int]:
    """Returns the numbers of units that are compiled for: most clusters have few."""
    return sorted({max(options.max_units // part, options.max_anchors) for part in (4, 1)})


def _with_rest(names, means, anchors, is_anchor, rest, options: Options):
    """Names the units that were too many to propagate, [chunk, N] bool, after their most similar anchors."""
    everything = means if options.criterion == "average_linkage" else l2_normalize(means)
    chosen = everything[anchors]  # [chunk, K, D]
    similarities = jnp.einsum("nd,ckd->cnk", everything, chosen, precision=jax.lax.Precision.HIGHEST)
    best = _best(similarities, is_anchor[:, None])
    for cluster in range(len(anchors)):
        names = jnp.where(rest[cluster], anchors[cluster][best[cluster]], names)
    return names


def merge(labels, border, means, batch: Batch, options: Options):
    """Unites the clusters of the batch's items with others around them and returns the new labels [N].

    Args:
        labels: [N] int32, of this level.
        border: [N] int32, labels of the level above: only clusters inside one of its clusters unite.
        means: [N, D] float32, the clusters' mean features by label.
        batch: from `look_around`.
        options: `Options`.
    """

    def united_with(around, connected, used):
        """Returns [M + 1] bool: whose clusters the first one's unites with."""
        clusters = labels[around]
        # A cluster is represented by the item nearest to the batch's, its first one here.
        is_first = ~jnp.any((clusters[:, None] == clusters) & jnp.tri(len(around), k=-1, dtype=bool), axis=1)
        valid = is_first & (border[around] == border[around[0]]) & used
        between = _unit_similarities(means, clusters, options)
        if options.criterion == "average_linkage":
            unites = (between[0] > batch.min_similarity) & valid
        else:
            if options.connected_by == "centers":
                connected = _connected(between, valid, batch, options)
            connected = connected & valid[:, None] & valid
            unites = (_own_shares(connected, between, options=options) > options.threshold) & valid
        nearest = clusters == clusters[1]
        allowed = jnp.any(unites & nearest) | nearest[0]
        return unites & allowed if options.guarded else unites

    unites = jax.vmap(united_with)(batch.around, batch.connected, batch.used)
    own = jnp.broadcast_to(labels[batch.items][:, None], unites.shape)
    return _united(labels, own, jnp.where(unites, labels[batch.around], own))


def _united(labels, first, second):
    """Unites clusters `first` with `second`, label arrays of one shape, transitively; the lowest label stays."""

    def spread(carry):
        roots, _ = carry
        lowest = jnp.minimum(roots[first], roots[second])
        lower = roots.at[first].min(lowest).at[second].min(lowest)
        return lower, jnp.any(lower != roots)

    roots = jnp.arange(len(labels), dtype=labels.dtype)
    return jax.lax.while_loop(lambda carry: carry[1], spread, (roots, jnp.bool_(True)))[0][labels]


def _connected(similarities, valid, batch: Batch, options: Options):
    return propagation.mutual_neighbors(similarities, k=options.k, valid=valid) & (similarities > batch.min_similarity)


def _affinity(connected, similarities, options: Options):
    if options.weights == "gaussian":
        weights = jnp.exp(2 * similarities - 2)  # |u - v|^2 = 2 - 2 <u, v>
    else:
        weights = jnp.maximum(similarities, 0)
    return jnp.where(connected, weights, 0)


def _own_shares(connected, similarities, *, options: Options):
    """Returns [n]: how much of the first unit reaches each."""
    affinity = _affinity(connected, similarities, options)
    first = jnp.zeros((len(affinity), 1)).at[0].set(1)
    return _propagate(affinity, first, options.alpha_merge, options)[:, 0]


def _propagate(affinity, initial_labels, alpha, options: Options):
    normalized = propagation.normalize_affinity(affinity, self_loop=options.self_loop)
    return propagation.propagate_labels(normalized, initial_labels, alpha=alpha)


def _anchors(similarities, affinity, valid, key, options: Options):
    """Returns [K] indices of units, and [K] bool: which of them are anchors."""
    num_anchors = min(options.max_anchors, len(valid))
    density = jnp.where(valid, jnp.sum(affinity, axis=1), -1)
    prominence, nearest = propagation.peak_prominence(similarities, density, valid=valid)
    low, high = options.peak_similarity
    is_peak = valid & ((prominence == jnp.inf) | ((nearest >= low) & (nearest < high)))
    prominence, anchors = jax.lax.top_k(jnp.where(is_peak, prominence, -jnp.inf), num_anchors)
    is_anchor = prominence > -jnp.inf
    if options.anchors == "farthest_points":
        farthest, is_found = propagation.farthest_points(
            similarities, num_anchors=num_anchors, start=anchors[0], valid=valid
        )
        return farthest, is_found & is_anchor
    if options.anchors == "random":
        drawn = jnp.where(valid, jax.random.uniform(key, valid.shape), -jnp.inf)
        return jax.lax.top_k(drawn, num_anchors)[1], is_anchor
    return anchors, is_anchor


def _best(scores, is_anchor):
    return jnp.argmax(jnp.where(is_anchor, scores, -jnp.inf), axis=-1)


def _unit_similarities(means, units, options: Options):
    """Returns the cosines [n, n] between the means of units [n]; for average linkage the mean cosines of their items."""
    rows = means[units]
    if options.criterion == "propagation":
        rows = l2_normalize(rows)
    products = jnp.matmul(rows, rows.T, precision=jax.lax.Precision.HIGHEST)
    # Exactly symmetric: two units that are only each other's neighbours must have the same density.
    return (products + products.T) / 2


def _renamed(labels):
    """Returns the labels [N], of values below 2 N, with each cluster called after its lowest item."""
    order = jnp.arange(len(labels), dtype=jnp.int32)
    return jnp.full(2 * len(labels), len(labels), jnp.int32).at[labels].min(order)[labels]
