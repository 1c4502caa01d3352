"""Writes records as a TFDS data set in array_record files, without TensorFlow.

The image files' bytes are kept as they are. The result is read by plain TFDS:
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

import numpy as np
import tensorflow_datasets as tfds

from reid_jax import errors
from reid_jax.data import records as records_lib
from reid_jax.data import verification
from reid_jax.data_prep.readers import listing
from reid_jax.progress import ProgressBar

VERSION = "1.0.0"

_CHUNK = 256  # images held in memory at a time
_SHARD = 10_000  # images per file


def write_dataset(
    folder: pathlib.Path,
    name: str,
    records: list[listing.Record],
    *,
    on_bad_image: str,
    progress: bool = True,
) -> dict[str, str]:
    """Writes a data set, decoding every image once to see that it is whole.

    Args:
        folder: an empty folder, .../NAME/VERSION.
        name: the data set's name.
        records: the images, in the order in which they are stored.
        on_bad_image: "fail" or "skip", what to do with an image that breaks `verification.RULE`.
        progress: whether to show how far it is.

    Returns:
        The skipped images: path -> reason. A split of which all images were skipped is left out.

    Raises:
        UserError: there is a bad image and `on_bad_image` is "fail", or no good one.
        OSError: the disk is full.
    """
    writer = _Writer(folder, name)
    skipped: dict[str, str] = {}
    stream = None if progress else io.StringIO()
    with ProgressBar(len(records), f"preparing {name}", unit="images", stream=stream) as bar:
        for chunk in _read_chunks(records):
            bad = {record.path: problem for record, _, problem in chunk if problem is not None}
            if bad and on_bad_image == "fail":
                path, problem = next(iter(bad.items()))
                raise errors.UserError(
                    f"{path}: {problem}; {verification.RULE} (--on_bad_image=skip leaves such images out)"
                )
            skipped.update(bad)
            writer.add([(record, data) for record, data, problem in chunk if problem is None])
            bar.update(len(chunk))
    if len(skipped) == len(records):
        path, problem = next(iter(skipped.items()))
        raise errors.UserError(f"--source: none of the {len(records)} images is usable; {path}: {problem}")
    writer.close()
    return skipped


def _read_chunks(
    records: list[listing.Record],
) -> Iterator[list[tuple[listing.Record, bytes, str | None]]]:
    """Yields lists of (record, file's bytes, what is wrong with the image or None), in the records' order."""
    # Threads, because Pillow lets go of the interpreter while it decodes.
    workers = min(8, os.cpu_count() or 1)
    with verification.quiet_pillow(), concurrent.futures.ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(records), _CHUNK):
            yield list(pool.map(_read_image, records[start : start + _CHUNK]))


def _read_image(record: listing.Record) -> tuple[listing.Record, bytes, str | None]:
    try:
        data = record.file.read_bytes()
    except OSError as error:
        return record, b"", f"it cannot be read ({error.strerror})"
    return record, data, verification.image_problem(data)


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
        description = "Prepared for reid_jax: images as they were in the source, identities, cameras, tracklets, paths."
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
        """Adds images with their files' bytes."""
        examples: dict[str, list[dict]] = {}
        for record, data in images:
            example = {"image": data, **record._asdict()}
            del example["split"], example["file"]
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
