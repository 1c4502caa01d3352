"""Labels of clusters: every cluster is labelled by the index of its lowest item."""

import jax
import jax.numpy as jnp


def relabel_by_lowest_item(labels: jax.Array) -> jax.Array:
    """Returns the labels with each cluster labelled by its lowest item.

    Args:
        labels: [N] int32, 0..2 N - 1.

    Returns:
        [N] int32, 0..N-1.
    """
    order = jnp.arange(len(labels), dtype=jnp.int32)
    return jnp.full(2 * len(labels), len(labels), jnp.int32).at[labels].min(order)[labels]


def merge_labels(labels: jax.Array, first: jax.Array, second: jax.Array) -> jax.Array:
    """Returns the labels with clusters `first` and `second` united, transitively; the lowest label stays.

    Args:
        labels: [N] int32, 0..N-1.
        first: [...] int32, labels of clusters.
        second: [...] int32, likewise; where it equals `first`, nothing is united.

    Returns:
        [N] int32.
    """

    def spread(carry):
        roots, _ = carry
        lowest = jnp.minimum(roots[first], roots[second])
        lower = roots.at[first].min(lowest).at[second].min(lowest)
        return lower, jnp.any(lower != roots)

    roots = jnp.arange(len(labels), dtype=labels.dtype)
    return jax.lax.while_loop(lambda carry: carry[1], spread, (roots, jnp.bool_(True)))[0][labels]
