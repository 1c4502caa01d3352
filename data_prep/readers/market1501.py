"""Market-1501, and the folder layout that several other data sets borrowed from it."""

import pathlib
import re

from reid_jax import errors, identities
from reid_jax.data import folders
from reid_jax.data_prep.readers import listing

_FOLDERS = {"bounding_box_train": "train", "query": "query", "bounding_box_test": "gallery"}
EXPECTED = "the folders " + ", ".join(_FOLDERS)

# A few files of the published data set end in .jpg.jpg.
NAME = re.compile(r"(?P<pid>-1|\d+)_c(?P<camid>\d+)s\d+_\d+_\d+\.(jpg|jpeg|png)(\.jpg)?", re.IGNORECASE)
EXAMPLE = "0002_c1s1_000451_03.jpg"


def read(source: listing.Source) -> list[listing.Record]:
    """Reads Market-1501; pid -1 is a junk detection, 0 a distractor, both in the gallery.

    Args:
        source: its folder holds bounding_box_train, query and bounding_box_test, itself or inside a top folder.

    Returns:
        One record per image.

    Raises:
        UserError: the layout or a file name is another one.
    """
    root = listing.find_root(source.folder, is_market_layout, EXPECTED)
    return read_market_layout(root, NAME, EXAMPLE)


def is_market_layout(folder: pathlib.Path) -> bool:
    """Returns whether a folder holds Market-1501's three folders."""
    return all((folder / name).is_dir() for name in _FOLDERS)


def read_market_layout(root: pathlib.Path, name_pattern: re.Pattern, example: str) -> list[listing.Record]:
    """Reads a data set in Market-1501's three folders, the labels being in the file names.

    Args:
        root: the folder that holds the three.
        name_pattern: matches a whole file name, with the groups pid and camid.
        example: a file name that matches, for the error message.

    Returns:
        One record per image.

    Raises:
        UserError: a folder has no images, or a file name does not match.
    """
    records = []
    for folder, split in _FOLDERS.items():
        images = folders.list_images(root / folder)
        if not images:
            raise errors.UserError(f"--source: {folder} holds no images, found {folders.describe(root / folder)}")
        for file in images:
            labels = name_pattern.fullmatch(file.name)
            if labels is None:
                raise errors.UserError(
                    f"--source: {folder}/{file.name}: the name must give identity and camera like {example}"
                )
            path = folders.relative_path(file, root)
            records.append(
                listing.Record(split, path, int(labels["pid"]), int(labels["camid"]), identities.UNKNOWN, file)
            )
    return records
