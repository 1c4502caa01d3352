"""MobileNetV2 as torchvision computes it: images to a feature map.

Parameter names mirror torchvision's: `features.1.conv.0.0.weight` is `features_1/conv_0_0/kernel`.
"""

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from reid_jax.models import field_checks, torch_names
from reid_jax.models.batch_norm import BatchNorm
from reid_jax.models.convolutions import DepthwiseConv, PointwiseConv, conv

# (expansion, channels, blocks, stride of the first block) of each stage: Sandler et al. 2018, table 2, width 1.0.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_STAGE_OF_LAST_STRIDE = 5
_STEM_CHANNELS, _LAST_CHANNELS = 32, 1280
# Networks from before torchvision's, such as tonylins' pytorch-mobilenet-v2, count all modules of a block in one row.
_FLAT_NAME = re.compile(r"features\.(?P<block>\d+)\.conv\.(?P<place>\d+)\.(?P<leaf>[a-z_]+)")
_FLAT_PLACES = {
    True: {"0": "0.0", "1": "0.1", "3": "1.0", "4": "1.1", "6": "2", "7": "3"},  # of blocks that widen
    False: {"0": "0.0", "1": "0.1", "3": "1", "4": "2"},
}


class InvertedResidual(nn.Module):
    """A 1x1 convolution that widens, a depthwise 3x3 one and a linear 1x1 one that narrows, and a shortcut.

    Attributes:
        channels: of the output.
        stride: of the depthwise convolution, 1 or 2.
        expansion: channels in between per channel of the input; at 1 there is no first convolution.
        norm: makes a batch norm from (name=).
        train: batch norm by the batch's statistics.
        dtype: of the activations.
    """

    channels: int
    stride: int
    expansion: int
    norm: Callable[..., nn.Module]
    train: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, h, w, C] to [B, h / stride, w / stride, channels], rounded up."""
        y, place = x, 0
        if self.expansion > 1:
            y = PointwiseConv(self.expansion * x.shape[-1], self.dtype, name="conv_0_0")(y)
            y = nn.relu6(self.norm(name="conv_0_1")(y, train=self.train))
            place = 1
        y = DepthwiseConv(self.stride, self.dtype, name=f"conv_{place}_0")(y)
        y = nn.relu6(self.norm(name=f"conv_{place}_1")(y, train=self.train))
        y = PointwiseConv(self.channels, self.dtype, name=f"conv_{place + 1}")(y)
        y = self.norm(name=f"conv_{place + 2}")(y, train=self.train)
        return x + y if self.stride == 1 and x.shape[-1] == self.channels else y


class MobileNetV2(nn.Module):
    """MobileNetV2 of width 1.0 (Sandler et al. 2018) without its pooling and classifier.

    Attributes:
        last_stride: of the stage of 160 channels, 1 or 2; 1 keeps a map of twice the height and width.
        frozen_stages: the stem and this many of the 7 stages of blocks keep their batch-norm statistics and get no
            gradient, 0 = none; their weights stay only if the optimizer leaves those of `frozen_prefixes` alone, too.
        bn_group_size: images per batch-norm group; 0 = the whole batch.
        dtype: of the activations; parameters and batch-norm statistics are float32.
    """

    last_stride: int = 2
    frozen_stages: int = 0
    bn_group_size: int = 0
    dtype: Any = jnp.float32

    def __post_init__(self):
        """Checks the fields.

        Raises:
            UserError: a field breaks its rule.
        """
        field_checks.check_last_stride(self.last_stride)
        field_checks.check_frozen_stages(self.frozen_stages, self.num_stages)
        field_checks.check_bn_group_size(self.bn_group_size)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Computes the last feature map.

        Args:
            images: [B, H, W, 3] float, normalised.
            train: batch norm by the batch's statistics; static.

        Returns:
            [B, h, w, 1280] of `dtype`; h = H / 32 and w = W / 32, rounded up, or twice that with last_stride 1.
        """
        norm = functools.partial(BatchNorm, group_size=self.bn_group_size, dtype=self.dtype)

        x = conv(_STEM_CHANNELS, 3, stride=2, dtype=self.dtype, name="features_0_0")(images)
        x = nn.relu6(norm(name="features_0_1")(x, train=train and not self.frozen_stages))
        place = 0
        for stage, (expansion, channels, num_blocks, stride) in enumerate(_STAGES):
            is_training = train and stage >= self.frozen_stages
            stride = self.last_stride if stage == _STAGE_OF_LAST_STRIDE else stride
            for index in range(num_blocks):
                place += 1
                x = InvertedResidual(
                    channels,
                    stride if index == 0 else 1,
                    expansion,
                    norm,
                    is_training,
                    self.dtype,
                    name=f"features_{place}",
                )(x)
            if stage + 1 == self.frozen_stages:
                x = jax.lax.stop_gradient(x)
        x = PointwiseConv(_LAST_CHANNELS, self.dtype, name=f"features_{place + 1}_0")(x)
        return nn.relu6(norm(name=f"features_{place + 1}_1")(x, train=train))

    @property
    def num_stages(self) -> int:
        """How many stages there are, as `frozen_stages` counts them."""
        return len(_STAGES)

    def frozen_prefixes(self) -> tuple[str, ...]:
        """Returns what the paths of the parameters begin with that `frozen_stages` freezes."""
        if not self.frozen_stages:
            return ()
        num_blocks = sum(blocks for _, _, blocks, _ in _STAGES[: self.frozen_stages])
        return ("features_0_", *(f"features_{place}/" for place in range(1, num_blocks + 1)))

    def torch_name(self, path: str) -> str:
        """Returns torchvision's name of a leaf: "features_1/conv_0_0/kernel" is "features.1.conv.0.0.weight"."""
        return torch_names.dotted(path, underscores=True)

    def canonical_state(
        self, state: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
    ) -> dict[str, np.ndarray]:
        """Returns a state by torchvision's names, without its classifier and torch's batch counters.

        Args:
            state: arrays by torchvision's names, or by those of networks that count all modules of a block in one row
                ("features.2.conv.7.weight").
            shapes: that are wanted, by torchvision's names; they do not depend on the size of the images.
        """
        del shapes
        state = torch_names.without_heads(state, "classifier.")
        # torchvision's place 0 holds a convolution and its norm, so that its names go on: conv.0.0.weight.
        if any(match["place"] == "0" for match in map(_FLAT_NAME.fullmatch, state) if match):
            return {_FLAT_NAME.sub(_nested_name, name): array for name, array in state.items()}
        return state


def _nested_name(match: re.Match) -> str:
    # The first block, which does not widen, has no convolution of its own before the depthwise one.
    places = _FLAT_PLACES[match["block"] != "1"]
    return f"features.{match['block']}.conv.{places.get(match['place'], match['place'])}.{match['leaf']}"


def mobilenet_v2(**fields) -> MobileNetV2:
    """Returns a MobileNetV2; the keyword arguments are `MobileNetV2`'s fields."""
    return MobileNetV2(**fields)
