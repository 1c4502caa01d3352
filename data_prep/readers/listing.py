"""What every reader works with: the record, and where in a source the data set's folder is."""

import pathlib
from collections.abc import Callable, Iterable
from typing import NamedTuple

from reid_jax import errors
from reid_jax.data.folders import describe, list_folders

SPLITS = ("train", "query", "gallery")

_SEARCH_DEPTH = 2


class Record(NamedTuple):
    """One image of a data set.

    Attributes:
        split: "train", "query" or "gallery".
        path: the image's path inside the source, with forward slashes.
        pid: the identity; 0 a distractor, -1 junk or not known.
        camid: the camera, -1 not known.
        tracklet: the tracklet, -1 none.
        file: where the image's bytes are now.
        problem: what makes the image a bad one, if the reader knows; then there need be no file.
    """

    split: str
    path: str
    pid: int
    camid: int
    tracklet: int
    file: pathlib.Path
    problem: str | None = None


class Source(NamedTuple):
    """What a reader reads.

    Attributes:
        folder: the raw data set, unpacked if it came as an archive; None for a data set that is made, not read.
        scratch: an empty folder for files the reader makes; it is removed once the data set is written.
        progress: whether to show how far a long conversion is.
    """

    folder: pathlib.Path | None
    scratch: pathlib.Path
    progress: bool


def find_root(source: pathlib.Path, is_root: Callable[[pathlib.Path], bool], expected: str) -> pathlib.Path:
    """Finds the data set's own folder: the source, or a folder at most two levels inside it.

    Args:
        source: the folder the user gave, or what an archive held.
        is_root: whether a folder is the data set's.
        expected: what such a folder holds, for the error message.

    Returns:
        The outermost folder for which `is_root` is true.

    Raises:
        UserError: there is none, or there are several on the same level.
    """
    level = [source]
    for _ in range(_SEARCH_DEPTH + 1):
        roots = [folder for folder in level if is_root(folder)]
        if len(roots) == 1:
            return roots[0]
        if roots:
            names = ", ".join(root.relative_to(source).as_posix() for root in roots)
            raise errors.UserError(f"--source: several folders in it hold {expected}: {names}; give one of them")
        level = [child for folder in level for child in list_folders(folder)]
    raise errors.UserError(f"--source: expected {expected}, found {describe(source)}")


def number_tracklets(tracklets: Iterable[list[Record]]) -> list[Record]:
    """Numbers tracklets from 0 within each split, in the order of their first frames' paths.

    Args:
        tracklets: the frames of each, at least one, all of one split.

    Returns:
        All frames with their tracklet, each tracklet's in the order of their paths.
    """
    numbered, counts = [], dict.fromkeys(SPLITS, 0)
    in_order = (sorted(frames, key=lambda frame: frame.path) for frames in tracklets)
    for frames in sorted(in_order, key=lambda frames: frames[0].path):
        split = frames[0].split
        numbered.extend(frame._replace(tracklet=counts[split]) for frame in frames)
        counts[split] += 1
    return numbered
