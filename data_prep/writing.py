"""Writes records as a TFDS data set in array_record files, without TensorFlow.

The bytes of JPEG and PNG files are kept as they are; TFDS knows no other formats, so that of other files the decoded
picture is kept, as a PNG file. The result is read by plain TFDS:
`tfds.builder_from_directory(folder).as_data_source("train")`. An index of each split lies beside it.
"""

import concurrent.futures
import contextlib
import errno
import io
import os
import pathlib
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from reid_jax import errors
from reid_jax.data import records as records_lib
from reid_jax.data import verification
from reid_jax.data.pixels import to_rgb
from reid_jax.data_prep.readers import listing
from reid_jax.progress import ProgressBar

VERSION = "1.0.0"

_CHUNK = 256  # images held in memory at a time
_SHARD = 10_000  # images per file
_KEPT_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")  # what JPEG and PNG files begin with


class Written(NamedTuple):
    """What was not written, or not as a whole.

    Attributes:
        skipped: path -> reason of the images that were left out.
        notes: path -> what of an image is left out that was written.
    """

    skipped: dict[str, str]
    notes: dict[str, str]


def write_dataset(
    folder: pathlib.Path,
    name: str,
    records: list[listing.Record],
    *,
    on_bad_image: str,
    progress: bool = True,
) -> Written:
    """Writes a data set, decoding every image once to see that it is whole.

    Args:
        folder: an empty folder, .../NAME/VERSION.
        name: the data set's name.
        records: the images, in the order in which they are stored.
        on_bad_image: "fail" or "skip", what to do with an image that breaks `verification.RULE`.
        progress: whether to show how far it is.

    Returns:
        What was skipped, and notes. A split of which all images were skipped is left out.

    Raises:
        UserError: there is a bad image and `on_bad_image` is "fail", or no good one.
        OSError: the disk is full.
    """
    writer = _Writer(folder, name)
    written = Written({}, {})
    stream = None if progress else io.StringIO()
    with ProgressBar(len(records), f"preparing {name}", unit="images", stream=stream) as bar:
        for chunk in _read_chunks(records):
            bad = [image for image in chunk if image.problem is not None]
            if bad and on_bad_image == "fail":
                raise errors.UserError(_refusal(bad[0]))
            written.skipped.update((image.record.path, image.problem) for image in bad)
            written.notes.update((image.record.path, image.note) for image in chunk if image.note is not None)
            writer.add([(image.record, image.data) for image in chunk if image.problem is None])
            bar.update(len(chunk))
    if len(written.skipped) == len(records):
        path, problem = next(iter(written.skipped.items()))
        raise errors.UserError(f"--source: none of the {len(records)} images is usable; {path}: {problem}")
    writer.close()
    return written


class _Image(NamedTuple):
    """An image that was read: the bytes to store, what is wrong with it or None, what of it is left out or None."""

    record: listing.Record
    data: bytes
    problem: str | None = None
    note: str | None = None


def _refusal(bad: _Image) -> str:
    # A reader's own problem, of a video, breaks another rule.
    rule = "" if bad.record.problem is not None else f"; {verification.RULE}"
    return f"{bad.record.path}: {bad.problem}{rule} (--on_bad_image=skip leaves such images out)"


def _read_chunks(records: list[listing.Record]) -> Iterator[list[_Image]]:
    """Yields lists of images, in the records' order."""
    # Threads, because Pillow lets go of the interpreter while it decodes.
    workers = min(8, os.cpu_count() or 1)
    with verification.quiet_pillow(), concurrent.futures.ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(records), _CHUNK):
            yield list(pool.map(_read_image, records[start : start + _CHUNK]))


def _read_image(record: listing.Record) -> _Image:
    if record.problem is not None:
        return _Image(record, b"", record.problem)
    try:
        data = record.file.read_bytes()
    except OSError as error:
        return _Image(record, b"", f"it cannot be read ({error.strerror})")
    problem = verification.image_problem(data)
    if problem is not None:
        return _Image(record, b"", problem)
    return _Image(record, _as_stored(data), note=verification.image_note(data))


def _as_stored(data: bytes) -> bytes:
    """A JPEG or PNG file's bytes as they are; of other files a PNG file of the picture, upright 8-bit RGB."""
    if data.startswith(_KEPT_SIGNATURES):
        return data
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(data)) as image:
        to_rgb(image).save(buffer, "PNG")
    return buffer.getvalue()


class _Writer:
    """A TFDS data set that grows by records; a split is begun with its first image."""

    def __init__(self, folder: pathlib.Path, name: str):
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "pid": np.int64,
                "camid": np.int64,
                "tracklet": np.int64,
                "path": tfds.features.Text(),
            }
        )
        identity = tfds.core.DatasetIdentity(
            name=name, version=tfds.core.Version(VERSION), data_dir=str(folder), module_name="data_prep.prepare"
        )
        description = "Prepared for reid_jax: images, identities, cameras, tracklets, paths in the source."
        info = tfds.core.DatasetInfo(
            # The examples lie in the order in which they are added.
            builder=identity,
            features=features,
            description=description,
            disable_shuffling=True,
        )
        self._folder = folder
        self._stored: dict[str, list[tuple[listing.Record, int]]] = {}  # with the checksum of the image's bytes
        self._writer = tfds.core.SequentialWriter(info, max_examples_per_shard=_SHARD, file_format="array_record")

    def add(self, images: list[tuple[listing.Record, bytes]]) -> None:
        """Adds images with the bytes to store."""
        examples: dict[str, list[dict]] = {}
        for record, data in images:
            example = {"image": data, **record._asdict()}
            del example["split"], example["file"], example["problem"]
            examples.setdefault(record.split, []).append(example)
            self._stored.setdefault(record.split, []).append((record, zlib.crc32(data)))
        with _disk_full_as_oserror(self._folder):
            for split in examples:
                self._writer.initialize_splits([split], fail_if_exists=False)
            self._writer.add_examples(examples)

    def close(self) -> None:
        """Writes what is still in memory; without it the data set is not complete."""
        with _disk_full_as_oserror(self._folder):
            self._writer.close_all()
        for split, stored in self._stored.items():
            paths = [record.path for record, _ in stored]
            labels = np.array([(record.pid, record.camid, record.tracklet) for record, _ in stored], np.int64)
            checksums = np.array([checksum for _, checksum in stored], np.uint32)
            records_lib.write_index(self._folder, split, records_lib.make_index(paths, labels, checksums))


@contextlib.contextmanager
def _disk_full_as_oserror(folder: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        # array_record has one error for everything and says only in words what happened.
        if os.strerror(errno.ENOSPC) in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from error
        raise
