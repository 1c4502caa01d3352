"""Weights from files: a torchvision or timm state, or the variables that this project saves."""

import os
import pathlib
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors

from reid_jax import atomic, errors
from reid_jax.models import torch_files

Variables = Mapping[str, Any]

_TORCH_SUFFIXES = (".pth", ".pt", ".bin")
_SAFETENSORS_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": jnp.bfloat16, "I64": "<i8", "I32": "<i4", "I16": "<i2",
    "I8": "i1", "U8": "u1", "BOOL": "?",
}  # fmt: skip
_TORCH_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
# ImageNet's classifier and a counter that torch keeps: in the files, not in the models here.
_UNUSED_PREFIX = "fc."
_UNUSED_SUFFIX = "num_batches_tracked"
_NAMES_SHOWN = 4


def load_state(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads a torch model's state by torch's names.

    Files from strangers are safe to read: nothing in them is run.

    Args:
        path: .safetensors, .npz, or .pth, .pt, .bin (`torch_files.read_tensors`).

    Returns:
        Arrays by name, dtypes as stored; "module." in front of every name (torch's DataParallel) is taken off.

    Raises:
        UserError: no such file, another ending, or not a whole file of its kind.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise errors.UserError(f"no weights file {str(path)!r}")
    if path.suffix == ".safetensors":
        state = _read_safetensors(path)
    elif path.suffix == ".npz":
        state = _read_npz(path)
    elif path.suffix in _TORCH_SUFFIXES:
        state = torch_files.read_tensors(path)
    else:
        raise errors.UserError(f"{path}: weights must end in .safetensors, .npz, {', '.join(_TORCH_SUFFIXES)}")
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): array for name, array in state.items()}
    return state


def to_variables(state: Mapping[str, np.ndarray], variables: Variables) -> dict[str, Any]:
    """Puts a torchvision or timm ResNet's weights into a model's variables.

    The state must have every weight of the backbone in its shape; besides it may have a classifier (fc) and torch's
    batch counters, which are dropped.

    Args:
        state: arrays by torch's names.
        variables: of a `ReidModel` or a bare `ResNet`, arrays or shapes (jax.eval_shape). Leaves outside the
            backbone are returned as they are.

    Returns:
        Variables of the same structure, the backbone's leaves float32.

    Raises:
        UserError: names that are missing, of another shape or unexpected; lists the first few of each.
    """
    leaves = _backbone_leaves(variables)
    used = {
        name: array
        for name, array in state.items()
        if not name.startswith(_UNUSED_PREFIX) and not name.endswith(_UNUSED_SUFFIX)
    }
    _check_fit("the weights", used, {name: _torch_shape(leaf.shape) for name, (_, leaf) in leaves.items()})
    return _replace_leaves(variables, {path: _from_torch(used[name]) for name, (path, _) in leaves.items()})


def to_state(variables: Variables) -> dict[str, np.ndarray]:
    """Returns a ResNet's weights by torch's names and in torch's layouts: the inverse of `to_variables`.

    Args:
        variables: of a `ReidModel` or a bare `ResNet`, arrays; leaves outside the backbone are left out.
    """
    return {name: _to_torch(np.asarray(leaf)) for name, (_, leaf) in _backbone_leaves(variables).items()}


def save_variables(path: str | os.PathLike, variables: Variables) -> None:
    """Writes a model's variables as an .npz with names like "params/backbone/conv1/kernel".

    The file is complete or not there, also when the program is killed; missing folders are made.

    Args:
        path: must end in .npz.
        variables: arrays.

    Raises:
        UserError: another ending.
        OSError: the file cannot be written.
    """
    path = pathlib.Path(path)
    if path.suffix != ".npz":
        raise errors.UserError(f"variables are saved as .npz, got {str(path)!r}")
    arrays = {name: np.asarray(leaf) for name, leaf in _named_leaves(variables).items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic.atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)


def load_variables(path: str | os.PathLike, like: Variables) -> dict[str, Any]:
    """Reads what `save_variables` wrote.

    Args:
        path: the .npz file.
        like: the model's variables, arrays or shapes. Of a `ReidModel`, leaves outside the backbone (a neck,
            GeM's exponent) may be missing from the file and are then returned as they are here.

    Returns:
        Variables of the same structure and dtypes.

    Raises:
        UserError: no such file, not an .npz, or leaves that are missing, of another shape or unexpected.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise errors.UserError(f"no weights file {str(path)!r}")
    if path.suffix != ".npz":
        raise errors.UserError(f"{path}: weights must be an .npz file made by data_prep/port_resnet.py")
    arrays = _read_npz(path)
    leaves = _named_leaves(like)
    has_backbone = "backbone" in like["params"]
    optional = {name for name in leaves if has_backbone and name.split("/")[1] != "backbone"}
    wanted = {name: leaf.shape for name, leaf in leaves.items() if name in arrays or name not in optional}
    _check_fit(f"the weights of {path}", arrays, wanted)
    return _replace_leaves(like, {name: arrays[name].astype(leaves[name].dtype) for name in wanted})


def _named_leaves(variables: Variables) -> dict[str, Any]:
    paths = jax.tree_util.tree_leaves_with_path(variables)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in paths}


def _replace_leaves(variables: Variables, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    def replace(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return jnp.asarray(arrays[name]) if name in arrays else leaf

    return jax.tree_util.tree_map_with_path(replace, variables)


def _backbone_leaves(variables: Variables) -> dict[str, tuple[str, Any]]:
    """The backbone's leaves by torch's names, each with its path in the variables."""
    prefix = "backbone/" if "backbone" in variables["params"] else ""
    leaves = {}
    for path, leaf in _named_leaves(variables).items():
        rest = path.partition("/")[2]
        if rest.startswith(prefix):
            leaves[_torch_name(rest.removeprefix(prefix))] = (path, leaf)
    return leaves


def _torch_name(path: str) -> str:
    # layer1_0/downsample_conv/kernel -> layer1.0.downsample.0.weight
    *modules, leaf = path.split("/")
    name = ".".join((*modules, _TORCH_LEAVES.get(leaf, leaf)))
    if name.startswith("layer"):
        name = name.replace("_", ".", 1)
    return name.replace("downsample_conv", "downsample.0").replace("downsample_bn", "downsample.1")


def _torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else tuple(shape)


def _from_torch(array: np.ndarray) -> np.ndarray:
    # Convolutions: OIHW to HWIO.
    array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array
    return np.ascontiguousarray(array, np.float32)


def _to_torch(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array.transpose(3, 2, 0, 1) if array.ndim == 4 else array)


def _check_fit(source: str, arrays: Mapping[str, np.ndarray], wanted: dict[str, tuple[int, ...]]) -> None:
    missing = [name for name in wanted if name not in arrays]
    unexpected = [name for name in arrays if name not in wanted]
    common = [name for name in wanted if name in arrays]
    misshapen = [
        f"{name} {list(arrays[name].shape)}, the model's is {list(wanted[name])}"
        for name in common
        if arrays[name].shape != tuple(wanted[name])
    ]
    not_float = [
        f"{name} of {arrays[name].dtype}" for name in common if not jnp.issubdtype(arrays[name].dtype, jnp.floating)
    ]
    problems = {"missing": missing, "of another shape": misshapen, "not float": not_float, "unexpected": unexpected}
    told = [f"{len(names)} {problem} ({_shown(names)})" for problem, names in problems.items() if names]
    if told:
        raise errors.UserError(f"{source} do not fit the model{_width_hint(arrays, wanted)}: {'; '.join(told)}")


def _shown(names: list[str]) -> str:
    return ", ".join(names[:_NAMES_SHOWN]) + (", ..." if len(names) > _NAMES_SHOWN else "")


def _width_hint(arrays: Mapping[str, np.ndarray], wanted: dict[str, tuple[int, ...]]) -> str:
    for name, axis in (("conv1.weight", 0), ("params/backbone/conv1/kernel", 3)):
        is_known = name in arrays and name in wanted and arrays[name].ndim == 4
        if is_known and arrays[name].shape[axis] != wanted[name][axis]:
            return f" (their width is {arrays[name].shape[axis]}, the model's {wanted[name][axis]})"
    return ""


def _read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        with open(path, "rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.lib.npyio.NpzFile):
                return {name: loaded[name] for name in loaded.files}
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise errors.UserError(f"{path} is not a whole .npz file of plain arrays: {error}") from error
    raise errors.UserError(f"{path} is not an .npz file but a single array")


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    # Not safetensors.numpy, which has no bfloat16.
    try:
        tensors = safetensors.deserialize(path.read_bytes())
    except safetensors.SafetensorError as error:
        raise errors.UserError(f"{path} is not a whole safetensors file: {error}") from error
    state = {}
    for name, tensor in tensors:
        if tensor["dtype"] not in _SAFETENSORS_DTYPES:
            raise errors.UserError(f"{path}: {name} is of dtype {tensor['dtype']}, which is not read")
        dtype = np.dtype(_SAFETENSORS_DTYPES[tensor["dtype"]])
        state[name] = np.frombuffer(tensor["data"], dtype).reshape(tensor["shape"])
    return state
