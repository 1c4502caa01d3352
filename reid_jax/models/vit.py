"""Vision transformers as timm, DINOv2 and CLIP compute them: images to a map of patch tokens and a class token.

Parameter names mirror timm's (`blocks.0.attn.qkv.weight` is `blocks_0/attn/qkv/kernel`), so that porting weights is a
rename. Only the position embedding is stored otherwise: `pos_class` [C] and `pos_grid` [h, w, C], whose shape says how
the patches lie.
"""

import functools
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from reid_jax import errors
from reid_jax.models import field_checks, torch_names, vit_names, vit_positions
from reid_jax.models.vit_block import ACTIVATIONS, Block

# timm and DINOv2: trunc_normal_(std=0.02), which cuts at 2 and not at two deviations, for linear layers and positions;
# torch's own start for the patch embedding.
_LINEAR_INIT = nn.initializers.normal(0.02)
_TOKEN_INIT = nn.initializers.normal(1e-6)
_PATCH_INIT = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class VisionTransformer(nn.Module):
    """A vision transformer (Dosovitskiy et al. 2021) without its classifier.

    Attributes:
        patch_size: side of a patch in pixels; the height and width of images must be multiples of it.
        dim: channels, C.
        depth: number of blocks.
        num_heads: of each block; divides `dim`.
        num_registers: tokens besides the class token and the patches that are not in the result (Darcet et al. 2024).
        layer_scale: whether blocks have a learned factor per channel.
        pre_norm: whether there is a layer norm before the first block; the patch embedding then has no bias (CLIP).
        projection_dim: of a linear layer without bias after the final norm; 0 = none.
        activation: one of `ACTIVATIONS`.
        norm_epsilon: added to the variance in layer norms.
        position_resizing: how a published position embedding is fitted to images of another size, one of
            `vit_positions.RESIZINGS`.
        frozen_stages: the patch embedding, the tokens, the positions and this many blocks get no gradient, 0 = none;
            their weights stay only if the optimizer leaves those of `frozen_prefixes` alone, too.
        bn_group_size: of no use, as there is no batch norm; every backbone has it.
        dtype: of the activations; parameters are float32.
    """

    patch_size: int
    dim: int
    depth: int
    num_heads: int
    num_registers: int = 0
    layer_scale: bool = False
    pre_norm: bool = False
    projection_dim: int = 0
    activation: str = "gelu"
    norm_epsilon: float = 1e-6
    position_resizing: str = "antialiased"
    frozen_stages: int = 0
    bn_group_size: int = 0
    dtype: Any = jnp.float32

    def __post_init__(self):
        """Checks the fields.

        Raises:
            UserError: a field breaks its rule.
        """
        for least, names in (
            (1, ("patch_size", "dim", "depth", "num_heads")),
            (0, ("num_registers", "projection_dim", "bn_group_size")),
        ):
            for name in names:
                if getattr(self, name) < least:
                    raise errors.UserError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.dim % self.num_heads:
            raise errors.UserError(f"num_heads must divide dim, which is {self.dim}, got {self.num_heads}")
        if self.norm_epsilon <= 0:
            raise errors.UserError(f"norm_epsilon must be greater than 0, got {self.norm_epsilon}")
        for name, choices in (("activation", ACTIVATIONS), ("position_resizing", vit_positions.RESIZINGS)):
            if getattr(self, name) not in choices:
                raise errors.UserError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        field_checks.check_frozen_stages(self.frozen_stages, self.num_stages, unit="blocks")
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array]:
        """Computes the tokens after the final norm and, where there is one, the projection.

        Args:
            images: [B, H, W, 3] float, normalised.
            train: of no use, as nothing differs in training; every backbone takes it.

        Returns:
            (map [B, H / patch_size, W / patch_size, D], the class token [B, D]), both of `dtype`; D is
            `projection_dim`, or `dim` without a projection.

        Raises:
            UserError: height or width is no multiple of the patch, or the size is not that of the parameters.
        """
        del train
        dense = functools.partial(nn.Dense, kernel_init=_LINEAR_INIT, dtype=self.dtype)
        # The fast variance, mean(x^2) - mean(x)^2, loses digits where the mean is large.
        norm = functools.partial(nn.LayerNorm, epsilon=self.norm_epsilon, use_fast_variance=False, dtype=self.dtype)
        grid = self._grid(images)
        x = self._embed_patches(images, grid)
        if self.pre_norm:
            x = norm(name="norm_pre")(x)
        for index in range(self.depth):
            x = Block(self.num_heads, self.activation, self.layer_scale, dense, norm, name=f"blocks_{index}")(x)
            if index + 1 == self.frozen_stages:
                x = jax.lax.stop_gradient(x)
        x = norm(name="norm")(x)
        if self.projection_dim:
            x = dense(self.projection_dim, use_bias=False, name="head")(x)
        return x[:, 1 + self.num_registers :].reshape(x.shape[0], *grid, -1), x[:, 0]

    def _grid(self, images: jax.Array) -> tuple[int, int]:
        """Returns (h, w) of the patches."""
        size, (height, width) = self.patch_size, images.shape[1:3]
        if height % size or width % size:
            raise errors.UserError(
                f"images must have a height and a width that are multiples of {size}, the side of a patch, got "
                f"{height} x {width}"
            )
        grid = (height // size, width // size)
        if self.has_variable("params", "pos_grid"):
            own = self.get_variable("params", "pos_grid").shape[:2]
            if own != grid:
                raise errors.UserError(
                    f"images must be of the size that the position embedding is for, {own[0] * size} x "
                    f"{own[1] * size}, got {height} x {width}"
                )
        return grid

    def _embed_patches(self, images: jax.Array, grid: tuple[int, int]) -> jax.Array:
        """Returns class token, registers and patches, [B, 1 + num_registers + h w, C]."""
        batch, size = images.shape[0], self.patch_size
        patches = nn.Conv(
            self.dim,
            (size, size),
            strides=size,
            padding="VALID",
            use_bias=not self.pre_norm,
            kernel_init=_PATCH_INIT,
            dtype=self.dtype,
            name="patch_embed_proj",
        )(images)
        class_token = self.param("cls_token", _TOKEN_INIT, (1, 1, self.dim), jnp.float32)
        class_token = class_token + self.param("pos_class", _LINEAR_INIT, (self.dim,), jnp.float32)
        pos_grid = self.param("pos_grid", _LINEAR_INIT, (*grid, self.dim), jnp.float32)
        patches = (patches + pos_grid.astype(self.dtype)).reshape(batch, -1, self.dim)
        tokens = [class_token]
        if self.num_registers:
            tokens.append(self.param("reg_token", _TOKEN_INIT, (1, self.num_registers, self.dim), jnp.float32))
        tokens = [jnp.broadcast_to(each.astype(self.dtype), (batch, *each.shape[1:])) for each in tokens]
        return jnp.concatenate((*tokens, patches), axis=1)

    @property
    def num_stages(self) -> int:
        """How many stages there are, as `frozen_stages` counts them."""
        return self.depth

    def frozen_prefixes(self) -> tuple[str, ...]:
        """Returns what the paths of the parameters begin with that `frozen_stages` freezes."""
        if not self.frozen_stages:
            return ()
        start = ["patch_embed_proj/", "cls_token", "pos_class", "pos_grid"]
        start += ["reg_token"] * bool(self.num_registers) + ["norm_pre/"] * self.pre_norm
        return (*start, *(f"blocks_{index}/" for index in range(self.frozen_stages)))

    def torch_name(self, path: str) -> str:
        """Returns timm's name of a leaf: "blocks_0/attn/qkv/kernel" is "blocks.0.attn.qkv.weight".

        "pos_class" and "pos_grid", which timm has in one tensor, keep their names.
        """
        name = re.sub(r"^blocks_", "blocks.", torch_names.dotted(path))
        return re.sub(r"^patch_embed_proj\.", "patch_embed.proj.", name)

    def canonical_state(
        self, state: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
    ) -> dict[str, np.ndarray]:
        """Renames a published state as timm does, and fits its position embedding to the size of the images.

        Classifiers, mask tokens and CLIP's text tower are dropped.

        Args:
            state: arrays by the names of timm, facebookresearch/dinov2, OpenAI's CLIP or open_clip.
            shapes: that are wanted, by `torch_name`'s names.

        Raises:
            UserError: the patches of the position embedding fill neither a square nor the grid that is wanted.
        """
        # timm adds the class token's position to the token where there are registers; DINOv2 does not.
        has_class = "reg_token" not in state
        unused = ("head.bias",) if self.projection_dim else ("head.", "pre_logits.")
        state = torch_names.without_heads(vit_names.to_timm(state), "mask_token", *unused)
        grid = tuple(shapes["pos_grid"][:2])
        if "pos_embed" in state:
            positions = state.pop("pos_embed")
            state["pos_class"], state["pos_grid"] = vit_positions.split(positions, has_class=has_class, grid=grid)
        if "pos_grid" in state and state["pos_grid"].ndim == 3:
            state["pos_grid"] = vit_positions.resize(state["pos_grid"], grid, resizing=self.position_resizing)
        return state


_SMALL = {"dim": 384, "depth": 12, "num_heads": 6}
_BASE = {"dim": 768, "depth": 12, "num_heads": 12}
_DINOV2 = {"patch_size": 14, "layer_scale": True}


def vit_s16(**fields) -> VisionTransformer:
    """Returns a ViT-S/16, timm's `vit_small_patch16_224`; the arguments are `VisionTransformer`'s other fields."""
    return VisionTransformer(patch_size=16, **_SMALL, **fields)


def vit_b16(**fields) -> VisionTransformer:
    """Returns a ViT-B/16, timm's `vit_base_patch16_224`; the arguments are `VisionTransformer`'s other fields."""
    return VisionTransformer(patch_size=16, **_BASE, **fields)


def vit_s14(**fields) -> VisionTransformer:
    """Returns DINOv2's ViT-S/14 (Oquab et al. 2024); the arguments are `VisionTransformer`'s other fields."""
    return VisionTransformer(**_DINOV2, **_SMALL, position_resizing="offset", **fields)


def vit_b14(**fields) -> VisionTransformer:
    """Returns DINOv2's ViT-B/14 (Oquab et al. 2024); the arguments are `VisionTransformer`'s other fields."""
    return VisionTransformer(**_DINOV2, **_BASE, position_resizing="offset", **fields)


def vit_s14_reg(**fields) -> VisionTransformer:
    """Returns DINOv2's ViT-S/14 with 4 registers; the arguments are `VisionTransformer`'s other fields."""
    return VisionTransformer(**_DINOV2, **_SMALL, num_registers=4, **fields)


def vit_b14_reg(**fields) -> VisionTransformer:
    """Returns DINOv2's ViT-B/14 with 4 registers; the arguments are `VisionTransformer`'s other fields."""
    return VisionTransformer(**_DINOV2, **_BASE, num_registers=4, **fields)


def vit_b16_clip(*, activation: str = "quick_gelu", **fields) -> VisionTransformer:
    """Returns the ViT-B/16 that is the images' tower of CLIP (Radford et al. 2021), with its projection to 512.

    Args:
        activation: "quick_gelu" for OpenAI's weights; open_clip's own, such as LAION-2B's, were trained with "gelu".
        **fields: `VisionTransformer`'s other fields.
    """
    return VisionTransformer(
        patch_size=16,
        **_BASE,
        pre_norm=True,
        projection_dim=512,
        activation=activation,
        norm_epsilon=1e-5,
        **fields,
    )
