"""A run directory's files: written whole or not at all, one JSON line and one readable line per iteration."""

import contextlib
import fcntl
import json
import math
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorboardX

from reid_jax import types


@contextlib.contextmanager
def atomic_path(path: str | pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a temporary name beside `path` to write to; on success the file is renamed, on failure removed."""
    path = pathlib.Path(path)
    # The ending stays last: NumPy appends one where it is missing.
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | pathlib.Path, value: Any) -> None:
    """Writes a value as indented JSON, atomically; floats that are not finite become null."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(_finite(value), indent=2) + "\n")


def read_json(path: str | pathlib.Path) -> Any:
    """Reads a JSON file.

    Raises:
        UserError: it is not JSON.
    """
    try:
        return json.loads(pathlib.Path(path).read_text())
    except ValueError as error:
        raise types.UserError(f"{str(path)!r} is not a JSON file: {error}") from error


def write_arrays(path: str | pathlib.Path, **arrays: np.ndarray) -> None:
    """Writes named arrays as an .npz file, atomically."""
    with atomic_path(path) as temporary:
        np.savez(temporary, **arrays)


def flatten(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flattens nested mappings; the keys are joined by slashes, as in "outer/inner"."""
    flat: dict[str, Any] = {}
    for key, value in record.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}/")
        else:
            flat[prefix + key] = value
    return flat


def lock_workdir(workdir: pathlib.Path):
    """Locks a run directory for this process; the lock goes with the process, however it ends.

    Returns:
        The open lock file; keep it.

    Raises:
        UserError: another process is running there.
    """
    lock = open(workdir / ".lock", "w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise types.UserError(f"workdir: another process is running in {str(workdir)!r}") from error
    return lock


class MetricsLog:
    """metrics.jsonl and TensorBoard events of a run, rebuilt from its history when it resumes.

    Args:
        workdir: the run directory.
        history: the records of the iterations that are done, oldest first. What an interrupted run wrote after
            its last checkpoint is dropped, since it will be written again.
    """

    def __init__(self, workdir: pathlib.Path, history: Sequence[Mapping[str, Any]]):
        self._path = workdir / "metrics.jsonl"
        with atomic_path(self._path) as temporary:
            temporary.write_text("".join(_json_line(record) for record in history))
        events = workdir / "tensorboard"
        if not history and events.exists():
            for file in events.glob("events.out.tfevents.*"):
                file.unlink()
        self._events = tensorboardX.SummaryWriter(
            str(events), purge_step=history[-1]["iteration"] + 1 if history else None
        )

    def write(self, record: Mapping[str, Any]) -> None:
        """Appends the record of one iteration; nested mappings become "outer/inner" in TensorBoard."""
        with open(self._path, "a") as file:
            file.write(_json_line(record))
            file.flush()
            os.fsync(file.fileno())
        for name, value in flatten(record).items():
            if isinstance(value, (int, float)) and name != "iteration":
                self._events.add_scalar(name, value, record["iteration"])
        self._events.flush()

    def close(self) -> None:
        """Closes the TensorBoard file."""
        self._events.close()


def _json_line(record: Mapping[str, Any]) -> str:
    return json.dumps(_finite(record)) + "\n"


def _finite(value: Any) -> Any:
    """JSON has no nan: not finite becomes null."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
