"""The backbones by name: what each is made by, and which images its published weights were trained on."""

from collections.abc import Callable
from typing import NamedTuple

from flax import linen as nn

from reid_jax import errors
from reid_jax.models import color_histogram, mobilenet, osnet, resnet, vit

IMAGENET_SIZE = (224, 224)


class Architecture(NamedTuple):
    """How a backbone is made.

    Attributes:
        make: (**fields) -> the module.
        fields: of config.model, those that it has besides frozen_stages, bn_group_size and dtype.
        size_multiple: that the height and width of its images must be multiples of, in pixels; 1: any.
        pooling: what its embedding is in its publication, one of `reid.POOLINGS`.
        has_weights: whether there is anything to learn in it.
    """

    make: Callable[..., nn.Module]
    fields: tuple[str, ...] = ()
    size_multiple: int = 1
    pooling: str = "avg"
    has_weights: bool = True


_RESNET_FIELDS = ("width", "last_stride", "stem")
ARCHITECTURES = {
    "resnet18": Architecture(resnet.resnet18, _RESNET_FIELDS),
    "resnet34": Architecture(resnet.resnet34, _RESNET_FIELDS),
    "resnet50": Architecture(resnet.resnet50, _RESNET_FIELDS),
    "resnet50_ibn_a": Architecture(resnet.resnet50_ibn_a, _RESNET_FIELDS),
    "mobilenet_v2": Architecture(mobilenet.mobilenet_v2, ("last_stride",)),
    "osnet_x1_0": Architecture(osnet.osnet_x1_0, pooling="token"),
    "osnet_x0_25": Architecture(osnet.osnet_x0_25, pooling="token"),
    "osnet_ain_x1_0": Architecture(osnet.osnet_ain_x1_0, pooling="token"),
    "vit_s16": Architecture(vit.vit_s16, size_multiple=16, pooling="token"),
    "vit_b16": Architecture(vit.vit_b16, size_multiple=16, pooling="token"),
    "vit_s14": Architecture(vit.vit_s14, size_multiple=14, pooling="token"),
    "vit_b14": Architecture(vit.vit_b14, size_multiple=14, pooling="token"),
    "vit_s14_reg": Architecture(vit.vit_s14_reg, size_multiple=14, pooling="token"),
    "vit_b14_reg": Architecture(vit.vit_b14_reg, size_multiple=14, pooling="token"),
    "vit_b16_clip": Architecture(vit.vit_b16_clip, size_multiple=16, pooling="token"),
    "color_histogram": Architecture(color_histogram.ColorHistogram, pooling="token", has_weights=False),
}


def find(architecture: str) -> Architecture:
    """Returns the architecture of a name.

    Raises:
        UserError: there is none.
    """
    if architecture not in ARCHITECTURES:
        raise errors.UserError(f"architecture must be one of {', '.join(ARCHITECTURES)}, got {architecture!r}")
    return ARCHITECTURES[architecture]


def make(architecture: str, **fields) -> nn.Module:
    """Makes a backbone as published, but for the fields given.

    Raises:
        UserError: there is no such architecture, or a field breaks its rule.
    """
    return find(architecture).make(**fields)


def natural_size(architecture: str) -> tuple[int, int]:
    """Returns (height, width) of images that the architecture takes, near to those of ImageNet."""
    multiple = find(architecture).size_multiple
    return tuple(side // multiple * multiple for side in IMAGENET_SIZE)
