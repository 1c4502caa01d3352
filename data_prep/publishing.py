"""Makes a prepared data set appear at once and whole, and knows what was prepared from what.

A data set is built in DATA_DIR/.NAME.tmp-HOST-PID and renamed to DATA_DIR/NAME when it is complete. Beside
the data lies prepared.json: the request, what was found, and the images that were skipped.
"""

import contextlib
import errno
import json
import os
import pathlib
import shutil
import socket
from collections.abc import Iterator
from typing import Any, NamedTuple

from reid_jax import errors
from reid_jax.data_prep import writing
from reid_jax.data_prep.readers import listing

MANIFEST = "prepared.json"
_PREVIOUS = "previous"
_FORMAT = 1


class Request(NamedTuple):
    """What a data set was prepared from; two equal requests need not be carried out twice.

    Attributes:
        dataset: which reader.
        source: the absolute path of the raw data set, None for one that is made.
        on_bad_image: "fail" or "skip".
        options: the reader's options.
    """

    dataset: str
    source: str | None
    on_bad_image: str
    options: dict[str, Any]


def read_manifest(folder: pathlib.Path) -> dict[str, Any] | None:
    """Returns what prepared.json in a prepared data set's folder says, None if there is no readable one."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError, UnicodeDecodeError):
        return None
    return manifest if isinstance(manifest, dict) and "request" in manifest else None


def write_manifest(
    folder: pathlib.Path, request: Request, splits: dict[str, dict[str, int]], skipped: dict[str, str]
) -> None:
    """Writes prepared.json.

    Args:
        folder: the data set's folder, .../NAME/VERSION.
        request: what was asked for.
        splits: the counts per split.
        skipped: path -> reason of every skipped image.
    """
    manifest = {"format": _FORMAT, "request": request._asdict(), "splits": splits, "skipped": skipped}
    text = json.dumps(manifest, indent=2, ensure_ascii=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def is_finished(data_dir: pathlib.Path, name: str, request: Request, *, overwrite: bool) -> bool:
    """Returns whether there is nothing left to do.

    Args:
        data_dir: where prepared data sets are.
        name: the prepared data set's name.
        request: what is asked for now.
        overwrite: whether a data set that was prepared before is to be replaced.

    Returns:
        True if the same request was carried out before and `overwrite` is false.

    Raises:
        UserError: the name is taken, by another request and `overwrite` is false, or by something that was
            never prepared.
    """
    if data_dir.exists() and not data_dir.is_dir():
        raise errors.UserError(f"--data_dir: {str(data_dir)!r} is a file, it must be a folder")
    if not os.path.lexists(data_dir / name):
        return False
    manifest = read_manifest(data_dir / name / writing.VERSION)
    if manifest is None:
        # Perhaps the raw data: not even --overwrite may remove it.
        raise errors.UserError(
            f"--name: {str(data_dir / name)!r} exists and was not made by reid prepare; give another --name or --data_dir"
        )
    if overwrite:
        return False
    before, now = manifest["request"], request._asdict()
    changed = [key for key in now if before.get(key) != now[key]]
    if changed:
        key = changed[0]
        raise errors.UserError(
            f"--name: {name} was prepared with {key}={before.get(key)!r}, not {now[key]!r}; "
            f"give another --name, or --overwrite to replace it"
        )
    return True


def clear_dead_builds(data_dir: pathlib.Path, name: str) -> None:
    """Removes what killed runs on this computer left behind; does nothing while they are alive.

    Args:
        data_dir: where prepared data sets are.
        name: the prepared data set's name.
    """
    prefix = f".{name}.tmp-{socket.gethostname()}-"
    for path in data_dir.glob(f".{name}.tmp-*"):
        pid = path.name.removeprefix(prefix)
        if not pid.isdecimal() or _is_alive(int(pid)):
            continue
        if (path / _PREVIOUS).exists() and not (data_dir / name).exists():
            # Killed between the two renames of --overwrite: the old data set is the only whole one in sight.
            (path / _PREVIOUS).rename(data_dir / name)
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def building(data_dir: pathlib.Path, name: str) -> Iterator[pathlib.Path]:
    """Gives a folder to build a data set in, and removes it in the end, whatever happens.

    Args:
        data_dir: where prepared data sets are; made if need be.
        name: the prepared data set's name.

    Yields:
        An empty folder on the same file system as `data_dir`.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    build = data_dir / f".{name}.tmp-{socket.gethostname()}-{os.getpid()}"
    build.mkdir()
    try:
        yield build
    finally:
        shutil.rmtree(build, ignore_errors=True)


def publish(build: pathlib.Path, data_dir: pathlib.Path, name: str, request: Request, *, overwrite: bool) -> None:
    """Moves a complete data set into its place.

    Args:
        build: the folder `building` gave, with the data set in NAME/.
        data_dir: where prepared data sets are.
        name: the prepared data set's name.
        request: what was asked for.
        overwrite: whether to replace a data set that is there already.

    Raises:
        UserError: another process prepared something else under that name in the meantime.
    """
    target = data_dir / name
    if overwrite and target.exists():
        target.rename(build / _PREVIOUS)
    try:
        (build / name).rename(target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        # Two runs started at once; the slower one's work is only thrown away if it is the same.
        is_finished(data_dir, name, request, overwrite=False)


def check_space(data_dir: pathlib.Path, records: list[listing.Record]) -> None:
    """Refuses to start when the images will not fit.

    Args:
        data_dir: where the data set will be written.
        records: the images.

    Raises:
        UserError: fewer bytes are free than the images have.
    """
    # A link to nowhere is a bad image, and found to be one when it is read.
    needed = sum(record.file.stat().st_size for record in records if record.file.exists())
    free = shutil.disk_usage(data_dir).free
    if needed > free:
        raise errors.UserError(
            f"--data_dir: the images need {needed / 1e6:.1f} MB, {free / 1e6:.1f} MB are free in {str(data_dir)!r}"
        )


def _is_alive(pid: int) -> bool:
    # A number that was given out again, to this very process, belonged to a dead one.
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
