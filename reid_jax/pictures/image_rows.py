"""Rows of small images with captions, framed by what they are: ranked lists, clusters, contact sheets."""

import bisect
import enum
import math
import unicodedata
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

_SMALLEST_TILE = 16  # pixels, as everything down to _DASH
_BORDER = 8  # of the sheet, outside the tiles' margins
_MARGIN = 6  # around a tile: its frame, and one pixel of paper between them
_TEXT_WIDTH = 480  # as wide titles and a legend may make a sheet whose tiles take less
_ROW_GAP, _LINE_GAP, _TITLE_GAP = 14, 6, 3
_TITLE_SIZE, _CAPTION_SIZE = 14, 12
_SWATCH, _NAME_GAP, _LEGEND_GAP = 24, 2, 10
_DASH, _SPACE = 4, 3
_MOST_LINES = 2  # of a title or caption
_SMOOTHING = 4  # slanted lines are drawn so many times as large, then reduced

_PAPER, _INK = (250, 250, 250), (20, 20, 20)
_MAT, _MISSING, _MISSING_CROSS, _SAMPLE = (236, 236, 236), (222, 222, 222), (165, 165, 165), (165, 165, 165)
_RATIOS = 0.5, 1.5  # least and greatest width / height of a tile whose width is not given
_FADED = 0.7  # the paper's share in a dimmed image

# Lines in a unit square.
_TICK = [[(0.22, 0.52), (0.43, 0.73), (0.8, 0.28)]]
_CROSS = [[(0.26, 0.26), (0.74, 0.74)], [(0.26, 0.74), (0.74, 0.26)]]
_DIAGONALS = [[(0, 0), (1, 1)], [(0, 1), (1, 0)]]


class Mark(enum.Enum):
    """How a tile is framed; the value is what a legend calls it."""

    QUERY = "query"  # thick, dark blue
    RIGHT = "right"  # green, a tick in the corner
    WRONG = "wrong"  # red, a cross in the corner
    NEUTRAL = "not judged"  # thin, grey
    DIMMED = "left out"  # dashed, grey, the image faded


class Tile(NamedTuple):
    """One image of a row.

    Attributes:
        image: [h, w, 3] uint8, RGB, of any size; None: not available, a grey tile with a cross.
        caption: text under it, two lines at most.
        mark: its frame; None: without one.
    """

    image: np.ndarray | None
    caption: str = ""
    mark: Mark | None = None


class Row(NamedTuple):
    """Tiles that belong together.

    Attributes:
        title: text above them, two lines at most; "": none.
        tiles: at least one.
    """

    title: str
    tiles: Sequence[Tile]


class _Frame(NamedTuple):
    colour: tuple[int, int, int]
    thickness: int  # less than _MARGIN
    sign: list[list[tuple[float, float]]] | None = None
    is_dashed: bool = False


# They differ in lightness and form too, for eyes and printers that do not tell the colours apart.
_FRAMES = {
    Mark.QUERY: _Frame((20, 45, 115), 5),
    Mark.RIGHT: _Frame((50, 170, 85), 3, sign=_TICK),
    Mark.WRONG: _Frame((180, 15, 30), 3, sign=_CROSS),
    Mark.NEUTRAL: _Frame((140, 140, 140), 1),
    Mark.DIMMED: _Frame((140, 140, 140), 1, is_dashed=True),
}


def draw_rows(
    rows: Sequence[Row],
    *,
    tile_height: int = 128,
    tile_width: int | None = None,
    max_columns: int = 12,
    legend: bool | Mapping[Mark, str] = False,
) -> Image.Image:
    """Draws rows of images, one under the other.

    An image is scaled into its tile, keeps its aspect ratio and is centred. Text may be anything: white space becomes
    one space, what cannot be printed a question mark, and what does not fit ends in an ellipsis.

    Args:
        rows: at least one.
        tile_height: the space for an image, in pixels, at least 16.
        tile_width: likewise; captions are no wider. None: by the images' median shape, 0.5 to 1.5 times the height.
        max_columns: a row of more tiles goes on in further lines.
        legend: whether a line at the end explains the marks that occur, or its words for them.

    Returns:
        An RGB image as wide as its longest line of tiles, or up to 480 pixels if titles or legend need that.

    Raises:
        ValueError: no rows, a row without tiles, a size or max_columns too small, an image of another shape or type.
        TypeError: a title or caption that is no string, or a mark that is no Mark.
    """
    _check_sizes(tile_height, tile_height if tile_width is None else tile_width, max_columns)
    _check_rows(rows)
    if tile_width is None:
        tile_width = _usual_width(rows, tile_height)
    present = {tile.mark for row in rows for tile in row.tiles}
    words = legend if isinstance(legend, Mapping) else {}
    names = {mark: words.get(mark, mark.value) for mark in Mark if legend and mark in present}
    longest = max(len(row.tiles) for row in rows)
    width = max(min(max_columns, longest) * (tile_width + 2 * _MARGIN), _text_width(rows, names))
    blocks = [_row_block(row, (tile_width, tile_height), max_columns, width) for row in rows]
    if names:
        blocks.append(_legend_block(names, width))
    sheet = _stacked(blocks, gap=_ROW_GAP)
    return ImageOps.expand(sheet, (_BORDER, _BORDER, _BORDER + width - sheet.width, _BORDER), _PAPER)


def _usual_width(rows: Sequence[Row], height: int) -> int:
    """How wide tiles of a height must be for the median image to fill one."""
    shapes = [tile.image.shape for row in rows for tile in row.tiles if tile.image is not None]
    ratio = np.median([shape[1] / shape[0] for shape in shapes]) if shapes else 0.0
    low, high = _RATIOS
    return max(_SMALLEST_TILE, round(height * min(max(ratio, low), high)))


def _text_width(rows: Sequence[Row], names: Mapping[Mark, str]) -> int:
    """How wide rows must be for the titles and the legend to have one line each, or as wide as these may make them."""
    most = _TEXT_WIDTH - 2 * _BORDER
    font = ImageFont.load_default(_TITLE_SIZE)
    lengths = [font.getlength(line) + 2 * _MARGIN for row in rows for line in _wrapped(row.title, font, most, 1)]
    lengths.append(sum(_legend_entry(mark, name, most).width for mark, name in names.items()))
    return min(most, math.ceil(max(lengths)))


def _row_block(row: Row, size: tuple[int, int], max_columns: int, width: int) -> Image.Image:
    """A row's title and its lines of tiles of this size (width, height)."""
    title_font, font = ImageFont.load_default(_TITLE_SIZE), ImageFont.load_default(_CAPTION_SIZE)
    cells = []
    for tile in row.tiles:
        caption = _written(_wrapped(tile.caption, font, size[0]), font, size[0])
        cells.append(_stacked([_framed(tile, size), ImageOps.expand(caption, (_MARGIN, 0), _PAPER)]))
    lines = [_side_by_side(cells[start : start + max_columns]) for start in range(0, len(cells), max_columns)]
    tiles = _stacked(lines, gap=_LINE_GAP)
    title = _wrapped(row.title, title_font, width - 2 * _MARGIN)
    if not title:
        return tiles
    return _stacked([ImageOps.expand(_written(title, title_font), (_MARGIN, 0, 0, _TITLE_GAP), _PAPER), tiles])


def _framed(tile: Tile, size: tuple[int, int]) -> Image.Image:
    """A tile in its frame, with the margin around it."""
    if tile.image is None:
        picture = _drawn(size, _DIAGONALS, 1, ground=_MISSING, ink=_MISSING_CROSS)
    else:
        picture = _fitted(Image.fromarray(np.asarray(tile.image)), size)
    if tile.mark is Mark.DIMMED:
        picture = Image.blend(picture, Image.new("RGB", size, _PAPER), _FADED)
    cell = ImageOps.expand(picture, _MARGIN, _PAPER)
    if tile.mark is None:
        return cell
    frame = _FRAMES[tile.mark]
    draw = ImageDraw.Draw(cell)
    first = _MARGIN - 1 - frame.thickness
    right, bottom = (_MARGIN + extent + frame.thickness for extent in size)
    draw.rectangle((first, first, right, bottom), outline=frame.colour, width=frame.thickness)
    if frame.is_dashed:
        for start in range(first + _DASH, max(right, bottom), _DASH + _SPACE):
            end = start + _SPACE - 1
            for x, y in ((first, first), (right, bottom)):
                draw.line((start, y, end, y), fill=_PAPER)
                draw.line((x, start, x, end), fill=_PAPER)
    if frame.sign:
        side = min(max(12, min(size) // 4), 20, min(size) // 2)
        sign = _drawn((side, side), frame.sign, side / 8, ground=frame.colour, ink=_PAPER)
        cell.paste(sign, (_MARGIN + size[0] + 1 - side, _MARGIN - 1))
    return cell


def _fitted(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """An image in the middle of a mat of this size."""
    scale = min(size[0] / image.width, size[1] / image.height)
    image = image.resize((max(1, round(scale * image.width)), max(1, round(scale * image.height))))
    mat = Image.new("RGB", size, _MAT)
    mat.paste(image, ((size[0] - image.width) // 2, (size[1] - image.height) // 2))
    return mat


def _drawn(size: tuple[int, int], lines: list, thickness: float, *, ground: tuple, ink: tuple) -> Image.Image:
    """An area of this size with smooth lines given in a unit square."""
    width, height = size[0] * _SMOOTHING, size[1] * _SMOOTHING
    area = Image.new("RGB", (width, height), ground)
    draw = ImageDraw.Draw(area)
    for line in lines:
        points = [(x * width, y * height) for x, y in line]
        draw.line(points, fill=ink, width=round(thickness * _SMOOTHING), joint="curve")
    return area.reduce(_SMOOTHING)


def _legend_block(names: Mapping[Mark, str], width: int) -> Image.Image:
    lines = [[]]
    for mark, name in names.items():
        entry = _legend_entry(mark, name, width)
        if lines[-1] and sum(before.width for before in lines[-1]) + entry.width > width:
            lines.append([])
        lines[-1].append(entry)
    return _stacked([_side_by_side(line) for line in lines])


def _legend_entry(mark: Mark, name: str, width: int) -> Image.Image:
    """A small tile with this mark and the mark's name beside it, on one line no wider than given."""
    sample = np.full((_SWATCH, _SWATCH, 3), _SAMPLE, np.uint8)
    swatch = _framed(Tile(sample, mark=mark), (_SWATCH, _SWATCH))
    font = ImageFont.load_default(_CAPTION_SIZE)
    text = _written(_wrapped(name, font, width - swatch.width - _NAME_GAP - _LEGEND_GAP, 1), font)
    above = (swatch.height - text.height) // 2
    return _side_by_side([swatch, ImageOps.expand(text, (_NAME_GAP, above, _LEGEND_GAP, 0), _PAPER)])


def _stacked(parts: Sequence[Image.Image], *, gap: int = 0) -> Image.Image:
    """Pictures one under the other, their left sides in line."""
    height = sum(part.height for part in parts) + gap * (len(parts) - 1)
    whole = Image.new("RGB", (max(part.width for part in parts), height), _PAPER)
    top = 0
    for part in parts:
        whole.paste(part, (0, top))
        top += part.height + gap
    return whole


def _side_by_side(parts: Sequence[Image.Image]) -> Image.Image:
    """Pictures from left to right, their tops in line."""
    whole = Image.new("RGB", (sum(part.width for part in parts), max(part.height for part in parts)), _PAPER)
    left = 0
    for part in parts:
        whole.paste(part, (left, 0))
        left += part.width
    return whole


def _written(lines: Sequence[str], font: ImageFont.FreeTypeFont, width: int | None = None) -> Image.Image:
    """Lines of text, centred in a picture of this width or, without one, from the left; nothing is drawn outside it."""
    lengths = [math.ceil(font.getlength(line)) for line in lines]
    line_height = sum(font.getmetrics())
    area = Image.new("RGB", (width or max(lengths, default=0), len(lines) * line_height), _PAPER)
    draw = ImageDraw.Draw(area)
    for number, (line, length) in enumerate(zip(lines, lengths, strict=True)):
        left = (width - length) // 2 if width else 0
        draw.text((left, number * line_height), line, fill=_INK, font=font)
    return area


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: int, most: int = _MOST_LINES) -> list[str]:
    """A text in at most so many lines no wider than this, the last one with an ellipsis if there was more."""
    rest = _drawable(text)[: most * width + 1]  # a letter takes a pixel at least: with one more it cannot fit
    lines = []
    while rest and len(lines) < most:
        if font.getlength(rest) <= width:
            return [*lines, rest]
        end = "…" if len(lines) == most - 1 else ""
        count = bisect.bisect_right(range(1, len(rest)), width, key=lambda n: font.getlength(rest[:n].rstrip() + end))
        space = rest.rfind(" ", 0, count + 1)
        if not end and 3 * space > count:  # a line is not left almost empty for the sake of whole words
            count = space
        lines.append(rest[:count].rstrip() + end)
        rest = rest[count:].lstrip()
    return lines


def _drawable(text: str) -> str:
    """A text in one line of what the font can draw or at least draws as a box."""
    kept = []
    for character in unicodedata.normalize("NFC", text):
        if character.isspace():
            kept.append(" ")
        elif unicodedata.category(character) not in ("Mn", "Me", "Cf"):  # accents and what has no shape
            # Pillow's font has no accented letters.
            plain = unicodedata.normalize("NFD", character)[0] if character.isalpha() else character
            character = plain if plain.isascii() else character
            kept.append(character if character.isprintable() else "?")
    return " ".join("".join(kept).split())


def _check_sizes(tile_height: int, tile_width: int, max_columns: int) -> None:
    for name, value, least in (
        ("tile_height", tile_height, _SMALLEST_TILE),
        ("tile_width", tile_width, _SMALLEST_TILE),
        ("max_columns", max_columns, 1),
    ):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")


def _check_rows(rows: Sequence[Row]) -> None:
    if not rows:
        raise ValueError("rows must be at least one, got none")
    for number, row in enumerate(rows):
        if not isinstance(row.title, str):
            raise TypeError(f"rows[{number}].title must be a string, got {row.title!r}")
        if not row.tiles:
            raise ValueError(f"rows[{number}].tiles must be at least one, got none")
        for place, tile in enumerate(row.tiles):
            _check_tile(tile, f"rows[{number}].tiles[{place}]")


def _check_tile(tile: Tile, name: str) -> None:
    if not isinstance(tile.caption, str):
        raise TypeError(f"{name}.caption must be a string, got {tile.caption!r}")
    if tile.mark is not None and not isinstance(tile.mark, Mark):
        raise TypeError(f"{name}.mark must be a Mark or None, got {tile.mark!r}")
    if tile.image is None:
        return
    image = np.asarray(tile.image)
    if image.ndim != 3 or image.shape[2] != 3 or not image.size or image.dtype != np.uint8:
        raise ValueError(f"{name}.image must be [h, w, 3] uint8 or None, got shape {image.shape} of {image.dtype}")
