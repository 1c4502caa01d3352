"""A person's own crops: a flat folder, one sub-folder per identity or tracklet, ready-made splits, or a CSV index."""

import pathlib
import re

from reid_jax import errors, identities
from reid_jax.data import folders
from reid_jax.data_prep.readers import csv_index, listing


def read(
    source: listing.Source, *, csv: str | None = None, camid_from: str | None = None, tracklets: bool = False
) -> list[listing.Record]:
    """Reads a folder of crops.

    Without an index the folder says it all. Top-level folders train, query and gallery (any of them) are the
    splits; without them everything is for training. In a split, images directly in the folder have no known
    identity; otherwise every sub-folder is an identity, numbered from 1 in the order of the sorted names (the
    same name in two splits is the same identity), and its images may lie at any depth.

    With `tracklets` every innermost folder is a tracklet, its images the frames in the order of their names. In a
    split, TRACKLET/frame.jpg has no known identity; PID/TRACKLET/frame.jpg has the identity PID, numbered as
    above. All tracklets of a split lie at the same of these two depths.

    Args:
        source: its folder holds the crops.
        csv: a CSV file, relative to the source or any path; without it index.csv inside the source, if there
            is one. `csv_index` says what it holds. Images it does not list are left out.
        camid_from: a regular expression searched in each path, whose only group is the camera's number.
        tracklets: whether the images are frames of tracklets.

    Returns:
        One record per image.

    Raises:
        UserError: the folder or the index breaks a rule above.
    """
    index = csv_index.find(source.folder, csv)
    if index is not None:
        if camid_from is not None:
            raise errors.UserError(f"--camid_from: {index.name} is used; put the camera into its camid column")
        if tracklets:
            raise errors.UserError(f"--tracklets: {index.name} is used; put the tracklets into its tracklet column")
        return csv_index.read(source.folder, index)
    camera = _camera_pattern(camid_from)
    by_split = {
        split: _tracklets_by_identity(folder) if tracklets else _by_identity(folder)
        for split, folder in _split_folders(source.folder).items()
    }
    names = sorted({name for group in by_split.values() for name in group if name is not None})
    pids: dict[str | None, int] = {None: identities.UNKNOWN}
    # From 1, because 0 is a distractor.
    pids.update({name: pid for pid, name in enumerate(names, start=1)})
    groups = [
        [_record(source.folder, split, file, pids[name], camera) for file in files]
        for split, by_name in by_split.items()
        for name, lists in by_name.items()
        for files in lists
    ]
    if not tracklets:
        return [record for group in groups for record in group]
    for group in groups:
        _check_one_camera(group)
    return listing.number_tracklets(groups)


def _split_folders(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    splits = {split: folder / split for split in listing.SPLITS if (folder / split).is_dir()}
    if not splits:
        return {"train": folder}
    stray = [path.name + "/" for path in folders.list_folders(folder) if path.name not in splits]
    stray += [path.name for path in folders.list_images(folder)]
    if stray:
        raise errors.UserError(
            f"--source: {stray[0]} lies beside {', '.join(f'{split}/' for split in splits)}; "
            f"with such folders every image must be in one of them"
        )
    return splits


def _by_identity(folder: pathlib.Path) -> dict[str | None, list[list[pathlib.Path]]]:
    """Returns one list of images for each identity folder, or one under None if there are no such folders."""
    loose = folders.list_images(folder)
    groups = {child.name: folders.list_images(child, recursive=True) for child in folders.list_folders(folder)}
    groups = {name: images for name, images in groups.items() if images}
    if loose and groups:
        raise errors.UserError(
            f"--source: {folder.name}/ holds both images ({loose[0].name}) and identity folders "
            f"({next(iter(groups))}/); use one or the other, or an index.csv"
        )
    return {name: [images] for name, images in groups.items()} or {None: [loose]}


def _tracklets_by_identity(folder: pathlib.Path) -> dict[str | None, list[list[pathlib.Path]]]:
    """Returns the tracklets' frames by identity folder, or all under None if there are no such folders."""
    _refuse_loose_images(folder)
    inside = {child: folders.list_folders(child) for child in folders.list_folders(folder)}
    unknown = [_frames(child) for child in inside if not inside[child]]
    identities = [child for child in inside if inside[child]]
    if not identities:
        return {None: unknown}
    if unknown:
        raise errors.UserError(
            f"--tracklets: {folder.name}/ holds both a tracklet ({unknown[0][0].parent.name}/) and an identity with "
            f"tracklets in it ({identities[0].name}/); all tracklets of a split must lie at the same depth"
        )
    for child in identities:
        _refuse_loose_images(child)
    return {child.name: [_frames(tracklet) for tracklet in inside[child]] for child in identities}


def _refuse_loose_images(folder: pathlib.Path) -> None:
    loose = folders.list_images(folder)
    if loose:
        raise errors.UserError(
            f"--tracklets: the image {folder.name}/{loose[0].name} must be in the folder of a tracklet, without "
            f"other folders beside it"
        )


def _frames(folder: pathlib.Path) -> list[pathlib.Path]:
    where = f"--tracklets: the folder {folder.parent.name}/{folder.name}/"
    deeper, frames = folders.list_folders(folder), folders.list_images(folder)
    if deeper:
        raise errors.UserError(
            f"{where} holds the folder {deeper[0].name}/; tracklets must lie in a split, or in an identity of a split"
        )
    if not frames:
        raise errors.UserError(f"{where} is a tracklet without frames, found {folders.describe(folder)}")
    return frames


def _check_one_camera(frames: list[listing.Record]) -> None:
    other = next((frame for frame in frames if frame.camid != frames[0].camid), None)
    if other is not None:
        raise errors.UserError(
            f"--camid_from: a tracklet must be of one camera; it finds {frames[0].camid} in {frames[0].path!r} and "
            f"{other.camid} in {other.path!r}"
        )


def _camera_pattern(camid_from: str | None) -> re.Pattern | None:
    if camid_from is None:
        return None
    try:
        pattern = re.compile(camid_from)
    except re.error as error:
        raise errors.UserError(f"--camid_from: {camid_from!r} is no regular expression: {error}") from error
    if pattern.groups != 1:
        raise errors.UserError(f"--camid_from: {camid_from!r} must have exactly one group, it has {pattern.groups}")
    return pattern


def _record(root: pathlib.Path, split: str, file: pathlib.Path, pid: int, camera: re.Pattern | None) -> listing.Record:
    path = folders.relative_path(file, root)
    camid = identities.UNKNOWN
    if camera is not None:
        match = camera.search(path)
        if match is None or not (match[1] or "").isdecimal():
            raise errors.UserError(f"--camid_from: {camera.pattern!r} finds no camera number in {path!r}")
        camid = int(match[1])
    return listing.Record(split, path, pid, camid, identities.UNKNOWN, file)
