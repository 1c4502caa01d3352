"""What sorting into people writes: the table of groups, a picture of the largest, a folder of copies for each."""

import csv
import io
import pathlib

import numpy as np
from PIL import Image

from reid_jax import cluster_quality, identities
from reid_jax.pictures import image_rows
from reid_jax.pictures.image_rows import Row, Tile
from reid_jax.progress import ProgressBar
from reid_jax.retrieval.collection import Collection

_SHEET_GROUPS, _SHEET_IMAGES = 24, 12
_LONGEST_NAME = 200  # bytes, of a copy; file systems take 255


def folder_name(group: int, num_groups: int) -> str:
    """The name of a group's sub-folder."""
    return f"person_{group + 1:0{max(4, len(str(num_groups)))}d}"


def groups_table(images: Collection, groups: np.ndarray, from_centre: np.ndarray) -> str:
    """The text of groups.csv: by group, in each the most typical image first."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["group", "images", "distance_to_centre", "path"])
    sizes = np.bincount(groups)
    for index in np.lexsort((from_centre, groups)):
        name = folder_name(groups[index], len(sizes))
        writer.writerow([name, sizes[groups[index]], f"{from_centre[index]:.4f}", images.paths[index]])
    return text.getvalue()


def contact_sheet(images: Collection, groups: np.ndarray, from_centre: np.ndarray) -> Image.Image:
    """Draws the largest groups, each with its most typical images and the least typical one; distances to the mean."""
    rows = []
    num_groups = groups.max() + 1
    for group in range(min(_SHEET_GROUPS, num_groups)):
        members = np.flatnonzero(groups == group)
        members = members[np.argsort(from_centre[members], kind="stable")]
        shown = members if len(members) <= _SHEET_IMAGES else [*members[: _SHEET_IMAGES - 1], members[-1]]
        tiles = [Tile(images.thumbnail(index), f"{from_centre[index]:.3f}") for index in shown]
        more = "" if len(shown) == len(members) else ": the most typical ones, and the least typical at the end"
        rows.append(Row(f"{folder_name(group, num_groups)}, {len(members)} images{more}", tiles))
    if num_groups > len(rows):
        rows[-1] = rows[-1]._replace(title=f"{rows[-1].title} ({num_groups - len(rows):,} more groups in groups.csv)")
    return image_rows.draw_rows(rows, max_columns=_SHEET_IMAGES)


def copy_images(images: Collection, groups: np.ndarray, folder: pathlib.Path) -> int:
    """Copies every image into its group's sub-folder; returns how many are no longer there to be copied."""
    missing, num_groups = 0, groups.max() + 1
    with ProgressBar(len(images), "copying", unit="images") as bar:
        for index, group in enumerate(groups):
            data = images.encoded(index)
            missing += data is None
            if data is not None:
                target = folder / folder_name(group, num_groups)
                target.mkdir(parents=True, exist_ok=True)
                (target / _copy_name(str(images.paths[index]), index, target)).write_bytes(data)
            bar.update()
    return missing


def _copy_name(path: str, index: int, folder: pathlib.Path) -> str:
    """The name of a copy in its group's folder: the image's own, with its number where that is taken or too long."""
    name = pathlib.PurePosixPath(path).name
    if not (folder / name).exists() and len(name.encode()) <= _LONGEST_NAME:
        return name
    stem, suffix = pathlib.PurePosixPath(name).stem, pathlib.PurePosixPath(name).suffix[:10]
    return f"{stem.encode()[: _LONGEST_NAME - 50].decode(errors='ignore')}_{index}{suffix}"


def describe(images: Collection, groups: np.ndarray) -> str:
    """What was found, and, where the people are known, how right it is."""
    sizes = np.bincount(groups)
    several = int((sizes > 1).sum())
    text = (
        f"{len(images):,} images: {several:,} group{'s' * (several != 1)} of two images or more, the largest of {sizes[0]:,}, and "
        f"{len(sizes) - several:,} images that are like no other"
    )
    is_known = images.pids > identities.DISTRACTOR_PID
    if is_known.any():
        scores = cluster_quality.bcubed(groups[is_known], images.pids[is_known])
        text += f"\nagainst the {len(np.unique(images.pids[is_known])):,} people known: BCubed P/R/F " + "/".join(
            f"{score:.3f}" for score in scores
        )
    return text
