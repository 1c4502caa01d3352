"""Files that are whole or not there: written under a temporary name, which is changed when all is on the disk."""

import contextlib
import os
import pathlib
import socket
from collections.abc import Iterator

_PREFIX = ".tmp-"


@contextlib.contextmanager
def atomic_path(path: str | pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a temporary name beside `path` to write to; on success the file is renamed, on failure removed.

    Args:
        path: the file to be made, or replaced; its folder must be there.

    Yields:
        The temporary name, with the ending of `path`. It tells the computer and the process that write it.
    """
    path = pathlib.Path(path)
    # The ending stays last: NumPy appends one where it is missing.
    temporary = path.with_name(f"{_PREFIX}{socket.gethostname()}-{os.getpid()}@{path.name}")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def clear_temporaries(folder: str | pathlib.Path, *, locked: bool = False) -> None:
    """Removes the temporary files that killed processes left in a folder.

    Args:
        folder: need not be there.
        locked: nobody else writes there now: all are removed. Otherwise only those of this computer's processes
            that are no more, since another computer's may be alive.
    """
    for path in pathlib.Path(folder).glob(f"{_PREFIX}*"):
        if locked or _is_dead(path.name):
            # In a shared folder they may be another user's.
            with contextlib.suppress(PermissionError):
                path.unlink(missing_ok=True)


def _is_dead(name: str) -> bool:
    """Whether a temporary file belongs to a process of this computer that is no more."""
    host, _, pid = name.partition("@")[0].removeprefix(_PREFIX).rpartition("-")
    if host != socket.gethostname() or not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user's
        return False
    return False
