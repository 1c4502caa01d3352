import io
import struct

import numpy as np
import pytest
from PIL import Image

from reid_jax.data import verification


def picture(seed=0, mode="RGB"):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (24, 12, 3), np.uint8)).convert(mode)


def encode(kind, mode="RGB", **options):
    buffer = io.BytesIO()
    picture(0, mode).save(buffer, kind, **options)
    return buffer.getvalue()


def several(kind):
    return encode(kind, save_all=True, append_images=[picture(1), picture(2)])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "AVIF", "GIF"])
def test_every_format_is_fine_if_it_is_whole(kind):
    data = encode(kind)
    assert verification.image_problem(data) is None and verification.image_note(data) is None
    problem = verification.image_problem(data[: len(data) * 9 // 10])
    assert problem is not None and problem.startswith(("it cannot be decoded (", "it is no image file"))
    assert kind.lower() in verification.RULE.lower()


def test_damage_inside_a_file():
    data = encode("AVIF")
    without_pixels = data[: data.index(b"mdat") + 4].ljust(len(data), b"\0")
    before, width, after = several("TIFF").rpartition(struct.pack("<HH", 256, 4))
    page_without_width = before + struct.pack("<HH", 255, 4) + after
    assert width
    for damaged in (without_pixels, page_without_width):
        assert verification.image_problem(damaged).startswith("it cannot be decoded (")


@pytest.mark.parametrize("kind", ["ICO", "PPM", "TGA"])
def test_other_formats_are_named(kind):
    assert verification.image_problem(encode(kind)) == f"it is a {kind} image"


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "AVIF"])
def test_films_are_refused(kind):
    assert verification.image_problem(several(kind)) == f"it is an animated {kind} image of 3 frames"


def test_of_several_pages_the_first_is_read():
    data = several("TIFF")
    assert verification.image_problem(data) is None
    assert verification.image_note(data) == "only the first of its 3 pages is read"


def test_several_pictures_in_a_jpeg_file_are_one():
    data = several("MPO")
    assert verification.image_problem(data) is None and verification.image_note(data) is None


@pytest.mark.parametrize(
    ("data", "kind"),
    [(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"), (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIF")],
)
def test_formats_that_pillow_does_not_know_are_named(data, kind):
    assert verification.image_problem(data) == f"it is a file of the format {kind} that cannot be read"


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK", "I;16", "I", "F"])
def test_every_mode_is_fine(mode):
    image = Image.new(mode, (12, 24), 1 if mode in ("I;16", "I", "F") else None)
    buffer = io.BytesIO()
    image.save(buffer, "TIFF")
    assert verification.image_problem(buffer.getvalue()) is None


def test_what_cannot_be_made_rgb_is_a_problem(monkeypatch):
    def refuse(image):
        raise ValueError("conversion from X to RGB not supported")

    monkeypatch.setattr(verification, "to_rgb", refuse)
    assert verification.image_problem(encode("PNG")) == "it cannot be decoded (conversion from X to RGB not supported)"
