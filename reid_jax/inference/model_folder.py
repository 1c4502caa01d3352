"""A model folder: model.json, which says what the model is, and its arrays; nothing in it is ever run.

weights.safetensors has the weights and, where something was fitted to embeddings without labels, postprocess.safetensors
that.

Unlike a run directory it has no trace of the training, and unlike an exported .zip it is read by this library only, at
any batch size and on all devices.
"""

import json
import pathlib
import tempfile
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util
from ml_collections import ConfigDict
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from reid_jax import errors, postprocess
from reid_jax.models.reid import NORMALIZATIONS
from reid_jax.postprocess import Postprocess
from reid_jax.runs import base_config, checkpoints, config_rules, logs, models

_INFO, _WEIGHTS, _POSTPROCESS = "model.json", "weights.safetensors", "postprocess.safetensors"
_FORMAT = 1


class ModelInfo(NamedTuple):
    """What model.json says besides the network.

    Attributes:
        height: of its images in pixels.
        width: likewise.
        dim: D of its embeddings.
        digest: of its weights and of what was fitted (`postprocess.digest`).
        method: that trained it; empty: not known, or it was not trained here.
        trained_on: the data set's name.
        about: what it learned from, and whether labels of people were used, in a line; empty: not known.
        postprocess: its kind; "none": there is none.
    """

    height: int
    width: int
    dim: int
    digest: str
    method: str
    trained_on: str
    about: str = ""
    postprocess: str = "none"


def is_model_folder(path: str | pathlib.Path) -> bool:
    """Whether a folder is a model folder."""
    return pathlib.Path(path, _INFO).is_file()


def write_model(
    folder: str | pathlib.Path,
    variables: dict[str, Any],
    config: ConfigDict,
    *,
    dim: int,
    method: str,
    about: str = "",
    fitted: Postprocess | None = None,
) -> ModelInfo:
    """Writes a model folder, whole or not at all.

    Args:
        folder: a new folder, or an earlier model folder, which is replaced.
        variables: the model's.
        config: of the run that trained it.
        dim: D of its embeddings, after post-processing.
        method: that trained it.
        about: what it learned from, in a line.
        fitted: post-processing that belongs to it.

    Raises:
        UserError: the folder holds something else.
    """
    target = pathlib.Path(folder)
    info = ModelInfo(
        config.data.height,
        config.data.width,
        dim,
        postprocess.digest(checkpoints.digest(variables), fitted),
        method,
        config.data.dataset,
        about,
        "none" if fitted is None else fitted.kind,
    )
    if target.exists() and not is_model_folder(target) and (not target.is_dir() or any(target.iterdir())):
        raise errors.UserError(f"{str(folder)!r} must be a new folder or one of an earlier model")
    network = {field: config.model[field] for field in models.NETWORK_FIELDS}
    # What a reader without this library needs to know of the input.
    mean, std = NORMALIZATIONS[config.model.normalization]
    images = {"color": "RGB", "range": [0, 255], "mean": list(mean), "std": list(std)}
    record = {"format": _FORMAT, "network": network, "input": images, **info._asdict()}
    arrays = {name: np.asarray(leaf) for name, leaf in traverse_util.flatten_dict(variables, sep="/").items()}
    with tempfile.TemporaryDirectory(prefix=".tmp-model-", dir=target.absolute().parent) as temporary:
        written = pathlib.Path(temporary, "model")
        written.mkdir()
        _write_arrays(written / _WEIGHTS, arrays)
        if fitted is not None:
            _write_arrays(written / _POSTPROCESS, {name: getattr(fitted, name) for name in fitted._fields[1:]})
        logs.write_json(written / _INFO, record)
        if target.exists():
            target.rename(pathlib.Path(temporary, "replaced"))
        written.rename(target)
    return info


def _write_arrays(file: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
    file.write_bytes(safetensors.save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))


class ReadModel(NamedTuple):
    """A model folder's contents.

    Attributes:
        module: the network.
        variables: its own.
        info: what model.json says.
        config: of its network and images.
        fitted: post-processing that belongs to it, or None.
    """

    module: nn.Module
    variables: dict[str, Any]
    info: ModelInfo
    config: ConfigDict
    fitted: Postprocess | None


def read_model(folder: str | pathlib.Path) -> ReadModel:
    """Reads a model folder.

    Raises:
        UserError: a file is missing or damaged, of another format, or the weights are of another network.
    """
    path = pathlib.Path(folder)
    record = logs.read_json(path / _INFO)
    try:
        info = ModelInfo(**(ModelInfo._field_defaults | {name: record[name] for name in _given(record)}))
        network, found_format = dict(record["network"]), record["format"]
    except (KeyError, TypeError) as error:
        raise errors.UserError(f"{str(path / _INFO)!r} lacks {error}") from error
    if found_format != _FORMAT:
        raise errors.UserError(
            f"{str(path / _INFO)!r} must be of format {_FORMAT}, the one this version reads, got {found_format!r}"
        )
    config = base_config.base_config("folder")
    config.model.update({field: network[field] for field in models.NETWORK_FIELDS if field in network})
    config.data.update(height=info.height, width=info.width)
    config_rules.check_config(ConfigDict({"data": config.data, "model": config.model}))
    module = models.build_model(config.model)
    image = jax.ShapeDtypeStruct((1, info.height, info.width, 3), jnp.float32)
    embedded, shapes = jax.eval_shape(
        lambda key, images: module.init_with_output(key, images, train=False), jax.random.key(0), image
    )
    variables = _read_weights(path / _WEIGHTS, shapes)
    size, fitted = embedded.embeddings.shape[1], None
    if info.postprocess != "none":
        fitted = _read_postprocess(path / _POSTPROCESS, info, size)
    elif info.dim != size:
        raise errors.UserError(f"{str(path / _INFO)!r} must have dim = {size}, its network's, got {info.dim}")
    return ReadModel(module, variables, info, config, fitted)


def _given(record: dict[str, Any]) -> list[str]:
    """The fields that model.json must have, and those of the others that it has: folders of earlier versions lack some."""
    return [name for name in ModelInfo._fields if name in record or name not in ModelInfo._field_defaults]


def _read_arrays(file: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        return safetensors.load_file(file)
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise errors.UserError(f"{str(file)!r} cannot be read: {error}") from error


def _read_postprocess(file: pathlib.Path, info: ModelInfo, size: int) -> Postprocess:
    """Reads what was fitted to embeddings of `size` numbers."""
    arrays = _read_arrays(file)
    try:
        fitted = Postprocess(info.postprocess, **arrays)
        says_what_it_is = info.postprocess in postprocess.KINDS and fitted.dim == info.dim
        shapes_fit = (
            fitted.mean.shape == (size,)
            and fitted.camera_means.shape == (len(fitted.cameras), size)
            and fitted.projection.shape[0] in (0, size)
        )
    except (TypeError, IndexError, AttributeError) as error:
        raise errors.UserError(f"{str(file)!r} is no post-processing: {error}") from error
    if not (says_what_it_is and shapes_fit):
        raise errors.UserError(
            f"{str(file)!r} is of other embeddings than those of {size} numbers that the network makes and the "
            f"{info.dim} by {info.postprocess} that model.json says"
        )
    return fitted


def _read_weights(file: pathlib.Path, shapes: dict[str, Any]) -> dict[str, Any]:
    arrays = _read_arrays(file)
    expected = {name: leaf.shape for name, leaf in traverse_util.flatten_dict(shapes, sep="/").items()}
    given = {name: array.shape for name, array in arrays.items()}
    for name in sorted(expected.keys() | given.keys()):
        if expected.get(name) != given.get(name):
            raise errors.UserError(
                f"{str(file)!r} is of another network than model.json says: {name} is "
                f"{given.get(name, 'absent')} there, {expected.get(name, 'absent')} in the network"
            )
    return traverse_util.unflatten_dict(arrays, sep="/")
