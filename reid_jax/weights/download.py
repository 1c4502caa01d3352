"""Files of the web: fetched whole and checked, and gone on with where the connection broke, now or in an earlier start."""

import contextlib
import fcntl
import hashlib
import http.client
import json
import math
import os
import pathlib
import re
import urllib.error
import urllib.request
from collections.abc import Iterator

import reid_jax
from reid_jax import errors
from reid_jax.progress import ProgressBar

_BLOCK = 1_000_000  # bytes: one step of the progress bar, in MB
_TIMEOUT = 60.0  # seconds without a byte
_TRIES = 5
_SPAN = re.compile(r"bytes (\d+)-")


class _BrokenError(Exception):
    """The connection broke after it had been made."""


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
    """Keeps other processes from downloading into a folder, which is made where it is missing.

    Raises:
        BusyError: one is doing so.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise errors.BusyError(
                f"another process is downloading into {folder}; start again when it is done"
            ) from error
        yield


def fetch(url: str, path: pathlib.Path, *, sha256: str | None = None, size: int | None = None) -> None:
    """Fetches a file. It appears under its name when all of it is there and right.

    What has come when the connection breaks, or the program is killed, stays in a hidden file beside it, from which the
    next call goes on if the server still has the same file (RFC 9110, section 13.1.5).

    Args:
        url: where it is.
        path: what it becomes, in a folder that is there and `locked`.
        sha256: of the file, or its first digits; None: not known.
        size: of the file, in bytes; None: not known.

    Raises:
        UserError: it cannot be had, or is not the file expected. Nothing of a wrong file is kept.
        OSError: it cannot be written.
    """
    partial = path.with_name(f".part-{path.name}")
    for tries_left in reversed(range(_TRIES)):
        try:
            _fetch_rest(url, partial, path.name, size)
            break
        except _BrokenError as error:
            if not tries_left:
                there = partial.stat().st_size if partial.exists() else 0
                advice = f"{there / 1e6:.1f} MB are there, the same command goes on from them"
                raise _failure(url, path.name, f"the connection broke ({error}); {advice}") from error
    try:
        check_file(partial, sha256=sha256, size=size)
    except errors.UserError as error:
        _forget(partial)
        raise _failure(url, path.name, f"not the published file, nothing is kept: {error}") from error
    os.replace(partial, path)
    _forget(partial)


def check_file(path: pathlib.Path, *, sha256: str | None = None, size: int | None = None) -> str:
    """Checks that a file is the one expected.

    Args:
        path: the file.
        sha256: its sha256, or the first digits; None: not known.
        size: in bytes; None: not known.

    Returns:
        Its sha256.

    Raises:
        UserError: it is another one.
    """
    with open(path, "rb") as file:
        found = os.fstat(file.fileno()).st_size
        if size is not None and found != size:
            raise errors.UserError(f"it has {found:,} bytes, the published file {size:,}")
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 is not None and not digest.startswith(sha256):
        raise errors.UserError(f"its sha256 is {digest}, the published file's {sha256}")
    return digest


def _fetch_rest(url: str, partial: pathlib.Path, name: str, size: int | None) -> None:
    """Appends to `partial` what it lacks, or begins anew where that cannot be.

    Raises:
        UserError: the server cannot be reached, refuses, or has a file of another size.
        _BrokenError: the connection broke.
    """
    with _open(url, partial, name) as response:
        begun = _begun(response, url, partial)
        total = None if response.length is None else begun + response.length
        if size is not None and total not in (None, size):
            _forget(partial)
            raise _failure(url, name, f"the server's file has {total:,} bytes, the published one {size:,}")
        if not begun:
            _forget(partial)
        # After data of another file are gone, before those of this one: killed at any moment, it tells what is there.
        _note(partial).write_text(json.dumps({"url": url, "validator": _validator(response)}))
        with (
            open(partial, "ab") as file,
            ProgressBar(math.ceil((total or 0) / _BLOCK), name, unit="MB") as bar,
        ):
            bar.update(begun // _BLOCK)
            for block in _blocks(response):
                file.write(block)
                bar.update()
    if total is not None and partial.stat().st_size < total:
        raise _BrokenError("it ended too early")


def _open(url: str, partial: pathlib.Path, name: str) -> http.client.HTTPResponse:
    """Asks for what `partial` lacks, or for all where the server has another file by now."""
    # Some servers refuse Python's own name.
    headers = {"User-Agent": f"reid_jax/{reid_jax.__version__}"}
    if validator := _resumable(url, partial):
        headers |= {"Range": f"bytes={partial.stat().st_size}-", "If-Range": validator}
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and validator:
            _forget(partial)
            return _open(url, partial, name)
        raise _failure(url, name, f"the server says {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise _failure(url, name, f"no connection ({getattr(reason, 'strerror', None) or reason})") from error
    if url.startswith("https:") and not response.url.startswith("https:"):
        response.close()
        raise _failure(url, name, f"it leads to {response.url}, which is not https")
    return response


def _begun(response: http.client.HTTPResponse, url: str, partial: pathlib.Path) -> int:
    """How many bytes of `partial` the response goes on from; 0 where it has the whole file."""
    if response.status != http.HTTPStatus.PARTIAL_CONTENT:
        return 0
    span = _SPAN.match(response.headers["Content-Range"] or "")
    is_same = _validator(response) in ("", _resumable(url, partial))
    there = partial.stat().st_size
    if span is None or int(span[1]) != there or not is_same:
        _forget(partial)
        raise _BrokenError("the server sent another part than asked for")
    return there


def _blocks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    while True:
        try:
            block = response.read(_BLOCK)
        except (OSError, http.client.HTTPException) as error:
            raise _BrokenError(str(error) or type(error).__name__) from error
        if not block:
            return
        yield block


def _validator(response: http.client.HTTPResponse) -> str:
    """What tells the server's file from another one; empty where nothing does."""
    tag = response.headers["ETag"] or ""
    # A weak tag, W/"...", is no promise of the same bytes.
    return tag if tag.startswith('"') else response.headers["Last-Modified"] or ""


def _resumable(url: str, partial: pathlib.Path) -> str:
    """The validator of what is there of the file; empty where nothing is, or nothing that could be gone on with."""
    try:
        noted = json.loads(_note(partial).read_text())
        return noted["validator"] if noted["url"] == url and partial.stat().st_size else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _note(partial: pathlib.Path) -> pathlib.Path:
    return partial.with_name(f"{partial.name}.json")


def _forget(partial: pathlib.Path) -> None:
    partial.unlink(missing_ok=True)
    _note(partial).unlink(missing_ok=True)


def _failure(url: str, name: str, reason: str) -> errors.UserError:
    return errors.UserError(
        f"{url}: {reason}. Fetch {name} on a machine with a network, then here: reid weights import {name}"
    )
