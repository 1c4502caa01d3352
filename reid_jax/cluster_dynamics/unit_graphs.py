"""Graphs of a few units (items or clusters): similarities, edges, label propagation."""

import jax
import jax.numpy as jnp

from reid_jax import propagation
from reid_jax.cluster_dynamics.choices import Options
from reid_jax.embeddings import l2_normalize


def unit_similarities(means: jax.Array, units: jax.Array, options: Options) -> jax.Array:
    """Computes the cosines between the means of units; for average linkage the mean cosines of their items.

    Args:
        means: [N, D] float32, mean features by label.
        units: [n] int32, labels.
        options: `Options`.

    Returns:
        [n, n] float32, symmetric.
    """
    rows = means[units]
    if options.criterion == "propagation":
        rows = l2_normalize(rows)
    products = jnp.matmul(rows, rows.T, precision=jax.lax.Precision.HIGHEST)
    # Exactly symmetric: two units that are only each other's neighbours must have the same density.
    return (products + products.T) / 2


def connections(similarities: jax.Array, valid: jax.Array | None, min_similarity: jax.Array, options: Options):
    """Returns [n, n] bool: the pairs of mutual neighbours that are similar enough.

    Args:
        similarities: [n, n] float32, symmetric.
        valid: [n] bool; others only fill the graph. None: all.
        min_similarity: scalar, which must be exceeded.
        options: `Options`.
    """
    return propagation.mutual_neighbors(similarities, k=options.k, valid=valid) & (similarities > min_similarity)


def affinity_of(connected: jax.Array, similarities: jax.Array, options: Options) -> jax.Array:
    """Returns the affinity [n, n] float32 of units, connected [n, n] bool; 0 where they are not."""
    if options.weights == "gaussian":
        weights = jnp.exp(2 * similarities - 2)  # the reference code: |u - v|^2 = 2 - 2 <u, v>
    else:
        weights = jnp.maximum(similarities, 0)  # HCD eq. (3)
    return jnp.where(connected, weights, 0)


def propagate(affinity: jax.Array, initial_labels: jax.Array, alpha: float, options: Options) -> jax.Array:
    """Returns [n, K] float32: how much of each of the initial labels [n, K] every unit gets (HCD eq. 2)."""
    normalized = propagation.normalize_affinity(affinity, self_loop=options.self_loop)
    return propagation.propagate_labels(normalized, initial_labels, alpha=alpha)


def propagate_from_first(connected: jax.Array, similarities: jax.Array, options: Options) -> jax.Array:
    """Returns [n] float32: how much of the first unit reaches each, connected [n, n] bool."""
    affinity = affinity_of(connected, similarities, options)
    first = jnp.zeros((len(affinity), 1)).at[0].set(1)
    return propagate(affinity, first, options.alpha_merge, options)[:, 0]
