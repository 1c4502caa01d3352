"""MSMT17, versions 1 and 2: four lists name the images of each split."""

import pathlib
import re

from reid_jax import errors, identities
from reid_jax.data_prep.readers import listing

# Validation identities are trained on, as in the papers: 32,621 images of 1,041 identities.
_LISTS = {
    "list_train.txt": "train",
    "list_val.txt": "train",
    "list_query.txt": "query",
    "list_gallery.txt": "gallery",
}
# (training images, test images) of version 1 and of version 2, where the faces are blurred.
_VERSIONS = (("train", "test"), ("mask_train_v2", "mask_test_v2"))
_NAME = re.compile(r"\d+_\d+_(?P<camid>\d+)_.+\.(jpg|jpeg|png)", re.IGNORECASE)
_EXPECTED = f"{', '.join(_LISTS)} beside the folders {' or '.join('/, '.join(v) + '/' for v in _VERSIONS)}"


def read(source: listing.Source) -> list[listing.Record]:
    """Reads MSMT17; a pid is the list's number plus one, as 0 means a distractor in a prepared data set.

    Args:
        source: its folder holds the four lists and the two image folders, itself or inside a top folder.

    Returns:
        One record per listed image.

    Raises:
        UserError: the layout is another one, a line is not "path identity", or a listed image is missing.
    """
    root = listing.find_root(source.folder, lambda folder: _version(folder) is not None, _EXPECTED)
    train_folder, test_folder = _version(root)
    records = []
    for name, split in _LISTS.items():
        records.extend(_read_list(root, name, split, train_folder if split == "train" else test_folder))
    return records


def _version(folder: pathlib.Path) -> tuple[str, str] | None:
    if not all((folder / name).is_file() for name in _LISTS):
        return None
    return next((pair for pair in _VERSIONS if all((folder / name).is_dir() for name in pair)), None)


def _read_list(root: pathlib.Path, list_name: str, split: str, image_folder: str) -> list[listing.Record]:
    records = []
    lines = (root / list_name).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"--source: {list_name} line {number}"
        path, _, pid = line.strip().rpartition(" ")
        image = _NAME.fullmatch(pathlib.PurePosixPath(path).name)
        if image is None or not pid.isdecimal():
            raise errors.UserError(
                f"{where}: {line.strip()!r} must be like '0000/0000_000_01_0303morning_0008_0.jpg 0'"
            )
        if path.startswith("/") or ".." in pathlib.PurePosixPath(path).parts:
            raise errors.UserError(f"{where}: {path!r} must lie inside {image_folder}/")
        file = root / image_folder / path
        if not file.is_file():
            raise errors.UserError(f"{where}: there is no image {image_folder}/{path}")
        records.append(
            listing.Record(split, f"{image_folder}/{path}", int(pid) + 1, int(image["camid"]), identities.UNKNOWN, file)
        )
    return records
