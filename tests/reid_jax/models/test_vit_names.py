import numpy as np
import pytest

from reid_jax.models import vit_names

CLIP = {
    "class_embedding": "cls_token",
    "positional_embedding": "pos_embed",
    "conv1.weight": "patch_embed.proj.weight",
    "ln_pre.bias": "norm_pre.bias",
    "ln_post.weight": "norm.weight",
    "transformer.resblocks.11.ln_2.weight": "blocks.11.norm2.weight",
    "transformer.resblocks.0.attn.in_proj_weight": "blocks.0.attn.qkv.weight",
    "transformer.resblocks.0.attn.in_proj_bias": "blocks.0.attn.qkv.bias",
    "transformer.resblocks.0.attn.out_proj.bias": "blocks.0.attn.proj.bias",
    "transformer.resblocks.3.mlp.c_fc.weight": "blocks.3.mlp.fc1.weight",
    "transformer.resblocks.3.mlp.c_proj.weight": "blocks.3.mlp.fc2.weight",
    "proj": "head.weight",
}
DINOV2 = {
    "register_tokens": "reg_token",
    "blocks.0.5.ls1.gamma": "blocks.5.ls1.gamma",
    "blocks.3.11.mlp.fc1.weight": "blocks.11.mlp.fc1.weight",
    "blocks.2.attn.qkv.bias": "blocks.2.attn.qkv.bias",
    "mask_token": "mask_token",
}


def renamed(names):
    """What each name becomes, by the value that goes with it."""
    state = {name: np.full((2, 3), index) for index, name in enumerate(names)}
    return {names[array.flat[0]]: name for name, array in vit_names.to_timm(state).items()}


@pytest.mark.parametrize("names", [CLIP, DINOV2], ids=["clip", "dinov2"])
def test_names_become_timms(names):
    assert renamed(list(names)) == names
    assert renamed(list(names.values())) == {name: name for name in names.values()}


def test_of_a_whole_clip_model_only_the_images_tower_is_left():
    text = ["transformer.resblocks.0.ln_1.weight", "positional_embedding", "token_embedding.weight", "logit_scale"]
    tower = {f"visual.{name}": timm for name, timm in CLIP.items()}
    assert renamed([*text, *tower]) == tower


def test_layouts_become_timms():
    embedding, projection = np.arange(4.0), np.arange(8.0).reshape(4, 2)
    state = vit_names.to_timm({"class_embedding": embedding, "proj": projection})
    np.testing.assert_array_equal(state["cls_token"], embedding.reshape(1, 1, 4))
    np.testing.assert_array_equal(state["head.weight"], projection.T)


def test_unknown_names_stay():
    assert renamed(["backbone.proj", "blocks.0.attn.rel_pos"]) == {
        "backbone.proj": "backbone.proj",
        "blocks.0.attn.rel_pos": "blocks.0.attn.rel_pos",
    }
