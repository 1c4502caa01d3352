"""DukeMTMC-VideoReID: in each split a folder per identity, in it a folder per tracklet, in it the frames."""

import pathlib
import re

from reid_jax import errors, identities
from reid_jax.data import folders
from reid_jax.data_prep.readers import listing

# Older copies have no underscores: 0001C6F0001X30823.jpg.
NAME = re.compile(r"(?P<pid>\d+)_?C(?P<camid>\d+)_?F\d+_?X\d+\.(jpg|jpeg|png)", re.IGNORECASE)
EXAMPLE = "0001_C6_F0001_X30823.jpg"
EXPECTED = "the folders " + ", ".join(listing.SPLITS)


def read(source: listing.Source) -> list[listing.Record]:
    """Reads DukeMTMC-VideoReID; identity 0, which the published data set does not have, is a distractor.

    Args:
        source: its folder holds train, query and gallery, itself or inside a top folder.

    Returns:
        One record per frame.

    Raises:
        UserError: the layout or a file name is another one, a folder is empty, or a frame's name is not of its
            folder's identity or not of its tracklet's camera.
    """
    root = listing.find_root(source.folder, _is_root, EXPECTED)
    tracklets = []
    for split in listing.SPLITS:
        for identity in _sub_folders(root / split, root, "identity"):
            tracklets.extend(_tracklet(folder, root, split) for folder in _sub_folders(identity, root, "tracklet"))
    return listing.number_tracklets(tracklets)


def _is_root(folder: pathlib.Path) -> bool:
    return all((folder / split).is_dir() for split in listing.SPLITS)


def _sub_folders(folder: pathlib.Path, root: pathlib.Path, kind: str) -> list[pathlib.Path]:
    where = f"--source: {folders.relative_path(folder, root)}/"
    loose, inner = folders.list_images(folder), folders.list_folders(folder)
    if loose:
        raise errors.UserError(f"{where} holds the image {loose[0].name}, it must hold {kind} folders only")
    if not inner:
        raise errors.UserError(f"{where} holds no {kind} folders, found {folders.describe(folder)}")
    return inner


def _tracklet(folder: pathlib.Path, root: pathlib.Path, split: str) -> list[listing.Record]:
    frames = []
    where, deeper = folders.relative_path(folder, root), folders.list_folders(folder)
    if deeper:
        raise errors.UserError(f"--source: the tracklet {where}/ holds the folder {deeper[0].name}/, not frames only")
    for file in folders.list_images(folder):
        path = folders.relative_path(file, root)
        labels = NAME.fullmatch(file.name)
        if labels is None:
            raise errors.UserError(f"--source: {path}: the name must give identity and camera like {EXAMPLE}")
        pid, camid = int(labels["pid"]), int(labels["camid"])
        if not folder.parent.name.isdecimal() or pid != int(folder.parent.name):
            raise errors.UserError(f"--source: {path}: the name gives identity {pid}, its folder another one")
        if frames and camid != frames[0].camid:
            raise errors.UserError(
                f"--source: the tracklet {where}/ has frames of several cameras, {frames[0].file.name} and {file.name}"
            )
        frames.append(listing.Record(split, path, pid, camid, identities.UNKNOWN, file))
    if not frames:
        raise errors.UserError(f"--source: the tracklet {where}/ has no frames, found {folders.describe(folder)}")
    return frames
