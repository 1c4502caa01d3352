"""Instance norm in torch's arithmetic, alone and beside batch norm, as IBN-Net mixes them."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from reid_jax import errors
from reid_jax.models.batch_norm import BatchNorm


class InstanceNorm(nn.Module):
    """Normalises each channel of each image by its own mean and variance (Ulyanov et al. 2016), in torch's arithmetic.

    The same in training and evaluation: there are no running statistics. Statistics and normalisation are float32
    whatever the dtype; the variance is the biased one.

    Attributes:
        epsilon: added to the variance.
        dtype: of the result.
    """

    epsilon: float = 1e-5
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises a batch.

        Args:
            x: [B, h, w, C] float.

        Returns:
            [B, h, w, C] of `dtype`.

        Raises:
            UserError: a map of a single place, which would become the bias whatever it holds.
        """
        if x.shape[1] * x.shape[2] < 2:
            raise errors.UserError(f"instance norm needs more than one place per image and channel, got {x.shape}")
        channels = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, channels, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, channels, jnp.float32)
        values = x.astype(jnp.float32)
        mean = jnp.mean(values, axis=(1, 2), keepdims=True)
        # Not E[x^2] - E[x]^2, as in `BatchNorm`.
        var = jnp.mean(jnp.square(values - mean), axis=(1, 2), keepdims=True)
        return ((values - mean) * (scale * jax.lax.rsqrt(var + self.epsilon)) + bias).astype(self.dtype)


class InstanceBatchNorm(nn.Module):
    """Instance norm of the first half of the channels, batch norm of the others (Pan et al. 2018, section 3.2).

    Attributes:
        group_size: images per batch-norm group, as `BatchNorm`'s.
        dtype: of the result.
    """

    group_size: int = 0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Normalises a batch.

        Args:
            x: [B, h, w, C] float.
            train: batch norm by the batch's statistics; static.

        Returns:
            [B, h, w, C] of `dtype`.
        """
        half = x.shape[-1] // 2
        by_image = InstanceNorm(dtype=self.dtype, name="IN")(x[..., :half])
        by_batch = BatchNorm(group_size=self.group_size, dtype=self.dtype, name="BN")(x[..., half:], train=train)
        return jnp.concatenate([by_image, by_batch], axis=-1)
