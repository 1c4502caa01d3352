"""Embeddings on disk: an .npz of vectors, the paths of their images, and what made them.

The vectors may be more than memory holds: they are written once, and read in blocks of rows.
"""

import contextlib
import errno
import json
import pathlib
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

import numpy as np

from reid_jax import atomic, errors, identities

_ROWS_PER_BLOCK = 65536
_VECTORS, _PATHS, _ORIGIN = "embeddings", "paths", "origin"
_LABELS = ("pids", "camids")
# RuntimeError: an encrypted archive, an unknown way of compression, JSON that is nested too deeply. MemoryError: a shape
# that cannot be.
_DAMAGE = (ValueError, EOFError, KeyError, OSError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)


class Origin(NamedTuple):
    """What embeddings were made of, and by what.

    Attributes:
        model: hexadecimal digest of the model's weights; "" where not known.
        height: of the images as the model saw them, in pixels; 0 where not known.
        width: likewise.
        folder: absolute path of the folder that the images' paths are relative to; "" for a prepared data set.
        dataset: DATA_DIR, DATASET and SPLIT of a prepared data set; empty for a folder.
        about: what the model learned from, and whether labels of people were used, in a line; "" where not known.
    """

    model: str = ""
    height: int = 0
    width: int = 0
    folder: str = ""
    dataset: tuple[str, ...] = ()
    about: str = ""


class EmbeddingFile(NamedTuple):
    """What is in a file but for the vectors, which `read_blocks` reads; N items.

    Attributes:
        file: where it is.
        shape: (N, D) of the vectors.
        paths: [N] str.
        pids: [N] int64, identities as in `records.Records`; -1 where not known.
        camids: [N] int64; -1 where not known.
        origin: what made it.
    """

    file: pathlib.Path
    shape: tuple[int, int]
    paths: np.ndarray
    pids: np.ndarray
    camids: np.ndarray
    origin: Origin


def write_embeddings(
    file: str | pathlib.Path,
    embeddings: np.ndarray,
    paths: np.ndarray,
    *,
    origin: Origin,
    pids: np.ndarray | None = None,
    camids: np.ndarray | None = None,
) -> None:
    """Writes an .npz that plain `numpy.load` reads too, whole or not at all.

    Args:
        file: the file to make or replace.
        embeddings: [N, D] float32.
        paths: [N] str.
        origin: what made them; JSON in the array `origin`.
        pids: [N] int64; None: none is known.
        camids: [N] int64; None: none is known.

    Raises:
        ValueError: the shapes do not fit each other, or there is no number to write.
    """
    if np.ndim(embeddings) != 2 or 0 in np.shape(embeddings):
        raise ValueError(f"embeddings must be [N, D], at least one number, got shape {np.shape(embeddings)}")
    unknown = np.full(len(embeddings), identities.UNKNOWN)
    items = {
        _PATHS: np.asarray(paths, np.str_),
        "pids": unknown if pids is None else np.asarray(pids, np.int64),
        "camids": unknown if camids is None else np.asarray(camids, np.int64),
    }
    for name, array in items.items():
        if array.shape != (len(embeddings),):
            raise ValueError(f"{name} must be [{len(embeddings)}] as embeddings, got shape {array.shape}")
    # Blocks of rows are read: they must lie one after the other, whatever the order in memory is.
    vectors = np.ascontiguousarray(embeddings, np.float32)
    arrays = {_VECTORS: vectors, **items, _ORIGIN: np.array(json.dumps(origin._asdict()))}
    with atomic.atomic_path(file) as temporary:
        # Not compressed: vectors hardly shrink, and blocks of rows are read at the disk's speed.
        np.savez(temporary, **arrays)


def open_embeddings(file: str | pathlib.Path) -> EmbeddingFile:
    """Reads what is in a file of embeddings besides the vectors.

    A file that others wrote needs the arrays `embeddings` [N, D] and `paths` [N] only.

    Raises:
        UserError: it is not such a file, or its arrays do not fit each other.
    """
    file = pathlib.Path(file)
    if not file.is_file():
        raise errors.UserError(f"there is no file {str(file)!r}")
    with _damage_told(f"{str(file)!r} is no file of embeddings as `reid embed` writes it"):
        with zipfile.ZipFile(file) as archive:
            names = {name.removesuffix(".npy") for name in archive.namelist()}
            missing = [name for name in (_VECTORS, _PATHS) if name not in names]
            if missing:
                raise ValueError(f"it lacks the array {missing[0]!r}")
            paths = _read_array(archive, _PATHS)
            known = {name: _read_array(archive, name) for name in _LABELS if name in names}
            origin = _parse_origin(str(_read_array(archive, _ORIGIN)[()])) if _ORIGIN in names else Origin()
        with _open_vectors(file) as (_, shape, _):
            pass
    labels = {name: known.get(name, np.full(shape[0], identities.UNKNOWN)) for name in _LABELS}
    for name, array, kind in ((_PATHS, paths, "U"), *((name, labels[name], "iu") for name in _LABELS)):
        if array.shape != shape[:1] or array.dtype.kind not in kind:
            raise errors.UserError(
                f"{name} in {str(file)!r} must be [{shape[0]}] {'strings' if kind == 'U' else 'integers'}, one for each "
                f"of its embeddings, got shape {array.shape} of {array.dtype}"
            )
    return EmbeddingFile(file, shape, paths, *(labels[name].astype(np.int64) for name in _LABELS), origin)


def read_blocks(opened: EmbeddingFile, *, rows_per_block: int = _ROWS_PER_BLOCK) -> Iterator[np.ndarray]:
    """Yields the vectors in order, [B, D] float32 at a time; one block is held.

    Raises:
        UserError: the file is damaged, holds numbers that are not finite, or is another one than was opened.
    """
    num_rows, size = opened.shape
    with _damage_told(f"{str(opened.file)!r} is damaged"), _open_vectors(opened.file) as (member, shape, dtype):
        if shape != opened.shape:
            raise ValueError(f"{_VECTORS} were {opened.shape} when it was opened, now they are {shape}")
        for start in range(0, num_rows, rows_per_block):
            count = min(rows_per_block, num_rows - start)
            data = member.read(count * size * dtype.itemsize)
            block = np.frombuffer(data, dtype).reshape(count, size).astype(np.float32, copy=False)
            is_finite = np.isfinite(block).all(axis=1)
            if not is_finite.all():
                raise ValueError(f"{_VECTORS} must be finite, row {start + int(np.argmin(is_finite))} is not")
            if start + count == num_rows:
                _check_end(member, _VECTORS)
            yield block


def read_embeddings(opened: EmbeddingFile) -> np.ndarray:
    """Returns all vectors [N, D] float32; see `read_blocks`."""
    embeddings = np.empty(opened.shape, np.float32)
    start = 0
    for block in read_blocks(opened):
        embeddings[start : start + len(block)] = block
        start += len(block)
    return embeddings


@contextlib.contextmanager
def _damage_told(message: str) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        # A damaged archive can seek before its start (EINVAL); other errno values are real disk errors.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise errors.UserError(f"{message}: {error}") from error


def _read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    with archive.open(f"{name}.npy") as member:
        array = np.lib.format.read_array(member, allow_pickle=False)
        _check_end(member, name)
    return array


def _check_end(member: IO[bytes], name: str) -> None:
    # The checksum is compared with the last byte: a damaged header may ask for fewer.
    if member.read(1):
        raise ValueError(f"{name} in it has more bytes than its shape says")


@contextlib.contextmanager
def _open_vectors(file: pathlib.Path) -> Iterator[tuple[IO[bytes], tuple[int, int], np.dtype]]:
    """Opens the vectors inside the .npz at their first byte: (stream, shape, dtype)."""
    with zipfile.ZipFile(file) as archive, archive.open(f"{_VECTORS}.npy") as member:
        version = np.lib.format.read_magic(member)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, is_transposed, dtype = header(member)
        if len(shape) != 2 or min(shape) < 1 or is_transposed or dtype.kind != "f":
            raise ValueError(f"{_VECTORS} must be [N, D] floats in C order, at least one, got shape {shape} of {dtype}")
        yield member, shape, dtype


def _parse_origin(text: str) -> Origin:
    fields = json.loads(text)
    if not isinstance(fields, dict):
        raise ValueError("its origin must be a JSON object")
    kinds: dict[str, Any] = {"model": str, "height": int, "width": int, "folder": str, "dataset": list, "about": str}
    for name, value in fields.items():
        if name in kinds and not isinstance(value, kinds[name]):
            raise ValueError(f"{name} of its origin must be a {kinds[name].__name__}, got {value!r}")
    origin = Origin(**{name: value for name, value in fields.items() if name in kinds})
    return origin._replace(dataset=tuple(map(str, origin.dataset)))
