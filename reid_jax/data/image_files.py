"""Image files of a folder, to be read where they lie."""

import dataclasses
import pathlib

import numpy as np

from reid_jax import errors


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
    path = str(path)
    relative, as_windows = pathlib.PurePosixPath(path), pathlib.PureWindowsPath(path)
    # Backslashes may be in a name, and on Windows lead to other folders; only there "1:a.jpg" names a drive.
    leads_out = any(".." in each.parts or each.root for each in (relative, as_windows)) or pathlib.PurePath(path).drive
    if leads_out or not relative.parts or "\0" in path:
        raise errors.UserError(f"the path {path!r} must lead to a file inside {str(folder)!r}")
    return pathlib.Path(folder, *relative.parts)
