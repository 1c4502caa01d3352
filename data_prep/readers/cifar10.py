"""CIFAR-10 as a retrieval task: a test image takes the class of the training images nearest to it.

Two sources are read: the binary version, and a TFDS data set in array_record files. The training images are
both train and gallery, the test images are the queries; an identity is a class plus one.
"""

import io
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow_datasets as tfds
from google.protobuf import json_format
from PIL import Image

from reid_jax import errors, identities
from reid_jax.data_prep.readers import listing
from reid_jax.progress import ProgressBar

_BATCHES = {"train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)), "test": ("test_batch.bin",)}
_SPLITS = {"train": ("train", "gallery"), "test": ("query",)}
_PICKLED = "data_batch_1"
_TFDS_INFO = "dataset_info.json"
_SIZE = 32  # pixels, height and width
_RECORD = 1 + 3 * _SIZE * _SIZE  # bytes
_NUM_CLASSES = 10
_EXPECTED = "data_batch_1.bin to data_batch_5.bin and test_batch.bin, or a TFDS data set's dataset_info.json"


def read(source: listing.Source) -> list[listing.Record]:
    """Reads CIFAR-10; the images are stored as PNG files.

    Args:
        source: its folder holds the binary version's files or a TFDS data set, itself or inside a top folder.

    Returns:
        One record per test image and two per training image; cameras are not known.

    Raises:
        UserError: the layout is another one, it is the version in Python's pickle format, a file holds more or
            less than whole records, a class is not 0..9, or the TFDS data set is another one or in another format.
    """
    root = listing.find_root(source.folder, _is_root, _EXPECTED)
    if (root / _TFDS_INFO).is_file():
        parts = _open_tfds(root)
    elif (root / _BATCHES["train"][0]).is_file():
        parts = {part: _read_batches(root, names) for part, names in _BATCHES.items()}
    else:
        raise errors.UserError(
            f"--source: {_PICKLED} is CIFAR-10's python version, and reading a pickle runs what is in it; give the "
            f"binary version, cifar-10-binary.tar.gz"
        )
    records = []
    for part, (labels, images) in parts.items():
        records.extend(_store(part, labels, images, source))
    return records


def _is_root(folder: pathlib.Path) -> bool:
    return any((folder / name).is_file() for name in (_TFDS_INFO, _BATCHES["train"][0], _PICKLED))


def _read_batches(root: pathlib.Path, names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the classes [N] and the images [N, 32, 32, 3] of the binary version's files."""
    batches = []
    for name in names:
        if not (root / name).is_file():
            raise errors.UserError(f"--source: {name} is missing beside {_BATCHES['train'][0]}")
        data = np.fromfile(root / name, np.uint8)
        if len(data) == 0 or len(data) % _RECORD:
            raise errors.UserError(
                f"--source: {name} has {len(data)} bytes, it must hold whole images of {_RECORD} bytes each"
            )
        batches.append(data.reshape(-1, _RECORD))
    records = np.concatenate(batches)
    return records[:, 0], records[:, 1:].reshape(-1, 3, _SIZE, _SIZE).transpose(0, 2, 3, 1)


def _open_tfds(root: pathlib.Path) -> dict[str, tuple[list[int], Iterator[np.ndarray]]]:
    """Returns the classes and the images of a TFDS data set's parts."""
    try:
        builder = tfds.builder_from_directory(root)
    # Damaged JSON, a field that no version of TFDS knows, a feature whose module is gone.
    except (json_format.Error, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise errors.UserError(f"--source: {_TFDS_INFO} is not that of a TFDS data set: {error}") from error
    if builder.name != "cifar10" or not set(_BATCHES) <= set(builder.info.splits):
        raise errors.UserError(
            f"--source: the TFDS data set must be cifar10 with the splits train and test, it is {builder.name} with "
            f"{', '.join(builder.info.splits) or 'none'}"
        )
    file_format = builder.info.file_format
    if file_format is not tfds.core.FileFormat.ARRAY_RECORD:
        raise errors.UserError(
            f"--source: the TFDS data set is in {file_format.value} files, which need TensorFlow to be read; make it "
            f"with file_format='array_record', or give the binary version, cifar-10-binary.tar.gz"
        )
    skip = {"image": tfds.decode.SkipDecoding()}
    return {part: _tfds_part(builder.as_data_source(part, decoders=skip)) for part in _BATCHES}


def _tfds_part(source: Sequence[dict]) -> tuple[list[int], Iterator[np.ndarray]]:
    labels = [int(source[i]["label"]) for i in range(len(source))]
    return labels, (np.asarray(Image.open(io.BytesIO(source[i]["image"]))) for i in range(len(source)))


def _store(part: str, labels: np.ndarray | list[int], images: Iterator, source: listing.Source) -> list[listing.Record]:
    folder = source.scratch / part
    folder.mkdir()
    stream = None if source.progress else io.StringIO()
    records = []
    with ProgressBar(len(labels), f"storing {part}", unit="images", stream=stream) as bar:
        for index, (label, image) in enumerate(zip(labels, images, strict=True)):
            path = f"{part}/{index:05d}.png"
            if not 0 <= label < _NUM_CLASSES:
                raise errors.UserError(f"--source: image {index} of {part} is of class {label}, it must be 0..9")
            if image.shape != (_SIZE, _SIZE, 3):
                raise errors.UserError(
                    f"--source: image {index} of {part} must be [{_SIZE}, {_SIZE}, 3], it is {list(image.shape)}"
                )
            Image.fromarray(np.ascontiguousarray(image)).save(source.scratch / path)
            # From 1, because 0 is a distractor.
            pid = int(label) + 1
            for split in _SPLITS[part]:
                record = listing.Record(split, path, pid, identities.UNKNOWN, identities.UNKNOWN, source.scratch / path)
                records.append(record)
            bar.update()
    return records
