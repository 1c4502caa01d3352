"""COIL-100: 100 objects on a turntable, 72 views each, as a stand-in for identities and cameras.

The public archive holds obj{1..100}__{degrees}.png. Odd objects are for training, even ones for testing. The
quadrant of the viewing angle is the "camera", 1 to 4, and the view in the middle of each quadrant the query,
so that an object must be found again from another side.
"""

import pathlib
import re

from reid_jax import errors, identities
from reid_jax.data import folders
from reid_jax.data_prep.readers import listing, market1501

_NAME = re.compile(r"obj(?P<object>\d+)__(?P<degrees>\d+)\.png")
_QUERY_DEGREES = frozenset((45, 135, 225, 315))
_EXPECTED = f"obj1__0.png to obj100__355.png, or {market1501.EXPECTED}"


def read(source: listing.Source) -> list[listing.Record]:
    """Reads COIL-100 from the public archive's files or from a copy in Market-1501's layout.

    Args:
        source: its folder holds either, itself or inside a top folder.

    Returns:
        One record per image.

    Raises:
        UserError: the layout or a file name is another one.
    """
    root = listing.find_root(source.folder, _is_root, _EXPECTED)
    if market1501.is_market_layout(root):
        return market1501.read_market_layout(root, market1501.NAME, market1501.EXAMPLE)
    return [_record(file, root) for file in folders.list_images(root)]


def _is_root(folder: pathlib.Path) -> bool:
    return market1501.is_market_layout(folder) or any(_NAME.fullmatch(path.name) for path in folder.iterdir())


def _record(file: pathlib.Path, root: pathlib.Path) -> listing.Record:
    view = _NAME.fullmatch(file.name)
    if view is None or not 1 <= int(view["object"]) <= 100 or int(view["degrees"]) >= 360:
        raise errors.UserError(
            f"--source: {folders.relative_path(file, root)}: the name must be obj1__0.png to obj100__355.png"
        )
    pid, degrees = int(view["object"]), int(view["degrees"])
    if pid % 2 == 1:
        split = "train"
    else:
        split = "query" if degrees in _QUERY_DEGREES else "gallery"
    return listing.Record(split, folders.relative_path(file, root), pid, degrees // 90 + 1, identities.UNKNOWN, file)
