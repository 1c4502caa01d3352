"""What lies in a folder of images: its image files, its videos, its sub-folders, in a few words what else.

Links to files and folders are followed. A folder that cannot be read is an error, not an empty folder.
"""

import os
import pathlib
from collections.abc import Callable, Iterator

from reid_jax import errors

# More than can be read: the others are listed too, so that they are named as bad images and not left out without a word.
_IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".heic", ".heif", ".avif", ".ppm")
)
_VIDEO_SUFFIXES = frozenset((".mp4", ".avi", ".mov", ".mkv", ".webm"))


def is_image_name(name: str) -> bool:
    """Returns whether a file of this name is an image; hidden files (macOS writes ._x.jpg) are not."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in _IMAGE_SUFFIXES


def is_video_name(name: str) -> bool:
    """Returns whether a file of this name is a video; hidden files are not."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in _VIDEO_SUFFIXES


def list_images(folder: pathlib.Path, *, recursive: bool = False, flag: str = "source") -> list[pathlib.Path]:
    """Lists a folder's images.

    Args:
        folder: the folder.
        recursive: also the images in its sub-folders; hidden folders are passed over.
        flag: the command line's name for the folder, for the message.

    Returns:
        The images' paths, sorted.

    Raises:
        UserError: a file name is not UTF-8, which a prepared data set could not hold, or a folder cannot be read.
    """
    return _list_files(folder, is_image_name, recursive, flag)


def list_videos(folder: pathlib.Path, *, recursive: bool = False, flag: str = "source") -> list[pathlib.Path]:
    """Lists a folder's videos, with arguments and errors as those of `list_images`."""
    return _list_files(folder, is_video_name, recursive, flag)


def _list_files(
    folder: pathlib.Path, is_wanted: Callable[[str], bool], recursive: bool, flag: str
) -> list[pathlib.Path]:
    files = [
        pathlib.Path(where, name)
        for where, names in _walk(folder, recursive, flag)
        for name in names
        if is_wanted(name)
    ]
    for file in files:
        try:
            str(file).encode()
        except UnicodeEncodeError:
            raise errors.UserError(f"--{flag}: the file name {os.fsencode(file)!r} is not UTF-8") from None
    return sorted(files)


def _walk(folder: pathlib.Path, recursive: bool, flag: str) -> Iterator[tuple[str, list[str]]]:
    """Yields (folder, names of its files), and in the end raises if some folders could not be read."""
    unreadable: list[OSError] = []
    # The real folders on the way to each, down from the root: a link to one of them leads round in a circle.
    start = folder.resolve()
    ways = {str(folder): frozenset(map(str, (start, *start.parents)))}
    for where, inner, names in os.walk(folder, followlinks=True, onerror=unreadable.append):
        way = ways.pop(where)
        inner[:] = [name for name in inner if recursive and not name.startswith(".")]
        for name in tuple(inner):
            path = os.path.join(where, name)
            real = os.path.realpath(path)
            if real in way:
                inner.remove(name)
            else:
                ways[path] = way | {real}
        yield where, names
    if unreadable:
        first = unreadable[0]
        more = f", nor can {len(unreadable) - 1} more" if len(unreadable) > 1 else ""
        raise errors.UserError(f"--{flag}: the folder {first.filename!r} cannot be read ({first.strerror}){more}")


def list_folders(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the sub-folders that are not hidden, sorted."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def describe(folder: pathlib.Path, *, limit: int = 6) -> str:
    """Says in a few words what a folder holds, for an error message."""
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    if not names:
        return "nothing: it is empty"
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def relative_path(file: pathlib.Path, root: pathlib.Path) -> str:
    """Returns the path of a file inside the data set's folder, with forward slashes."""
    return file.relative_to(root).as_posix()
