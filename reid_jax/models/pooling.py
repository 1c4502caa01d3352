"""From a feature map [B, h, w, C] to one vector per image or per stripe."""

import math

import jax
import jax.numpy as jnp

from reid_jax import errors


def average_pool(x: jax.Array) -> jax.Array:
    """Returns the mean over the map.

    Args:
        x: [B, h, w, C] float.

    Returns:
        [B, C] of the same dtype.
    """
    return jnp.mean(x, axis=(1, 2))


def gem_pool(x: jax.Array, p: jax.Array | float, *, eps: float = 1e-6) -> jax.Array:
    """Generalised-mean pooling, (mean of x^p)^(1/p): Radenovic et al. 2018, eq. (3).

    p = 1 is the mean, p towards infinity the maximum.

    Args:
        x: [B, h, w, C] float; below eps counts as eps.
        p: scalar greater than 0.
        eps: keeps the logarithm finite.

    Returns:
        [B, C] of the same dtype.
    """
    # In logarithms: eps^p leaves float32's range from p = 7 on, and the root's gradient at 0 is infinite.
    powers = p * jnp.log(jnp.maximum(x, eps))
    log_mean = jax.nn.logsumexp(powers, axis=(1, 2)) - math.log(x.shape[1] * x.shape[2])
    return jnp.exp(log_mean / p)


def stripe_pool(x: jax.Array, num_stripes: int) -> jax.Array:
    """Returns the means over horizontal stripes of equal height.

    Args:
        x: [B, h, w, C] float.
        num_stripes: S, divides h; static.

    Returns:
        [B, S, C] of the same dtype, top to bottom.

    Raises:
        UserError: S does not divide h.
    """
    batch, height, width, channels = x.shape
    if num_stripes < 1 or height % num_stripes:
        raise errors.UserError(
            f"num_stripes must divide the feature map's height {height}, got {num_stripes}; another image height or "
            "last_stride changes the map's"
        )
    return jnp.mean(x.reshape(batch, num_stripes, height // num_stripes, width, channels), axis=(2, 3))


def frame_mean(x: jax.Array, num_frames: int) -> jax.Array:
    """Returns each sample's mean over its frames.

    Args:
        x: [B * T, D] float, the T frames of a sample next to each other.
        num_frames: T, 1 for images; static.

    Returns:
        [B, D] of the same dtype.
    """
    return x if num_frames == 1 else jnp.mean(x.reshape(-1, num_frames, x.shape[-1]), axis=1)
