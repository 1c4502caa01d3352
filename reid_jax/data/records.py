"""A prepared data set on disk: random access to encoded images, and what is known about each.

A prepared data set is a TFDS data set in array_record files, as `data_prep/prepare.py` writes it, with the
features image, pid, camid, tracklet and path. It is read without TensorFlow.
"""

import dataclasses
import hashlib
import pathlib
import zlib
from collections.abc import Sequence

import numpy as np
import tensorflow_datasets as tfds

from reid_jax import types
from reid_jax.progress import ProgressBar

_FEATURES = ("image", "pid", "camid", "tracklet", "path")


@dataclasses.dataclass(frozen=True)
class Records:
    """One split, in the order of its paths; N items.

    Attributes:
        dataset: the data set's name.
        split: "train", "query" or "gallery".
        pids: [N] int64, the identity; 0 a distractor, -1 junk or not known.
        camids: [N] int64, the camera; -1 not known.
        tracklets: [N] int64, the tracklet; -1 none.
        paths: [N] str, where the image lay in the source folder.
        fingerprint: hexadecimal digest of the split's image bytes and paths; names its image cache.
    """

    dataset: str
    split: str
    pids: np.ndarray
    camids: np.ndarray
    tracklets: np.ndarray
    paths: np.ndarray
    fingerprint: str
    _source: Sequence[dict]
    _positions: np.ndarray

    def __len__(self) -> int:
        return len(self.pids)

    def encoded(self, index: int) -> bytes:
        """Returns the image file's bytes of item `index`, exactly as they were in the source."""
        return self._source[int(self._positions[index])]["image"]


def find_dataset(data_dir: str | pathlib.Path, dataset: str) -> pathlib.Path | None:
    """Returns the newest prepared version's folder DATA_DIR/DATASET/VERSION, or None if there is none."""
    versions = pathlib.Path(data_dir, dataset).glob("*/dataset_info.json")
    return max((path.parent for path in versions), default=None)


def load_records(data_dir: str | pathlib.Path, dataset: str) -> dict[str, Records]:
    """Opens every split of a prepared data set.

    Args:
        data_dir: the folder that `data_prep/prepare.py --data_dir` wrote to.
        dataset: the prepared data set's name.

    Returns:
        Records by split name; a split without images is absent.

    Raises:
        UserError: there is no such prepared data set, or it lacks a feature.
    """
    folder = find_dataset(data_dir, dataset)
    if folder is None:
        raise types.UserError(
            f"data.dir: no prepared data set {dataset!r} in {str(data_dir)!r}; make it with "
            f"python data_prep/prepare.py --dataset={dataset} --source=... --data_dir={data_dir}"
        )
    builder = tfds.builder_from_directory(folder)
    missing = [name for name in _FEATURES if name not in builder.info.features]
    if missing:
        raise types.UserError(f"data.dir: {str(folder)!r} lacks the features {', '.join(missing)}; prepare it again")
    return {split: _load_split(builder, dataset, split) for split in builder.info.splits}


def _load_split(builder: tfds.core.DatasetBuilder, dataset: str, split: str) -> Records:
    source = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
    labels = np.empty((len(source), 3), np.int64)
    paths, checksums = [], np.empty(len(source), np.uint32)
    with ProgressBar(len(source), f"opening {dataset}/{split}", unit="images") as bar:
        for position in range(len(source)):
            record = source[position]
            labels[position] = record["pid"], record["camid"], record["tracklet"]
            paths.append(record["path"].decode())
            checksums[position] = zlib.crc32(record["image"])
            bar.update()
    # TFDS may store examples in hash order; the path fixes the index of an image once and for all.
    paths = np.array(paths)
    order = np.argsort(paths, kind="stable")
    paths, (pids, camids, tracklets) = paths[order], labels[order].T
    digest = hashlib.sha256("\n".join(paths).encode() + checksums[order].tobytes())
    return Records(dataset, split, pids, camids, tracklets, paths, digest.hexdigest()[:16], source, order)
