"""Makes the golden file of the vision transformers' tests with torch, which the tests do not need.

  XFORMERS_DISABLED=1 PYTHONPATH=DINOV2 python tests/support/data/make_vit_golden.py

DINOV2 is a clone of github.com/facebookresearch/dinov2 (commit b8931f7). Made with torch 2.14.1, torchvision 0.29.1,
timm 1.0.31 and open_clip_torch 3.3.0.

Weights are not stored: torch here and the tests draw them by name from the same numpy generators. torch computes in
float64, so that a difference is the tested side's own. A model's outputs are those of its first two blocks, after which
come the final norm and the projection; the images are smaller than the published ones, so that every position
embedding is resized as the reference does it.
"""

import json
import pathlib
import zlib
from typing import NamedTuple

import numpy as np

FOLDER = pathlib.Path(__file__).parent
DEPTH = 2
CHANNEL_STEP = 8  # every n-th channel of an output is stored
RESIZED = ((14, 14), (7, 9), (20, 5))  # of the position embeddings that are resized alone: the first is given


class Case(NamedTuple):
    """A published model.

    Attributes:
        library: "timm", "dinov2" or "open_clip".
        name: in the library.
        architecture: ours.
        size: (height, width) of the images; None: only the names and shapes are stored.
    """

    library: str
    name: str
    architecture: str
    size: tuple[int, int] | None = None


CASES = (
    Case("timm", "vit_small_patch16_224", "vit_s16", (64, 32)),
    Case("timm", "vit_base_patch16_224", "vit_b16"),
    Case("timm", "vit_small_patch14_reg4_dinov2", "vit_s14_reg", (70, 42)),
    Case("timm", "vit_base_patch14_dinov2", "vit_b14"),
    Case("timm", "vit_base_patch14_reg4_dinov2", "vit_b14_reg"),
    Case("timm", "vit_base_patch16_clip_quickgelu_224", "vit_b16_clip"),
    Case("dinov2", "dinov2_vits14", "vit_s14", (70, 42)),
    Case("dinov2", "dinov2_vitb14", "vit_b14"),
    Case("dinov2", "dinov2_vits14_reg", "vit_s14_reg", (70, 42)),
    Case("dinov2", "dinov2_vitb14_reg", "vit_b14_reg"),
    Case("open_clip", "ViT-B-16-quickgelu", "vit_b16_clip", (64, 32)),
)


def random_images(height: int, width: int) -> np.ndarray:
    """Returns the input, [2, height, width, 3] float32."""
    return np.random.default_rng(0).normal(size=(2, height, width, 3)).astype(np.float32)


def random_array(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns float32 values for the parameter of that torch name, with which activations stay near 1."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("gamma"):
        return rng.uniform(0.2, 1.0, shape).astype(np.float32)
    if len(shape) == 1 and name.endswith("weight"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if name.endswith("bias"):
        return (0.1 * rng.normal(size=shape)).astype(np.float32)
    if name.endswith(("weight", "visual.proj")) and "conv1" not in name and "patch_embed" not in name:
        return (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
    # Of patches, tokens and positions: so small that it shows what a norm adds to their variance.
    return (0.1 * rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]) if len(shape) == 4 else 1)).astype(np.float32)


def first_blocks(shapes: dict[str, list[int]]) -> dict[str, list[int]]:
    """Returns the names and shapes without the blocks from DEPTH on, and without CLIP's text tower."""
    has_tower = any(name.startswith("visual.") for name in shapes)
    return {
        name: shape
        for name, shape in shapes.items()
        if (name.startswith("visual.") or not has_tower)
        and not any(f"blocks.{index}." in name for index in range(DEPTH, 12))
    }


def _published(case: Case):
    """The model, in the size that its weights are published in."""
    import torch

    # Nothing is initialised.
    with torch.device("meta"):
        if case.library == "timm":
            import timm

            return timm.create_model(case.name, **({"num_classes": 512} if "clip" in case.name else {}))
        if case.library == "dinov2":
            from dinov2.hub import backbones

            return getattr(backbones, case.name)(pretrained=False)
        import open_clip

        return open_clip.create_model(case.name, device="meta")


def _shapes(model) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in model.state_dict().items()}


def _random_state(shapes: dict[str, list[int]]):
    import torch

    return {name: torch.tensor(random_array(name, tuple(shape))) for name, shape in first_blocks(shapes).items()}


def _timm_outputs(case: Case, state, images):
    import timm
    from timm.models.vision_transformer import checkpoint_filter_fn

    model = timm.create_model(case.name, img_size=case.size, depth=DEPTH)
    model.load_state_dict(checkpoint_filter_fn(dict(state), model))
    tokens = model.double().eval().forward_features(images)
    return tokens[:, 0], tokens[:, model.num_prefix_tokens :]


def _dinov2_outputs(case: Case, state, images):
    from dinov2.hub import backbones

    model = getattr(backbones, case.name)(pretrained=False)
    model.blocks = model.blocks[:DEPTH]
    model.load_state_dict(state)
    results = model.double().eval().forward_features(images)
    return results["x_norm_clstoken"], results["x_norm_patchtokens"]


def _open_clip_outputs(case: Case, state, images):
    import open_clip
    from open_clip.model import resize_pos_embed

    model = open_clip.create_model(case.name, force_image_size=case.size)
    visual = model.visual
    visual.transformer.resblocks = visual.transformer.resblocks[:DEPTH]
    resize_pos_embed(state, model)
    visual.load_state_dict({name.removeprefix("visual."): value for name, value in state.items()})
    visual.double().eval().output_tokens = True
    token, patches = visual(images)
    return token, patches @ visual.proj


_OUTPUTS = {"timm": _timm_outputs, "dinov2": _dinov2_outputs, "open_clip": _open_clip_outputs}


def _outputs(case: Case, shapes: dict[str, list[int]]) -> dict[str, np.ndarray]:
    import torch

    with torch.no_grad():
        images = torch.tensor(random_images(*case.size), dtype=torch.float64).permute(0, 3, 1, 2)
        token, patches = _OUTPUTS[case.library](case, _random_state(shapes), images)
    stored = {"token": token, "patches": patches}
    return {
        f"{case.name}/{kind}": value[..., ::CHANNEL_STEP].numpy().astype(np.float32) for kind, value in stored.items()
    }


def _resized_positions() -> dict[str, np.ndarray]:
    """A position embedding [14, 14, 4] resized by timm and by DINOv2's own function."""
    import torch
    from dinov2.models.vision_transformer import DinoVisionTransformer
    from timm.layers import resample_abs_pos_embed

    (height, width), *grids = RESIZED
    given = torch.tensor(random_array("pos_embed", (1, 1 + height * width, 4)))
    model = DinoVisionTransformer(img_size=14 * 14, patch_size=14, embed_dim=4, depth=0, block_chunks=0)
    model.pos_embed = torch.nn.Parameter(given)
    resized = {}
    for h, w in grids:
        tokens = torch.zeros(1, 1 + h * w, 4)
        resized[f"timm/{h}x{w}"] = resample_abs_pos_embed(given, [h, w])
        resized[f"dinov2/{h}x{w}"] = model.interpolate_pos_encoding(tokens, 14 * h, 14 * w).detach()
    return {
        name: value[0, 1:].reshape(*map(int, name.split("/")[1].split("x")), 4).numpy()
        for name, value in resized.items()
    }


def main() -> None:
    """Writes the golden file beside this script."""
    golden = _resized_positions()
    for case in CASES:
        shapes = _shapes(_published(case))
        golden[f"{case.name}/shapes"] = np.frombuffer(json.dumps(shapes).encode(), np.uint8)
        if case.size:
            golden |= _outputs(case, shapes)
    np.savez_compressed(FOLDER / "vit_golden.npz", **golden)


if __name__ == "__main__":
    main()
