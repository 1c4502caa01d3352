"""The hierarchical label bank: online pseudo labels by splitting and merging clusters (HCD, section 4).

Labels are updated for one batch of items at a time. Every item of the batch first joins the item it most likely
belongs with, or stands alone; then, from the lowest level to the highest, the clusters that hold items of the batch are
split into their units (the clusters of the level below) where these fall apart, and united with clusters near by where
label propagation connects them. All items of a batch work on what the step before left, so that their order does not
matter: they are placed together, a cluster that holds several of them is split once, and what they would unite is
united transitively.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from reid_jax import memory, propagation

CRITERIA = ("propagation", "average_linkage")
PLACEMENTS = ("propagation", "nearest")
WEIGHTS = ("gaussian", "cosine")
ANCHORS = ("density_peaks", "farthest_points", "random")
_CHUNK = 8  # clusters that are split at a time
_SAMPLED = 1024  # columns of the similarities that their distribution is read from
_NOISE_SIGMAS = 3.0
_IQR_OF_NORMAL = 1.349  # in standard deviations
_NEVER = 1e-9  # a share below this is rounding
_EPSILON = 1e-12


class LabelBank(NamedTuple):
    """The labels of every item at every level.

    Attributes:
        labels: [H, N] int32, lowest level first. A cluster's label is the lowest index of its items, so labels are
            distinct within a level and have gaps. Items of one cluster are of one cluster at all levels above, too
            (the cluster preserve property, `preserves_clusters`).
    """

    labels: jax.Array


class Options(NamedTuple):
    """How labels are updated; all static. The defaults are those of the public reference code, mended.

    Attributes:
        num_neighbors: the items nearest to an item, among which it is placed and whose clusters its own may unite
            with. Less than N.
        k: mutual nearest neighbours of eq. (3).
        alpha_merge: of the propagation that places and unites.
        alpha_split: of the propagation that splits.
        threshold: sigma: what a share must exceed for an item to join another, or clusters to unite.
        min_similarity: below this cosine there is no affinity. None: where chance ends, `chance_similarity` of the
            features at hand.
        weights: of pairs with affinity: "gaussian", exp(-|u - v|^2), or "cosine" as in eq. (3).
        self_loop: added to each unit's degree; see `propagation.normalize_affinity`.
        placement: an item joins the one with the greatest share of it if that exceeds the threshold, and else stands
            alone ("propagation"), or its nearest one in any case ("nearest").
        guarded: clusters unite only where the nearest neighbour's cluster is among them.
        split: whether clusters are ever split.
        min_split_size: clusters of this many items or fewer are not split.
        anchors: which units a split starts from: "density_peaks", or as many "farthest_points" or "random" ones.
        max_anchors: K, at most.
        peak_similarity: a unit is a density peak if its cosine to the nearest denser unit is between these; of more
            than K peaks those with the greatest density x distance count. The reference code's lower bound is 0.4,
            with which identities that are far apart but in one cluster are never split.
        max_units: of a cluster's units, how many propagate; others, in a cluster that has more, follow the anchor
            they are the most similar to.
        criterion: "propagation", or "average_linkage" to do without: clusters unite whose items are more similar
            than min_similarity on average, and units go to the anchor with the greatest average similarity.
    """

    num_neighbors: int = 64
    k: int = 30
    alpha_merge: float = 0.99
    alpha_split: float = 0.99
    threshold: float = 0.25
    min_similarity: float | None = None
    weights: str = "gaussian"
    self_loop: float = 1.0
    placement: str = "propagation"
    guarded: bool = True
    split: bool = True
    min_split_size: int = 4
    anchors: str = "density_peaks"
    max_anchors: int = 8
    peak_similarity: tuple[float, float] = (-1.0, 0.8)
    max_units: int = 128
    criterion: str = "propagation"


# What differs from the defaults where the paper is read to the letter (eq. 3, section 4.2).
PAPER_READING = {
    "min_similarity": -1.0,
    "weights": "cosine",
    "self_loop": 0.0,
    "placement": "nearest",
    "guarded": False,
    "peak_similarity": (-1.0, 2.0),  # every unit may be one
}


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
    pseudo_labels = np.asarray(pseudo_labels)
    _, firsts, groups = np.unique(pseudo_labels, return_index=True, return_inverse=True)
    labels = np.where(pseudo_labels < 0, np.arange(len(pseudo_labels)), firsts[groups])
    return LabelBank(jnp.broadcast_to(jnp.asarray(labels, jnp.int32), bank.labels.shape))


def preserves_clusters(bank: LabelBank) -> bool:
    """Returns whether the items of every cluster share a cluster at the level above (HCD, section 4.1)."""
    labels = np.asarray(bank.labels, np.int64)
    pairs = zip(labels[:-1], labels[1:])
    return all(len(np.unique(low * len(low) + high)) == len(np.unique(low)) for low, high in pairs)


def update_label_bank(
    bank: LabelBank, features: jax.Array, indices: jax.Array, *, key: jax.Array | None = None, **options
) -> LabelBank:
    """Updates the labels for one batch of items, at every level (HCD, section 4.2).

    Args:
        bank: the labels before.
        features: [N, D] float, L2-normalised; better centred, as a batch-norm neck leaves them: of features that are
            all >= 0 everything is similar to everything.
        indices: [B] integer, 0..N-1, the batch's items; negative: none.
        key: jax PRNG key; only needed with anchors="random".
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
    return LabelBank(_update(bank.labels, features.astype(jnp.float32), indices, key, options=chosen))


def chance_similarity(similarities: jax.Array) -> jax.Array:
    """Estimates the cosine that items of different identities hardly ever exceed, without labels.

    Nearly all pairs are of different identities, so the middle half of the distribution is theirs: the median and
    the interquartile range give the normal distribution that it would be by chance, and its mean + 3 sigma is the bound.

    Args:
        similarities: [B, N] float, of some items to all; nan: not to be counted.

    Returns:
        Scalar float32.
    """
    stride = -(-similarities.shape[1] // _SAMPLED)
    low, median, high = jnp.nanpercentile(similarities[:, ::stride], jnp.array([25.0, 50.0, 75.0]))
    return median + _NOISE_SIGMAS * (high - low) / _IQR_OF_NORMAL


class _Batch(NamedTuple):
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


@partial(jax.jit, static_argnames="options")
def _update(labels, features, indices, key, *, options: Options):
    batch = _look_around(features, indices, options)
    labels = _place(labels, batch, options)
    num_levels, num_items = labels.shape

    def update_level(level, carry):
        labels, units, means = carry
        own = labels[level]
        if options.split:
            split_key = None if key is None else jax.random.fold_in(key, level)
            own = _split(own, units, means, batch, split_key, options)
        # The level above is the border; above the top one there is none.
        border = jnp.where(level + 1 < num_levels, labels[jnp.minimum(level + 1, num_levels - 1)], 0)
        own = _merge(own, border, memory.class_means(features, own)[0], batch, options)
        return labels.at[level].set(own), own, memory.class_means(features, own)[0]

    samples = jnp.arange(num_items, dtype=labels.dtype), features  # level 0
    return jax.lax.fori_loop(0, num_levels, update_level, (labels, *samples))[0]


def _look_around(features, indices, options: Options) -> _Batch:
    used = indices >= 0
    items = jnp.where(used, indices, 0).astype(jnp.int32)
    similarities = jnp.matmul(features[items], features.T, precision=jax.lax.Precision.HIGHEST)
    min_similarity = options.min_similarity
    if min_similarity is None:
        min_similarity = chance_similarity(jnp.where(used[:, None], similarities, jnp.nan))
    others = similarities.at[jnp.arange(len(items)), items].set(-jnp.inf)
    nearest = jax.lax.top_k(others, options.num_neighbors)[1]
    around = jnp.concatenate([items[:, None], nearest], axis=1)
    near = jax.vmap(lambda units: _unit_similarities(features, units, options))(around)
    connected = jax.vmap(partial(propagation.mutual_neighbors, k=options.k))(near) & (near > min_similarity)
    return _Batch(items, used, similarities, around, near, connected, min_similarity)


def _place(labels, batch: _Batch, options: Options):
    """Gives every item of the batch all labels of the item it joins, or labels of its own."""
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


def _split(labels, units, means, batch: _Batch, key, options: Options):
    """Splits the clusters that hold items of the batch, a cluster only once, and returns the new labels [N].

    Args:
        labels: [N] of this level.
        units: [N], labels of the level below.
        means: [N, D], the units' mean features by label.
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

    def parts_of(place, num_units):
        """Returns a cluster's units, the anchor each follows, and whether it is split."""
        inside = (labels == own[place]) & is_unit
        nearness, members = jax.lax.top_k(jnp.where(inside, batch.similarities[place], -jnp.inf), num_units)
        valid = nearness > -jnp.inf
        similarities = _unit_similarities(means, members, options)
        affinity = _affinity(_connected(similarities, valid, batch, options), similarities, options)
        anchor_key = None if key is None else jax.random.fold_in(key, batch.items[place])
        anchors, is_anchor = _anchors(similarities, affinity, valid, anchor_key, options)
        nearest_anchor = _best(similarities[:, anchors], is_anchor)
        if options.criterion == "propagation":
            one_hot = jax.nn.one_hot(anchors, num_units, axis=0) * is_anchor
            shares = _propagate(affinity, one_hot, options.alpha_split, options)
            reached = jnp.max(shares, axis=1) > _NEVER
            nearest_anchor = jnp.where(reached, _best(shares, is_anchor), nearest_anchor)
        is_split = active[place] & (jnp.sum(is_anchor) > 1)
        # A part is called after its anchor: an item of this cluster, and of no other part.
        names = members[anchors]
        rest = inside & is_split & (jnp.sum(inside) > num_units)
        rest = rest.at[members].set(False)
        return jnp.where(valid & is_split, members, num_items), names[nearest_anchor], names, is_anchor, rest

    def split_places(places, names, num_units):
        members, found, anchors, is_anchor, rest = jax.vmap(partial(parts_of, num_units=num_units))(places)
        names = names.at[members].set(found, mode="drop")
        return jax.lax.cond(
            jnp.any(rest), lambda: _with_rest(names, means, anchors, is_anchor, rest, options), lambda: names
        )

    def split_chunk(index, names):
        places = jax.lax.dynamic_slice_in_dim(order, index * _CHUNK, _CHUNK)
        most = num_units_of_own[places[0]]  # the order is by the number of units
        kind = jnp.sum(most > jnp.array(sizes[:-1]), dtype=jnp.int32)
        return jax.lax.switch(kind, [partial(split_places, num_units=size) for size in sizes], places, names)

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
    everything = means if options.criterion == "average_linkage" else _normalized(means)
    chosen = everything[anchors]  # [chunk, K, D]
    similarities = jnp.einsum("nd,ckd->cnk", everything, chosen, precision=jax.lax.Precision.HIGHEST)
    best = _best(similarities, is_anchor[:, None])
    for cluster in range(len(anchors)):
        names = jnp.where(rest[cluster], anchors[cluster][best[cluster]], names)
    return names


def _merge(labels, border, means, batch: _Batch, options: Options):
    """Unites the clusters of the batch's items with others around them and returns the new labels [N].

    Args:
        labels: [N] of this level.
        border: [N], labels of the level above: only clusters inside one of its clusters unite.
        means: [N, D], the clusters' mean features by label.
    """

    def united_with(around, similarities, connected, used):
        """Returns [M + 1] bool: whose clusters the first one's unites with."""
        clusters = labels[around]
        # A cluster is represented by the item nearest to the batch's, its first one here.
        is_first = ~jnp.any((clusters[:, None] == clusters) & jnp.tri(len(around), k=-1, dtype=bool), axis=1)
        valid = is_first & (border[around] == border[around[0]]) & used
        between = _unit_similarities(means, clusters, options)
        if options.criterion == "average_linkage":
            unites = (between[0] > batch.min_similarity) & valid
        else:
            connected = connected & valid[:, None] & valid
            unites = (_own_shares(connected, between, options=options) > options.threshold) & valid
        nearest = clusters == clusters[1]
        allowed = jnp.any(unites & nearest) | nearest[0]
        return unites & allowed if options.guarded else unites

    unites = jax.vmap(united_with)(batch.around, batch.around_similarities, batch.connected, batch.used)
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


def _connected(similarities, valid, batch: _Batch, options: Options):
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
    is_denser = propagation.denser(density) & valid
    nearest = jnp.max(jnp.where(is_denser, similarities, -jnp.inf), axis=1)
    densest = valid & ~jnp.any(is_denser, axis=1)
    prominence = jnp.where(densest, jnp.inf, density * jnp.sqrt(jnp.maximum(2 - 2 * nearest, 0)))
    low, high = options.peak_similarity
    is_peak = densest | (valid & (nearest >= low) & (nearest < high))
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


def _normalized(rows):
    return rows / jnp.maximum(jnp.linalg.norm(rows, axis=-1, keepdims=True), _EPSILON)


def _unit_similarities(means, units, options: Options):
    """Returns the cosines [n, n] between the means of units [n]; for average linkage the mean cosines of their items."""
    rows = means[units]
    if options.criterion == "propagation":
        rows = _normalized(rows)
    products = jnp.matmul(rows, rows.T, precision=jax.lax.Precision.HIGHEST)
    # Exactly symmetric: two units that are only each other's neighbours must have the same density.
    return (products + products.T) / 2


def _renamed(labels):
    """Returns the labels [N], of values below 2 N, with each cluster called after its lowest item."""
    order = jnp.arange(len(labels), dtype=jnp.int32)
    return jnp.full(2 * len(labels), len(labels), jnp.int32).at[labels].min(order)[labels]


def check_options(options: Options, num_items: int) -> None:
    """Checks the options of an update for N items.

    Raises:
        ValueError: one is out of its range.
    """
    for name, choices in (
        ("criterion", CRITERIA),
        ("placement", PLACEMENTS),
        ("weights", WEIGHTS),
        ("anchors", ANCHORS),
    ):
        if getattr(options, name) not in choices:
            raise ValueError(f"{name} must be one of {choices}, got {getattr(options, name)!r}")
    if not 1 <= options.num_neighbors < num_items:
        raise ValueError(f"num_neighbors must be in 1..{num_items - 1}, got {options.num_neighbors}")
    for name, low in (("k", 1), ("max_anchors", 2), ("max_units", 2), ("min_split_size", 1)):
        if getattr(options, name) < low:
            raise ValueError(f"{name} must be at least {low}, got {getattr(options, name)}")
    for name in ("alpha_merge", "alpha_split"):
        if not 0 <= getattr(options, name) < 1:
            raise ValueError(f"{name} must be at least 0 and less than 1, got {getattr(options, name)}")
    if options.self_loop < 0:
        raise ValueError(f"self_loop must be at least 0, got {options.self_loop}")
    if len(options.peak_similarity) != 2:
        raise ValueError(f"peak_similarity must be (low, high), got {options.peak_similarity}")
