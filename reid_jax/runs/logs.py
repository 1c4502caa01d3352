"""A run directory's files: written whole or not at all, one JSON line and one readable line per iteration."""

import fcntl
import json
import math
import os
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tensorboardX import event_file_writer, summary
from tensorboardX.proto.event_pb2 import Event, SessionLog

from reid_jax import atomic, errors


def write_json(path: str | pathlib.Path, value: Any) -> None:
    """Writes a value as indented JSON, atomically; floats that are not finite become null."""
    with atomic.atomic_path(path) as temporary:
        temporary.write_text(json.dumps(_finite(value), indent=2) + "\n")


def read_json(path: str | pathlib.Path) -> Any:
    """Reads a JSON file.

    Raises:
        UserError: it is not JSON.
    """
    try:
        return json.loads(pathlib.Path(path).read_text())
    except ValueError as error:
        raise errors.UserError(f"{str(path)!r} is not a JSON file: {error}") from error


def write_arrays(path: str | pathlib.Path, **arrays: np.ndarray) -> None:
    """Writes named arrays as an .npz file, atomically."""
    with atomic.atomic_path(path) as temporary:
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
    """Locks a run directory for this process and clears what killed runs left half written.

    The lock goes with the process, however it ends.

    Returns:
        The open lock file; keep it.

    Raises:
        BusyError: another process is running there.
        UserError: the file system does not lock.
    """
    # Open as long as the run works.
    lock = open(workdir / ".lock", "w")  # noqa: SIM115
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise errors.BusyError(f"workdir: another process is running in {str(workdir)!r}") from error
    except OSError as error:
        lock.close()
        raise errors.UserError(f"workdir: cannot lock {str(workdir)!r}: {error.strerror}") from error
    for folder in (workdir, workdir / "pseudo_labels"):
        atomic.clear_temporaries(folder, locked=True)
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
        with atomic.atomic_path(self._path) as temporary:
            temporary.write_text("".join(_json_line(record) for record in history))
        events = workdir / "tensorboard"
        events.mkdir(exist_ok=True)
        if not history:
            for file in events.glob("events.out.tfevents.*"):
                file.unlink()
        # Not a SummaryWriter: its thread dies on a full disk, and then adding to its queue blocks for ever.
        self._events = event_file_writer.EventsWriter(str(events / "events"))
        if history:  # TensorBoard hides what an earlier file has from this step on
            self._add_event(history[-1]["iteration"] + 1, session_log=SessionLog(status=SessionLog.START))

    def write(self, record: Mapping[str, Any]) -> None:
        """Appends the record of one iteration; nested mappings become "outer/inner" in TensorBoard."""
        with open(self._path, "a") as file:
            file.write(_json_line(record))
            file.flush()
            os.fsync(file.fileno())
        for name, value in flatten(record).items():
            if isinstance(value, (int, float)) and name != "iteration":
                self._add_event(record["iteration"], summary=summary.scalar(name, value))
        self._events.flush()

    def close(self) -> None:
        """Closes the TensorBoard file."""
        self._events.close()

    def _add_event(self, step: int, **content: Any) -> None:
        self._events.write_event(Event(wall_time=time.time(), step=step, **content))


def _json_line(record: Mapping[str, Any]) -> str:
    return json.dumps(_finite(record)) + "\n"


def _finite(value: Any) -> Any:
    """JSON has no nan: not finite becomes null."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
