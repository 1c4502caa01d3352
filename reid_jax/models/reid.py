"""A backbone of any kind and the pooling that makes embeddings of its feature map."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from reid_jax import augment, errors
from reid_jax.embeddings import Features
from reid_jax.models import pooling
from reid_jax.models.heads import BNNeck

POOLINGS = ("avg", "gem", "token")
NECKS = ("none", "bn")
_GEM_P = 3.0  # Radenovic et al. 2018, section 5.2
# What published weights were trained with: (mean, standard deviation) of RGB on the scale 0..1.
NORMALIZATIONS = {
    "imagenet": (augment.IMAGENET_MEAN, augment.IMAGENET_STD),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),  # timm's ViTs of the "augreg" series
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}


class ReidModel(nn.Module):
    """Images to `Features`.

    Attributes:
        backbone: any module whose `__call__(images, *, train)` returns a feature map [B, h, w, C] float, or a pair of
            such a map and a token [B, D] of the whole image.
        pooling: "avg", "gem" with a learned exponent (the parameter `gem_p`), or "token": the backbone's own.
        normalization: of the pixels that the backbone takes, one of `NORMALIZATIONS`; the images given are always
            normalised as ImageNet's.
        num_stripes: stripes pooled besides, always by their mean; 0 = none.
        neck: "none", or "bn" for a batch norm of the pooled feature; stripes do not go through it.
        bn_group_size: images per group of the neck's batch norm; 0 = the whole batch. The backbone has its own.
        mirrored: outside training, features are the mean of those of an image and of its mirror image.
        keep_batch_norm: the backbone's batch norms use their running statistics in training, too, and leave them alone.
    """

    backbone: nn.Module
    pooling: str = "avg"
    normalization: str = "imagenet"
    num_stripes: int = 0
    neck: str = "none"
    bn_group_size: int = 0
    mirrored: bool = False
    keep_batch_norm: bool = False

    def __post_init__(self):
        """Checks the fields.

        Raises:
            UserError: a field breaks its rule.
        """
        if not isinstance(self.backbone, nn.Module):
            raise errors.UserError(f"backbone must be a Flax module (linen), got a {type(self.backbone).__name__}")
        if self.pooling not in POOLINGS:
            raise errors.UserError(f"pooling must be one of {', '.join(POOLINGS)}, got {self.pooling!r}")
        if self.normalization not in NORMALIZATIONS:
            raise errors.UserError(
                f"normalization must be one of {', '.join(NORMALIZATIONS)}, got {self.normalization!r}"
            )
        if self.neck not in NECKS:
            raise errors.UserError(f"neck must be one of {', '.join(NECKS)}, got {self.neck!r}")
        if self.num_stripes < 0:
            raise errors.UserError(f"num_stripes must be at least 0 (0 = none), got {self.num_stripes}")
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> Features:
        """Embeds a batch.

        Args:
            images: [B, H, W, 3] float, normalised (`reid_jax.augment.normalize`).
            train: batch norms by the batch's statistics, updating the running ones; static.

        Returns:
            Features; D is the backbone's number of channels, or its token's.

        Raises:
            UserError: images of another shape or dtype, a backbone that returns no feature map or, where it is asked
                for, no token, or stripes that do not divide the map's height.
        """
        if images.ndim != 4 or images.shape[-1] != 3 or not jnp.issubdtype(images.dtype, jnp.floating):
            raise errors.UserError(
                f"images must be [B, H, W, 3] float, normalised, got shape {images.shape} of {images.dtype}"
            )
        is_doubled = self.mirrored and not train
        if is_doubled:
            images = _with_mirror_images(images)
        by_batch = train and not self.keep_batch_norm
        feature_map, token = _split(self.backbone(_renormalize(images, self.normalization), train=by_batch))
        # Not len(): in a model that is exported the batch has no number.
        _check_feature_map(feature_map, self.backbone, images.shape[0])
        # Pooling and everything after it is float32, whatever the backbone computes in.
        feature_map = feature_map.astype(jnp.float32)
        if self.pooling == "gem":
            p = self.param("gem_p", nn.initializers.constant(_GEM_P), (), jnp.float32)
            embeddings = pooling.gem_pool(feature_map, p)
        elif self.pooling == "token":
            _check_token(token, self.backbone, images.shape[0])
            embeddings = token.astype(jnp.float32)
        else:
            embeddings = pooling.average_pool(feature_map)
        if self.neck == "bn":
            embeddings = BNNeck(group_size=self.bn_group_size, name="neck")(embeddings, train=train)
        stripes = pooling.stripe_pool(feature_map, self.num_stripes) if self.num_stripes else None
        features = Features(embeddings, stripes)
        return jax.tree.map(_mean_of_pairs, features) if is_doubled else features


def _with_mirror_images(images: jax.Array) -> jax.Array:
    """Puts behind each image its mirror image, [2 B, H, W, 3]: a batch that is split over devices stays where it is."""
    return jnp.stack([images, images[:, :, ::-1]], axis=1).reshape(-1, *images.shape[1:])


def _mean_of_pairs(rows: jax.Array) -> jax.Array:
    return rows.reshape(-1, 2, *rows.shape[1:]).mean(axis=1)


def _renormalize(images: jax.Array, normalization: str) -> jax.Array:
    """Turns images that are normalised as ImageNet's into those that the backbone was trained with."""
    if normalization == "imagenet":
        return images
    (mean, std), (own_mean, own_std) = (np.float32(NORMALIZATIONS[name]) for name in ("imagenet", normalization))
    return images * (std / own_std) + (mean - own_mean) / own_std


def _split(result: object) -> tuple[object, object]:
    """(feature map, token or None) of what a backbone returns."""
    is_pair = isinstance(result, tuple) and len(result) == 2 and getattr(result[1], "ndim", 0) == 2
    return result if is_pair else (result, None)


def _check_token(token: object, backbone: nn.Module, batch: int) -> None:
    if isinstance(token, jax.Array) and token.ndim == 2 and token.shape[0] == batch:
        return
    raise errors.UserError(
        f"pooling must be 'avg' or 'gem' for a backbone without a token of its own, as {type(backbone).__name__}, "
        "got 'token'"
    )


def _check_feature_map(feature_map: object, backbone: nn.Module, batch: int) -> None:
    is_float = isinstance(feature_map, jax.Array) and jnp.issubdtype(feature_map.dtype, jnp.floating)
    if is_float and feature_map.ndim == 4 and feature_map.shape[0] == batch and 0 not in feature_map.shape[1:]:
        return
    got = f"shape {feature_map.shape} of {feature_map.dtype}" if hasattr(feature_map, "shape") else type(feature_map)
    raise errors.UserError(
        f"the backbone {type(backbone).__name__} must return a feature map [{batch}, h, w, C] float before pooling, "
        f"got {got}"
    )
