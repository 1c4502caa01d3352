"""Whether a network knows an augmented copy of an image again: numbers that tell how good it is without a label.

All compare the embeddings of N images with those of one augmented copy of each, by cosine similarity and block after block
of copies, so that N x N similarities are never held. Images of one person are "other images" here: where training draws
them together, a copy's nearest may become another image of the same person, which `neighbor_overlap` minds least.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from reid_jax.distances.blocks import by_row_blocks, is_self, some_rows
from reid_jax.distances.neighbors import nearest_neighbors
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
    _, ranks, _ = _compare(*_checked(embeddings, augmented, block_size), block_size=block_size)
    ranks = np.maximum(1, np.asarray(ranks) - (num_alike - 1))
    return float((ranks == 1).mean()), float((1 / ranks).mean())


def separation(embeddings: np.ndarray, augmented: np.ndarray, *, block_size: int = 1024) -> float:
    """Measures by how much an augmented copy is more similar to its own image than to the most similar other one.

    Unlike the share that is known again it has no greatest value that good embeddings reach.

    Args:
        embeddings: [N, D] float, of the images; L2-normalised here.
        augmented: [N, D] float, of the copies, in the same order.
        block_size: as in `recognition`. Static.

    Returns:
        The mean difference of the two cosine similarities, -2..2; 0 where all embeddings are alike.

    Raises:
        ValueError: as in `recognition`.
    """
    own, _, nearest = _compare(*_checked(embeddings, augmented, block_size), block_size=block_size)
    return float(np.mean(np.asarray(own, np.float64) - np.asarray(nearest)))


def neighbor_overlap(embeddings: np.ndarray, augmented: np.ndarray, *, k: int, block_size: int = 1024) -> float:
    """Measures how far an image and its augmented copy have the same nearest neighbours.

    Args:
        embeddings: [N, D] float, of the images; L2-normalised here. Neighbours are among them.
        augmented: [N, D] float, of the copies, in the same order.
        k: how many neighbours of each, the image itself not being one, 1..N-1. Static.
        block_size: rows at a time; block_size x N distances are held. Static.

    Returns:
        The mean Jaccard index of the two sets, 0..1; about k / (2 N) by chance.

    Raises:
        ValueError: as in `recognition`, or k is out of its range.
    """
    images, copies = _checked(embeddings, augmented, block_size)
    _, of_images = nearest_neighbors(images, k=k, metric="cosine", block_size=block_size)
    # One more than k, of which the image itself may be one.
    _, of_copies = nearest_neighbors(copies, images, k=k + 1, metric="cosine", block_size=block_size)
    of_images, of_copies = np.asarray(of_images), np.asarray(of_copies)
    last = np.argsort(of_copies == np.arange(len(of_copies))[:, None], axis=1, kind="stable")
    of_copies = np.take_along_axis(of_copies, last[:, :k], axis=1)
    common = (of_images[:, :, None] == of_copies[:, None, :]).sum(axis=(1, 2))
    return float((common / (2 * k - common)).mean())


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
def _compare(images, copies, *, block_size):
    """Returns every copy's similarity to its own image, that image's rank from 1 on, and its greatest to another [N]."""

    def block_of_copies(start, size):
        # The default precision would be TF32 on GPUs: three digits.
        some = some_rows(copies, start, size)
        similarities = jnp.matmul(some, images.T, precision=jax.lax.Precision.HIGHEST)
        is_own = is_self(start, similarities.shape)
        own = jnp.sum(jnp.where(is_own, similarities, 0), axis=1)
        others = jnp.where(is_own, -jnp.inf, similarities)
        return own, 1 + jnp.sum(others >= own[:, None], axis=1), others.max(axis=1)

    return by_row_blocks(block_of_copies, len(images), block_size)
