"""Colour histograms of an image's horizontal stripes: what an embedding must beat to be worth its training."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from reid_jax import augment, errors


class ColorHistogram(nn.Module):
    """A backbone without weights: the square roots of each stripe's histogram of hue, saturation and value.

    Cosine similarities of square roots are the Bhattacharyya coefficients of the histograms.

    Attributes:
        num_stripes: S, horizontal stripes of equal height, to within a row.
        bins: of hue, saturation and value.
        frozen_stages: 0, there is nothing to learn; as in all backbones.
        bn_group_size: as in all backbones, without meaning here.
        dtype: likewise; histograms are float32.
    """

    num_stripes: int = 6
    bins: tuple[int, int, int] = (8, 4, 4)
    frozen_stages: int = 0
    bn_group_size: int = 0
    dtype: Any = jnp.float32

    def __post_init__(self):
        """Checks the fields.

        Raises:
            UserError: a field breaks its rule.
        """
        if self.num_stripes < 1 or min(self.bins) < 1:
            raise errors.UserError(f"num_stripes and bins must be at least 1, got {self.num_stripes} and {self.bins}")
        if self.frozen_stages:
            raise errors.UserError(f"frozen_stages must be 0, a colour histogram has none, got {self.frozen_stages}")
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array]:
        """Computes the histograms.

        Args:
            images: [B, H, W, 3] float, normalised, H >= S.
            train: has no effect.

        Returns:
            (map [B, S, 1, bins], embedding [B, S * bins]), float32.

        Raises:
            UserError: fewer rows than stripes.
        """
        del train
        height = images.shape[1]
        if height < self.num_stripes:
            raise errors.UserError(
                f"images must be at least {self.num_stripes} pixels high, one row a stripe, got {height}"
            )
        cells = _cells(_levels(images), self.bins)
        # Which stripe each row is of; a matrix product over rows would need one-hot cells of every pixel at once.
        edges = np.linspace(0, height, self.num_stripes + 1).round().astype(int)
        num_cells = int(np.prod(self.bins))
        rows = [
            jnp.mean(jax.nn.one_hot(cells[:, top:bottom], num_cells, dtype=jnp.float32), axis=(1, 2))
            for top, bottom in zip(edges[:-1], edges[1:])
        ]
        histograms = jnp.sqrt(jnp.stack(rows, axis=1))
        return histograms[:, :, None], histograms.reshape(histograms.shape[0], -1)

    def frozen_prefixes(self) -> tuple[str, ...]:
        """Nothing: there are no parameters."""
        return ()

    def torch_name(self, path: str) -> str:
        """There are no parameters to name."""
        return path

    def canonical_state(
        self, state: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
    ) -> dict[str, np.ndarray]:
        """Returns the state as it is: it must be empty."""
        del shapes
        return dict(state)


def _levels(images: jax.Array) -> jax.Array:
    """The grey levels 0..255 that normalised images were made of, exactly: [B, H, W, 3] int32."""
    scaled = images.astype(jnp.float32) * np.float32(augment.IMAGENET_STD) + np.float32(augment.IMAGENET_MEAN)
    return jnp.clip(jnp.round(scaled * 255), 0, 255).astype(jnp.int32)


def _cells(levels: jax.Array, bins: tuple[int, int, int]) -> jax.Array:
    """Which cell of the histogram each colour [..., 3] falls into: [...] int32.

    Hue, saturation and value are those of `colorsys`, in whole numbers: a colour on the edge of two cells, as greys and
    simple mixtures are, falls into the same one on every device.
    """
    greatest, least = levels.max(axis=-1), levels.min(axis=-1)
    red, green, blue = (levels[..., channel] for channel in range(3))
    spread = greatest - least
    # Sixths of the circle of hues, times the spread.
    sixths = jnp.where(
        greatest == red,
        green - blue,
        jnp.where(greatest == green, blue - red + 2 * spread, red - green + 4 * spread),
    )
    sixths = jnp.where(sixths < 0, sixths + 6 * spread, sixths)
    hue = jax.lax.div(bins[0] * sixths, jnp.maximum(6 * spread, 1))
    saturation = jax.lax.div(bins[1] * spread, jnp.maximum(greatest, 1))
    value = jax.lax.div(bins[2] * greatest, jnp.full_like(greatest, 255))
    places = hue, jnp.minimum(saturation, bins[1] - 1), jnp.minimum(value, bins[2] - 1)
    return (places[0] * bins[1] + places[1]) * bins[2] + places[2]
