"""Draws a data set's images on one sheet, to look at: a row per identity, a column per image.

  python data_prep/contact_sheet.py --source=Market-1501-v15.09.15 --output=sheet.png --rows=12 --columns=8

Image names like Market-1501's are grouped by identity, a row taking its images from all cameras in turn. Other
images fill a plain grid.
"""

import collections
import itertools
import pathlib

from absl import flags
from PIL import Image, ImageDraw, ImageFont

from data_prep import cli
from data_prep.readers import listing, market1501
from reid_jax import types

_TILE_HEIGHT, _TILE_WIDTH = 128, 64  # pixels
_GAP, _LABEL = 4, 14
_PAPER, _INK = (250, 250, 250), (20, 20, 20)


def contact_sheet(
    images: list[pathlib.Path],
    *,
    rows: int,
    columns: int,
    tile_height: int = _TILE_HEIGHT,
    tile_width: int = _TILE_WIDTH,
) -> Image.Image:
    """Draws images on a sheet.

    Args:
        images: image files; where all names follow Market-1501's, rows are identities, otherwise a plain grid.
        rows: greatest number of rows.
        columns: greatest number of images in a row.
        tile_height: height of an image on the sheet, in pixels.
        tile_width: greatest width of an image on the sheet, in pixels.

    Returns:
        An RGB image with a label over each tile: identity and camera, or the file's name.

    Raises:
        UserError: no images, rows or columns less than 1, or a file is no image.
    """
    for name, value in (("rows", rows), ("columns", columns)):
        if value < 1:
            raise types.UserError(f"--{name}: {value} must be at least 1")
    if not images:
        raise types.UserError("--source: no images in it")
    table = arrange(images, rows=rows, columns=columns)
    across, down = tile_width + _GAP, tile_height + _GAP + _LABEL
    widest = max(len(row) for row in table)
    sheet = Image.new("RGB", (widest * across + _GAP, len(table) * down + _GAP), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    for y, row in enumerate(table):
        for x, (label, file) in enumerate(row):
            left, top = _GAP + x * across, _GAP + y * down
            draw.text((left, top), _shortened(label, font, tile_width), fill=_INK, font=font)
            sheet.paste(_thumbnail(file, tile_height, tile_width), (left, top + _LABEL))
    return sheet


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


def _thumbnail(file: pathlib.Path, height: int, width: int) -> Image.Image:
    try:
        with Image.open(file) as image:
            image = image.convert("RGB")
    except (OSError, Image.DecompressionBombError, SyntaxError) as error:
        # Pillow's own errors have no errno; those of the file system keep theirs.
        if getattr(error, "errno", None) is not None:
            raise
        raise types.UserError(f"--source: {file} is not a whole image") from None
    scale = min(height / image.height, width / image.width)
    return image.resize((max(1, round(scale * image.width)), max(1, round(scale * image.height))))


def _shortened(label: str, font: ImageFont.ImageFont, width: int) -> str:
    while label and font.getlength(label) > width:
        label = label[:-1]
    return label


def _define_flags() -> None:
    flags.DEFINE_string("source", None, "A folder of images, sub-folders included.")
    flags.DEFINE_string("output", None, "The sheet to write; .png or .jpg.")
    flags.DEFINE_integer("rows", 12, "Greatest number of rows.")
    flags.DEFINE_integer("columns", 8, "Greatest number of images in a row.")


def _main() -> None:
    given = flags.FLAGS
    for required in ("source", "output"):
        if not given[required].value:
            raise types.UserError(f"--{required}: it must be given")
    source, output = pathlib.Path(given.source).expanduser(), pathlib.Path(given.output).expanduser()
    if not source.is_dir():
        raise types.UserError(f"--source: there is no folder {str(source)!r}")
    if output.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise types.UserError(f"--output: {str(output)!r} must end in .png or .jpg")
    contact_sheet(listing.list_images(source, recursive=True), rows=given.rows, columns=given.columns).save(output)


if __name__ == "__main__":
    cli.run(_main, _define_flags)
