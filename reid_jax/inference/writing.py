"""Models written to be used elsewhere: as an exported file, compared with the model before it is there, or as a folder."""

import pathlib
from collections.abc import Callable

import jax
import numpy as np
from PIL import Image

from reid_jax import atomic, features, postprocess, sharding
from reid_jax.data.images import resize_images
from reid_jax.inference import exported, model_folder, networks, onnx_export
from reid_jax.inference.networks import Network
from reid_jax.postprocess import Postprocess

# The greatest difference of a number in embeddings of length 1. bfloat16 keeps 8 bits, and another order of the same
# operations rounds elsewhere.
_TOLERANCE = {"float32": 1e-4, "bfloat16": 3e-2}
# Times as much: whitening enlarges the directions of little variance, in which rounding lies.
_WHITENED = {"float32": 10, "bfloat16": 3}
_CHECKED_BATCHES = (1, 3)
# Of images that the file resizes itself, to within a grey level of Pillow: 1 - cosine.
_RESIZED_TOLERANCE = 0.01


def export_model(network: Network, fitted: Postprocess | None, output: str, *, name: str) -> tuple[float, float | None]:
    """Exports a model and compares the file with it.

    Args:
        network: what is exported.
        fitted: its post-processing.
        output: the .zip or .onnx to write.
        name: of the model, for people.

    Returns:
        The greatest difference between an embedding's numbers by the file and by the model; and for a .zip, which also
        takes images of other sizes, the greatest 1 - cosine to the embedding of the image as Pillow resizes it.

    Raises:
        RuntimeError: the file computes something else; it is not kept.
    """
    height, width = network.config.data.height, network.config.data.width
    function = exported.embedding_function(network.module, network.variables, height=height, width=width, fitted=fitted)
    arguments = [jax.ShapeDtypeStruct((1, height, width, 3), np.uint8)]
    if exported.takes_cameras(fitted):
        arguments.append(jax.ShapeDtypeStruct((1,), np.int32))
    info = exported.Info(
        digest=networks.digest(network._replace(fitted=fitted)),
        height=height,
        width=width,
        dim=jax.eval_shape(function, *arguments).shape[1],
        dtype=network.config.model.dtype,
        description=f"{name}: {network.about}" if network.method else network.about,
        postprocess="none" if fitted is None else fitted.kind,
    )
    embed_step = features.make_embed_step(network.module, sharding.make_mesh(1))

    def original(images: np.ndarray) -> np.ndarray:
        embedded = np.asarray(embed_step(network.variables, images).embeddings)
        return postprocess.apply(fitted, embedded, _cameras(fitted, len(images)))

    def given(call: Callable) -> Callable:
        """The exported function with what it takes besides the images."""
        if not info.takes_cameras:
            return call
        return lambda images: call(images, _cameras(fitted, len(images)))

    with atomic.atomic_path(output) as temporary:
        if temporary.suffix == ".onnx":
            onnx_export.write_onnx(temporary, function, info)
            call = given(onnx_export.load_onnx(temporary))
        else:
            exported.write_model(temporary, function, info, name=pathlib.Path(output).name)
            call = given(exported.read_model(temporary).call)
        difference = max(_difference(original, call, count, height, width) for count in _CHECKED_BATCHES)
        resized = _resized_difference(original, call, height, width) if temporary.suffix == ".zip" else None
        dtype = network.config.model.dtype
        tolerance = _TOLERANCE[dtype] * (_WHITENED[dtype] if fitted and fitted.projection.size else 1)
        if not (difference <= tolerance and (resized or 0.0) <= _RESIZED_TOLERANCE):
            raise RuntimeError(
                f"an embedding by {output!r} differs by {difference:.2g} from the model's, more than "
                f"{tolerance:.0e}, or of a resized image by {resized}, more than {_RESIZED_TOLERANCE}"
            )
    return difference, resized


def _cameras(fitted: Postprocess | None, count: int) -> np.ndarray:
    """Cameras [count] int32 to compare with: known ones and one that is not."""
    known = np.append(-1, np.zeros(0) if fitted is None else fitted.cameras)
    return np.resize(known, count).astype(np.int32)


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


def export_folder(network: Network, fitted: Postprocess | None, output: str) -> model_folder.ModelInfo:
    """Writes a model folder.

    Raises:
        UserError: the folder holds something else.
    """
    image = jax.ShapeDtypeStruct((1, network.config.data.height, network.config.data.width, 3), np.float32)
    embedded = jax.eval_shape(lambda image: network.module.apply(network.variables, image, train=False), image)
    return model_folder.write_model(
        output,
        network.variables,
        network.config,
        dim=embedded.embeddings.shape[1] if fitted is None else fitted.dim,
        method=network.method,
        about=network.about,
        fitted=fitted,
    )
