"""Embeddings: the tuple that a model returns, and L2-normalisation, for arrays and, with a gradient at 0, for losses."""

from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

EPSILON = 1e-12  # the least norm that is divided by
T = TypeVar("T")


class Features(NamedTuple):
    """What a model makes of a batch of images, or of N samples.

    Attributes:
        embeddings: [B, D] float32, the pooled feature; not normalised unless said so.
        stripes: [B, S, D] float32, one pooled feature per horizontal stripe, or None without stripes.
    """

    embeddings: jax.Array | np.ndarray
    stripes: jax.Array | np.ndarray | None = None


def l2_normalize(vectors: T) -> T:
    """Divides every vector by its norm; vectors of norm 0 stay.

    Args:
        vectors: an array [..., D] float of NumPy or JAX, or a pytree of such, as `Features`.

    Returns:
        The same structure; NumPy arrays stay NumPy arrays.
    """
    return jax.tree.map(_divide_by_norm, vectors)


def _divide_by_norm(vectors):
    xp = jnp if isinstance(vectors, jax.Array) else np
    return vectors / xp.maximum(xp.linalg.norm(vectors, axis=-1, keepdims=True), EPSILON)


def unit_vectors(embeddings: jax.Array) -> jax.Array:
    """Brings embeddings [B, D] to norm 1 in a loss: the gradient is finite at 0, which that of `l2_normalize` is not."""
    return embeddings * jax.lax.rsqrt(jnp.sum(jnp.square(embeddings), axis=1, keepdims=True) + EPSILON)
