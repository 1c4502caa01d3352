"""A picture of one identity's hierarchy of clusters: an icicle chart over its images (HCD, Fig. 6)."""

import colorsys
import os
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from reid_jax import atomic
from reid_jax.data.images import ImageSource
from reid_jax.data.samples import Samples
from reid_jax.pictures import palette

_MOST_IN_ROW = 12  # images
_TILE, _BAR, _GAP, _POINT, _BORDER, _TEXT, _LINE = 64, 20, 4, 7, 12, 12, 20  # pixels
_PAPER, _INK = (250, 250, 250), (20, 20, 20)
# Hues a golden section of the circle apart differ from their neighbours, however many there are.
_FIRST_HUE, _SATURATION = 0.57, 0.6
_TOP_LIGHTNESS, _LOWEST_LIGHTNESS = 0.68, 0.87  # black can be read on both


def choose_group(labels: np.ndarray, true_ids: np.ndarray, *, max_images: int = 24) -> np.ndarray:
    """Chooses the identity whose hierarchy says the most: most of its clusters at the lowest level unite higher up.

    That is the greatest number of clusters at the lowest level less that at the top; of equal ones the fewest at the
    top, then the lowest identity.

    Args:
        labels: [H, N] integer, clusters at each level, the lowest first; nested.
        true_ids: [N] integer, negative where not known. If none is known, the top level's clusters are the identities.
        max_images: of more items this many are kept, evenly spaced in the order of the picture.

    Returns:
        [n] int64, indices of the identity's items, ascending.

    Raises:
        ValueError: an argument of another shape or type, labels that are not nested, or max_images less than 1.
    """
    labels, true_ids = np.asarray(labels), np.asarray(true_ids)
    _check_labels(labels)
    if true_ids.shape != labels.shape[1:] or true_ids.dtype.kind not in "iu":
        raise ValueError(
            f"true_ids must be [{labels.shape[1]}] integers as labels, got shape {true_ids.shape} of {true_ids.dtype}"
        )
    if max_images < 1:
        raise ValueError(f"max_images must be at least 1, got {max_images}")
    candidates = np.flatnonzero(true_ids >= 0)
    groups = true_ids[candidates]
    if not len(candidates):
        candidates, groups = np.arange(labels.shape[1]), labels[-1]
    names = np.unique(groups)
    lowest, top = (_num_distinct(groups, level[candidates]) for level in (labels[0], labels[-1]))
    items = candidates[groups == names[np.lexsort((names, top, top - lowest))[0]]]
    if len(items) > max_images:
        items = items[cluster_order(labels[:, items])]
        items = np.sort(items[np.linspace(0, len(items) - 1, max_images).round().astype(int)])
    return items


def _num_distinct(groups: np.ndarray, values: np.ndarray) -> np.ndarray:
    """How many different values [N] each of the groups [N] has, in the groups' ascending order."""
    pairs = np.unique(np.stack([groups, values]), axis=1)
    return np.unique(pairs[0], return_counts=True)[1]


def cluster_order(labels: np.ndarray) -> np.ndarray:
    """Returns an order in which the items of every cluster follow each other, at every level.

    Args:
        labels: [H, N] integer, clusters at each level, the lowest first; nested.

    Returns:
        [N] int64, indices: by the clusters of the top level, within them by those of the next one, and so on. Larger
        clusters come first, of equally large ones that of the lower label, and a cluster's items by their indices.
    """
    keys = [np.arange(labels.shape[1])]
    for level in labels:  # the last key counts most
        _, clusters, counts = np.unique(level, return_inverse=True, return_counts=True)
        keys += [clusters, -counts[clusters]]
    return np.lexsort(keys)


def cluster_sizes(labels: np.ndarray) -> np.ndarray:
    """Returns how many items each item's cluster has.

    Args:
        labels: [H, N] integer, clusters at each level.

    Returns:
        [H, N] int64.
    """
    levels = (np.unique(level, return_inverse=True, return_counts=True) for level in labels)
    return np.stack([counts[clusters] for _, clusters, counts in levels])


class _Bar(NamedTuple):
    """What one row of images has of a cluster."""

    start: int  # its images there, by their places in the picture
    stop: int
    is_continued: bool  # from the row before
    goes_on: bool  # in the next row
    shown: int  # images of the cluster in the picture
    size: int  # items of the cluster in the data set


class _Layout(NamedTuple):
    """Where things are, in pixels."""

    left: int  # of a row's first image
    top: int  # of the first row's bars
    in_row: int  # images
    num_levels: int
    tile_height: int

    @property
    def row_height(self) -> int:
        return self.num_levels * (_BAR + _GAP) + self.tile_height + _BAR

    def corner(self, place: int, above: int) -> tuple[int, int]:
        """Left and top of the image at a place, or of the bar `above` images by so many levels."""
        row, column = divmod(place, self.in_row)
        down = (self.num_levels - above) * (_BAR + _GAP)
        return self.left + column * (_TILE + _GAP), self.top + row * self.row_height + down


def hierarchy_picture(
    images: np.ndarray, labels: np.ndarray, *, sizes: np.ndarray, caption: str | None = None, noun: str = "images"
) -> Image.Image:
    """Draws images in rows, and over them a bar for each cluster, the top level's uppermost.

    A bar spans its cluster's images and says how many they are, and of how many. Clusters within one cluster of the
    top level have its colour, the lower the lighter. A cluster that goes on in the next row has a bar in both.

    Args:
        images: [n, h, w, 3] uint8.
        labels: [H, n] integer, the images' clusters at each level, the lowest first; nested.
        sizes: [H, n] integer, how many items the images' clusters have in the whole data set.
        caption: what the images are; None: "one identity, n images".
        noun: what the items are, in the plural.

    Returns:
        An RGB image.

    Raises:
        ValueError: an argument of another shape or type, labels that are not nested, or sizes below what is shown.
    """
    images, labels, sizes = np.asarray(images), np.asarray(labels), np.asarray(sizes)
    _check_picture(images, labels, sizes)
    order = cluster_order(labels)
    images, labels, sizes = images[order], labels[:, order], sizes[:, order]
    num_levels, num_images = labels.shape
    num_rows = -(-num_images // _MOST_IN_ROW)
    in_row = -(-num_images // num_rows)  # rows as even as can be: none of a single image
    bars = [_bars(*level, in_row) for level in zip(labels, sizes)]
    font = ImageFont.load_default(_TEXT)
    lines = _explanation(bars, caption or f"one identity, {_counted(num_images, noun)}", noun)
    layout = _Layout(
        left=_BORDER + round(font.getlength(f"level {num_levels}")) + 2 * _GAP + _POINT,
        top=_BORDER + len(lines) * _LINE + _GAP,
        in_row=in_row,
        num_levels=num_levels,
        tile_height=max(1, round(_TILE * images.shape[1] / images.shape[2])),
    )
    width = max(layout.left + in_row * (_TILE + _GAP), _BORDER + max(round(font.getlength(line)) for line in lines))
    height = layout.top + num_rows * layout.row_height - _BAR
    picture = Image.new("RGB", (width + _BORDER, height + _BORDER), _PAPER)
    draw = ImageDraw.Draw(picture)
    for number, line in enumerate(lines):
        draw.text((_BORDER, _BORDER + number * _LINE), line, fill=_INK, font=font)
    clusters = np.cumsum(np.diff(labels[-1], prepend=labels[-1, 0]) != 0)  # of the top level, in order
    for level, level_bars in enumerate(bars, start=1):
        for bar in level_bars:
            x, y = layout.corner(bar.start, level)
            colour = _shade(clusters[bar.start], (num_levels - level) / max(1, num_levels - 1))
            _draw_bar(draw, font, bar, (x, y), colour, noun)
            if x == layout.left:
                draw.text((_BORDER, y + _BAR // 2), f"level {level}", fill=_INK, font=font, anchor="lm")
    for place, image in enumerate(images):
        picture.paste(Image.fromarray(image).resize((_TILE, layout.tile_height)), layout.corner(place, 0))
    return picture


def _bars(labels: np.ndarray, sizes: np.ndarray, in_row: int) -> list[_Bar]:
    """The bars of a level with labels [n] and sizes [n] in the order of the picture."""
    bars = []
    borders = np.flatnonzero(np.diff(labels)) + 1
    for cluster in np.split(np.arange(len(labels)), borders):
        for part in np.split(cluster, np.flatnonzero(cluster[1:] % in_row == 0) + 1):
            ends = part[0] > cluster[0], part[-1] < cluster[-1]
            bars.append(_Bar(int(part[0]), int(part[-1]) + 1, *map(bool, ends), len(cluster), int(sizes[cluster[0]])))
    return bars


def _explanation(bars: list[list[_Bar]], caption: str, noun: str) -> list[str]:
    """The lines over a picture: what it shows, and how it is read."""
    every = [bar for level in reversed(bars) for bar in level]
    lines = [f"{caption}: clusters at each level"]
    for bar in [bar for bar in every if bar.size > bar.shown][:1]:
        lines[0] += f" ({bar.shown} of {bar.size}: the cluster has {bar.size} {noun}, {bar.shown} of them shown)"
    if any(bar.goes_on for bar in every):
        lines.append(f"A cluster whose bar ends in a point goes on in the next row of {noun}.")
    return lines


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun.removesuffix('s') if number == 1 else noun}"


def _shade(cluster: int, depth: float) -> tuple[int, int, int]:
    """The colour under the top level's cluster of this number, at a depth of 0 (top) to 1 (lowest level)."""
    lightness = _TOP_LIGHTNESS + depth * (_LOWEST_LIGHTNESS - _TOP_LIGHTNESS)
    colour = colorsys.hls_to_rgb(palette.hue(cluster, first=_FIRST_HUE), lightness, _SATURATION)
    return tuple(round(255 * part) for part in colour)


def _draw_bar(draw, font, bar: _Bar, corner: tuple[int, int], colour: tuple[int, int, int], noun: str) -> None:
    """A bar over its images; it ends in a point where it goes on, and begins with a notch where it was continued."""
    (left, top), width = corner, (bar.stop - bar.start) * (_TILE + _GAP) - _GAP
    right, bottom, middle = left + width - 1, top + _BAR - 1, top + _BAR // 2
    outline = [(left, top), (right, top), (right, bottom), (left, bottom)]
    if bar.goes_on:
        outline.insert(2, (right + _POINT, middle))
    if bar.is_continued:
        outline[0], outline[-1] = (left - _POINT, top), (left - _POINT, bottom)
        outline.append((left, middle))
    draw.polygon(outline, fill=colour)
    texts = [_counted(bar.shown, noun), f"{bar.shown}"]
    if bar.size > bar.shown:
        texts = [f"{bar.shown} of {bar.size}", f"{bar.shown}/{bar.size}"]
    if bar.is_continued:
        texts.insert(0, f"{texts[0]}, continued")
    text = next((text for text in texts if font.getlength(text) <= width - _GAP), "")
    draw.text((left + width // 2, middle), text, fill=_INK, font=font, anchor="mm")


def _check_labels(labels: np.ndarray) -> None:
    if labels.ndim != 2 or not labels.size or labels.dtype.kind not in "iu":
        raise ValueError(
            f"labels must be [H, N] integers with H and N at least 1, got shape {labels.shape} of {labels.dtype}"
        )
    for level, (low, high) in enumerate(zip(labels[:-1], labels[1:]), start=1):
        heights = _num_distinct(low, high)
        if heights.max() > 1:
            raise ValueError(
                f"labels must be nested: cluster {np.unique(low)[heights.argmax()]} of level {level} lies in "
                f"{heights.max()} clusters of level {level + 1}"
            )


def _check_picture(images: np.ndarray, labels: np.ndarray, sizes: np.ndarray) -> None:
    _check_labels(labels)
    num_images = labels.shape[1]
    if images.ndim != 4 or images.shape[::3] != (num_images, 3) or not images.size or images.dtype != np.uint8:
        raise ValueError(
            f"images must be [{num_images}, h, w, 3] uint8 as labels, got shape {images.shape} of {images.dtype}"
        )
    if sizes.shape != labels.shape or sizes.dtype.kind not in "iu":
        raise ValueError(f"sizes must be {list(labels.shape)} integers, got shape {sizes.shape} of {sizes.dtype}")
    shown = cluster_sizes(labels)
    level, place = np.unravel_index(np.argmax(shown - sizes), sizes.shape)
    if sizes[level, place] < shown[level, place]:
        raise ValueError(
            f"sizes must be at least the images shown of a cluster, got {sizes[level, place]} for one of "
            f"{shown[level, place]} at level {level + 1}"
        )


def save_hierarchy(
    path: str | os.PathLike,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    sizes: np.ndarray,
    caption: str | None = None,
    noun: str = "images",
) -> None:
    """Writes `hierarchy_picture` of the same arguments as a PNG file, which is whole or not there."""
    picture = hierarchy_picture(images, labels, sizes=sizes, caption=caption, noun=noun)
    with atomic.atomic_path(path) as temporary:
        picture.save(temporary, format="PNG")


def draw_hierarchy(
    path: str | os.PathLike,
    images: ImageSource,
    samples: Samples,
    labels: np.ndarray,
    true_ids: np.ndarray,
    *,
    max_images: int = 24,
) -> None:
    """Chooses an identity with `choose_group` and saves its picture; a tracklet is shown by its middle frame.

    Args:
        path: of the PNG file.
        images: the images of a split.
        samples: its samples.
        labels: [H, N] integer, the samples' clusters at each level, the lowest first; nested.
        true_ids: [N] integer, negative where not known.
        max_images: as many samples are shown at most.

    Raises:
        ValueError: see `choose_group`.
    """
    labels, true_ids = np.asarray(labels), np.asarray(true_ids)
    chosen = choose_group(labels, true_ids, max_images=max_images)
    frames = samples.frames[samples.starts[chosen] + samples.counts[chosen] // 2]
    (shown,) = images.batches(frames[None, :])
    whose, group = "one identity", true_ids
    if true_ids[chosen[0]] < 0:
        whose, group = f"one cluster of level {len(labels)}", labels[-1]
    in_all, noun = np.count_nonzero(group == group[chosen[0]]), "tracklets" if samples.counts.max() > 1 else "images"
    number = f"{len(chosen)} of {in_all} {noun}" if len(chosen) < in_all else _counted(in_all, noun)
    sizes = cluster_sizes(labels)[:, chosen]
    save_hierarchy(path, shown, labels[:, chosen], sizes=sizes, caption=f"{whose}, {number}", noun=noun)
