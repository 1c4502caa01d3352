"""Weights in the user's cache: each is one NAME.safetensors that says itself what it is and where it is from."""

import difflib
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import safetensors
from safetensors import numpy as safetensors_numpy

from reid_jax import atomic, errors

_SUFFIX = ".safetensors"
# Endings that say that a file is meant, not a name.
FILE_SUFFIXES = frozenset((".npz", ".safetensors", ".pth", ".pt", ".bin"))
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
# The entries of a safetensors header's metadata that are ours: a JSON object of Got's fields, and a digest of the tensors.
_KEY, _DIGEST = "reid_jax.weights", "reid_jax.sha256"


class Got(NamedTuple):
    """What weights in the cache are; all of it is in their file, so that they can be used without the catalogue.

    Attributes:
        name: what they are called here; their file is NAME.safetensors.
        architecture: of `backbones.ARCHITECTURES`.
        normalization: of the pixels that they were trained with, one of `reid.NORMALIZATIONS`.
        trained_on: the images, in words.
        labels: what was known of the images in training, in words.
        people_labels: whether it was who the people on them are.
        licence: in words.
        source: where the file that they were read from came from, in words or as a URL.
        sha256: of that file.
    """

    name: str
    architecture: str
    normalization: str
    trained_on: str
    labels: str
    people_labels: bool
    licence: str
    source: str
    sha256: str


def folder() -> pathlib.Path:
    """Returns the folder of the weights: REID_JAX_WEIGHTS, or reid_jax/weights in the user's cache folder."""
    if own := os.environ.get("REID_JAX_WEIGHTS"):
        return pathlib.Path(own).expanduser()
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path("~/.cache").expanduser()
    return pathlib.Path(home, "reid_jax", "weights")


def check_name(name: str) -> None:
    """Checks that weights can be called so. A name is never a path.

    Raises:
        UserError: it has other characters than letters, digits, ".", "_" and "-", begins with one of these, is longer
            than 100, or ends as a file of weights does.
    """
    if not _NAME.fullmatch(name):
        raise errors.UserError(
            f"name must be up to 100 letters, digits, '.', '_' and '-', beginning with a letter or digit, got {name!r}"
        )
    if pathlib.Path(name).suffix in FILE_SUFFIXES:
        raise errors.UserError(f"name must not end in {pathlib.Path(name).suffix}, as a file does, got {name!r}")


def path_of(name: str) -> pathlib.Path:
    """Returns the file of weights, which need not be there.

    Raises:
        UserError: it is no name (`check_name`).
    """
    check_name(name)
    return folder() / f"{name}{_SUFFIX}"


def names() -> list[str]:
    """Returns the names of all files of weights in the folder, sorted; some may be damaged."""
    stems = (path.name.removesuffix(_SUFFIX) for path in folder().glob(f"*{_SUFFIX}"))
    return sorted(stem for stem in stems if _NAME.fullmatch(stem))


def find(name: str) -> Got | None:
    """Returns what weights are, from the head of their file; None where they are not there.

    Raises:
        UserError: it is no name, or the file is cut, altered or not of `add`.
    """
    path = path_of(name)
    if not path.is_file():
        return None
    try:
        # It checks that the file is as long as its head says.
        with safetensors.safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
    except safetensors.SafetensorError as error:
        raise errors.UserError(f"{path} is damaged ({error}): get or import {name} again, with --overwrite") from error
    try:
        got = _from_json(metadata[_KEY])
    except (KeyError, TypeError, ValueError) as error:
        raise errors.UserError(
            f"{path} does not say what it is, as files of reid weights do: move it elsewhere and import it from there"
        ) from error
    if got.name != name:
        raise errors.UserError(f"{path} was renamed: it holds {got.name!r}, and must be called {got.name}{_SUFFIX}")
    return got


def read(name: str) -> tuple[dict[str, np.ndarray], Got]:
    """Reads weights.

    Returns:
        (arrays float32 by torch's names in torch's layouts, what they are).

    Raises:
        UserError: they are not there, their tensors are not those that were written, or as `find`.
    """
    got = find(name)
    if got is None:
        known = difflib.get_close_matches(name, names(), n=1, cutoff=0)
        nearest = f"; did you mean {known[0]!r}?" if known else ";"
        raise errors.UserError(
            f"there are no weights {name!r} in {folder()}{nearest} reid weights list shows those that can be got"
        )
    path = path_of(name)
    arrays = safetensors_numpy.load_file(path)
    with safetensors.safe_open(path, "numpy") as file:
        written = (file.metadata() or {}).get(_DIGEST)
    if written != _digest(arrays):
        raise errors.UserError(f"{path} is damaged: get or import {name} again, with --overwrite")
    return arrays, got


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    hashed = hashlib.sha256()
    for name in sorted(arrays):
        hashed.update(f"{name} {arrays[name].shape}".encode())
        hashed.update(np.ascontiguousarray(arrays[name]).data)
    return hashed.hexdigest()


def add(state: Mapping[str, np.ndarray], got: Got) -> pathlib.Path:
    """Writes weights, in place of earlier ones of that name. The file is whole or not there.

    Args:
        state: arrays by torch's names in torch's layouts. Those that are not float, such as torch's counters of
            batches, are left out.
        got: what they are.

    Returns:
        The file.

    Raises:
        UserError: `got.name` is no name.
        OSError: the file cannot be written.
    """
    path = path_of(got.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {
        name: np.asarray(array, np.float32, order="C")
        for name, array in state.items()
        if jnp.issubdtype(array.dtype, jnp.floating)
    }
    with atomic.atomic_path(path) as temporary:
        # Not save_file, whose files nobody but the user may read: a folder may be shared.
        metadata = {_KEY: json.dumps(got._asdict()), _DIGEST: _digest(arrays)}
        temporary.write_bytes(safetensors_numpy.save(arrays, metadata=metadata))
    return path


def _from_json(text: str) -> Got:
    """Raises a TypeError or ValueError for anything but an object of Got's fields."""
    fields: Any = json.loads(text)
    got = Got(**fields)
    wrong = [name for name, value in got._asdict().items() if type(value) is not Got.__annotations__[name]]
    if wrong:
        raise TypeError(f"of another type: {wrong}")
    return got
