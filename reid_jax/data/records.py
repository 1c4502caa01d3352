"""A prepared data set on disk: random access to encoded images, and what is known about each.

A prepared data set is a TFDS data set in array_record files, as `data_prep/prepare.py` writes it, with the
features image, pid, camid, tracklet and path. It is read without TensorFlow. Beside it lies an index of each
split, so that half a million images need not be read to know what they are; without one they are.
"""

import dataclasses
import hashlib
import pathlib
import zipfile
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from reid_jax import errors, identities
from reid_jax.progress import ProgressBar

_FEATURES = ("image", "pid", "camid", "tracklet", "path")


class Index(NamedTuple):
    """What is known about a split's images without reading them, in the order of their paths; N images.

    Attributes:
        paths: [N] str, where the image lay in the source folder.
        pids: [N] int64, as in `Records`.
        camids: [N] int64, as in `Records`.
        tracklets: [N] int64, as in `Records`.
        checksums: [N] uint32, CRC-32 of the image file's bytes.
        positions: [N] int64, which of the split's examples the image is, from 0.
    """

    paths: np.ndarray
    pids: np.ndarray
    camids: np.ndarray
    tracklets: np.ndarray
    checksums: np.ndarray
    positions: np.ndarray


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

    @property
    def name(self) -> str:
        """What messages call it: DATASET/SPLIT."""
        return f"{self.dataset}/{self.split}"

    def encoded(self, index: int) -> bytes:
        """Returns the bytes of item `index` as they are stored: of JPEG and PNG files those of the source."""
        return self._source[int(self._positions[index])]["image"]


def find_dataset(data_dir: str | pathlib.Path, dataset: str) -> pathlib.Path | None:
    """Returns the newest prepared version's folder DATA_DIR/DATASET/VERSION, or None if there is none."""
    versions = pathlib.Path(data_dir, dataset).glob("*/dataset_info.json")
    return max((path.parent for path in versions), default=None)


def list_datasets(data_dir: str | pathlib.Path) -> list[str]:
    """Returns the names of the prepared data sets in a folder, sorted."""
    return sorted({path.parent.parent.name for path in pathlib.Path(data_dir).glob("*/*/dataset_info.json")})


def load_records(data_dir: str | pathlib.Path, dataset: str) -> dict[str, Records]:
    """Opens every split of a prepared data set.

    Args:
        data_dir: the folder that `data_prep/prepare.py --data_dir` wrote to.
        dataset: the prepared data set's name.

    Returns:
        Records by split name; a split without images is absent.

    Raises:
        UserError: there is no such prepared data set, it lacks a feature, or an index does not fit its split.
    """
    folder = find_dataset(data_dir, dataset)
    if folder is None:
        raise errors.UserError(
            f"no prepared data set {dataset!r} in {str(data_dir)!r}, which holds "
            f"{', '.join(list_datasets(data_dir)) or 'none'}; make it with reid prepare "
            f"--data_dir={data_dir} and --dataset={dataset} --source=..., or for images of your own "
            f"--dataset=folder --name={dataset} --source=..."
        )
    builder = tfds.builder_from_directory(folder)
    missing = [name for name in _FEATURES if name not in builder.info.features]
    if missing:
        raise errors.UserError(f"{str(folder)!r} lacks the features {', '.join(missing)}; prepare it again")
    return {split: _load_split(builder, folder, dataset, split) for split in builder.info.splits}


def join(parts: Sequence[Records]) -> Records:
    """Makes one split of the same split of several data sets, which have no identity, camera or tracklet in common.

    Args:
        parts: the splits, at least one, of different data sets.

    Returns:
        Their images in this order; "a+b" is the name, and paths begin with their data set's. Known identities, cameras
        and tracklets are numbered above those of the parts before; -1 and distractors stay what they are.
    """
    names = [part.dataset for part in parts]
    digest = hashlib.sha256("\n".join(f"{part.dataset} {part.fingerprint}" for part in parts).encode())
    starts = np.cumsum([0, *(len(part._source) for part in parts)])
    return Records(
        "+".join(names),
        parts[0].split,
        _renumbered([part.pids for part in parts], first=identities.DISTRACTOR_PID + 1),
        _renumbered([part.camids for part in parts], first=0),
        _renumbered([part.tracklets for part in parts], first=0),
        np.concatenate([np.char.add(f"{part.dataset}/", part.paths) for part in parts]),
        digest.hexdigest()[:16],
        _Joined([part._source for part in parts]),
        np.concatenate([part._positions + start for part, start in zip(parts, starts)]),
    )


def _renumbered(parts: Sequence[np.ndarray], *, first: int) -> np.ndarray:
    """Joins numbers, each part's from `first` on above those of the parts before it; lower ones stay."""
    above = np.cumsum([0, *(part.max(initial=-1) + 1 for part in parts)])
    return np.concatenate([np.where(part >= first, part + start, part) for part, start in zip(parts, above)])


class _Joined(Sequence):
    """Several sources of examples, one after the other."""

    def __init__(self, sources: Sequence[Sequence[dict]]):
        self._sources = sources
        self._ends = np.cumsum([len(source) for source in sources])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, position: int) -> dict:
        number = int(np.searchsorted(self._ends, position, side="right"))
        return self._sources[number][position - (int(self._ends[number - 1]) if number else 0)]


def make_index(paths: Sequence[str], labels: np.ndarray, checksums: np.ndarray) -> Index:
    """Sorts what is known about a split's images by path.

    TFDS may store examples in hash order; the path fixes the index of an image once and for all.

    Args:
        paths: N paths, in the order of the examples, as all arguments.
        labels: [N, 3] int64, pid, camid and tracklet.
        checksums: [N] uint32.

    Returns:
        The index.
    """
    paths = np.array(paths)
    order = np.argsort(paths, kind="stable")
    return Index(paths[order], *labels[order].T, checksums[order], order)


def write_index(folder: str | pathlib.Path, split: str, index: Index) -> None:
    """Writes a split's index into a prepared data set's folder, DATA_DIR/DATASET/VERSION."""
    np.savez_compressed(_index_file(folder, split), **index._asdict())


def _index_file(folder: str | pathlib.Path, split: str) -> pathlib.Path:
    return pathlib.Path(folder, f"index_{split}.npz")


def _load_split(builder: tfds.core.DatasetBuilder, folder: pathlib.Path, dataset: str, split: str) -> Records:
    source = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
    file = _index_file(folder, split)
    index = _read_index(file, len(source)) if file.exists() else _scan(source, f"opening {dataset}/{split}")
    digest = hashlib.sha256("\n".join(index.paths).encode() + index.checksums.tobytes())
    labels = index.pids, index.camids, index.tracklets
    return Records(dataset, split, *labels, index.paths, digest.hexdigest()[:16], source, index.positions)


def _read_index(file: pathlib.Path, num_examples: int) -> Index:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            index = Index(*(arrays[name] for name in Index._fields))
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise errors.UserError(f"{str(file)!r} is no index of a split ({error}); prepare it again") from error
    kinds = (np.str_, np.int64, np.int64, np.int64, np.uint32, np.int64)
    for name, array, kind in zip(Index._fields, index, kinds, strict=True):
        if array.shape != (num_examples,) or not np.issubdtype(array.dtype, kind):
            raise errors.UserError(
                f"{name} in {str(file)!r} must be [{num_examples}] {kind.__name__}, one for each of the "
                f"split's examples, it is {list(array.shape)} {array.dtype}; prepare it again"
            )
    if not np.array_equal(np.sort(index.positions), np.arange(num_examples)):
        raise errors.UserError(f"positions in {str(file)!r} must be 0..{num_examples - 1}, each once; prepare it again")
    return index


def _scan(source: Sequence[dict], description: str) -> Index:
    """Makes a split's index by reading every image."""
    labels, checksums = np.empty((len(source), 3), np.int64), np.empty(len(source), np.uint32)
    paths = []
    with ProgressBar(len(source), description, unit="images") as bar:
        for position in range(len(source)):
            record = source[position]
            labels[position] = record["pid"], record["camid"], record["tracklet"]
            paths.append(record["path"].decode())
            checksums[position] = zlib.crc32(record["image"])
            bar.update()
    return make_index(paths, labels, checksums)
