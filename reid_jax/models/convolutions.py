"""Convolutions and max pooling with torch's padding, and depthwise convolutions as each platform computes them fast.

A depthwise convolution filters every channel on its own. XLA's CPU backend computes it, as a convolution with a group
per channel, many times slower than the nine multiplications and additions per number that it is
(`benchmarks/depthwise.py`), so that on a CPU it is written as those. Which of the two runs is decided when a program is
lowered for a platform, not when it is traced: an exported program holds both, and each runs where it belongs.
"""

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

# torchvision: kaiming_normal_(mode="fan_out", nonlinearity="relu").
KERNEL_INIT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
_WINDOW = 3  # height and width of depthwise kernels


def conv(
    features: int, size: int, *, stride: int = 1, use_bias: bool = False, dtype: Any, name: str | None = None
) -> nn.Conv:
    """Returns a convolution of odd size that pads as torch's does with padding = size // 2.

    Args:
        features: channels of the result.
        size: of the kernel, height and width.
        stride: likewise.
        use_bias: whether there is a learned bias.
        dtype: of the result; parameters are float32.
        name: of the module; None: Flax's.
    """
    # Explicit, as torch pads both sides alike; SAME would pad only after the last pixel at stride 2.
    pad = size // 2
    return nn.Conv(
        features,
        (size, size),
        strides=stride,
        padding=((pad, pad), (pad, pad)),
        use_bias=use_bias,
        kernel_init=KERNEL_INIT,
        dtype=dtype,
        name=name,
    )


def max_pool(x: jax.Array) -> jax.Array:
    """Returns 3x3 max pooling of stride 2 with torch's padding=1: [B, h, w, C] to [B, h / 2, w / 2, C], rounded up.

    Args:
        x: [B, h, w, C] float, not negative, as it is after a relu.
    """
    # Of what is not negative 0 pads as well as minus infinity. The pool's own padding is lost in conversion to ONNX.
    return nn.max_pool(_pad(x), window_shape=(3, 3), strides=(2, 2))


class PointwiseConv(nn.Module):
    """A 1x1 convolution without bias, as the matrix product that it is.

    The kernel's gradient then is a matrix product, too. XLA's CPU backend makes a convolution over whole maps of a 1x1
    convolution's, for which it transposes both maps.

    Attributes:
        features: channels of the result.
        dtype: of the result; the kernel [1, 1, C, features] is float32.
    """

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, h, w, C] to [B, h, w, features] of `dtype`."""
        kernel = self.param("kernel", KERNEL_INIT, (1, 1, x.shape[-1], self.features), jnp.float32)
        # Two axes: of a product over more XLA's CPU backend transposes the map for the kernel's gradient.
        rows = x.reshape(-1, x.shape[-1]).astype(self.dtype)
        return jnp.dot(rows, kernel[0, 0].astype(self.dtype)).reshape(*x.shape[:-1], self.features)


class DepthwiseConv(nn.Module):
    """A 3x3 convolution of every channel on its own, with torch's padding=1 and no bias.

    Attributes:
        stride: 1 or 2, of height and width.
        dtype: of the result; the kernel [3, 3, 1, C] is float32.
    """

    stride: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, by_platform: bool = True) -> jax.Array:
        """Filters a batch.

        Args:
            x: [B, h, w, C] float.
            by_platform: as the platform computes it fast, or as one operation everywhere. Static.

        Returns:
            [B, h / stride, w / stride, C] of `dtype`, rounded up.
        """
        kernel = self.param("kernel", KERNEL_INIT, (_WINDOW, _WINDOW, 1, x.shape[-1]), jnp.float32)
        convolve = depthwise if by_platform else grouped_depthwise
        return convolve(x.astype(self.dtype), kernel.astype(self.dtype), self.stride)


def single_operations() -> contextlib.AbstractContextManager[None]:
    """Within this context models are traced with every `DepthwiseConv` as one operation on all platforms.

    For converters to formats that know no choice by platform, and whose own convolutions are fast. What JAX has traced
    before, of the same function and shapes, it takes from its cache as it was.
    """
    return nn.intercept_methods(_as_single_operation)


def _as_single_operation(
    call: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], context: nn.module.InterceptorContext
) -> Any:
    if isinstance(context.module, DepthwiseConv) and context.method_name == "__call__":
        kwargs = {**kwargs, "by_platform": False}
    return call(*args, **kwargs)


def grouped_depthwise(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Filters every channel on its own: XLA's convolution with one group per channel.

    Args:
        x: [B, h, w, C] float.
        kernel: [3, 3, 1, C] of the same dtype.
        stride: of height and width. Static.

    Returns:
        [B, h / stride, w / stride, C] of the same dtype, rounded up.
    """
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def shifted_depthwise(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Returns what `grouped_depthwise` does, as a weighted sum of the nine shifted inputs; sums are float32."""
    total = sum(each * weights for each, weights in zip(_shifted(_pad(x), x.shape, stride), _weights(kernel)))
    return total.astype(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def depthwise(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Returns what `grouped_depthwise` does, computed as the platform does it fast; the same holds for gradients."""
    return _by_platform(shifted_depthwise, grouped_depthwise, stride, x, kernel)


def _depthwise_forward(x: jax.Array, kernel: jax.Array, stride: int) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _by_platform(_shifted_by_image, grouped_depthwise, stride, x, kernel), (x, kernel)


def _depthwise_backward(
    stride: int, kept: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    return _by_platform(_shifted_gradients, _grouped_gradients, stride, *kept, gradient)


# With a derivative of its own, each direction chooses by itself: JAX's derivative of a choice keeps what either branch
# needs.
depthwise.defvjp(_depthwise_forward, _depthwise_backward)


def _by_platform(on_cpu: Callable[..., Any], elsewhere: Callable[..., Any], stride: int, *arrays: jax.Array) -> Any:
    return jax.lax.platform_dependent(
        *arrays, cpu=lambda *arrays: on_cpu(*arrays, stride), default=lambda *arrays: elsewhere(*arrays, stride)
    )


# In training many operations use a result: batch norm's two statistics, its own and their gradients. XLA would compute
# the shifts anew within each; a loop's result it keeps. In a loop over images the kernel's gradient, a sum over all places
# of all images, is added up image by image, which XLA's code for a sum over shifted arrays does not do.
def _shifted_by_image(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    return jax.lax.map(lambda image: shifted_depthwise(image[None], kernel, stride)[0], x)


def _shifted_gradients(
    x: jax.Array, kernel: jax.Array, gradient: jax.Array, stride: int
) -> tuple[jax.Array, jax.Array]:
    def of_image(sums: list[jax.Array], image: tuple[jax.Array, jax.Array]) -> tuple[list[jax.Array], jax.Array]:
        x, gradient = (each[None] for each in image)
        products = (each * gradient for each in _shifted(_pad(x), x.shape, stride))
        sums = [total + product[0] for total, product in zip(sums, products)]
        # Backwards the kernel is turned round, and steps of the stride are gaps.
        spread = _spread(gradient, x.shape, stride)
        shifted = zip(_shifted(spread, x.shape, 1), _weights(kernel)[::-1])
        return sums, sum(each * weights for each, weights in shifted)[0].astype(x.dtype)

    zeros = [jnp.zeros(gradient.shape[1:], jnp.float32)] * _WINDOW**2
    sums, x_gradient = jax.lax.scan(of_image, zeros, (x, gradient))
    kernel_gradient = jnp.stack([jnp.sum(each, axis=(0, 1)) for each in sums])
    return x_gradient, kernel_gradient.reshape(kernel.shape).astype(kernel.dtype)


def _grouped_gradients(
    x: jax.Array, kernel: jax.Array, gradient: jax.Array, stride: int
) -> tuple[jax.Array, jax.Array]:
    _, transpose = jax.vjp(lambda x, kernel: grouped_depthwise(x, kernel, stride), x, kernel)
    return transpose(gradient)


def _pad(x: jax.Array) -> jax.Array:
    return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))


def _spread(gradient: jax.Array, shape: tuple[int, ...], stride: int) -> jax.Array:
    """Puts the gradient of a result at the places that its windows were laid on, in a padded array for `shape`."""
    padding = [(0, 0, 0)] * 4
    for axis in (1, 2):
        end = shape[axis] - (shape[axis] - 1) // stride * stride
        padding[axis] = (1, end, stride - 1)
    return jax.lax.pad(gradient, jnp.zeros((), gradient.dtype), padding)


def _shifted(padded: jax.Array, shape: tuple[int, ...], stride: int) -> list[jax.Array]:
    """What each of the nine places of the kernel meets, float32; `shape` is that of the array before padding."""
    # They end after the last window that lies within the padding.
    height, width = (stride * ((size - 1) // stride) + 1 for size in shape[1:3])
    return [
        padded[:, row : row + height : stride, column : column + width : stride].astype(jnp.float32)
        for row in range(_WINDOW)
        for column in range(_WINDOW)
    ]


def _weights(kernel: jax.Array) -> list[jax.Array]:
    """The kernel's weights [C] at each place, in the order of `_shifted`, float32."""
    return list(kernel.reshape(_WINDOW**2, -1).astype(jnp.float32))
