"""Image files of a folder, to be read where they lie."""

import dataclasses
import pathlib

import numpy as np

from reid_jax import types


@dataclasses.dataclass(frozen=True)
class ImageFiles:
    """Image files in one folder, as `images.StreamedImages` reads them; N items.

    Attributes:
        folder: where they lie.
        paths: [N] str, inside the folder, with forward slashes.
    """

    folder: pathlib.Path
    paths: np.ndarray

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def name(self) -> str:
        """What messages call them."""
        return str(self.folder)

    def encoded(self, index: int) -> bytes:
        """Returns the bytes of item `index`."""
        return inside(self.folder, self.paths[index]).read_bytes()


def inside(folder: str | pathlib.Path, path: str) -> pathlib.Path:
    """Returns the file at a path that is relative to a folder; links are followed, since the folder is the user's.

    Args:
        folder: the folder.
        path: from a file that may be a stranger's.

    Raises:
        UserError: the path is absolute or leads out of the folder.
    """
    relative = pathlib.PurePosixPath(str(path))
    if relative.is_absolute() or ".." in relative.parts or not relative.parts or "\0" in str(path):
        raise types.UserError(f"the path {str(path)!r} must lead to a file inside {str(folder)!r}")
    return pathlib.Path(folder, *relative.parts)
