"""A user's own backbone, named in configs as "own_backbone:Backbone"; small, so that runs in tests are short."""

import jax
from flax import linen as nn

from reid_jax.models.batch_norm import BatchNorm


class Backbone(nn.Module):
    """Two convolutions with batch norm: [B, H, W, 3] -> [B, H / 4, W / 4, 16]."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        x = images
        for features in (8, 16):
            x = nn.Conv(features, (3, 3), strides=(2, 2))(x)
            x = nn.relu(BatchNorm()(x, train=train))
        return x
