"""Against timm, DINOv2 and open_clip: the golden outputs are made by tests/support/data/make_vit_golden.py."""

import functools
import importlib.util
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_data import DATA

from reid_jax import errors
from reid_jax.inference import exported
from reid_jax.models import pretrained, vit
from reid_jax.models.reid import ReidModel

_spec = importlib.util.spec_from_file_location("make_vit_golden", DATA / "make_vit_golden.py")
golden_script = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(golden_script)

IMAGES = golden_script.random_images(16, 8)


@pytest.fixture(scope="module")
def golden():
    with np.load(DATA / "vit_golden.npz") as arrays:
        return dict(arrays)


def published_shapes(golden, case):
    return json.loads(golden[f"{case.name}/shapes"].tobytes())


@functools.cache
def shapes_of(model, height, width):
    images = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)
    return jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), images)


def random_weights(model, height, width):
    """The golden script's random weights, by name."""
    shapes = shapes_of(model, height, width)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    state = pretrained.to_state(zeros, model)
    drawn = {name: golden_script.random_array(name, array.shape) for name, array in state.items()}
    return pretrained.to_variables(drawn, shapes, model)


def apply(model, variables, images):
    return jax.jit(functools.partial(model.apply, train=False))(variables, images)


@pytest.mark.parametrize("case", [case for case in golden_script.CASES if case.size], ids=lambda case: case.name)
def test_outputs_equal_the_reference(golden, case):
    model = getattr(vit, case.architecture)().clone(depth=golden_script.DEPTH)
    shapes = golden_script.first_blocks(published_shapes(golden, case))
    state = {name: golden_script.random_array(name, tuple(shape)) for name, shape in shapes.items()}
    variables = pretrained.to_variables(state, shapes_of(model, *case.size), model)
    feature_map, token = apply(model, variables, golden_script.random_images(*case.size))
    height, width = (side // model.patch_size for side in case.size)
    dim = model.projection_dim or model.dim
    assert feature_map.shape == (2, height, width, dim) and token.shape == (2, dim)
    for ours, kind in ((token, "token"), (feature_map.reshape(2, -1, dim), "patches")):
        expected = golden[f"{case.name}/{kind}"]
        difference = np.abs(ours[..., :: golden_script.CHANNEL_STEP] - expected).max()
        assert difference <= 1e-5 * np.abs(expected).max(), kind


@pytest.mark.parametrize("case", golden_script.CASES, ids=lambda case: case.name)
def test_every_published_file_fits(golden, case):
    model = getattr(vit, case.architecture)()
    variables = shapes_of(model, 18 * model.patch_size, 9 * model.patch_size)["params"]
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    names = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in leaves}
    # Linear layers are [out, in] in torch, convolutions OIHW.
    wanted = {model.torch_name(path): shape for path, shape in names.items()}
    wanted = {
        name: shape[::-1] if name.endswith("weight") and len(shape) == 2 else shape for name, shape in wanted.items()
    } | {"patch_embed.proj.weight": (model.dim, 3, model.patch_size, model.patch_size)}
    # Nothing but shapes is looked at.
    state = {name: np.broadcast_to(np.float32(0), shape) for name, shape in published_shapes(golden, case).items()}
    canonical = model.canonical_state(state, wanted)
    assert {name: array.shape for name, array in canonical.items()} == wanted


def test_names_are_timms():
    model = vit.vit_s14_reg()
    names = {
        "patch_embed_proj/kernel": "patch_embed.proj.weight",
        "blocks_11/attn/qkv/bias": "blocks.11.attn.qkv.bias",
        "blocks_0/ls1/gamma": "blocks.0.ls1.gamma",
        "blocks_0/norm1/scale": "blocks.0.norm1.weight",
        "cls_token": "cls_token",
        "pos_grid": "pos_grid",
    }
    assert {path: model.torch_name(path) for path in names} == names


@pytest.fixture(scope="module")
def small():
    """A small transformer with all there is, and its variables for images of 16 x 8 pixels."""
    model = vit.VisionTransformer(
        patch_size=4, dim=8, depth=2, num_heads=2, num_registers=1, layer_scale=True, pre_norm=True, projection_dim=6
    )
    return model, random_weights(model, 16, 8)


def test_own_states_are_read_and_resized(small):
    model, variables = small
    state = pretrained.to_state(variables, model)
    same = pretrained.to_variables(state, shapes_of(model, 16, 8), model)
    jax.tree.map(np.testing.assert_array_equal, same, variables)
    larger = pretrained.to_variables(state, shapes_of(model, 20, 12), model)["params"]
    assert larger["pos_grid"].shape == (5, 3, 8)
    np.testing.assert_array_equal(larger["pos_class"], variables["params"]["pos_class"])


@pytest.mark.parametrize("field, without", [("layer_scale", "ls1"), ("num_registers", "reg_token")])
def test_names_of_what_a_model_has_not_are_left_for_the_caller_to_report(small, field, without):
    model, variables = small
    state = pretrained.to_state(variables, model)
    other = model.clone(**{field: 0})
    with pytest.raises(errors.UserError, match=f"unexpected .*{without}"):
        pretrained.to_variables(state, shapes_of(other, 16, 8), other)
    fewer = {name: array for name, array in state.items() if without not in name and not name.startswith("pos")}
    with pytest.raises(errors.UserError, match="missing"):
        pretrained.to_variables(fewer, shapes_of(model, 16, 8), model)


def test_images_do_not_see_each_other(small):
    model, variables = small
    embed = jax.jit(functools.partial(model.apply, variables, train=True))
    feature_map, token = embed(IMAGES)
    assert feature_map.shape == (2, 4, 2, 6) and token.shape == (2, 6)
    changed = IMAGES.copy()
    changed[1] = 1 - 2 * changed[1]
    for ours, expected in zip(embed(changed), (feature_map, token)):
        np.testing.assert_array_equal(ours[0], expected[0])
        assert np.abs(ours[1] - expected[1]).max() > 0.1


def test_norms_keep_their_digits_where_the_mean_is_large(small):
    model, variables = small
    tokens = ("pos_class", "pos_grid", "reg_token")
    params = variables["params"] | {name: variables["params"][name] + 100 for name in tokens}
    for ours, expected in zip(apply(model, {"params": params}, IMAGES), apply(model, variables, IMAGES)):
        np.testing.assert_allclose(ours, expected, atol=1e-3 * np.abs(expected).max())


def test_bfloat16_is_finite_and_near_float32(small):
    model, variables = small
    results = apply(model.clone(dtype=jnp.bfloat16), variables, IMAGES)
    for ours, expected in zip(results, apply(model, variables, IMAGES)):
        assert ours.dtype == jnp.bfloat16
        np.testing.assert_allclose(ours.astype(jnp.float32), expected, atol=0.05 * np.abs(expected).max())


@pytest.mark.parametrize("frozen_stages", [0, 1, 2])
def test_gradients_reach_what_is_not_frozen(small, frozen_stages):
    model, variables = small
    model = model.clone(frozen_stages=frozen_stages)
    rng = np.random.default_rng(1)
    of_map, of_token = rng.normal(size=(2, 4, 2, 6)), rng.normal(size=(2, 6))

    @jax.jit
    @jax.grad
    def gradients_of(params):
        feature_map, token = model.apply({"params": params}, IMAGES, train=True)
        return jnp.sum(feature_map * of_map) + jnp.sum(token * of_token)

    prefixes, frozen = model.frozen_prefixes(), set()
    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients_of(variables["params"])):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        assert np.isfinite(gradient).all(), name
        assert gradient.any() != name.startswith(prefixes or ("none",)), name
        if name.startswith(prefixes or ("none",)):
            frozen.add(name.split("/")[0])
    start = {"patch_embed_proj", "cls_token", "reg_token", "pos_class", "pos_grid", "norm_pre"}
    assert frozen == (start | {f"blocks_{index}" for index in range(frozen_stages)} if frozen_stages else set())


def test_prefixes_tell_block_1_from_block_10():
    assert "blocks_1/" in vit.vit_s16(frozen_stages=2).frozen_prefixes()
    assert not "blocks_10/attn/qkv/kernel".startswith(vit.vit_s16(frozen_stages=2).frozen_prefixes())


def test_the_size_of_images_is_checked(small):
    model, variables = small
    for size in ((1, 16, 10, 3), (1, 15, 8, 3)):
        rule = f"multiples of 4, the side of a patch, got {size[1]} x {size[2]}"
        with pytest.raises(errors.UserError, match=rule):
            jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), jnp.zeros(size))
    with pytest.raises(errors.UserError, match="position embedding is for, 16 x 8, got 8 x 16"):
        model.apply(variables, jnp.zeros((1, 8, 16, 3)), train=False)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"patch_size": 0}, "patch_size must be at least 1, got 0"),
        ({"depth": 0}, "depth must be at least 1"),
        ({"num_registers": -1}, "num_registers must be at least 0"),
        ({"projection_dim": -1}, "projection_dim must be at least 0"),
        ({"num_heads": 3}, "num_heads must divide dim, which is 8, got 3"),
        ({"norm_epsilon": 0.0}, "norm_epsilon must be greater than 0"),
        ({"activation": "relu"}, "activation must be one of gelu, quick_gelu, got 'relu'"),
        ({"position_resizing": "linear"}, "position_resizing must be one of antialiased, offset, got 'linear'"),
        ({"frozen_stages": 3}, "frozen_stages must be in 0..2, the number of blocks, got 3"),
        ({"bn_group_size": -1}, "bn_group_size must be at least 0"),
    ],
)
def test_fields_are_checked(fields, message):
    with pytest.raises(errors.UserError, match=message):
        vit.VisionTransformer(**{"patch_size": 4, "dim": 8, "depth": 2, "num_heads": 2, **fields})


def test_the_start_is_timms():
    model = vit.VisionTransformer(patch_size=8, dim=64, depth=1, num_heads=1)

    @jax.jit
    def start(key):
        # What is not returned is not compiled.
        params = model.init(key, jnp.zeros((1, 64, 64, 3)), train=False)["params"]
        linear = params["blocks_0"]["attn"]["qkv"]["kernel"]
        return linear, params["pos_grid"], params["patch_embed_proj"]["kernel"], params["cls_token"]

    linear, positions, patches, token = start(jax.random.key(0))
    for array in (linear, positions):
        np.testing.assert_allclose(array.std(), 0.02, rtol=0.05)
    # torch's start of convolutions: uniform up to 1 / sqrt(8 * 8 * 3).
    np.testing.assert_allclose(np.abs(patches).max(), 192**-0.5, rtol=0.01)
    assert 0 < np.abs(token).max() < 1e-5


def test_an_exported_transformer_gives_the_same_embeddings(small, tmp_path):
    backbone, variables = small
    model = ReidModel(backbone=backbone, pooling="token")
    function = exported.embedding_function(model, {"params": {"backbone": variables["params"]}}, height=16, width=8)
    # Reading refuses whatever is not made of plain array operations.
    exported.write_model(tmp_path / "model.reid", function, exported.Info("c0ffee", 16, 8, 6, "float32", "tiny"))
    call = exported.read_model(tmp_path / "model.reid").call
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 8, 3), np.uint8)
    np.testing.assert_allclose(call(images), jax.jit(function)(images), atol=1e-5)
