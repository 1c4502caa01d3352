"""A model as ONNX, converted by jax2onnx and run by onnxruntime; both come with the extra `onnx`."""

import importlib.util
import json
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from reid_jax import errors
from reid_jax.inference.exported import Info
from reid_jax.models import convolutions

_PACKAGES = ("jax2onnx", "onnx", "onnxruntime")


def check_installed() -> None:
    """Raises UserError where a package is missing."""
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise errors.UserError(f".onnx needs {', '.join(missing)}, the extra [onnx]")


def write_onnx(file: pathlib.Path, function: Callable[[jax.Array], jax.Array], info: Info) -> None:
    """Converts a function of `exported.embedding_function`, of images [B, height, width, 3] uint8; B is free.

    The converter takes one image size, the model's own, at which resizing changes nothing.
    """
    import jax2onnx
    import onnx

    (batch,) = export.symbolic_shape("b")
    arguments = {"images": jax.ShapeDtypeStruct((batch, info.height, info.width, 3), jnp.uint8)}
    if info.takes_cameras:
        arguments["cameras"] = jax.ShapeDtypeStruct((batch,), jnp.int32)
    # The converter knows no choice by platform.
    with convolutions.single_operations():
        model = jax2onnx.to_onnx(
            function, list(arguments.values()), input_names=list(arguments), output_names=["embeddings"]
        )
    onnx.helper.set_model_props(model, {"reid_jax": json.dumps(info._asdict())})
    onnx.save(model, file)


def load_onnx(file: pathlib.Path) -> Callable[..., np.ndarray]:
    """Returns the file's function (images) or (images, cameras) -> embeddings, computed on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [argument.name for argument in session.get_inputs()]
    return lambda *arguments: session.run(None, dict(zip(names, arguments, strict=True)))[0]
