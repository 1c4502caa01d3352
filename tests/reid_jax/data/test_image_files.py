import io
import pathlib

import numpy as np
import pytest
from PIL import Image

from reid_jax import errors
from reid_jax.data import images
from reid_jax.data.image_files import ImageFiles, inside


def make_image(height=6, width=4, *, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def encode(image, kind="PNG", **options):
    data = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(data, kind, **options)
    return data.getvalue()


@pytest.fixture
def files(tmp_path):
    """Five images of different sizes in folder/ and folder/été, and a secret beside the folder."""
    (tmp_path / "folder" / "été").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(encode(make_image()))
    paths = ["a.png", "b.jpg", "été/c d.png", "été/e.jpeg", "z.png"]
    for place, path in enumerate(paths):
        kind = "PNG" if path.endswith("png") else "JPEG"
        (tmp_path / "folder" / path).write_bytes(encode(make_image(6 + place, 5, seed=place), kind))
    return ImageFiles(tmp_path / "folder", np.array(paths))


def test_files_are_read_where_they_lie(files):
    assert len(files) == 5 and files.name == str(files.folder)
    for place, path in enumerate(files.paths):
        assert files.encoded(place) == pathlib.Path(files.folder, *path.split("/")).read_bytes()
    assert (images.decode_small(files.encoded(2), 256) == make_image(8, 5, seed=2)).all()


def test_no_files(tmp_path):
    assert len(ImageFiles(tmp_path, np.zeros(0, "U1"))) == 0


def test_streamed_in_any_order(files):
    source = images.StreamedImages(files, 8, 4, num_workers=0)
    assert len(source) == 5 and source.shape == (8, 4, 3)
    order = np.array([[4, 0], [2, 2], [1, 3]])
    batches = list(source.batches(order))
    assert len(batches) == 3
    for batch, indices in zip(batches, order):
        expected = [images.decode(files.encoded(index), 8, 4) for index in indices]
        np.testing.assert_array_equal(batch, expected)


def test_an_image_that_cannot_be_decoded_is_named(files):
    (files.folder / "été/c d.png").write_bytes(b"no image")
    source = images.StreamedImages(files, 8, 4, num_workers=0)
    with pytest.raises(errors.UserError, match="folder: cannot decode été/c d.png: cannot identify image file"):
        list(source.batches(np.arange(5)[None]))


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("a.jpg", ["a.jpg"]),
        ("b/c/d.jpg", ["b", "c", "d.jpg"]),
        ("b//c/./d.jpg", ["b", "c", "d.jpg"]),
        (np.array(["b/x.jpg"])[0], ["b", "x.jpg"]),
        ("~/a.jpg", ["~", "a.jpg"]),
        ("..a/b..", ["..a", "b.."]),
        ("c:1.jpg", ["c:1.jpg"]),  # a name wherever there are no drives
        ("b\\c.jpg", ["b\\c.jpg"]),
        ("été \n $HOME %2e%2e.jpg", ["été \n $HOME %2e%2e.jpg"]),
    ],
)
def test_inside(path, parts):
    assert inside("/photos", path) == inside(pathlib.Path("/photos"), path) == pathlib.Path("/photos", *parts)


@pytest.mark.parametrize(
    "path",
    [
        "../secret.png",
        "..",
        "été/../../secret.png",
        "été/../a.png",
        "été/..",
        "./../secret.png",
        "/etc/passwd",
        "//server/share/a.png",
        "/",
        "",
        ".",
        "./.",
        "a.png\0",
        "\0",
        "..\\secret.png",
        "été\\..\\..\\secret.png",
        "\\etc\\passwd",
        "\\\\server\\share\\a.png",
        "C:\\a.png",
        "C:/a.png/../b.png",
    ],
)
def test_paths_that_lead_out_are_refused(files, path):
    message = f"the path {path!r} must lead to a file inside {str(files.folder)!r}"
    with pytest.raises(errors.UserError) as raised:
        inside(files.folder, path)
    assert str(raised.value) == message
    if "\0" not in path:  # arrays of strings end there
        with pytest.raises(errors.UserError) as raised:
            ImageFiles(files.folder, np.array(["a.png", path])).encoded(1)
        assert str(raised.value) == message


def test_links_of_the_users_are_followed(files, tmp_path):
    (files.folder / "link").symlink_to(tmp_path)
    linked = ImageFiles(files.folder, np.array(["link/secret.png"]))
    assert linked.encoded(0) == (tmp_path / "secret.png").read_bytes()


def test_missing_files_are_the_systems_errors(files):
    gone = ImageFiles(files.folder, np.array(["gone.png", "été"]))
    with pytest.raises(FileNotFoundError):
        gone.encoded(0)
    with pytest.raises(IsADirectoryError):
        gone.encoded(1)


def test_decode_small_keeps_size_and_pixels():
    for height, width in ((6, 4), (1, 1), (3, 50)):
        image = make_image(height, width)
        found = images.decode_small(encode(image), 256)
        assert found.dtype == np.uint8 and found.shape == (height, width, 3)
        np.testing.assert_array_equal(found, image)
        np.testing.assert_array_equal(found, images.decode(encode(image), height, width))


def test_decode_small_is_rgb_whatever_the_file_is():
    grey = Image.fromarray(np.array([[0, 100], [200, 255]], np.uint8))
    expected = np.repeat([[[0], [100]], [[200], [255]]], 3, axis=2)
    np.testing.assert_array_equal(images.decode_small(encode(grey), 256), expected)
    np.testing.assert_array_equal(images.decode_small(encode(grey.convert("P")), 256), expected)
    np.testing.assert_array_equal(images.decode_small(encode(grey.convert("RGBA")), 256), expected)
    np.testing.assert_array_equal(images.decode_small(encode(grey.convert("LA")), 256), expected)


def test_decode_small_of_no_image():
    whole = encode(make_image(40, 40))
    for data in (b"", b"no image", whole[: len(whole) // 2]):
        with pytest.raises(OSError, match="cannot identify image file|truncated"):
            images.decode_small(data, 256)
