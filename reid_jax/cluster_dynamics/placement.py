"""The first step of an update: each item joins its most likely neighbour, or becomes a singleton (HCD, section 4.2)."""

from functools import partial

import jax
import jax.numpy as jnp

from reid_jax.cluster_dynamics.choices import Options
from reid_jax.cluster_dynamics.label_names import relabel_by_lowest_item
from reid_jax.cluster_dynamics.neighborhood import Batch
from reid_jax.cluster_dynamics.unit_graphs import propagate_from_first


def place(labels: jax.Array, batch: Batch, options: Options) -> jax.Array:
    """Gives every item of the batch all labels of the item it joins, or labels of its own.

    The labels taken are those from before the batch: two items that choose each other exchange theirs.

    Args:
        labels: [H, N] int32.
        batch: from `find_neighborhoods`.
        options: `Options`.

    Returns:
        [H, N] int32.
    """
    num_items = labels.shape[1]
    joined, joins = _joined(batch, options)
    # N + item is a label that no other item has.
    placed = jnp.where(joins, labels[:, joined], num_items + batch.items)
    labels = labels.at[:, jnp.where(batch.is_valid, batch.items, num_items)].set(placed, mode="drop")
    return jax.vmap(relabel_by_lowest_item)(labels)


def _joined(batch: Batch, options: Options):
    """Returns [B] int32 and [B] bool: the item that each would join, and whether it does."""
    if options.placement == "nearest":
        return batch.neighbors[:, 1], jnp.ones(len(batch.items), bool)
    if options.criterion == "average_linkage":
        return batch.neighbors[:, 1], batch.neighbor_similarities[:, 0, 1] > batch.min_similarity
    shares = jax.vmap(partial(propagate_from_first, options=options))(batch.connected, batch.neighbor_similarities)
    best = 1 + jnp.argmax(shares[:, 1:], axis=1, keepdims=True)
    joined = jnp.take_along_axis(batch.neighbors, best, axis=1)[:, 0]
    return joined, jnp.take_along_axis(shares, best, axis=1)[:, 0] > options.threshold
