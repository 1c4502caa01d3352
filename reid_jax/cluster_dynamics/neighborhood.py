"""The nearest neighbours of a batch's items, computed once per batch and shared by placement, split and merge."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from reid_jax.cluster_dynamics import similarity_bounds
from reid_jax.cluster_dynamics.choices import Options
from reid_jax.cluster_dynamics.unit_graphs import connections, unit_similarities


class Batch(NamedTuple):
    """A batch's items and their nearest neighbours.

    Attributes:
        items: [B] int32.
        is_valid: [B] bool; others only fill the batch.
        similarities: [B, N] to all items.
        neighbors: [B, M + 1] int32, each item itself, then its nearest ones in descending order.
        neighbor_similarities: [B, M + 1, M + 1], between those.
        connected: [B, M + 1, M + 1] bool, mutual neighbours among those, and similar enough.
        min_similarity: scalar.
    """

    items: jax.Array
    is_valid: jax.Array
    similarities: jax.Array
    neighbors: jax.Array
    neighbor_similarities: jax.Array
    connected: jax.Array
    min_similarity: jax.Array


def find_neighborhoods(
    features: jax.Array, indices: jax.Array, options: Options, num_similar: jax.Array | None = None
) -> Batch:
    """Finds the nearest neighbours of a batch's items, and which of them are connected.

    Args:
        features: [N, D] float32, L2-normalised.
        indices: [B] integer; negative: none. An item given twice counts twice in the estimate of min_similarity.
        options: `Options`.
        num_similar: in place of theirs, scalar float32; None: theirs.
    """
    is_valid = indices >= 0
    items = jnp.where(is_valid, indices, 0).astype(jnp.int32)
    similarities = jnp.matmul(features[items], features.T, precision=jax.lax.Precision.HIGHEST)
    others = similarities.at[jnp.arange(len(items)), items].set(-jnp.inf)
    nearest = jax.lax.top_k(others, min(options.num_neighbors, len(features) - 1))[1]
    counted = jnp.where(is_valid[:, None] & (others > -jnp.inf), others, jnp.nan)
    min_similarity = _min_similarity(counted, options, num_similar)
    neighbors = jnp.concatenate([items[:, None], nearest], axis=1)
    near = jax.vmap(lambda units: unit_similarities(features, units, options))(neighbors)
    connected = jax.vmap(partial(connections, valid=None, min_similarity=min_similarity, options=options))(near)
    return Batch(items, is_valid, similarities, neighbors, near, connected, min_similarity)


def _min_similarity(similarities, options: Options, num_similar: jax.Array | None):
    """Returns the cosine that connected items exceed; similarities [B, N], nan where they do not count."""
    if num_similar is not None:
        return similarity_bounds.similarity_of_nearest(similarities, num_similar)
    if options.min_similarity is not None:
        return jnp.float32(options.min_similarity)
    if options.num_similar:
        return similarity_bounds.similarity_of_nearest(similarities, options.num_similar)
    bound = similarity_bounds.chance_similarity(similarities)
    if options.k >= similarities.shape[1] - 1:
        return bound
    # Of features with few directions the bulk is so wide that chance would end above every cosine there is.
    return jnp.minimum(bound, similarity_bounds.similarity_of_nearest(similarities, options.k))
