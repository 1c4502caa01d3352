"""Whether a network knows an augmented copy of an image again: without a label it tells whether a model has collapsed.

The embeddings of N images are compared with those of one augmented copy of each, by cosine similarity and block after block
of copies, so that N x N similarities are never held.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from reid_jax.distances.blocks import by_row_blocks, is_self, some_rows
from reid_jax.distances.pairwise import check_arguments
from reid_jax.embeddings import l2_normalize


def recognition(
    embeddings: np.ndarray, augmented: np.ndarray, *, num_alike: int = 1, block_size: int = 1024
) -> tuple[float, float]:
    """Measures how often, and how nearly, the image most similar to an augmented copy is the one it was made of.

    An image as similar to the copy as its own comes before it, so that of embeddings that are all alike no copy is known
    again.

    Args:
        embeddings: [N, D] float, of the images; L2-normalised here.
        augmented: [N, D] float, of the copies, in the same order.
        num_alike: how many images may be meant, about: as many as there are of one person, which good embeddings do not
            tell apart. The own image counts as the first if it is among so many.
        block_size: copies at a time; block_size x N similarities are held. Static.

    Returns:
        (the share of copies whose own image is the first, the mean of 1 / its rank), each 0..1.

    Raises:
        ValueError: the arrays are not both [N, D] with N >= 2, a row is not finite, or a number is below 1.
    """
    if num_alike < 1:
        raise ValueError(f"num_alike must be at least 1, got {num_alike}")
    ranks = _ranks(*_checked(embeddings, augmented, block_size), block_size=block_size)
    ranks = np.maximum(1, np.asarray(ranks) - (num_alike - 1))
    return float((ranks == 1).mean()), float((1 / ranks).mean())


def _checked(embeddings, augmented, block_size) -> tuple[np.ndarray, np.ndarray]:
    """Returns both arrays L2-normalised, on the host."""
    images, copies = np.asarray(embeddings, np.float32), np.asarray(augmented, np.float32)
    if images.ndim != 2 or len(images) < 2 or copies.shape != images.shape:
        raise ValueError(
            f"embeddings and augmented must both be [N, D] with N >= 2, got shapes {images.shape} and {copies.shape}"
        )
    check_arguments(images, copies, "cosine", block_size)
    for name, rows in (("embeddings", images), ("augmented", copies)):
        is_finite = np.isfinite(rows).all(axis=1)
        if not is_finite.all():
            raise ValueError(f"{name} must be finite, row {is_finite.argmin()} is not")
    return l2_normalize(images), l2_normalize(copies)


@partial(jax.jit, static_argnames="block_size")
def _ranks(images, copies, *, block_size):
    """Returns the rank of every copy's own image among all, from 1 on: [N] integer."""

    def block_of_copies(start, size):
        # The default precision would be TF32 on GPUs: three digits.
        some = some_rows(copies, start, size)
        similarities = jnp.matmul(some, images.T, precision=jax.lax.Precision.HIGHEST)
        is_own = is_self(start, similarities.shape)
        own = jnp.sum(jnp.where(is_own, similarities, 0), axis=1)
        return 1 + jnp.sum(jnp.where(is_own, -jnp.inf, similarities) >= own[:, None], axis=1)

    return by_row_blocks(block_of_copies, len(images), block_size)
