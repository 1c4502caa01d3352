"""Weights from files: a published state by torch's names, or the variables that this project saves."""

import functools
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
from flax import linen as nn

from reid_jax import atomic, errors
from reid_jax.models import backbones, torch_files

Variables = Mapping[str, Any]

_TORCH_SUFFIXES = (".pth", ".pt", ".bin")
_SAFETENSORS_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": jnp.bfloat16, "I64": "<i8", "I32": "<i4", "I16": "<i2",
    "I8": "i1", "U8": "u1", "BOOL": "?",
}  # fmt: skip
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


def to_variables(state: Mapping[str, np.ndarray], variables: Variables, backbone: nn.Module) -> dict[str, Any]:
    """Puts a published state's weights into a model's variables.

    The state must have every weight of the backbone in its shape; what else published states hold, such as a
    classifier, the backbone knows and drops (`canonical_state`).

    Args:
        state: arrays by torch's names.
        variables: of a `ReidModel` or a bare backbone, arrays or shapes (jax.eval_shape). Leaves outside the
            backbone are returned as they are.
        backbone: whose names those are (`backbones.py`).

    Returns:
        Variables of the same structure, the backbone's leaves float32.

    Raises:
        UserError: names that are missing, of another shape or unexpected; lists the first few of each.
    """
    leaves = _backbone_leaves(variables, backbone)
    wanted = {name: _torch_shape(path, leaf.shape) for name, (path, leaf) in leaves.items()}
    used = backbone.canonical_state(state, wanted)
    _check_fit("the weights", used, wanted)
    return _replace_leaves(variables, {path: _from_torch(path, used[name]) for name, (path, _) in leaves.items()})


def to_state(variables: Variables, backbone: nn.Module) -> dict[str, np.ndarray]:
    """Returns a backbone's weights by torch's names and in torch's layouts: the inverse of `to_variables`.

    Args:
        variables: of a `ReidModel` or a bare backbone, arrays; leaves outside the backbone are left out.
        backbone: whose they are.
    """
    leaves = _backbone_leaves(variables, backbone)
    return {name: _to_torch(path, np.asarray(leaf)) for name, (path, leaf) in leaves.items()}


def check_state(state: Mapping[str, np.ndarray], architecture: str) -> None:
    """Checks that a published state has all weights of an architecture.

    Args:
        state: arrays by torch's names.
        architecture: of `backbones.ARCHITECTURES`.

    Raises:
        UserError: there is no such architecture, or the state is of another one.
    """
    backbone = backbones.make(architecture)
    height, width = backbones.natural_size(architecture)
    sample = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)
    shapes = jax.eval_shape(functools.partial(backbone.init, train=False), jax.random.key(0), sample)
    try:
        # Shapes only: nothing is copied before all fits.
        to_variables(state, shapes, backbone)
    except errors.UserError as error:
        raise errors.UserError(f"not the weights of {architecture}: {error}") from error


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


def is_own_file(path: str | os.PathLike) -> bool:
    """Whether a file is an .npz of `save_variables`, by the names in it; one of torch's names is not."""
    path = pathlib.Path(path)
    if path.suffix != ".npz" or not zipfile.is_zipfile(path):
        return path.suffix == ".npz"  # what is wrong with it, reading it tells
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.startswith("params/") for name in archive.namelist())
    except zipfile.BadZipFile:
        return True


def _named_leaves(variables: Variables) -> dict[str, Any]:
    paths = jax.tree_util.tree_leaves_with_path(variables)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in paths}


def _replace_leaves(variables: Variables, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    def replace(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return jnp.asarray(arrays[name]) if name in arrays else leaf

    return jax.tree_util.tree_map_with_path(replace, variables)


def _backbone_leaves(variables: Variables, backbone: nn.Module) -> dict[str, tuple[str, Any]]:
    """The backbone's leaves by torch's names, each with its path in the variables."""
    prefix = "backbone/" if "backbone" in variables["params"] else ""
    leaves = {}
    for path, leaf in _named_leaves(variables).items():
        rest = path.partition("/")[2]
        if rest.startswith(prefix):
            leaves[backbone.torch_name(rest.removeprefix(prefix))] = (path, leaf)
    return leaves


# Kernels of convolutions are OIHW in torch and HWIO in Flax, those of linear layers [out, in] and [in, out].
def _torch_shape(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) == 4:
        return (shape[3], shape[2], shape[0], shape[1])
    return tuple(shape[::-1]) if _is_linear(path, len(shape)) else tuple(shape)


def _from_torch(path: str, array: np.ndarray) -> np.ndarray:
    if array.ndim == 4:
        array = array.transpose(2, 3, 1, 0)
    elif _is_linear(path, array.ndim):
        array = array.T
    return np.ascontiguousarray(array, np.float32)


def _to_torch(path: str, array: np.ndarray) -> np.ndarray:
    if array.ndim == 4:
        array = array.transpose(3, 2, 0, 1)
    elif _is_linear(path, array.ndim):
        array = array.T
    return np.ascontiguousarray(array)


def _is_linear(path: str, ndim: int) -> bool:
    return ndim == 2 and path.rpartition("/")[2] == "kernel"


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
