"""Clusters that hold items of a batch are united with clusters near by, inside the cluster above (HCD, section 4.2)."""

from functools import partial

import jax
import jax.numpy as jnp

from reid_jax.cluster_dynamics.choices import Options
from reid_jax.cluster_dynamics.label_names import merge_labels
from reid_jax.cluster_dynamics.neighborhood import Batch
from reid_jax.cluster_dynamics.unit_graphs import connections, propagate_from_first, unit_similarities


def merge(labels: jax.Array, border: jax.Array, means: jax.Array, batch: Batch, options: Options) -> jax.Array:
    """Unites the clusters of the batch's items with others around them and returns the new labels [N].

    Args:
        labels: [N] int32, of this level.
        border: [N] int32, labels of the level above: only clusters inside one of its clusters unite.
        means: [N, D] float32, the clusters' mean features by label.
        batch: from `find_neighborhoods`.
        options: `Options`.
    """
    of_level = {"labels": labels, "border": border, "means": means, "min_similarity": batch.min_similarity}
    unites = jax.vmap(partial(_unites, **of_level, options=options))(batch.neighbors, batch.connected, batch.is_valid)
    own = jnp.broadcast_to(labels[batch.items][:, None], unites.shape)
    return merge_labels(labels, own, jnp.where(unites, labels[batch.neighbors], own))


def _unites(neighbors, connected, is_valid, *, labels, border, means, min_similarity, options: Options):
    """Returns [M + 1] bool: whose clusters the first item's unites with.

    Args:
        neighbors: [M + 1] int32, an item of the batch, then its nearest ones.
        connected: [M + 1, M + 1] bool, between those.
        is_valid: scalar bool, whether there is such an item.
        labels: [N] int32, as in `merge`.
        border: [N] int32, likewise.
        means: [N, D] float32, likewise.
        min_similarity: scalar.
        options: `Options`.
    """
    clusters = labels[neighbors]
    # A cluster is represented by the item nearest to the batch's, its first one here.
    is_first = ~jnp.any((clusters[:, None] == clusters) & jnp.tri(len(neighbors), k=-1, dtype=bool), axis=1)
    valid = is_first & (border[neighbors] == border[neighbors[0]]) & is_valid
    between = unit_similarities(means, clusters, options)
    if options.criterion == "average_linkage":
        unites = (between[0] > min_similarity) & valid
    else:
        if options.connected_by == "centers":
            connected = connections(between, valid, min_similarity, options)
        connected = connected & valid[:, None] & valid
        unites = (propagate_from_first(connected, between, options) > options.threshold) & valid
    nearest = clusters == clusters[1]
    allowed = jnp.any(unites & nearest) | nearest[0]
    return unites & allowed if options.guarded else unites
