"""Exports a run's model: as one file that serves without this code, on CPU, GPU or TPU, or as a model folder.

    python experiments/export.py --model=runs/shop --output=shop.zip
    python experiments/export.py --model=runs/shop --output=shop.onnx        # needs the extra [onnx]
    python experiments/export.py --model=runs/shop --output=models/shop      # model.json and weights.safetensors

The .zip holds StableHLO that jax.export.deserialize loads, with the weights and all that is done to an image: it takes
uint8 images of any number and size and returns embeddings of length 1; README.txt inside says how to call it. embed,
search and group take the .zip as a model. The .onnx is for ONNX runtimes: its images have the model's own size.
Before a file is there, what it computes has been compared with the run's model.
"""

import pathlib
from collections.abc import Callable

import jax
import numpy as np
from absl import flags
from PIL import Image

from reid_jax import atomic, errors, features, sharding
from reid_jax.cli import program
from reid_jax.data.images import resize_images
from reid_jax.embeddings import l2_normalize
from reid_jax.inference import exported, model_folder, onnx_export, trained_model
from reid_jax.runs import checkpoints

# The greatest difference of a number in embeddings of length 1. bfloat16 keeps 8 bits, and another order of the same
# operations rounds elsewhere.
_TOLERANCE = {"float32": 1e-4, "bfloat16": 3e-2}
_CHECKED_BATCHES = (1, 3)
# Of images that the file resizes itself, to within a grey level of Pillow: 1 - cosine.
_RESIZED_TOLERANCE = 0.01
_SUFFIXES = (".zip", ".onnx")


def export_model(source: str, output: str) -> tuple[float, float | None]:
    """Exports a model and compares the file with it.

    Args:
        source: a run directory, its folder checkpoints/best or checkpoints/last, or a model folder.
        output: the .zip or .onnx to write.

    Returns:
        The greatest difference between an embedding's numbers by the file and by the model; and for a .zip, which also
        takes images of other sizes, the greatest 1 - cosine to the embedding of the image as Pillow resizes it.

    Raises:
        UserError: there is no model, or a package is missing.
        RuntimeError: the file computes something else; it is not kept.
    """
    with errors.prefixed("--model: "):
        model, variables, config = trained_model.load_network(source)
    height, width = config.data.height, config.data.width
    function = exported.embedding_function(model, variables, height=height, width=width)
    result = jax.eval_shape(function, jax.ShapeDtypeStruct((1, height, width, 3), np.uint8))
    info = exported.Info(
        digest=checkpoints.digest(variables),
        height=height,
        width=width,
        dim=result.shape[1],
        dtype=config.model.dtype,
        description=f"{config.model.backbone} of {pathlib.Path(source).resolve().name}, trained on {config.data.dataset}",
    )
    embed_step = features.make_embed_step(model, sharding.make_mesh(1))

    def original(images: np.ndarray) -> np.ndarray:
        return l2_normalize(np.asarray(embed_step(variables, images).embeddings))

    with atomic.atomic_path(output) as temporary:
        if temporary.suffix == ".onnx":
            onnx_export.write_onnx(temporary, function, info)
            call = onnx_export.load_onnx(temporary)
        else:
            exported.write_model(temporary, function, info, name=pathlib.Path(output).name)
            call = exported.read_model(temporary).call
        difference = max(_difference(original, call, count, height, width) for count in _CHECKED_BATCHES)
        resized = _resized_difference(original, call, height, width) if temporary.suffix == ".zip" else None
        if not (difference <= _TOLERANCE[config.model.dtype] and (resized or 0.0) <= _RESIZED_TOLERANCE):
            raise RuntimeError(
                f"an embedding by {output!r} differs by {difference:.2g} from the model's, more than "
                f"{_TOLERANCE[config.model.dtype]:.0e}, or of a resized image by {resized}, more than {_RESIZED_TOLERANCE}"
            )
    return difference, resized


def _resized_difference(original: Callable, call: Callable, height: int, width: int) -> float:
    """The greatest 1 - cosine between images that the file resizes and those that Pillow does."""
    large = _pictures(2, 2 * height + 9, width + 31)
    small = resize_images(large, height, width)
    return float(1 - np.sum(np.asarray(call(large)) * original(small), axis=1).min())


def _difference(original: Callable, call: Callable, count: int, height: int, width: int) -> float:
    images = _pictures(count, height, width)
    return float(np.abs(np.asarray(call(images)) - original(images)).max())


def _pictures(count: int, height: int, width: int) -> np.ndarray:
    """Smooth colour patterns [count, height, width, 3] uint8, nearer to photographs than noise is."""
    rng = np.random.default_rng(count)
    coarse = rng.integers(0, 256, (count, 8, 4, 3), np.uint8)
    return np.stack([np.asarray(Image.fromarray(each).resize((width, height), Image.BICUBIC)) for each in coarse])


def export_folder(source: str, output: str) -> model_folder.ModelInfo:
    """Writes a model folder.

    Raises:
        UserError: there is no model, or the folder holds something else.
    """
    with errors.prefixed("--model: "):
        model, variables, config = trained_model.load_network(source)
    image = jax.ShapeDtypeStruct((1, config.data.height, config.data.width, 3), np.float32)
    dim = jax.eval_shape(lambda image: model.apply(variables, image, train=False), image).embeddings.shape[1]
    with errors.prefixed("--output: "):
        return model_folder.write_model(output, variables, config, dim=dim, method=config.get("method", ""))


def main() -> None:
    """Exports as the flags say."""
    args = flags.FLAGS
    program.require("model", "output")
    output = pathlib.Path(args.output)
    if output.suffix not in ("", *_SUFFIXES) or (output.suffix and output.is_dir()):
        raise errors.UserError(
            f"--output: {args.output!r} must be a file that ends in .zip or .onnx, or a folder without such an ending"
        )
    program.check_folder_of(args.output)
    with errors.prefixed("--model: "):
        source = trained_model.find_model(args.model)
    if not source.is_dir():
        raise errors.UserError(f"--model: there is no run directory and no model folder {args.model!r}")
    if not output.suffix:
        info = export_folder(args.model, args.output)
        print(f"{args.output}: embeddings of {info.dim} numbers of {info.height}x{info.width} images", flush=True)
        return
    if output.suffix == ".onnx":
        with errors.prefixed("--output: "):
            onnx_export.check_installed()
    difference, resized = export_model(args.model, args.output)
    text = (
        f"{args.output}: {output.stat().st_size / 2**20:.1f} MiB, differs from the model by at most {difference:.1e} "
    )
    text += "in a number of an embedding"
    if resized is not None:
        text += f"; images that it resizes itself by at most {max(resized, 0):.1e} (1 - cosine)"
    print(text, flush=True)


def define_flags() -> None:
    """Defines the command line."""
    program.group("Input")
    flags.DEFINE_string(
        "model",
        None,
        "A run directory (its best model), its folder checkpoints/best or checkpoints/last, or a model folder.",
    )
    program.group("Output")
    flags.DEFINE_string("output", None, "The file to write, .zip or .onnx, or the folder.")


if __name__ == "__main__":
    program.run(main, define_flags)
