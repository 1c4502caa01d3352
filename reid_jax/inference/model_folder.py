"""A model folder: model.json, which says what the model is, and weights.safetensors; nothing in it is ever run.

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

from reid_jax import augment, errors
from reid_jax.runs import base_config, checkpoints, config_rules, logs, models

_INFO, _WEIGHTS = "model.json", "weights.safetensors"
_FORMAT = 1
# Of config.model, what says which network it is; the rest is about how it was trained.
_FIELDS = ("backbone", "width", "last_stride", "stem", "pooling", "neck", "dtype")


class ModelInfo(NamedTuple):
    """What model.json says besides the network.

    Attributes:
        height: of its images in pixels.
        width: likewise.
        dim: D of its embeddings.
        digest: of its weights (`checkpoints.digest`).
        method: that trained it; empty: not known.
        trained_on: the data set's name.
    """

    height: int
    width: int
    dim: int
    digest: str
    method: str
    trained_on: str


def is_model_folder(path: str | pathlib.Path) -> bool:
    """Whether a folder is a model folder."""
    return pathlib.Path(path, _INFO).is_file()


def write_model(
    folder: str | pathlib.Path, variables: dict[str, Any], config: ConfigDict, *, dim: int, method: str
) -> ModelInfo:
    """Writes a model folder, whole or not at all.

    Args:
        folder: a new folder, or an earlier model folder, which is replaced.
        variables: the model's.
        config: of the run that trained it.
        dim: D of its embeddings.
        method: that trained it.

    Raises:
        UserError: the folder holds something else.
    """
    target = pathlib.Path(folder)
    info = ModelInfo(
        config.data.height, config.data.width, dim, checkpoints.digest(variables), method, config.data.dataset
    )
    if target.exists() and not is_model_folder(target) and (not target.is_dir() or any(target.iterdir())):
        raise errors.UserError(f"{str(folder)!r} must be a new folder or one of an earlier model")
    network = {field: config.model[field] for field in _FIELDS}
    # What a reader without this library needs to know of the input.
    images = {"color": "RGB", "range": [0, 255], "mean": list(augment.IMAGENET_MEAN), "std": list(augment.IMAGENET_STD)}
    record = {"format": _FORMAT, "network": network, "input": images, **info._asdict()}
    arrays = {name: np.asarray(leaf) for name, leaf in traverse_util.flatten_dict(variables, sep="/").items()}
    with tempfile.TemporaryDirectory(prefix=".tmp-model-", dir=target.absolute().parent) as temporary:
        written = pathlib.Path(temporary, "model")
        written.mkdir()
        safetensors.save_file(arrays, written / _WEIGHTS)
        logs.write_json(written / _INFO, record)
        if target.exists():
            target.rename(pathlib.Path(temporary, "replaced"))
        written.rename(target)
    return info


def read_model(folder: str | pathlib.Path) -> tuple[nn.Module, dict[str, Any], ModelInfo, ConfigDict]:
    """Reads a model folder: (module, variables, what model.json says, the config of its network and images).

    Raises:
        UserError: a file is missing or damaged, of another format, or the weights are of another network.
    """
    path = pathlib.Path(folder)
    record = logs.read_json(path / _INFO)
    try:
        info = ModelInfo(**{name: record[name] for name in ModelInfo._fields})
        network, found_format = dict(record["network"]), record["format"]
    except (KeyError, TypeError) as error:
        raise errors.UserError(f"{str(path / _INFO)!r} lacks {error}") from error
    if found_format != _FORMAT:
        raise errors.UserError(
            f"{str(path / _INFO)!r} must be of format {_FORMAT}, the one this version reads, got {found_format!r}"
        )
    config = base_config.base_config("folder")
    config.model.update({field: network[field] for field in _FIELDS if field in network})
    config.data.update(height=info.height, width=info.width)
    config_rules.check_config(ConfigDict({"data": config.data, "model": config.model}))
    module = models.build_model(config.model)
    image = jax.ShapeDtypeStruct((1, info.height, info.width, 3), jnp.float32)
    shapes = jax.eval_shape(lambda key, images: module.init(key, images, train=False), jax.random.key(0), image)
    return module, _read_weights(path / _WEIGHTS, shapes), info, config


def _read_weights(file: pathlib.Path, shapes: dict[str, Any]) -> dict[str, Any]:
    try:
        arrays = safetensors.load_file(file)
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise errors.UserError(f"{str(file)!r} cannot be read: {error}") from error
    expected = {name: leaf.shape for name, leaf in traverse_util.flatten_dict(shapes, sep="/").items()}
    given = {name: array.shape for name, array in arrays.items()}
    for name in sorted(expected.keys() | given.keys()):
        if expected.get(name) != given.get(name):
            raise errors.UserError(
                f"{str(file)!r} is of another network than model.json says: {name} is "
                f"{given.get(name, 'absent')} there, {expected.get(name, 'absent')} in the network"
            )
    return traverse_util.unflatten_dict(arrays, sep="/")
