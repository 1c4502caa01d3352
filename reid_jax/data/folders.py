"""What lies in a folder of images: its image files, its sub-folders, in a few words what else."""

import os
import pathlib

from reid_jax import errors

# Only JPEG and PNG can be stored; the others are listed too, so that they are named as bad images and not
# left out without a word.
_IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".heic", ".avif", ".ppm")
)


def is_image_name(name: str) -> bool:
    """Returns whether a file of this name is an image; hidden files (macOS writes ._x.jpg) are not."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in _IMAGE_SUFFIXES


def list_images(folder: pathlib.Path, *, recursive: bool = False, flag: str = "source") -> list[pathlib.Path]:
    """Lists a folder's images.

    Args:
        folder: the folder.
        recursive: also the images in its sub-folders; hidden folders are passed over.
        flag: the command line's name for the folder, for the message.

    Returns:
        The images' paths, sorted.

    Raises:
        UserError: a file name is not UTF-8, which a prepared data set could not hold.
    """
    images = []
    for where, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if recursive and not name.startswith(".")]
        images.extend(pathlib.Path(where, name) for name in names if is_image_name(name))
    for image in images:
        try:
            str(image).encode()
        except UnicodeEncodeError:
            raise errors.UserError(f"--{flag}: the file name {os.fsencode(image)!r} is not UTF-8") from None
    return sorted(images)


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
