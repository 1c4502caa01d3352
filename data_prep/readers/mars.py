"""MARS: Market-1501's people as tracklets; lists and matrices of the evaluation code say which frames are one.

The frames are named like 0001C1T0001F001.jpg: identity, camera, tracklet, frame. Tracklets of identity 0 are
distractors, those of identity -1 (frames like 00-1C1T0001F001.jpg) junk, which the published sizes leave out.
"""

import pathlib
import re
import zlib
from typing import NamedTuple

import numpy as np
import scipy.io
import scipy.io.matlab

from reid_jax import errors, identities
from reid_jax.data_prep.readers import listing

_FOLDERS = ("bbox_train", "bbox_test")
_NAME = re.compile(r"(?P<pid>00-1|\d{4})C(?P<camid>\d)T\d+F\d+\.(jpg|jpeg|png)", re.IGNORECASE)
_JUNK = "00-1"
_QUERY = "query_IDX"
# What scipy raises on damaged files, depending on where the damage is.
_DAMAGE = (
    scipy.io.matlab.MatReadError, zlib.error, EOFError, KeyError, IndexError, ValueError, NotImplementedError,
    TypeError, OverflowError,
)  # fmt: skip
_EXPECTED = "the folders " + ", ".join(_FOLDERS)
_INFO_EXPECTED = "info/train_name.txt, from MARS's evaluation code"


class _Tracks(NamedTuple):
    """The tracklets of training or test, as the evaluation code lists them.

    Attributes:
        folder: where the frames are, "bbox_train" or "bbox_test".
        list_name: the file whose lines are the frames' names.
        mat_name: the file that holds the matrix.
        names: the lines.
        matrix: [T, 4] int: first and last line, counted from 1, identity, camera.
    """

    folder: str
    list_name: str
    mat_name: str
    names: list[str]
    matrix: np.ndarray


def read(source: listing.Source) -> list[listing.Record]:
    """Reads MARS; the query's tracklets are those that query_IDX.mat lists, the gallery's all others but junk.

    Args:
        source: its folder holds bbox_train, bbox_test and info, themselves or inside top folders; info may lie
            inside another top folder than the frames, as in the evaluation code's repository.

    Returns:
        One record per frame.

    Raises:
        UserError: the layout is another one, a file of info is missing or damaged, or a tracklet has no frames,
            lines that do not exist, frames of another identity or camera, or a frame that is missing.
    """
    root = listing.find_root(source.folder, _is_root, _EXPECTED)
    info = listing.find_root(
        source.folder, lambda folder: (folder / "info" / "train_name.txt").is_file(), _INFO_EXPECTED
    )
    train, test = (_load_tracks(info / "info", part) for part in ("train", "test"))
    queries = _load_queries(info / "info", len(test.matrix))
    tracklets = []
    for tracks in (train, test):
        for row in range(1, len(tracks.matrix) + 1):
            split = "train" if tracks is train else "query" if row in queries else "gallery"
            tracklets.append(_tracklet(root, tracks, row, split))
    return listing.number_tracklets(frames for frames in tracklets if frames)


def _is_root(folder: pathlib.Path) -> bool:
    return all((folder / name).is_dir() for name in _FOLDERS)


def _load_tracks(info: pathlib.Path, part: str) -> _Tracks:
    list_name, mat_name = f"{part}_name.txt", f"tracks_{part}_info.mat"
    if not (info / list_name).is_file():
        raise errors.UserError(f"--source: info/{list_name} is missing")
    names = (info / list_name).read_text(encoding="utf-8", errors="replace").splitlines()
    matrix = _load_matrix(info / mat_name, f"track_{part}_info")
    if matrix.ndim != 2 or matrix.shape[1] != 4:
        raise errors.UserError(f"--source: {mat_name}: track_{part}_info must be [T, 4], it is {list(matrix.shape)}")
    return _Tracks(f"bbox_{part}", list_name, mat_name, [name.strip() for name in names], matrix)


def _load_queries(info: pathlib.Path, num_tracklets: int) -> set[int]:
    """Returns the rows, counted from 1, of the test tracklets that are queries."""
    rows = _load_matrix(info / f"{_QUERY}.mat", _QUERY).ravel().tolist()
    wrong = next((row for row in rows if not 1 <= row <= num_tracklets), None)
    if wrong is not None:
        raise errors.UserError(
            f"--source: {_QUERY}.mat names the test tracklet {wrong}, tracks_test_info.mat has 1 to {num_tracklets}"
        )
    return set(rows)


def _load_matrix(file: pathlib.Path, key: str) -> np.ndarray:
    if not file.is_file():
        raise errors.UserError(f"--source: info/{file.name} is missing")
    try:
        matrix = np.asarray(scipy.io.loadmat(file)[key])
        # MATLAB's own numbers are floating-point.
        whole = matrix.astype(np.int64)
        if not np.array_equal(whole, matrix):
            raise ValueError(f"{key} holds a number that is not whole")
    except _DAMAGE as error:
        raise errors.UserError(f"--source: {file.name} must be a MATLAB file with {key}: {error}") from error
    return whole


def _tracklet(root: pathlib.Path, tracks: _Tracks, row: int, split: str) -> list[listing.Record]:
    """Returns the frames of a tracklet, none of a junk one."""
    first, last, pid, camid = tracks.matrix[row - 1].tolist()
    where = f"--source: {tracks.mat_name} tracklet {row}"
    if pid == identities.UNKNOWN:
        return []
    if first > last:
        raise errors.UserError(f"{where} has no frames: it begins with line {first} and ends with line {last}")
    if not (first >= 1 and last <= len(tracks.names)):
        raise errors.UserError(f"{where} has lines {first} to {last}, {tracks.list_name} has 1 to {len(tracks.names)}")
    frames = []
    for name in tracks.names[first - 1 : last]:
        labels = _NAME.fullmatch(name)
        if labels is None:
            raise errors.UserError(f"{where}: {name!r} in {tracks.list_name} must be like 0001C1T0001F001.jpg")
        named_pid = identities.UNKNOWN if labels["pid"] == _JUNK else int(labels["pid"])
        if (named_pid, int(labels["camid"])) != (pid, camid):
            raise errors.UserError(
                f"{where} is identity {pid} in camera {camid}, its frame {name} in {tracks.list_name} is not"
            )
        path = f"{tracks.folder}/{labels['pid']}/{name}"
        if not (root / path).is_file():
            raise errors.UserError(f"{where}: there is no image {path}")
        frames.append(listing.Record(split, path, pid, camid, identities.UNKNOWN, root / path))
    return frames
