import dataclasses
import io
import socket
import subprocess

import numpy as np
import pytest
from PIL import Image

from reid_jax import errors
from reid_jax.data import images as images_lib
from reid_jax.data import records as records_lib


@pytest.fixture(scope="module")
def train(prepared):
    return records_lib.load_records(prepared, "tiny")["train"]


def open_images(train, cache_dir, **options):
    return images_lib.open_images(
        train, **{"height": 16, "width": 8, "cache_bytes": 2**20} | options, cache_dir=cache_dir
    )


def test_decode_is_pillows_bilinear():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 20, 3), dtype=np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG")
    assert (images_lib.decode(encoded.getvalue(), 40, 20) == pixels).all()
    expected = Image.fromarray(pixels).resize((8, 16), Image.Resampling.BILINEAR)
    assert (images_lib.decode(encoded.getvalue(), 16, 8) == np.asarray(expected)).all()
    grey = io.BytesIO()
    Image.fromarray(pixels[..., 0]).save(grey, "PNG")
    assert images_lib.decode(grey.getvalue(), 40, 20).shape == (40, 20, 3)


def test_cache_is_made_once_and_keyed_by_size(train, tmp_path):
    first = open_images(train, tmp_path)
    assert isinstance(first, images_lib.CachedImages) and len(first) == 24 and first.shape == (16, 8, 3)
    (path,) = tmp_path.glob("tiny_train_16x8_*.npy")
    before = path.stat().st_mtime_ns
    open_images(train, tmp_path)
    assert path.stat().st_mtime_ns == before
    open_images(train, tmp_path, width=10)
    assert len(list(tmp_path.iterdir())) == 2  # and no temporary file is left
    for index in (0, 23):
        assert (first.array[index] == images_lib.decode(train.encoded(index), 16, 8)).all()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_streaming_gives_the_same_batches_in_the_same_order(train, tmp_path, num_workers):
    cached = open_images(train, tmp_path, num_workers=num_workers)
    streamed = open_images(train, tmp_path / "unused", cache_bytes=100, num_workers=num_workers)
    assert isinstance(streamed, images_lib.StreamedImages) and streamed.shape == cached.shape
    index_batches = np.random.default_rng(1).integers(0, 24, (5, 6))
    batches = list(streamed.batches(index_batches))
    assert len(batches) == 5
    for batch, expected in zip(batches, cached.batches(index_batches)):
        assert batch.dtype == np.uint8 and (batch == expected).all()
    assert not (tmp_path / "unused").exists()


def test_an_image_that_cannot_be_decoded_is_named_and_leaves_no_cache(train, tmp_path):
    class Broken(list):
        def __getitem__(self, position):
            return {"image": b"no image"}

    broken = dataclasses.replace(train, _source=Broken())
    with pytest.raises(errors.UserError, match="tiny/train: cannot decode .*jpg"):
        open_images(broken, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written_names_the_field(train, tmp_path):
    (tmp_path / "file").touch()
    for folder, reason in (("file", "File exists"), ("file/cache", "Not a directory")):
        with pytest.raises(errors.UserError, match=f"data.cache_dir: the image cache .*{reason}; give another folder"):
            open_images(train, tmp_path / folder)


def test_making_a_cache_clears_what_killed_processes_left(train, tmp_path):
    process = subprocess.Popen(["true"])
    process.wait()
    dead = tmp_path / f".tmp-{socket.gethostname()}-{process.pid}@other.npy"
    alive = tmp_path / f".tmp-{socket.gethostname()}-1@other.npy"
    for path in (dead, alive):
        path.touch()
    open_images(train, tmp_path)
    assert alive.exists() and not dead.exists()
