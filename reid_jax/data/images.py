"""Encoded images -> uint8 [H, W, 3]: decoded once into a memory-mapped cache, or streamed when they are too many.

Both kinds of source answer `batches(index_batches)` with the same arrays in the same order, so that nothing
above this module can tell them apart but by their speed.
"""

import dataclasses
import errno
import io
import os
import pathlib
from collections.abc import Iterator

import grain
import numpy as np
from PIL import Image

from reid_jax import atomic, errors
from reid_jax.data.image_files import ImageFiles
from reid_jax.data.pixels import to_rgb
from reid_jax.data.records import Records
from reid_jax.progress import ProgressBar

# Below this many images, starting worker processes costs more than they save.
_MIN_IMAGES_FOR_WORKERS = 4096
_CACHE_CHUNK = 64
_CACHE_VERSION = 2  # of what `to_rgb` makes of an image
_NOT_WRITABLE = (
    errno.EACCES, errno.EDQUOT, errno.EEXIST, errno.ENAMETOOLONG, errno.ENOSPC, errno.ENOTDIR, errno.EPERM, errno.EROFS,
)  # fmt: skip


def decode(encoded: bytes, height: int, width: int) -> np.ndarray:
    """Decodes and resizes one image.

    Args:
        encoded: an image file's bytes.
        height: of the result in pixels.
        width: of the result in pixels.

    Returns:
        [height, width, 3] uint8 RGB as `pixels.to_rgb` makes it, resized with Pillow's antialiased bilinear filter,
        which the papers' figures were made with.
    """
    image = to_rgb(Image.open(io.BytesIO(encoded)))
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image)


def resize_images(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes images [N, h, w, 3] uint8 as `decode` does: [N, height, width, 3] uint8."""
    if images.shape[1:3] == (height, width):
        return images
    pictures = (Image.fromarray(each).resize((width, height), Image.Resampling.BILINEAR) for each in images)
    return np.stack([np.asarray(picture) for picture in pictures])


def decode_small(encoded: bytes, size: int) -> np.ndarray:
    """Decodes one image for people to look at: [h, w, 3] uint8 RGB, no side longer than `size` pixels."""
    image = Image.open(io.BytesIO(encoded))
    image.draft("RGB", (size, size))  # a JPEG file need not be decoded at its full size
    image = to_rgb(image)
    image.thumbnail((size, size))
    return np.asarray(image)


@dataclasses.dataclass(frozen=True)
class _DecodeAt:
    """A grain data source: item i is the decoded image records[order[i]]."""

    records: Records | ImageFiles
    order: np.ndarray
    height: int
    width: int

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, position: int) -> np.ndarray:
        index = int(self.order[position])
        try:
            return decode(self.records.encoded(index), self.height, self.width)
        except OSError as error:  # Pillow's errors for files it cannot decode
            raise errors.UserError(
                f"{self.records.name}: cannot decode {self.records.paths[index]}: {error}"
            ) from error


def _decoded_batches(source: _DecodeAt, batch_size: int, num_workers: int) -> Iterator[np.ndarray]:
    """Yields [batch_size, H, W, 3] uint8 in the source's order; the last one may be shorter."""
    dataset = grain.MapDataset.source(source).batch(batch_size)
    reading = grain.ReadOptions(num_threads=2 if num_workers else 4, prefetch_buffer_size=16)
    batches = dataset.to_iter_dataset(reading)
    if num_workers:
        batches = batches.mp_prefetch(grain.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=4))
    return iter(batches)


@dataclasses.dataclass(frozen=True)
class CachedImages:
    """Decoded images in a memory-mapped file.

    Attributes:
        array: [N, H, W, 3] uint8, read-only.
    """

    array: np.ndarray

    def __len__(self) -> int:
        return len(self.array)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, 3)."""
        return self.array.shape[1:]

    def batches(self, index_batches: np.ndarray) -> Iterator[np.ndarray]:
        """Yields [B, H, W, 3] uint8 for every row of index_batches [steps, B]."""
        for indices in index_batches:
            yield self.array[indices]


@dataclasses.dataclass(frozen=True)
class StreamedImages:
    """Images decoded whenever they are asked for, by grain workers; nothing is kept.

    Attributes:
        records: what to read.
        height: in pixels.
        width: in pixels.
        num_workers: processes that decode; 0 decodes in threads of this process.
    """

    records: Records | ImageFiles
    height: int
    width: int
    num_workers: int

    def __len__(self) -> int:
        return len(self.records)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, 3)."""
        return self.height, self.width, 3

    def batches(self, index_batches: np.ndarray) -> Iterator[np.ndarray]:
        """Yields [B, H, W, 3] uint8 for every row of index_batches [steps, B]."""
        source = _DecodeAt(self.records, np.ravel(index_batches), self.height, self.width)
        return _decoded_batches(source, index_batches.shape[1], self.num_workers)


ImageSource = CachedImages | StreamedImages


def open_images(
    records: Records,
    *,
    height: int,
    width: int,
    cache_dir: str | pathlib.Path,
    cache_bytes: int,
    num_workers: int = -1,
) -> ImageSource:
    """Returns the images of one split at one size, from the cache, which is made if it is not there yet.

    Args:
        records: the split.
        height: in pixels.
        width: in pixels.
        cache_dir: where caches are kept; one file per split's contents and size.
        cache_bytes: a split whose decoded images need more than this is streamed instead.
        num_workers: processes that decode; -1: one per core for large splits, none for small ones.

    Raises:
        UserError: an image cannot be decoded, or the cache cannot be written.
    """
    if num_workers < 0:
        num_workers = (os.cpu_count() or 1) if len(records) >= _MIN_IMAGES_FOR_WORKERS else 0
    if len(records) * height * width * 3 > cache_bytes:
        return StreamedImages(records, height, width, num_workers)
    path = pathlib.Path(
        cache_dir, f"{records.dataset}_{records.split}_{height}x{width}_{records.fingerprint}_{_CACHE_VERSION}.npy"
    )
    if not path.exists():
        try:
            _write_cache(records, height, width, path, num_workers)
        except OSError as error:
            if error.errno not in _NOT_WRITABLE:
                raise
            raise errors.UserError(
                f"data.cache_dir: the image cache {str(path)!r} cannot be written: {error.strerror}; give another "
                "folder, or data.cache_gib = 0 to stream the images"
            ) from error
    try:
        return CachedImages(np.load(path, mmap_mode="r"))
    except (ValueError, EOFError) as error:
        raise errors.UserError(
            f"the image cache {str(path)!r} is damaged ({error}); delete it and start again"
        ) from error


def _write_cache(records: Records, height: int, width: int, path: pathlib.Path, num_workers: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.clear_temporaries(path.parent)
    shape = (len(records), height, width, 3)
    source = _DecodeAt(records, np.arange(len(records)), height, width)
    done = 0
    # A process has its own temporary file: two runs that start together may both decode, and either result is right.
    with (
        atomic.atomic_path(path) as temporary,
        open(temporary, "wb") as file,
        ProgressBar(len(records), f"decoding {records.name}", unit="images") as bar,
    ):
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        # Plain writes, not a memory map: on a full disk a write raises, a mapped store kills the process.
        for images in _decoded_batches(source, _CACHE_CHUNK, num_workers):
            file.write(np.ascontiguousarray(images).data)
            done += len(images)
            bar.update(len(images))
        if done != len(records):
            raise RuntimeError(f"decoded {done} of {len(records)} images of {records.name}")
