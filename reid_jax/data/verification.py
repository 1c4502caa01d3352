"""Whether the bytes of an image are a whole image file of a known format and a reasonable size."""

import contextlib
import io
import struct
import warnings
import zlib
from collections.abc import Iterator

from PIL import Image

from reid_jax.data.pixels import to_rgb

MAX_PIXELS = 50_000_000
RULE = (
    "an image must be a whole JPEG, PNG, WebP, TIFF, BMP, AVIF or GIF file, not animated, of at most "
    f"{MAX_PIXELS // 1_000_000} megapixels"
)

# A JPEG file with several pictures, as telephones write them, calls itself MPO.
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "TIFF", "BMP", "AVIF", "GIF")
# Several frames of these are a film; a JPEG file's are one picture in several sizes, a TIFF file's are pages.
_ANIMATED = ("WEBP", "AVIF", "GIF")
# The kinds of an ISO media file, at its fifth byte, that are images which Pillow may not know.
_ISO_FORMATS = {
    b"ftypavif": "AVIF", b"ftypavis": "AVIF", b"ftypheic": "HEIC", b"ftypheix": "HEIC", b"ftyphevc": "HEIC",
    b"ftypmif1": "HEIF", b"ftypmsf1": "HEIF",
}  # fmt: skip

# What Pillow's decoders raise on damaged files, depending on where the damage is.
_DAMAGE = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, RuntimeError, struct.error, zlib.error,
)  # fmt: skip


def image_problem(data: bytes) -> str | None:
    """Decodes an image to see whether it is whole.

    Images of all modes that `pixels.to_rgb` converts are fine.

    Args:
        data: the file's bytes.

    Returns:
        What breaks the rule, or None. An image with too many pixels is found by its header alone.
    """
    if not data:
        return "the file is empty"
    try:
        # All formats are tried, so that an icon is called an icon.
        with Image.open(io.BytesIO(data)) as image:
            if image.format not in _FORMATS:
                return f"it is a {image.format} image"
            width, height = image.size
            if width * height > MAX_PIXELS:
                return f"it has {width} x {height} pixels"
            frames = getattr(image, "n_frames", 1)
            if image.format in _ANIMATED and frames > 1:
                return f"it is an animated {image.format} image of {frames} frames"
            to_rgb(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return f"it has more than {Image.MAX_IMAGE_PIXELS} pixels"
    except Image.UnidentifiedImageError:
        kind = _ISO_FORMATS.get(data[4:12])
        return "it is no image file" if kind is None else f"it is a file of the format {kind} that cannot be read"
    except _DAMAGE as error:
        return f"it cannot be decoded ({error})"
    return None


def image_note(data: bytes) -> str | None:
    """Says what of an image without a problem is left out, or None: a TIFF file may have more than one page."""
    with Image.open(io.BytesIO(data)) as image:
        if image.format == "TIFF" and image.n_frames > 1:
            return f"only the first of its {image.n_frames} pages is read"
    return None


@contextlib.contextmanager
def quiet_pillow() -> Iterator[None]:
    """Turns Pillow's warning about many pixels into what `image_problem` catches; enter it before any threads.

    Its other warnings, about odd metadata, name no file and are dropped.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield
