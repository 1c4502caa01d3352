import io
import struct

import numpy as np
import pytest
from PIL import Image

from reid_jax.data import images
from reid_jax.data.pixels import to_rgb, upright_size

ORIENTATION = 0x0112


def noise(*shape, seed=0, dtype=np.uint8, high=256):
    return np.random.default_rng(seed).integers(0, high, shape, dtype)


def encode(image, kind="PNG", **options):
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


def rgb_of(data):
    return np.asarray(to_rgb(Image.open(io.BytesIO(data))))


def grey_of(data):
    """The values of a picture whose three channels must be the same."""
    found = rgb_of(data)
    assert found.dtype == np.uint8 and (found == found[..., :1]).all()
    return found[..., 0]


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "YCbCr"])
def test_jpeg_files_decode_as_pillow_does_bit_for_bit(mode):
    data = encode(Image.fromarray(noise(40, 20, 3)).convert(mode), "JPEG", quality=80)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(rgb_of(data), expected)
    np.testing.assert_array_equal(images.decode(data, 40, 20), expected)
    np.testing.assert_array_equal(images.decode_small(data, 40), expected)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_opaque_png_files_decode_as_pillow_does(mode):
    data = encode(Image.fromarray(noise(6, 4, 3)).convert(mode))
    np.testing.assert_array_equal(rgb_of(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


# What must be done to the upright picture to get the one in the file, by orientation.
STORED = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: np.rot90(x, 1),
    7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
    8: lambda x: np.rot90(x, -1),
}


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
@pytest.mark.parametrize("orientation", STORED)
def test_pictures_are_turned_as_their_orientation_says(kind, orientation):
    # Large fields of one colour, which JPEG keeps well.
    upright = np.kron(noise(3, 2, 3), np.ones((16, 16, 1), np.uint8))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored = np.ascontiguousarray(STORED[orientation](upright))
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(kind, {})
    data = encode(stored, kind, exif=exif, **options)
    for found in (rgb_of(data), images.decode(data, 48, 32), images.decode_small(data, 48)):
        assert found.shape == upright.shape
        assert np.abs(found.astype(int) - upright).max() <= (8 if kind == "JPEG" else 0)


def test_a_turned_picture_that_is_written_again_is_not_turned_again():
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    upright = to_rgb(Image.open(io.BytesIO(encode(noise(6, 4, 3), "JPEG", exif=exif))))
    assert upright.size == (6, 4) and upright.info == {}
    np.testing.assert_array_equal(rgb_of(encode(upright, "PNG")), np.asarray(upright))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0nothing like it", b"Exif\0\0MM\0\x2a\xff\xff\xff\xff", b"Exif\0\0II*\0\x08"]
)
def test_damaged_metadata_are_no_reason_to_turn_or_to_fail(kind, exif):
    plain = encode(noise(16, 8, 3), kind)
    np.testing.assert_array_equal(rgb_of(encode(noise(16, 8, 3), kind, exif=exif)), rgb_of(plain))


def test_an_orientation_that_does_not_exist_turns_nothing():
    exif = Image.Exif()
    exif[ORIENTATION] = 9
    np.testing.assert_array_equal(rgb_of(encode(noise(6, 4, 3), exif=exif)), noise(6, 4, 3))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_grey_of_16_bits_has_its_full_range(kind):
    values = np.array([[0, 128, 129, 385], [386, 32768, 65406, 65535]], np.uint16)
    np.testing.assert_array_equal(grey_of(encode(values, kind)), [[0, 0, 1, 1], [2, 128, 254, 255]])
    values = noise(9, 7, dtype=np.uint16, high=65536)
    np.testing.assert_array_equal(grey_of(encode(values, kind)), np.round(values / 257))
    # 12 bits that call themselves 16: dark, whatever the brightest value is.
    np.testing.assert_array_equal(grey_of(encode(np.array([[0, 2000, 4095]], np.uint16), kind)), [[0, 8, 16]])


def tiff(values, bits, packed, *, big_endian=False):
    """A TIFF file of one strip of grey values [h, w], which are given as its bytes."""
    order = ">" if big_endian else "<"
    height, width = values.shape
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, 1), (273, 8), (277, 1), (278, height)]
    tags.append((279, len(packed)))
    start = 8 + len(packed) + len(packed) % 2
    entries = b"".join(
        struct.pack(f"{order}HHIHH", tag, 3, 1, value, 0) if big_endian else struct.pack("<HHII", tag, 3, 1, value)
        for tag, value in tags
    )
    header = (b"MM" if big_endian else b"II") + struct.pack(f"{order}HI", 42, start)
    directory = struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}I", 0)
    return header + packed.ljust(start - 8, b"\0") + directory


def test_grey_of_12_bits_that_says_so_and_of_the_other_byte_order():
    values = np.array([[0, 2048, 4095, 16]])
    packed = b"".join(bytes((a >> 4, (a & 15) << 4 | b >> 8, b & 255)) for a, b in values.reshape(-1, 2).tolist())
    np.testing.assert_array_equal(grey_of(tiff(values, 12, packed)), [[0, 128, 255, 1]])
    values = np.array([[0, 257, 65535]], ">u2")
    data = tiff(values, 16, values.tobytes(), big_endian=True)
    assert Image.open(io.BytesIO(data)).mode == "I;16B"
    np.testing.assert_array_equal(grey_of(data), [[0, 1, 255]])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[0.0, 0.5, 1.0]], [[0, 128, 255]]),
        ([[0.0, 0.1, 0.2]], [[0, 26, 51]]),
        ([[0.0, 1.5, 254.6]], [[0, 2, 255]]),
        ([[0.0, 257.0, 65535.0]], [[0, 1, 255]]),
        ([[-1.0, 0.0, 3.0]], [[0, 64, 255]]),
        ([[0.0, 1e6, 2e6]], [[0, 128, 255]]),
        ([[np.nan, np.inf, 1.0]], [[0, 0, 255]]),
        ([[-5.0, -5.0, -5.0]], [[0, 0, 0]]),
        (np.array([[0, 1, 255]], np.int32), [[0, 1, 255]]),
        (np.array([[0, 257, 65535]], np.int32), [[0, 1, 255]]),
        (np.array([[-(2**31), 0, 2**31 - 1]], np.int32), [[0, 128, 255]]),
        (np.array([[10**9, 10**9 + 1, 10**9 + 2]], np.int32), [[0, 128, 255]]),
    ],
)
def test_grey_of_32_bits_has_the_range_that_holds_it(values, expected):
    values = np.asarray(values, np.float32) if isinstance(values, list) else values
    data = encode(values, "TIFF")
    assert Image.open(io.BytesIO(data)).mode in ("F", "I")
    np.testing.assert_array_equal(grey_of(data), expected)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_parts_lie_on_white(mode):
    alpha = np.array([[0, 255, 51]], np.uint8)
    image = Image.fromarray(np.full((1, 3), 100, np.uint8)).convert(mode)
    image.putalpha(Image.fromarray(alpha))
    # A fifth of 100 and four fifths of white.
    np.testing.assert_array_equal(grey_of(encode(image)), [[255, 100, 224]])
    np.testing.assert_array_equal(grey_of(encode(image, "WEBP", lossless=True)), [[255, 100, 224]])


def test_transparent_colours_lie_on_white():
    palette = Image.fromarray(np.array([[0, 1, 2]], np.uint8), mode="P")
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    opaque = [[10, 20, 30], [40, 50, 60], [70, 80, 90]]
    np.testing.assert_array_equal(rgb_of(encode(palette)), [opaque])
    np.testing.assert_array_equal(rgb_of(encode(palette, transparency=1)), [[opaque[0], [255] * 3, opaque[2]]])
    np.testing.assert_array_equal(rgb_of(encode(palette, "GIF", transparency=2)), [[*opaque[:2], [255] * 3]])
    part = rgb_of(encode(palette, transparency=bytes((255, 255, 0))))
    np.testing.assert_array_equal(part, [[*opaque[:2], [255] * 3]])
    np.testing.assert_array_equal(np.asarray(to_rgb(palette.convert("PA"))), [opaque])
    grey = Image.fromarray(np.array([[7, 8]], np.uint8))
    np.testing.assert_array_equal(grey_of(encode(grey, transparency=8)), [[7, 255]])
    colour = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    np.testing.assert_array_equal(rgb_of(encode(colour, transparency=(1, 2, 3))), [[[255] * 3, [4, 5, 6]]])


def test_opaque_alpha_changes_nothing():
    pixels = noise(8, 8, 3)
    np.testing.assert_array_equal(rgb_of(encode(Image.fromarray(pixels).convert("RGBA"))), pixels)


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "GIF", "WEBP", "AVIF"])
def test_other_formats(kind):
    pixels = np.kron(noise(2, 2, 3), np.ones((8, 8, 1), np.uint8))
    options = {"WEBP": {"lossless": True}, "AVIF": {"quality": 100, "subsampling": "4:4:4"}}.get(kind, {})
    data = encode(pixels, kind, **options)
    assert np.abs(images.decode(data, 16, 16).astype(int) - pixels).max() <= (4 if kind == "AVIF" else 0)


def test_a_damaged_file_is_an_oserror():
    data = encode(noise(40, 40, 3))
    with pytest.raises(OSError, match="truncated"):
        rgb_of(data[: len(data) // 2])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [None, 1, 3, 5, 6, 7, 8, 9])
def test_the_size_of_the_upright_picture_is_known_beforehand(kind, orientation):
    exif = Image.Exif()
    if orientation:
        exif[ORIENTATION] = orientation
    image = Image.open(io.BytesIO(encode(noise(6, 4, 3), kind, exif=exif)))
    height, width = upright_size(image)
    assert (width, height) == to_rgb(image).size
    assert (height, width) == ((4, 6) if orientation in (5, 6, 7, 8) else (6, 4))
