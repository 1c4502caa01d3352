"""Names of vision transformers' weights: those of DINOv2's, OpenAI CLIP's and open_clip's files to timm's."""

import re
from collections.abc import Mapping

import numpy as np

_CLIP_TOWER = "visual."
_TO_TIMM = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        # DINOv2 trains its blocks in chunks and counts them through: blocks.1.6 is block 6.
        (r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),
        (r"^register_tokens$", "reg_token"),
        # CLIP
        (r"^class_embedding$", "cls_token"),
        (r"^positional_embedding$", "pos_embed"),
        (r"^conv1\.", "patch_embed.proj."),
        (r"^ln_pre\.", "norm_pre."),
        (r"^ln_post\.", "norm."),
        (r"^proj$", "head.weight"),
        (r"^transformer\.resblocks\.", "blocks."),
        (r"^(blocks\.\d+)\.ln_(\d)\.", r"\1.norm\2."),
        (r"^(blocks\.\d+)\.attn\.in_proj_", r"\1.attn.qkv."),
        (r"^(blocks\.\d+)\.attn\.out_proj\.", r"\1.attn.proj."),
        (r"^(blocks\.\d+)\.mlp\.c_fc\.", r"\1.mlp.fc1."),
        (r"^(blocks\.\d+)\.mlp\.c_proj\.", r"\1.mlp.fc2."),
    )
)


def to_timm(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Renames the weights of a published vision transformer as timm names them, and shapes them as timm does.

    Args:
        state: arrays by the names of timm, facebookresearch/dinov2, OpenAI's CLIP or open_clip. If any name begins with
            "visual.", as in a whole CLIP model, only those are of the images' tower.

    Returns:
        The arrays by timm's names, names that are not known as they are; but for "pos_embed", which may be [N, C]
        besides timm's [1, N, C], in timm's layouts.
    """
    if any(name.startswith(_CLIP_TOWER) for name in state):
        state = {name.removeprefix(_CLIP_TOWER): array for name, array in state.items() if name.startswith(_CLIP_TOWER)}
    return {_timm_name(name): _timm_layout(name, array) for name, array in state.items()}


def _timm_name(name: str) -> str:
    for pattern, replacement in _TO_TIMM:
        name = pattern.sub(replacement, name)
    return name


def _timm_layout(name: str, array: np.ndarray) -> np.ndarray:
    if name == "class_embedding":
        return array[None, None]
    # CLIP multiplies by it from the right, a linear layer by its transpose.
    return array.T if name == "proj" else array
