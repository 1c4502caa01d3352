"""Batch norm with torch's running statistics, over the whole batch or over groups of it."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from reid_jax import errors


class BatchNorm(nn.Module):
    """Batch norm over all axes but the last (Ioffe and Szegedy 2015), in torch's arithmetic.

    In training every group of the batch is normalised by its own mean and biased variance. The running statistics
    move towards the mean over the groups of their means and their UNBIASED variances, as torch keeps them.
    Statistics and normalisation are float32 whatever the dtype. A batch that is split over devices is one batch:
    its statistics are those of all devices together.

    Attributes:
        group_size: images per group, contiguous along the batch axis; 0 = the whole batch. 16 at batch 64 is what
            4 cards without synchronised batch norm compute.
        momentum: the share of the running statistics that a step keeps (torch's is 1 minus this).
        epsilon: added to the variance.
        use_bias: whether there is a learned bias; False fixes it at 0.
        dtype: of the result.
    """

    group_size: int = 0
    momentum: float = 0.9
    epsilon: float = 1e-5
    use_bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Normalises a batch.

        Args:
            x: [B, ..., C] float.
            train: by the batch's statistics, updating the running ones, or by the running ones; static.

        Returns:
            [B, ..., C] of `dtype`.

        Raises:
            UserError: in training, groups that do not divide the batch or that hold a single value per channel.
        """
        channels = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, channels, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, channels, jnp.float32) if self.use_bias else 0.0
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels, jnp.float32)

        # Initialisation is after the shapes only, so it may use a batch of one image.
        if not train or self.is_initializing():
            factor = scale * jax.lax.rsqrt(running_var.value + self.epsilon)
            return ((x.astype(jnp.float32) - running_mean.value) * factor + bias).astype(self.dtype)

        # Height and width stay axes of their own: with them merged, XLA's CPU training step takes twice as long.
        grouped = x.reshape(_num_groups(x.shape, self.group_size), -1, *x.shape[1:]).astype(jnp.float32)
        axes = tuple(range(1, grouped.ndim - 1))
        count = math.prod(grouped.shape[1:-1])
        if count < 2:
            raise errors.UserError(
                f"batch norm needs more than one value per channel and group in training, got {x.shape} in groups "
                f"of {self.group_size or len(x)} images"
            )
        mean = jnp.mean(grouped, axis=axes, keepdims=True)
        # Not E[x^2] - E[x]^2, which loses all digits of a channel whose mean is large beside its deviation.
        var = jnp.mean(jnp.square(grouped - mean), axis=axes, keepdims=True)
        # Reference: DataParallel keeps the first card's running statistics and drops the others'; the mean over the
        # groups estimates the same with less noise.
        self._update(running_mean, mean)
        self._update(running_var, var * (count / (count - 1)))
        normalized = (grouped - mean) * (scale * jax.lax.rsqrt(var + self.epsilon)) + bias
        return normalized.reshape(x.shape).astype(self.dtype)

    def _update(self, running: nn.Variable, group_values: jax.Array) -> None:
        if self.is_mutable_collection("batch_stats"):
            batch_value = jnp.mean(group_values.reshape(-1, group_values.shape[-1]), axis=0)
            running.value = self.momentum * running.value + (1 - self.momentum) * batch_value


def _num_groups(shape: tuple[int, ...], group_size: int) -> int:
    if group_size == 0:
        return 1
    if group_size < 0 or shape[0] % group_size:
        raise errors.UserError(
            f"bn_group_size must divide the batch of {shape[0]} images (0 = the whole batch), got {group_size}"
        )
    return shape[0] // group_size
