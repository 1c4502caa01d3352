"""The units that the parts of a split cluster grow from: peaks of density, or as many others (HCD, section 4.2)."""

import jax
import jax.numpy as jnp

from reid_jax import propagation
from reid_jax.cluster_dynamics.choices import Options


def choose_anchors(similarities, affinity, valid, key, options: Options) -> tuple[jax.Array, jax.Array]:
    """Chooses a cluster's anchors.

    Args:
        similarities: [n, n] float32, between its units.
        affinity: [n, n] float32, likewise.
        valid: [n] bool; others only fill the graph.
        key: jax PRNG key for random anchors, or None.
        options: `Options`.

    Returns:
        [K] int32 indices of units, and [K] bool: which of them are anchors. However they are chosen, there are as
        many as there are peaks of density.
    """
    num_anchors = min(options.max_anchors, len(valid))
    peaks, is_peak = _density_peaks(similarities, affinity, valid, num_anchors, options)
    if options.anchors == "farthest_points":
        farthest, is_found = propagation.farthest_points(
            similarities, num_anchors=num_anchors, start=peaks[0], valid=valid
        )
        return farthest, is_found & is_peak
    if options.anchors == "random":
        drawn = jnp.where(valid, jax.random.uniform(key, valid.shape), -jnp.inf)
        return jax.lax.top_k(drawn, num_anchors)[1], is_peak
    return peaks, is_peak


def best_anchor(scores: jax.Array, is_anchor: jax.Array) -> jax.Array:
    """Returns [...] int: which of K anchors has the greatest score; scores [..., K], is_anchor [..., K] bool."""
    return jnp.argmax(jnp.where(is_anchor, scores, -jnp.inf), axis=-1)


def _density_peaks(similarities, affinity, valid, num_anchors: int, options: Options):
    density = jnp.where(valid, jnp.sum(affinity, axis=1), -1)
    prominence, nearest = propagation.peak_prominence(similarities, density, valid=valid)
    low, high = options.peak_similarity
    is_peak = valid & ((prominence == jnp.inf) | ((nearest >= low) & (nearest < high)))
    prominence, peaks = jax.lax.top_k(jnp.where(is_peak, prominence, -jnp.inf), num_anchors)
    return peaks, prominence > -jnp.inf
