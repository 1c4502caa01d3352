"""How similar two items must be to be of one identity, read from the distribution of all similarities, without labels."""

import jax
import jax.numpy as jnp

_SAMPLED = 1024  # columns of the similarities that their distribution is read from
_NOISE_SIGMAS = 3.0
_IQR_OF_NORMAL = 1.349  # in standard deviations


def chance_similarity(similarities: jax.Array) -> jax.Array:
    """Estimates the cosine that items of different identities hardly ever exceed, without labels.

    Nearly all pairs are of different identities, so the middle half of the distribution is theirs: the median and
    the interquartile range give the normal distribution that it would be by chance, and its mean + 3 sigma is the bound.

    Args:
        similarities: [B, N] float, of some items to all; nan: not to be counted.

    Returns:
        Scalar float32.
    """
    low, median, high = jnp.nanpercentile(_sampled(similarities), jnp.array([25.0, 50.0, 75.0]))
    return median + _NOISE_SIGMAS * (high - low) / _IQR_OF_NORMAL


def similarity_of_nearest(similarities: jax.Array, num_similar: float | jax.Array) -> jax.Array:
    """Estimates the cosine above which an item has `num_similar` others on average.

    Args:
        similarities: [B, N] float, of some items to all; nan: not to be counted, such as an item's own.
        num_similar: above 0, less than N - 1.

    Returns:
        Scalar float32.
    """
    return jnp.nanquantile(_sampled(similarities), 1 - num_similar / (similarities.shape[1] - 1))


def _sampled(similarities):
    return similarities[:, :: -(-similarities.shape[1] // _SAMPLED)]
