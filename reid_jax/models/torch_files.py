"""Reads the tensors of a torch file without torch, and without running anything the file says.

A torch file is a pickle, and a pickle is a program. Here it can reach an ordered dict and the functions below,
which only note what was asked for; any other global is refused by name. Sizes in the file are checked before
memory is taken.
"""

import io
import math
import os
import pathlib
import pickle
import zipfile
from collections import OrderedDict
from typing import Any, BinaryIO, NamedTuple

import jax.numpy as jnp
import numpy as np

from reid_jax import errors

_DTYPES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(jnp.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
# Where training scripts put the state beside the optimizer's, the epoch and so on.
_STATE_KEYS = ("state_dict", "model")
# What the standard library and numpy raise on files that were cut or altered.
_MALFORMED = (
    pickle.PickleError, zipfile.BadZipFile, ArithmeticError, AttributeError, BufferError, EOFError, ImportError,
    LookupError, MemoryError, RuntimeError, TypeError, ValueError,
)  # fmt: skip


def read_tensors(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads a state from a file of torch.save: the zip format, or the one before torch 1.6.

    Args:
        path: holds a dict of tensors by name, or a dict with such a one under "state_dict" or "model". Entries
            that are no tensors are left out.

    Returns:
        The tensors by name, dtypes as stored.

    Raises:
        UserError: the file asks for other Python objects (names the first), is cut or altered, or holds no tensors.
        OSError: it cannot be read.
    """
    path = pathlib.Path(path)
    try:
        with open(path, "rb") as file:
            is_zip = zipfile.is_zipfile(file)
            file.seek(0)
            state, buffers = _read_zip(file) if is_zip else _read_legacy(file)
        return {name: _to_array(tensor, buffers[tensor.storage.key]) for name, tensor in state.items()}
    except errors.UserError as error:
        raise errors.UserError(f"{path}: {error}") from error
    except _MALFORMED as error:
        raise errors.UserError(f"{path} is not a whole torch file: {type(error).__name__}: {error}") from error


class _Storage(NamedTuple):
    """A flat array in the file: its name there, its type and number of elements."""

    key: str
    dtype: np.dtype
    size: int


class _Tensor(NamedTuple):
    """A view of a storage, in elements; checked to lie inside it."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __setstate__(self, state: object) -> None:
        """Ignores what torch 0.3 saved with a parameter: whether it has a gradient, and hooks."""


# The pickle may set attributes of whatever it reaches, so what it reaches has none: no functions, no classes of ours.
class _RebuildTensor:
    __slots__ = ()

    def __call__(self, storage: Any, offset: Any, shape: Any, strides: Any, *unused: Any) -> _Tensor:
        tensor = _Tensor(storage, offset, tuple(shape), tuple(strides))
        numbers = (offset, *tensor.shape, *tensor.strides)
        if not isinstance(storage, _Storage) or not all(type(n) is int and n >= 0 for n in numbers):
            raise ValueError(f"not a tensor: {tensor}")
        last = offset + sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.strides, strict=True))
        count = math.prod(tensor.shape)
        # The number too: a stride of 0 would let a small file ask for any amount of memory.
        if count and (last >= storage.size or count > storage.size):
            raise ValueError(f"a tensor of shape {tensor.shape} lies outside its storage of {storage.size} elements")
        return tensor


class _RebuildParameter:
    __slots__ = ()

    def __call__(self, data: Any, *unused: Any) -> _Tensor:
        if not isinstance(data, _Tensor):
            raise ValueError("a parameter is not a tensor")
        return data


_GLOBALS = {
    "collections.OrderedDict": OrderedDict,
    "torch._utils._rebuild_tensor": _RebuildTensor(),
    "torch._utils._rebuild_tensor_v2": _RebuildTensor(),
    "torch._utils._rebuild_parameter": _RebuildParameter(),
    "torch.nn.parameter.Parameter": _RebuildParameter(),
    **{f"torch.{name}": name for name in _DTYPES},
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO):
        # Python 2's strings, as in the oldest published weights, are read as torch reads them.
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in _GLOBALS:
            raise errors.UserError(
                f"refused: it asks for the Python object {module}.{name}, and only tensors are read; save the "
                "weights alone, with torch.save(model.state_dict(), path)"
            )
        return _GLOBALS[f"{module}.{name}"]

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, size, *view = pid
        if kind != "storage" or type(key) is not str or type(size) is not int or size < 0 or any(view):
            raise ValueError(f"not a storage: {pid}")
        storage = _Storage(key, _DTYPES[dtype], size)
        if self.storages.setdefault(key, storage) != storage:
            raise ValueError(f"storage {key} comes as two different ones")
        return storage


def _read_zip(file: BinaryIO) -> tuple[dict[str, _Tensor], dict[str, bytes]]:
    with zipfile.ZipFile(file) as archive:
        members = {info.filename: info for info in archive.infolist()}
        root = next((name.removesuffix("data.pkl") for name in members if name.endswith("/data.pkl")), None)
        if root is None:
            raise errors.UserError("is a zip archive, but not one of torch.save: it has no data.pkl")

        def read(name: str) -> bytes:
            # torch stores, it does not compress; what is not compressed cannot be larger than the file.
            if members[root + name].compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{name} is compressed")
            return archive.read(members[root + name])

        if root + "byteorder" in members and read("byteorder") != b"little":
            raise errors.UserError("was written in big-endian byte order, which is not read")
        state = _find_state(_Unpickler(io.BytesIO(read("data.pkl"))).load())
        return state, {key: read(f"data/{key}") for key in {tensor.storage.key for tensor in state.values()}}


def _read_legacy(file: BinaryIO) -> tuple[dict[str, _Tensor], dict[str, bytes]]:
    # In a row: a magic number, the version, facts about the machine, the object, its storages' keys, their data.
    if _Unpickler(file).load() != _LEGACY_MAGIC or _Unpickler(file).load() != _LEGACY_PROTOCOL:
        raise errors.UserError("is not a file of torch.save")
    if not _Unpickler(file).load()["little_endian"]:
        raise errors.UserError("was written in big-endian byte order, which is not read")
    unpickler = _Unpickler(file)
    state = _find_state(unpickler.load())
    file_size = os.fstat(file.fileno()).st_size
    buffers = {}
    for key in _Unpickler(file).load():
        storage = unpickler.storages[key]
        size = int.from_bytes(file.read(8), "little")
        num_bytes = size * storage.dtype.itemsize
        if size != storage.size or num_bytes > file_size - file.tell():
            raise ValueError(f"storage {key} has {size} elements, expected {storage.size} inside the file")
        buffers[key] = file.read(num_bytes)
    return state, buffers


def _find_state(loaded: Any) -> dict[str, _Tensor]:
    for key in _STATE_KEYS:
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    entries = loaded.items() if isinstance(loaded, dict) else ()
    state = {name: value for name, value in entries if isinstance(name, str) and isinstance(value, _Tensor)}
    if not state:
        contents = (
            ", ".join(repr(name) for name, _ in list(entries)[:5]) or f"an object of type {type(loaded).__name__}"
        )
        raise errors.UserError(
            f"holds no tensors by name, neither directly nor under {' or '.join(_STATE_KEYS)}; it holds {contents}"
        )
    return state


def _to_array(tensor: _Tensor, buffer: bytes) -> np.ndarray:
    dtype = tensor.storage.dtype
    if len(buffer) != tensor.storage.size * dtype.itemsize:
        key, size = tensor.storage.key, tensor.storage.size
        raise ValueError(f"storage {key} has {len(buffer)} bytes, expected {size} elements of {dtype}")
    strides = [stride * dtype.itemsize for stride in tensor.strides]
    return np.ndarray(tensor.shape, dtype, buffer, tensor.offset * dtype.itemsize, strides).copy()
