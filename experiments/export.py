"""Writes a model to be used elsewhere: as one file that serves without this code, or as a model folder.

    python experiments/export.py --model=runs/shop --output=shop.zip
    python experiments/export.py --model=runs/shop --output=shop.onnx        # needs the extra [onnx]
    python experiments/export.py --model=runs/shop --output=shop_model      # model.json and weights.safetensors
    python experiments/export.py --model=mobilenet_v2 --postprocess=pca_whiten --fit_source=crops --output=crops.zip

The .zip holds StableHLO that jax.export.deserialize loads, with the weights and all that is done to an image: it takes
uint8 images of any number and size and returns embeddings of length 1; README.txt inside says how to call it. embed,
search and group take the .zip as a model. The .onnx is for ONNX runtimes: its images have the model's own size.
Before a file is there, what it computes has been compared with the model. Post-processing, fitted to a folder of your own
images without labels, becomes a part of what is written.
"""

import dataclasses
import pathlib
import re

import numpy as np
from absl import flags

from reid_jax import errors, features, postprocess, sharding
from reid_jax.cli import program, shared_flags
from reid_jax.data import image_folder
from reid_jax.data.image_files import ImageFiles
from reid_jax.data.images import StreamedImages
from reid_jax.data.samples import Samples
from reid_jax.inference import networks, onnx_export, writing
from reid_jax.inference.networks import Network
from reid_jax.postprocess import Postprocess

_SUFFIXES = (".zip", ".onnx")


def load(args: flags.FlagValues) -> tuple[Network, Postprocess | None]:
    """Loads the network of --model, and fits what --postprocess says to the images of --fit_source.

    Raises:
        UserError: there is no such model, or nothing can be fitted.
    """
    with errors.prefixed("--model: "):
        networks.find_model(args.model)  # before the images are looked at
    files = None
    if args.postprocess != "none":
        files = image_folder.find_images(args.fit_source, flag="fit_source", on_bad_image=args.on_bad_image)
    with errors.prefixed("--model: "):
        height, width = args.height or 0, args.width or 0
        if files is not None:
            height, width = networks.auto_size(args.model, files, height=height, width=width)
        network = networks.load_network(args.model, height=height, width=width)
    if files is None:
        return network, network.fitted
    if network.fitted is not None:
        raise errors.UserError(
            f"--postprocess: it must be none, the model has {network.fitted.kind} already, got {args.postprocess}"
        )
    return network, fit(args, network, files)


def check_fitting(args: flags.FlagValues) -> None:
    """Checks the flags of post-processing.

    Raises:
        UserError: one of those that belong together is missing.
    """
    shared_flags.check_whiten_dim(args)
    if args.postprocess != "none":
        program.require("fit_source")
    elif args.fit_source:
        raise errors.UserError("--fit_source: --postprocess is needed with it, such as --postprocess=pca_whiten")
    if bool(args.camid_from) != (args.postprocess in postprocess.CAMERA_KINDS):
        raise errors.UserError(
            "--camid_from: it and a --postprocess with cameras, camera_center or camera_whiten, belong together"
        )


def fit(args: flags.FlagValues, network: Network, files: ImageFiles) -> Postprocess:
    """Fits --postprocess to a folder's images.

    Raises:
        UserError: it cannot be fitted to them.
    """
    data = network.config.data
    mesh = sharding.make_mesh()
    samples = Samples.of_images(len(files))
    if args.camid_from:
        with errors.prefixed("--camid_from: "):
            samples = dataclasses.replace(samples, camids=camera_numbers(files.paths, args.camid_from))
    rows = features.embed_samples(
        features.make_embed_step(network.module, mesh),
        network.variables,
        StreamedImages(files, data.height, data.width, num_workers=0),
        dataclasses.replace(samples, names=files.paths),
        mesh,
        batch_size=args.batch_size,
        description=f"embedding {files.name}",
    ).embeddings
    shared_flags.check_whiten_dim(args, rows.shape[1])
    with errors.prefixed("--postprocess: ", ValueError):
        return postprocess.fit(args.postprocess, [rows], camids=samples.camids, dim=args.whiten_dim)


def camera_numbers(paths: np.ndarray, pattern: str) -> np.ndarray:
    """Returns the cameras [N] int32 in images' paths, by the group of a regular expression; -1 where it does not match.

    Raises:
        UserError: it is no regular expression with a group, or what it finds is no number.
    """
    try:
        expression = re.compile(pattern)
        found = [expression.search(path) for path in paths]
        # int32 is what an exported function takes.
        cameras = np.array([-1 if match is None else int(match[1]) for match in found], np.int32)
    except (re.error, IndexError, TypeError, ValueError, OverflowError) as error:
        raise errors.UserError(f"{pattern!r} must be a regular expression whose group is a number: {error}") from error
    if (cameras < 0).all():
        raise errors.UserError(f"{pattern!r} is in none of the {len(paths)} paths, such as {str(paths[0])!r}")
    return cameras


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
    check_fitting(args)
    if output.suffix == ".onnx":
        with errors.prefixed("--output: "):
            onnx_export.check_installed()
    network, fitted = load(args)
    print(f"model: {network.about}", flush=True)
    if not output.suffix:
        with errors.prefixed("--output: "):
            info = writing.export_folder(network, fitted, args.output)
        print(f"{args.output}: embeddings of {info.dim} numbers of {info.height}x{info.width} images", flush=True)
        return
    name = pathlib.Path(args.model).resolve().name
    difference, resized = writing.export_model(network, fitted, args.output, name=name)
    text = (
        f"{args.output}: {output.stat().st_size / 2**20:.1f} MiB, differs from the model by at most {difference:.1e} "
    )
    text += "in a number of an embedding"
    if resized is not None:
        text += f"; images that it resizes itself by at most {max(resized, 0):.1e} (1 - cosine)"
    print(text, flush=True)


def define_flags() -> None:
    """Defines the command line."""
    shared_flags.define_model(takes_exported=False)
    shared_flags.define_postprocess("the images of --fit_source")
    flags.DEFINE_string("fit_source", None, "A folder of your own images, sub-folders included, without labels.")
    flags.DEFINE_string(
        "camid_from",
        None,
        "A regular expression whose group is the camera in their paths, for camera_center and camera_whiten.",
    )
    program.group("Output")
    flags.DEFINE_string("output", None, "The file to write, .zip or .onnx, or the folder.")
    shared_flags.define_embedding()


if __name__ == "__main__":
    program.run(main, define_flags)
