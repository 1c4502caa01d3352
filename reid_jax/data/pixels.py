"""An opened image of any kind -> upright 8-bit RGB. Whatever opens images of users converts them here."""

import struct

import numpy as np
from PIL import ExifTags, Image

# How the picture in the file must be turned, by the EXIF orientation; 1 is upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BITS_PER_SAMPLE = 258  # a TIFF tag


def to_rgb(image: Image.Image) -> Image.Image:
    """Makes an image of any mode upright 8-bit RGB.

    The picture is turned as its EXIF orientation says, and transparent parts lie on white. Grey of 16 bits is taken
    from 0 to 65535, so that the images of one camera stay comparable: data of 12 bits are dark unless the file says
    that it has 12 (a TIFF file can). Grey of 32 bits, whole numbers or floats, is taken from 0 to the first of 1 (only
    floats), 255 and 65535 that none exceeds, and where there are others, negative ones too, from the image's least
    value to its greatest; nan and infinity count as 0. All other modes are converted as Pillow does it; colour
    profiles are not applied.

    Args:
        image: as `Image.open` gives it; it is decoded here.

    Returns:
        A new image of mode RGB, without metadata.

    Raises:
        OSError: the file is damaged. What else Pillow's decoders raise, `verification.image_problem` knows.
    """
    # Decoding first: Pillow itself turns TIFF files then, and finds PNG's metadata behind the pixels.
    image.load()
    turn = _TURNS.get(_orientation(image))
    if image.mode.startswith("I;16"):
        image = _to_8_bits(np.asarray(image), 0, _most_16_bits(image))
    elif image.mode in ("I", "F"):
        image = _to_8_bits(*_ranged(np.asarray(image)))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    rgb = image.convert("RGB")
    # A writer would keep the orientation, and the next reader would turn the picture again.
    rgb.info.clear()
    return rgb if turn is None else rgb.transpose(turn)


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Returns (height, width) in pixels of what `to_rgb` makes of an image, which is not decoded."""
    width, height = image.size
    # A TIFF file's size is that of the turned picture from the start.
    is_turned = image.format != "TIFF" and _orientation(image) in (5, 6, 7, 8)
    return (width, height) if is_turned else (height, width)


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except (OSError, SyntaxError, ValueError, KeyError, TypeError, IndexError, struct.error):
        # Damaged metadata does not make an image worse that can be decoded.
        return 1


def _most_16_bits(image: Image.Image) -> int:
    """The greatest value that grey of up to 16 bits can have in this file."""
    bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (16,))
    return 2 ** bits[0] - 1


def _ranged(values: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Grey of 32 bits with finite values, and the values that mean black and white."""
    tops = (255, 65535) if np.issubdtype(values.dtype, np.integer) else (1, 255, 65535)
    values = np.where(np.isfinite(values), values, 0)
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > tops[-1]:
        return values, low, high
    return values, 0, next(top for top in tops if high <= top)


def _to_8_bits(values: np.ndarray, low: float, high: float) -> Image.Image:
    """Grey [h, w] with `low` black and `high` white as an image of mode L."""
    scale = 255 / ((high - low) or 1)  # an image may have only one value
    # float64 holds every int32, and the difference of any two.
    return Image.fromarray(np.rint((values.astype(np.float64) - low) * scale).astype(np.uint8))
