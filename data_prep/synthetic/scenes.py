"""What is behind the pedestrians: street, corridor, lawn and plaza, each a wide painting to cut windows from."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

KINDS = ("street", "corridor", "lawn", "plaza")
# The ground begins here, as a fraction of a scene's height; people's feet are below it.
GROUND = 0.45
_HORIZON = 0.28  # where parallels on the ground would meet

_LEVEL, _CONTRAST = 140, 0.14  # mean brightness; what muting leaves

Color = tuple[int, int, int]


def paint_scene(rng: np.random.Generator, kind: str, *, height: int, width: int) -> Image.Image:
    """Paints a scene without people.

    Args:
        rng: decides colours and what stands where.
        kind: one of `KINDS`.
        height: of the painting, in pixels.
        width: of the painting, in pixels.

    Returns:
        An RGB image.
    """
    image = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(image)
    painters = {"street": _street, "corridor": _corridor, "lawn": _lawn, "plaza": _plaza}
    painters[kind](draw, rng, width, height)
    image = image.filter(ImageFilter.GaussianBlur(height / 300))
    return _textured(image, rng, grain=7.0 if kind == "lawn" else 3.0)


def _street(draw: ImageDraw.ImageDraw, rng: np.random.Generator, width: int, height: int) -> None:
    base = GROUND * height
    left = 0.0
    while left < width:
        house = rng.uniform(0.35, 0.7) * height
        wall = _tinted(rng, [(150, 120, 100), (170, 160, 145), (120, 124, 130), (176, 140, 112)], 20)
        draw.rectangle((left, 0, left + house, base), fill=wall)
        shop = _shaded(wall, 0.5)
        draw.rectangle((left + 0.08 * house, 0.16 * height, left + 0.6 * house, base - 0.04 * height), fill=shop)
        door = _tinted(rng, [(70, 60, 56), (60, 80, 90)], 25)
        draw.rectangle((left + 0.68 * house, 0.12 * height, left + 0.9 * house, base), fill=door)
        awning = _tinted(rng, [(150, 50, 46), (50, 90, 70), (60, 70, 120), (190, 180, 160)], 15)
        draw.rectangle((left + 0.04 * house, 0.10 * height, left + 0.64 * house, 0.16 * height), fill=awning)
        left += house
    kerb = rng.uniform(0.60, 0.72) * height
    _ground(draw, rng, width, height, (156, 152, 146), spacing=0.8)
    draw.rectangle((0, kerb, width, height), fill=_tinted(rng, [(92, 92, 96)], 10))
    draw.rectangle((0, kerb, width, kerb + 0.014 * height), fill=(190, 188, 182))
    for car in np.arange(rng.uniform(0, 0.5), width / height, 0.55) * height:
        if rng.random() < 0.4:
            continue
        color = _tinted(rng, [(160, 30, 34), (210, 210, 212), (40, 44, 52), (50, 80, 130)], 12)
        _car(draw, car, base + 0.10 * height, 0.20 * height, color)


def _car(draw: ImageDraw.ImageDraw, left: float, bottom: float, size: float, color: Color) -> None:
    def at(*points: tuple[float, float]) -> list[tuple[float, float]]:
        return [(left + x * size, bottom - y * size) for x, y in points]

    draw.ellipse((left, bottom - 0.06 * size, left + 2.4 * size, bottom + 0.08 * size), fill=(70, 70, 72))
    roof = ((0.5, 0.6), (0.8, 0.95), (1.7, 0.95), (2.1, 0.58))
    draw.polygon(at((0, 0.12), (0, 0.5), *roof, (2.4, 0.48), (2.4, 0.12)), fill=color)
    draw.polygon(at((0.62, 0.6), (0.86, 0.88), (1.2, 0.88), (1.2, 0.6)), fill=(52, 60, 70))
    draw.polygon(at((1.27, 0.6), (1.27, 0.88), (1.64, 0.88), (1.94, 0.6)), fill=(52, 60, 70))
    for wheel in (0.5, 1.9):
        box = at((wheel - 0.2, 0.36), (wheel + 0.2, -0.04))
        draw.ellipse((*box[0], *box[1]), fill=(34, 34, 36))


def _corridor(draw: ImageDraw.ImageDraw, rng: np.random.Generator, width: int, height: int) -> None:
    base = GROUND * height
    wall = _tinted(rng, [(206, 200, 184), (190, 200, 204), (210, 206, 200)], 12)
    draw.rectangle((0, 0, width, base), fill=wall)
    draw.rectangle((0, 0.26 * height, width, base), fill=_shaded(wall, rng.uniform(0.6, 0.85)))
    left = rng.uniform(0, 0.3) * height
    while left < width:
        door = _tinted(rng, [(120, 82, 54), (90, 100, 112), (150, 60, 50)], 15)
        draw.rectangle((left, 0.02 * height, left + 0.26 * height, base), fill=_shaded(wall, 0.5))
        draw.rectangle((left + 0.014 * height, 0.034 * height, left + 0.246 * height, base), fill=door)
        hook, poster = left + rng.uniform(0.36, 0.5) * height, [(200, 60, 60), (60, 120, 180), (230, 220, 120)]
        draw.rectangle((hook, 0.06 * height, hook + 0.12 * height, 0.22 * height), fill=_tinted(rng, poster, 30))
        left += rng.uniform(0.7, 1.1) * height
    _ground(draw, rng, width, height, (166, 160, 150), spacing=0.55)
    draw.rectangle((0, base - 0.012 * height, width, base), fill=_shaded(wall, 0.4))


def _lawn(draw: ImageDraw.ImageDraw, rng: np.random.Generator, width: int, height: int) -> None:
    base = GROUND * height
    draw.rectangle((0, 0, width, base), fill=(178, 198, 214))
    for x in rng.uniform(0, width, 6):
        bark = _tinted(rng, [(84, 66, 50)], 12)
        draw.rectangle((x, 0.2 * height, x + 0.035 * height, base + 0.01 * height), fill=bark)
    for _ in range(int(9 * width / height)):
        x, y, size = rng.uniform(0, width), rng.uniform(0.02, 0.28) * height, rng.uniform(0.08, 0.2) * height
        leaves = _tinted(rng, [(58, 92, 50), (78, 108, 54), (44, 74, 46)], 12)
        draw.ellipse((x - size, y - size, x + size, y + 0.8 * size), fill=leaves)
    draw.rectangle((0, 0.36 * height, width, base), fill=_tinted(rng, [(48, 82, 44)], 8))
    grass = np.array(_tinted(rng, [(104, 140, 66), (124, 140, 76), (88, 124, 60)], 8))
    for row in range(int(base), height):
        near = (row - base) / (height - base)
        draw.line((0, row, width, row), fill=tuple(int(value) for value in grass * (0.82 + 0.25 * near)))
    path = rng.uniform(0.2, 0.8) * width
    draw.polygon(
        [(path, base), (path + 0.1 * height, base), (path + 1.2 * height, height), (path + 0.2 * height, height)],
        fill=_tinted(rng, [(186, 170, 140)], 10),
    )


def _plaza(draw: ImageDraw.ImageDraw, rng: np.random.Generator, width: int, height: int) -> None:
    base = GROUND * height
    draw.rectangle((0, 0, width, base), fill=(206, 212, 218))
    left = 0.0
    while left < width:
        house, top = rng.uniform(0.3, 0.8) * height, rng.uniform(0.0, 0.16) * height
        wall = _tinted(rng, [(186, 178, 166), (160, 164, 172), (204, 190, 168)], 12)
        draw.rectangle((left, top, left + house, base), fill=wall)
        for row in np.arange(top + 0.04 * height, base - 0.08 * height, 0.08 * height):
            for column in np.arange(left + 0.04 * height, left + house - 0.05 * height, 0.09 * height):
                draw.rectangle((column, row, column + 0.045 * height, row + 0.05 * height), fill=_shaded(wall, 0.6))
        left += house
    _ground(draw, rng, width, height, (192, 186, 176), spacing=1.1)
    for x in rng.uniform(0, width, 4):
        bottom, size = rng.uniform(0.5, 0.62) * height, rng.uniform(0.10, 0.16) * height
        draw.rectangle((x, bottom - 0.55 * size, x + 1.9 * size, bottom), fill=(128, 122, 114))
        bush = _tinted(rng, [(66, 98, 56)], 14)
        draw.ellipse((x - 0.1 * size, bottom - 1.5 * size, x + 2.0 * size, bottom - 0.4 * size), fill=bush)


def _ground(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, width: int, height: int, color: Color, *, spacing: float
) -> None:
    """Paving in perspective; spacing: width of a slab over the scene's height at the lower edge."""
    base, horizon = GROUND * height, _HORIZON * height
    slab = _tinted(rng, [color], 12)
    joint = _shaded(slab, 0.82)
    draw.rectangle((0, base, width, height), fill=slab)
    depth = height - horizon
    rows = horizon + depth / (1 + 0.5 * spacing * np.arange(0, 12))
    for near, far in zip(rows[:-1:2], rows[1::2], strict=True):
        if far > base:
            draw.rectangle((0, far, width, near), fill=_shaded(slab, 0.95))
    for row in rows[rows > base]:
        draw.line((0, row, width, row), fill=joint, width=max(1, int(0.012 * (row - horizon))))
    middle = rng.uniform(0.3, 0.7) * width
    share = (base - horizon) / depth
    for offset in np.arange(-6 * width, 6 * width, 0.4 * spacing * height):
        draw.line((middle + share * offset, base, middle + offset, height), fill=joint, width=max(1, height // 250))


def _textured(image: Image.Image, rng: np.random.Generator, *, grain: float) -> Image.Image:
    """Mutes a painting, and adds fine grain (standard deviation in levels) and broad patches of light and shade."""
    pixels = np.asarray(image, dtype=np.float32)
    # People, not places, shall decide which images look alike: bright places would outweigh all clothes.
    pixels = _LEVEL + _CONTRAST * (pixels - pixels.mean())
    rows, columns, _ = pixels.shape
    patches = Image.fromarray(rng.normal(1.0, 0.05, (4, max(2, 4 * columns // rows))).astype(np.float32))
    patches = np.asarray(patches.resize((columns, rows), Image.Resampling.BICUBIC))
    speckle = grain * rng.standard_normal((rows, columns), dtype=np.float32)
    pixels = pixels * patches[..., None] + speckle[..., None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _tinted(rng: np.random.Generator, colors: list[Color], spread: float) -> Color:
    """One of the colours, changed at random by up to `spread` levels."""
    color = np.array(colors[rng.integers(len(colors))]) + rng.uniform(-spread, spread, 3)
    return tuple(int(value) for value in np.clip(color, 0, 255))


def _shaded(color: Color, factor: float) -> Color:
    return tuple(int(factor * value) for value in color)
