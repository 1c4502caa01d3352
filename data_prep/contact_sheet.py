"""Draws a data set's images on one sheet, to look at: a row per identity, a column per image.

  python data_prep/contact_sheet.py --source=Market-1501-v15.09.15 --output=sheet.png --rows=12 --columns=8

Image names like Market-1501's are grouped by identity, a row taking its images from all cameras in turn. Other
images fill a plain grid.
"""

import collections
import itertools
import pathlib

import numpy as np
from absl import flags
from PIL import Image

from reid_jax import errors
from reid_jax.cli import program
from reid_jax.data import folders
from reid_jax.data.pixels import to_rgb
from reid_jax.data_prep.readers import market1501
from reid_jax.pictures import image_rows


def contact_sheet(
    images: list[pathlib.Path],
    *,
    rows: int,
    columns: int,
    tile_height: int = 128,
    tile_width: int = 64,
) -> Image.Image:
    """Draws images on a sheet.

    Args:
        images: image files; where all names follow Market-1501's, rows are identities, otherwise a plain grid.
        rows: greatest number of rows.
        columns: greatest number of images in a row.
        tile_height: greatest height of an image on the sheet, in pixels, at least 16.
        tile_width: greatest width of an image on the sheet, in pixels, at least 16.

    Returns:
        An RGB image with a label under each image: identity and camera, or the file's name.

    Raises:
        UserError: no images, rows or columns less than 1, or a file is no image.
        ValueError: see `image_rows.draw_rows`.
    """
    for name, value in (("rows", rows), ("columns", columns)):
        if value < 1:
            raise errors.UserError(f"--{name}: {value} must be at least 1")
    if not images:
        raise errors.UserError("--source: no images in it")
    shown = [
        image_rows.Row("", [image_rows.Tile(_thumbnail(file, tile_height, tile_width), label) for label, file in row])
        for row in arrange(images, rows=rows, columns=columns)
    ]
    return image_rows.draw_rows(shown, tile_height=tile_height, tile_width=tile_width, max_columns=columns)


def arrange(images: list[pathlib.Path], *, rows: int, columns: int) -> list[list[tuple[str, pathlib.Path]]]:
    """Chooses the images of a sheet and their places.

    Args:
        images: image files.
        rows: greatest number of rows.
        columns: greatest number of images in a row.

    Returns:
        Rows of (label, file). By identity, if all names follow Market-1501's: identities in ascending order, junk
        and distractors last, a row's images from its cameras in turn, sorted by camera.
    """
    names = [market1501.NAME.fullmatch(image.name) for image in images]
    if not all(names):
        cells = [(image.stem, image) for image in images[: rows * columns]]
        return [cells[start : start + columns] for start in range(0, len(cells), columns)]
    by_identity = collections.defaultdict(lambda: collections.defaultdict(list))
    for image, name in zip(images, names, strict=True):
        by_identity[int(name["pid"])][int(name["camid"])].append(image)
    table = []
    for pid in sorted(by_identity, key=lambda pid: (pid <= 0, pid))[:rows]:
        cameras = [[(camid, file) for file in by_identity[pid][camid]] for camid in sorted(by_identity[pid])]
        in_turn = [cell for cells in itertools.zip_longest(*cameras) for cell in cells if cell is not None]
        chosen = sorted(in_turn[:columns], key=lambda cell: cell[0])
        table.append([(f"{pid} c{camid}", file) for camid, file in chosen])
    return table


def _thumbnail(file: pathlib.Path, height: int, width: int) -> np.ndarray:
    """An image [h, w, 3] uint8, made no larger than this at once: a sheet's images at full size may fill the memory."""
    try:
        with Image.open(file) as image:
            image = to_rgb(image)
    except (OSError, Image.DecompressionBombError, SyntaxError) as error:
        # Pillow's own errors have no errno; those of the file system keep theirs.
        if getattr(error, "errno", None) is not None:
            raise
        raise errors.UserError(f"--source: {file} is not a whole image") from None
    image.thumbnail((width, height), reducing_gap=None)
    return np.asarray(image)


def _define_flags() -> None:
    flags.DEFINE_string("source", None, "A folder of images, sub-folders included.")
    flags.DEFINE_string("output", None, "The sheet to write; .png or .jpg.")
    flags.DEFINE_integer("rows", 12, "Greatest number of rows.")
    flags.DEFINE_integer("columns", 8, "Greatest number of images in a row.")


def _main() -> None:
    args = flags.FLAGS
    for required in ("source", "output"):
        if not args[required].value:
            raise errors.UserError(f"--{required}: it must be given")
    source, output = pathlib.Path(args.source).expanduser(), pathlib.Path(args.output).expanduser()
    if not source.is_dir():
        raise errors.UserError(f"--source: there is no folder {str(source)!r}")
    if output.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise errors.UserError(f"--output: {str(output)!r} must end in .png or .jpg")
    contact_sheet(folders.list_images(source, recursive=True), rows=args.rows, columns=args.columns).save(output)


if __name__ == "__main__":
    program.run(_main, _define_flags)
