"""Whether the bytes of an image are a whole JPEG or PNG image of a reasonable size."""

import contextlib
import io
import struct
import warnings
import zlib
from collections.abc import Iterator

from PIL import Image

MAX_PIXELS = 50_000_000
RULE = f"an image must be a whole JPEG or PNG file of at most {MAX_PIXELS // 1_000_000} megapixels"

# What Pillow's decoders raise on damaged files, depending on where the damage is.
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)


def image_problem(data: bytes) -> str | None:
    """Decodes an image to see whether it is whole.

    Grey, palette, CMYK and RGBA images are fine; whoever reads them converts them.

    Args:
        data: the file's bytes.

    Returns:
        What breaks the rule, or None. An image with too many pixels is found by its header alone.
    """
    if not data:
        return "the file is empty"
    try:
        # All formats are tried, so that a GIF is called a GIF.
        with Image.open(io.BytesIO(data)) as image:
            # A JPEG file with several pictures, as telephones write them, calls itself MPO.
            if image.format not in ("JPEG", "MPO", "PNG"):
                return f"it is a {image.format} image"
            width, height = image.size
            if width * height > MAX_PIXELS:
                return f"it has {width} x {height} pixels"
            image.load()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return f"it has more than {Image.MAX_IMAGE_PIXELS} pixels"
    except Image.UnidentifiedImageError:
        return "it is no image file"
    except _DAMAGE as error:
        return f"it cannot be decoded ({error})"
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
