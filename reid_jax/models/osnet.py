"""OSNet and OSNet-AIN as torchreid computes them: images to a feature map and an embedding.

Zhou et al. 2019, "Omni-Scale Feature Learning for Person Re-Identification", and 2021, "Learning Generalisable
Omni-Scale Representations for Person Re-Identification". Parameter names mirror torchreid's:
`conv2.0.conv2b.1.conv1.weight` is `conv2_0/conv2b_1/conv1/kernel`.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from reid_jax import errors
from reid_jax.models import field_checks, torch_names
from reid_jax.models.batch_norm import BatchNorm
from reid_jax.models.convolutions import DepthwiseConv, PointwiseConv, conv, max_pool
from reid_jax.models.instance_norm import InstanceNorm

_STAGES = ("conv2", "conv3", "conv4", "conv5")
_NUM_STREAMS = 4  # T of the papers: the streams of a block see 3, 5, 7 and 9 pixels
_BLOCK_REDUCTION, _GATE_REDUCTION = 4, 16
_EMBEDDING_DIM = 512
# Which blocks of conv2, conv3 and conv4 have an instance norm in OSNet-AIN, as the search found them.
_INSTANCE_NORMS = ((True, True), (False, True), (True, False))


class ConvNorm(nn.Module):
    """A convolution, a norm and a relu.

    Attributes:
        channels: of the output.
        norm: makes a norm, called with the map alone, from (name=); None: there is none.
        size: of the kernel, height and width.
        stride: likewise, of a kernel that is not 1x1.
        is_linear: there is no relu.
        dtype: of the activations.
    """

    channels: int
    norm: Callable[..., Callable[[jax.Array], jax.Array]] | None
    size: int = 1
    stride: int = 1
    is_linear: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, h, w, C] to [B, h / stride, w / stride, channels], rounded up."""
        if self.size == 1:
            x = PointwiseConv(self.channels, self.dtype, name="conv")(x)
        else:
            x = conv(self.channels, self.size, stride=self.stride, dtype=self.dtype, name="conv")(x)
        x = self.norm(name="bn")(x) if self.norm else x
        return x if self.is_linear else nn.relu(x)


class LightConv(nn.Module):
    """A linear 1x1 convolution and a depthwise 3x3 one, a norm and a relu (2019, figure 3b).

    Attributes: as `ConvNorm`'s; the number of channels stays.
    """

    norm: Callable[..., Callable[[jax.Array], jax.Array]]
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, h, w, C] to the same shape."""
        x = PointwiseConv(x.shape[-1], self.dtype, name="conv1")(x)
        x = DepthwiseConv(dtype=self.dtype, name="conv2")(x)
        return nn.relu(self.norm(name="bn")(x))


class ChannelGate(nn.Module):
    """Weighs the channels of a map by what its mean says (2019, section 3.2, the unified aggregation gate).

    Attributes:
        dtype: of the activations.
    """

    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, h, w, C] to the same shape."""
        channels = x.shape[-1]
        gates = jnp.mean(x, axis=(1, 2), keepdims=True)
        gates = nn.relu(conv(channels // _GATE_REDUCTION, 1, use_bias=True, dtype=self.dtype, name="fc1")(gates))
        return x * nn.sigmoid(conv(channels, 1, use_bias=True, dtype=self.dtype, name="fc2")(gates))


class OSBlock(nn.Module):
    """Four streams of one to four light convolutions, gated by one gate and added, with a shortcut (2019, figure 4b).

    Attributes:
        channels: of the output.
        is_ain: names as in torchreid's OSNet-AIN.
        has_instance_norm: the last convolution's norm is an instance norm (2021, figure 4c).
        norm: makes a batch norm, called with the map alone, from (name=).
        dtype: of the activations.
    """

    channels: int
    is_ain: bool
    has_instance_norm: bool
    norm: Callable[..., Callable[[jax.Array], jax.Array]]
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, h, w, C] to [B, h, w, channels]."""
        start = ConvNorm(self.channels // _BLOCK_REDUCTION, self.norm, dtype=self.dtype, name="conv1")(x)
        gate = ChannelGate(self.dtype, name="gate")
        total = 0
        for stream in range(_NUM_STREAMS):
            y = start
            for index in range(stream + 1):
                y = LightConv(self.norm, self.dtype, name=self._stream_name(stream, index))(y)
            total = total + gate(y)
        linear = functools.partial(ConvNorm, self.channels, is_linear=True, dtype=self.dtype)
        if self.has_instance_norm:
            y = InstanceNorm(dtype=self.dtype, name="IN")(linear(None, name="conv3")(total))
        else:
            y = linear(self.norm, name="conv3")(total)
        shortcut = x if x.shape[-1] == self.channels else linear(self.norm, name="downsample")(x)
        return nn.relu(y + shortcut)

    def _stream_name(self, stream: int, index: int) -> str:
        if self.is_ain:
            return f"conv2_{stream}_layers_{index}"
        return f"conv2{'abcd'[stream]}" + (f"_{index}" if stream else "")


class OSNet(nn.Module):
    """OSNet or OSNet-AIN without its classifier.

    Its embedding is torchreid's: what the fully connected layer `fc`, a batch norm and a relu make of the map's mean.

    Attributes:
        channels: of conv1 to conv4, four numbers; conv5 has those of conv4.
        is_ain: OSNet-AIN, with instance norms in conv1 and in some of the blocks.
        frozen_stages: conv1 and this many of conv2 to conv5 keep their batch-norm statistics and get no gradient, 0 =
            none; their weights stay only if the optimizer leaves those of `frozen_prefixes` alone, too.
        bn_group_size: images per batch-norm group; 0 = the whole batch.
        dtype: of the activations; parameters and batch-norm statistics are float32.
    """

    channels: Sequence[int] = (64, 256, 384, 512)
    is_ain: bool = False
    frozen_stages: int = 0
    bn_group_size: int = 0
    dtype: Any = jnp.float32

    def __post_init__(self):
        """Checks the fields.

        Raises:
            UserError: a field breaks its rule.
        """
        multiple = _BLOCK_REDUCTION * _GATE_REDUCTION
        if len(self.channels) != len(_STAGES) or min(self.channels) < 1 or min(self.channels[1:]) < multiple:
            raise errors.UserError(
                f"channels must be {len(_STAGES)} numbers, from the second on at least {multiple}, got {self.channels}"
            )
        field_checks.check_frozen_stages(self.frozen_stages, self.num_stages)
        field_checks.check_bn_group_size(self.bn_group_size)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array]:
        """Computes the last feature map, and the embedding.

        Args:
            images: [B, H, W, 3] float, normalised; 32 pixels or more in height and width.
            train: batch norm by the batch's statistics; static.

        Returns:
            The map of conv5, [B, H / 16, W / 16, C], and the embedding, [B, 512], both of `dtype`.
        """
        norms = [self._norm(train=train and stage >= self.frozen_stages) for stage in range(len(_STAGES))]
        first_norm = functools.partial(InstanceNorm, dtype=self.dtype)
        if not self.is_ain:
            first_norm = self._norm(train=train and not self.frozen_stages)

        x = ConvNorm(self.channels[0], first_norm, 7, 2, dtype=self.dtype, name="conv1")(images)
        x = max_pool(x)
        for stage, (channels, norm, instance_norms) in enumerate(zip(self.channels[1:], norms, _INSTANCE_NORMS)):
            for index, has_instance_norm in enumerate(instance_norms):
                name = f"{_STAGES[stage]}_{index}"
                x = OSBlock(channels, self.is_ain, self.is_ain and has_instance_norm, norm, self.dtype, name=name)(x)
            if stage < 2:
                name = f"pool{stage + 2}_0" if self.is_ain else f"{_STAGES[stage]}_2_0"
                x = ConvNorm(channels, norm, dtype=self.dtype, name=name)(x)
                x = nn.avg_pool(x, window_shape=(2, 2), strides=(2, 2))
            if stage + 1 == self.frozen_stages:
                x = jax.lax.stop_gradient(x)
        x = ConvNorm(self.channels[-1], norms[-1], dtype=self.dtype, name="conv5")(x)
        if self.frozen_stages == len(_STAGES):
            x = jax.lax.stop_gradient(x)
        return x, self._embed(x, train=train)

    def _norm(self, *, train: bool) -> Callable[..., Callable[[jax.Array], jax.Array]]:
        def make(*, name: str) -> Callable[[jax.Array], jax.Array]:
            norm = BatchNorm(group_size=self.bn_group_size, dtype=self.dtype, name=name)
            return functools.partial(norm, train=train)

        return make

    def _embed(self, feature_map: jax.Array, *, train: bool) -> jax.Array:
        # Called inside the compact __call__, so that these modules are the network's own.
        dense = nn.Dense(_EMBEDDING_DIM, dtype=self.dtype, kernel_init=nn.initializers.normal(0.01), name="fc_0")
        return nn.relu(self._norm(train=train)(name="fc_1")(dense(jnp.mean(feature_map, axis=(1, 2)))))

    @property
    def num_stages(self) -> int:
        """How many stages there are, as `frozen_stages` counts them."""
        return len(_STAGES)

    def frozen_prefixes(self) -> tuple[str, ...]:
        """Returns what the paths of the parameters begin with that `frozen_stages` freezes."""
        if not self.frozen_stages:
            return ()
        frozen = _STAGES[: self.frozen_stages]
        # The pools of OSNet-AIN, after its first two stages, have names of their own; OSNet's are parts of the stages.
        pools = (f"pool{stage.removeprefix('conv')}_" for stage in frozen[:2] if self.is_ain)
        return ("conv1/", *frozen, *pools)

    def torch_name(self, path: str) -> str:
        """Returns torchreid's name of a leaf: "conv2_0/conv2b_1/bn/mean" is "conv2.0.conv2b.1.bn.running_mean"."""
        return torch_names.dotted(path, underscores=True)

    def canonical_state(
        self, state: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
    ) -> dict[str, np.ndarray]:
        """Returns a torchreid state without its classifier and torch's batch counters.

        Args:
            state: arrays by torch's names.
            shapes: that are wanted, by torch's names; they do not depend on the size of the images.
        """
        del shapes
        return torch_names.without_heads(state, "classifier.")


def osnet_x1_0(**fields) -> OSNet:
    """Returns an OSNet of full width; the keyword arguments are `OSNet`'s fields."""
    return OSNet(**fields)


def osnet_x0_25(**fields) -> OSNet:
    """Returns an OSNet of a quarter of the channels; the keyword arguments are `OSNet`'s fields."""
    return OSNet(channels=(16, 64, 96, 128), **fields)


def osnet_ain_x1_0(**fields) -> OSNet:
    """Returns an OSNet-AIN of full width; the keyword arguments are `OSNet`'s fields."""
    return OSNet(is_ain=True, **fields)
