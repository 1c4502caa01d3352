"""A person's own crops: a flat folder, one sub-folder per identity, ready-made splits, or a CSV index."""

import pathlib
import re

from data_prep.readers import csv_index, listing
from reid_jax import types


def read(
    source: listing.Source, *, csv: str | None = None, camid_from: str | None = None
) -> list[listing.Record]:
    """Reads a folder of crops.

    Without an index the folder says it all. Top-level folders train, query and gallery (any of them) are the
    splits; without them everything is for training. In a split, images directly in the folder have no known
    identity; otherwise every sub-folder is an identity, numbered from 1 in the order of the sorted names (the
    same name in two splits is the same identity), and its images may lie at any depth.

    Args:
        source: its folder holds the crops.
        csv: a CSV file, relative to the source or any path; without it index.csv inside the source, if there
            is one. `csv_index` says what it holds. Images it does not list are left out.
        camid_from: a regular expression searched in each path, whose only group is the camera's number.

    Returns:
        One record per image.

    Raises:
        UserError: the folder or the index breaks a rule above.
    """
    index = csv_index.find(source.folder, csv)
    if index is not None:
        if camid_from is not None:
            raise types.UserError(f"--camid_from: {index.name} is used; put the camera into its camid column")
        return csv_index.read(source.folder, index)
    camera = _camera_pattern(camid_from)
    by_split = {split: _by_identity(folder) for split, folder in _split_folders(source.folder).items()}
    names = sorted({name for group in by_split.values() for name in group if name is not None})
    pids: dict[str | None, int] = {None: types.UNKNOWN}
    # From 1, because 0 is a distractor.
    pids.update({name: pid for pid, name in enumerate(names, start=1)})
    return [
        _record(source.folder, split, file, pids[name], camera)
        for split, group in by_split.items()
        for name, files in group.items()
        for file in files
    ]


def _split_folders(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    splits = {split: folder / split for split in listing.SPLITS if (folder / split).is_dir()}
    if not splits:
        return {"train": folder}
    stray = [path.name + "/" for path in listing.list_folders(folder) if path.name not in splits]
    stray += [path.name for path in listing.list_images(folder)]
    if stray:
        raise types.UserError(
            f"--source: {stray[0]} lies beside {', '.join(f'{split}/' for split in splits)}; "
            f"with such folders every image must be in one of them"
        )
    return splits


def _by_identity(folder: pathlib.Path) -> dict[str | None, list[pathlib.Path]]:
    """Returns the images by identity folder, or all under None if there are no such folders."""
    loose = listing.list_images(folder)
    groups = {child.name: listing.list_images(child, recursive=True) for child in listing.list_folders(folder)}
    groups = {name: images for name, images in groups.items() if images}
    if loose and groups:
        raise types.UserError(
            f"--source: {folder.name}/ holds both images ({loose[0].name}) and identity folders "
            f"({next(iter(groups))}/); use one or the other, or an index.csv"
        )
    return groups or {None: loose}


def _camera_pattern(camid_from: str | None) -> re.Pattern | None:
    if camid_from is None:
        return None
    try:
        pattern = re.compile(camid_from)
    except re.error as error:
        raise types.UserError(f"--camid_from: {camid_from!r} is no regular expression: {error}") from error
    if pattern.groups != 1:
        raise types.UserError(f"--camid_from: {camid_from!r} must have exactly one group, it has {pattern.groups}")
    return pattern


def _record(
    root: pathlib.Path, split: str, file: pathlib.Path, pid: int, camera: re.Pattern | None
) -> listing.Record:
    path = listing.relative_path(file, root)
    camid = types.UNKNOWN
    if camera is not None:
        found = camera.search(path)
        if found is None or not (found[1] or "").isdecimal():
            raise types.UserError(f"--camid_from: {camera.pattern!r} finds no camera number in {path!r}")
        camid = int(found[1])
    return listing.Record(split, path, pid, camid, types.UNKNOWN, file)
