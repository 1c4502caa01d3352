"""A person's own crops: a flat folder, one sub-folder per identity or tracklet, ready-made splits, or a CSV index."""

import io
import math
import pathlib
import re

from reid_jax import errors, identities
from reid_jax.data import folders
from reid_jax.data_prep.readers import csv_index, listing, videos
from reid_jax.progress import ProgressBar

OPTIONS = ("csv", "camid_from", "tracklets", "video_fps")


def read(
    source: listing.Source,
    *,
    csv: str | None = None,
    camid_from: str | None = None,
    tracklets: bool = False,
    video_fps: float | None = None,
) -> list[listing.Record]:
    """Reads a folder of crops.

    Without an index the folder says it all. Top-level folders train, query and gallery (any of them, in small or
    capital letters) are the splits; without them everything is for training. In a split, images directly in the folder
    have no known identity; otherwise every sub-folder is an identity, numbered from 1 in the order of the sorted names
    (the same name in two splits is the same identity), and its images may lie at any depth.

    With `tracklets` every innermost folder is a tracklet, its images the frames in the order of their names, and so is
    every video, a file of one person. In a split, TRACKLET/frame.jpg and VIDEO.mp4 have no known identity;
    PID/TRACKLET/frame.jpg and PID/VIDEO.mp4 have the identity PID, numbered as above. All tracklets of a split lie at
    the same of these two depths.

    Args:
        source: its folder holds the crops.
        csv: a CSV file, relative to the source or any path; without it index.csv inside the source, if there
            is one. `csv_index` says what it holds. Images it does not list are left out.
        camid_from: a regular expression searched in each path, whose only group is the camera's number. The frames
            of a video have the camera of the video's path.
        tracklets: whether the images are frames of tracklets.
        video_fps: frames taken from each second of a video; 0: all, None: `videos.DEFAULT_FPS`.

    Returns:
        One record per image. The frames of a video are files in the scratch folder, and have paths such as
        ann/walk.mp4/000001.jpg.

    Raises:
        UserError: the folder or the index breaks a rule above, or there is a video without `tracklets`.
    """
    index = csv_index.find(source.folder, csv)
    _check_options(index, camid_from, tracklets, video_fps)
    if index is not None:
        return csv_index.read(source.folder, index)
    camera = _camera_pattern(camid_from)
    if not tracklets:
        _refuse_videos(source.folder)
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
    groups = _with_frames_of_videos(groups, source, videos.DEFAULT_FPS if video_fps is None else video_fps)
    for group in groups:
        _check_one_camera(group)
    return listing.number_tracklets(groups)


def _check_options(
    index: pathlib.Path | None, camid_from: str | None, tracklets: bool, video_fps: float | None
) -> None:
    if index is not None and camid_from is not None:
        raise errors.UserError(f"--camid_from: {index.name} is used; put the camera into its camid column")
    if index is not None and tracklets:
        raise errors.UserError(f"--tracklets: {index.name} is used; put the tracklets into its tracklet column")
    if video_fps is not None and not tracklets:
        raise errors.UserError("--video_fps: videos are read only with --tracklets, each as a tracklet")
    if video_fps is not None and not 0 <= video_fps < math.inf:
        raise errors.UserError(f"--video_fps: {video_fps:g} must be frames a second, at least 0 (all frames)")


def _refuse_videos(folder: pathlib.Path) -> None:
    found = folders.list_videos(folder, recursive=True)
    if found:
        raise errors.UserError(
            f"--source: {folders.relative_path(found[0], folder)} is a video; --tracklets reads videos, each as the "
            "tracklet of one person"
        )


def _split_folders(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    named: dict[str, list[pathlib.Path]] = {split: [] for split in listing.SPLITS}
    others = []
    for child in folders.list_folders(folder):
        named.get(child.name.lower(), others).append(child)
    splits = {split: children[0] for split, children in named.items() if children}
    if not splits:
        return {"train": folder}
    for split, children in named.items():
        if children[1:]:
            both = " and ".join(f"{child.name}/" for child in children)
            raise errors.UserError(f"--source: {both} are both the split {split}; there must be one")
    stray = [f"{path.name}/" for path in others] + [path.name for path in _images_and_videos(folder)]
    if stray:
        raise errors.UserError(
            f"--source: {stray[0]} lies beside {', '.join(f'{child.name}/' for child in splits.values())}; "
            f"with such folders every image must be in one of them"
        )
    return splits


def _images_and_videos(folder: pathlib.Path) -> list[pathlib.Path]:
    return folders.list_images(folder) + folders.list_videos(folder)


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
    """Returns the tracklets' files by identity folder, or all under None if there are no such folders.

    The files of a tracklet are its frames, or one video.
    """
    _refuse_loose_images(folder)
    inside = {child: folders.list_folders(child) + folders.list_videos(child) for child in folders.list_folders(folder)}
    unknown = [child for child in inside if not inside[child]] + folders.list_videos(folder)
    files_of_unknown = [_files_of_tracklet(child) for child in unknown]
    identities = [child for child in inside if inside[child]]
    if not identities:
        return {None: files_of_unknown}
    if unknown:
        raise errors.UserError(
            f"--tracklets: {folder.name}/ holds both a tracklet ({_shown(unknown[0])}) and an identity with "
            f"tracklets in it ({identities[0].name}/); all tracklets of a split must lie at the same depth"
        )
    for child in identities:
        _refuse_loose_images(child)
    return {child.name: [_files_of_tracklet(tracklet) for tracklet in inside[child]] for child in identities}


def _is_video(path: pathlib.Path) -> bool:
    return folders.is_video_name(path.name) and not path.is_dir()


def _shown(path: pathlib.Path) -> str:
    return path.name + "/" * path.is_dir()


def _refuse_loose_images(folder: pathlib.Path) -> None:
    loose = folders.list_images(folder)
    if loose:
        raise errors.UserError(
            f"--tracklets: the image {folder.name}/{loose[0].name} must be in the folder of a tracklet, without "
            f"other folders or videos beside it"
        )


def _files_of_tracklet(tracklet: pathlib.Path) -> list[pathlib.Path]:
    if _is_video(tracklet):
        return [tracklet]
    where = f"--tracklets: the folder {tracklet.parent.name}/{tracklet.name}/"
    deeper, frames = folders.list_folders(tracklet) + folders.list_videos(tracklet), folders.list_images(tracklet)
    if deeper:
        raise errors.UserError(
            f"{where} holds {_shown(deeper[0])}; tracklets must lie in a split, or in an identity of a split"
        )
    if not frames:
        raise errors.UserError(f"{where} is a tracklet without frames, found {folders.describe(tracklet)}")
    return frames


def _with_frames_of_videos(
    tracklets: list[list[listing.Record]], source: listing.Source, fps: float
) -> list[list[listing.Record]]:
    """Puts the frames of a video, which are written into the scratch folder, in the place of the video."""
    with_frames = []
    num_videos = sum(_is_video(records[0].file) for records in tracklets)
    stream = None if source.progress else io.StringIO()
    with ProgressBar(num_videos, "reading videos", unit="videos", stream=stream) as bar:
        for records in tracklets:
            if _is_video(records[0].file):
                records = _frames_of_video(records[0], source.scratch, fps)
                bar.update()
            with_frames.append(records)
    return with_frames


def _frames_of_video(video: listing.Record, scratch: pathlib.Path, fps: float) -> list[listing.Record]:
    frames = videos.write_frames(video.file, scratch / video.path, fps=fps)
    return [
        video._replace(path=f"{video.path}/{frame.file.name}", file=frame.file, problem=frame.problem)
        for frame in frames
    ]


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
