"""ResNet v1.5 as torchvision computes it: images to a feature map.

Parameter names mirror torchvision's (`layer1.0.conv1.weight` is `layer1_0/conv1/kernel`), and IBN-Net's where there are
instance norms, so that porting weights is a rename (`reid_jax/models/pretrained.py`).
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from reid_jax import errors
from reid_jax.models import convolutions, field_checks, torch_names
from reid_jax.models.batch_norm import BatchNorm
from reid_jax.models.instance_norm import InstanceBatchNorm


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016, figure 5 left).

    Attributes:
        channels: of the convolutions and of the output.
        stride: of the first convolution.
        conv: makes a convolution from (features, kernel size, stride=, name=).
        first_norm: makes the norm after the first convolution from (name=).
        norm: makes the other norms likewise.
        train: batch norm by the batch's statistics.
    """

    channels: int
    stride: int
    conv: Callable[..., nn.Module]
    first_norm: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    train: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, h, w, C] to [B, h / stride, w / stride, channels]."""
        y = self.conv(self.channels, 3, stride=self.stride, name="conv1")(x)
        y = nn.relu(self.first_norm(name="bn1")(y, train=self.train))
        y = self.conv(self.channels, 3, name="conv2")(y)
        y = self.norm(name="bn2")(y, train=self.train)
        return nn.relu(y + _shortcut(self, x, self.channels))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut, the stride on the 3x3 ("v1.5").

    Attributes: as `BasicBlock`'s; the output has 4 times `channels`.
    """

    channels: int
    stride: int
    conv: Callable[..., nn.Module]
    first_norm: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    train: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, h, w, C] to [B, h / stride, w / stride, 4 channels]."""
        y = self.conv(self.channels, 1, name="conv1")(x)
        y = nn.relu(self.first_norm(name="bn1")(y, train=self.train))
        y = self.conv(self.channels, 3, stride=self.stride, name="conv2")(y)
        y = nn.relu(self.norm(name="bn2")(y, train=self.train))
        y = self.conv(4 * self.channels, 1, name="conv3")(y)
        y = self.norm(name="bn3")(y, train=self.train)
        return nn.relu(y + _shortcut(self, x, 4 * self.channels))


_BLOCKS = {"basic": BasicBlock, "bottleneck": Bottleneck}
STEMS = ("imagenet", "cifar")
IBNS = ("none", "a")


class ResNet(nn.Module):
    """A ResNet without its pooling and classifier.

    Attributes:
        stage_sizes: blocks per stage, two stages or more.
        block: "basic" or "bottleneck".
        width: channels of the first stage's convolutions; they double with every stage.
        last_stride: of the last stage, 1 or 2; 1 keeps a map of twice the height and width.
        stem: "imagenet", a 7x7 convolution of stride 2 and max pooling; or "cifar", a 3x3 convolution of stride 1,
            for images of 32x32 pixels.
        ibn: "none"; or "a", half of the first norm's channels of each block, but for the last stage's, by instance norm
            (Pan et al. 2018, section 3.2, IBN-Net-a).
        frozen_stages: the stem and this many stages keep their batch-norm statistics and get no gradient, 0 = none;
            their weights stay only if the optimizer leaves those of `frozen_prefixes` alone, too.
        bn_group_size: images per batch-norm group; 0 = the whole batch.
        dtype: of the activations; parameters and batch-norm statistics are float32.
    """

    stage_sizes: Sequence[int]
    block: str
    width: int = 64
    last_stride: int = 2
    stem: str = "imagenet"
    ibn: str = "none"
    frozen_stages: int = 0
    bn_group_size: int = 0
    dtype: Any = jnp.float32

    def __post_init__(self):
        """Checks the fields.

        Raises:
            UserError: a field breaks its rule.
        """
        if len(self.stage_sizes) < 2 or min(self.stage_sizes) < 1:
            raise errors.UserError(f"stage_sizes must be two or more numbers of blocks, got {self.stage_sizes}")
        if self.block not in _BLOCKS:
            raise errors.UserError(f"block must be one of {', '.join(_BLOCKS)}, got {self.block!r}")
        if self.width < 1:
            raise errors.UserError(f"width must be at least 1, got {self.width}")
        field_checks.check_last_stride(self.last_stride)
        if self.stem not in STEMS:
            raise errors.UserError(f"stem must be one of {', '.join(STEMS)}, got {self.stem!r}")
        if self.ibn not in IBNS:
            raise errors.UserError(f"ibn must be one of {', '.join(IBNS)}, got {self.ibn!r}")
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
            [B, h, w, C] of `dtype`; h = H / 32 and w = W / 32, rounded up, with four stages, last_stride 2 and the
            stem "imagenet"; 4 times that with "cifar".
        """
        conv = functools.partial(convolutions.conv, dtype=self.dtype)
        norm, ibn = (
            functools.partial(kind, group_size=self.bn_group_size, dtype=self.dtype)
            for kind in (BatchNorm, InstanceBatchNorm)
        )

        is_small = self.stem == "cifar"
        x = conv(self.width, 3 if is_small else 7, stride=1 if is_small else 2, name="conv1")(images)
        x = nn.relu(norm(name="bn1")(x, train=train and not self.frozen_stages))
        if not is_small:
            x = convolutions.max_pool(x)
        for stage, num_blocks in enumerate(self.stage_sizes):
            is_last = stage == len(self.stage_sizes) - 1
            stage_stride = 1 if stage == 0 else self.last_stride if is_last else 2
            for index in range(num_blocks):
                x = _BLOCKS[self.block](
                    self.width * 2**stage,
                    stage_stride if index == 0 else 1,
                    conv,
                    ibn if self.ibn == "a" and not is_last else norm,
                    norm,
                    train and stage >= self.frozen_stages,
                    name=f"layer{stage + 1}_{index}",
                )(x)
            if stage + 1 == self.frozen_stages:
                x = jax.lax.stop_gradient(x)
        return x

    @property
    def num_stages(self) -> int:
        """How many stages there are, as `frozen_stages` counts them."""
        return len(self.stage_sizes)

    def frozen_prefixes(self) -> tuple[str, ...]:
        """Returns what the paths of the parameters begin with that `frozen_stages` freezes."""
        if not self.frozen_stages:
            return ()
        return ("conv1/", "bn1/", *(f"layer{stage + 1}_" for stage in range(self.frozen_stages)))

    def torch_name(self, path: str) -> str:
        """Returns torchvision's name of a leaf: "layer1_0/downsample_conv/kernel" is "layer1.0.downsample.0.weight"."""
        name = torch_names.dotted(path)
        if name.startswith("layer"):
            name = name.replace("_", ".", 1)
        return name.replace("downsample_conv", "downsample.0").replace("downsample_bn", "downsample.1")

    def canonical_state(
        self, state: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
    ) -> dict[str, np.ndarray]:
        """Returns a torchvision, timm, IBN-Net or torchreid state without classifiers and torch's batch counters.

        Args:
            state: arrays by torch's names.
            shapes: that are wanted, by torch's names; a ResNet's do not depend on the size of the images.
        """
        del shapes
        return torch_names.without_heads(state, "fc.", "classifier.")


def resnet18(**fields) -> ResNet:
    """Returns a ResNet-18; the keyword arguments are `ResNet`'s fields."""
    return ResNet(stage_sizes=(2, 2, 2, 2), block="basic", **fields)


def resnet34(**fields) -> ResNet:
    """Returns a ResNet-34; the keyword arguments are `ResNet`'s fields."""
    return ResNet(stage_sizes=(3, 4, 6, 3), block="basic", **fields)


def resnet50(**fields) -> ResNet:
    """Returns a ResNet-50; the keyword arguments are `ResNet`'s fields."""
    return ResNet(stage_sizes=(3, 4, 6, 3), block="bottleneck", **fields)


def resnet50_ibn_a(**fields) -> ResNet:
    """Returns a ResNet-50-IBN-a; the keyword arguments are `ResNet`'s fields."""
    return ResNet(stage_sizes=(3, 4, 6, 3), block="bottleneck", ibn="a", **fields)


def _shortcut(block: BasicBlock | Bottleneck, x: jax.Array, features: int) -> jax.Array:
    # Called inside the block's compact __call__, so that its modules are the block's own.
    if block.stride == 1 and x.shape[-1] == features:
        return x
    x = block.conv(features, 1, stride=block.stride, name="downsample_conv")(x)
    return block.norm(name="downsample_bn")(x, train=block.train)
