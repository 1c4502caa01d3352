"""CUHK03 in the new protocol (767 training and 700 test identities), detected or hand-labelled boxes.

Two sources are read: the folders that many projects share as cuhk03-np, and the original cuhk-03.mat together
with the protocol's cuhk03_new_protocol_config_{detected,labeled}.mat.
"""

import io
import pathlib
import re
from typing import Any

import numpy as np
import scipy.io
from PIL import Image

from reid_jax import errors, identities
from reid_jax.data_prep.readers import listing, market1501
from reid_jax.progress import ProgressBar

_NAME = re.compile(r"(?P<pid>\d+)_c(?P<camid>\d+)_\d+\.(jpg|jpeg|png)", re.IGNORECASE)
_EXAMPLE = "0003_c1_21.png"
# camera pair, person within the pair, view (the camera), image 1 to 10; all counted from 1.
_MAT_NAME = re.compile(r"(\d+)_(\d+)_(\d+)_(\d+)\.png")
_MAT = "cuhk-03.mat"
_SPLIT_KEYS = {"train": "train_idx", "query": "query_idx", "gallery": "gallery_idx"}


def read(source: listing.Source, *, boxes: str) -> list[listing.Record]:
    """Reads CUHK03; images that come as arrays are stored as PNG files.

    Args:
        source: its folder holds BOXES/bounding_box_train and so on, or cuhk-03.mat and the protocol's file.
        boxes: "detected" or "labeled", the boxes' origin, spelled as the files spell it.

    Returns:
        One record per image.

    Raises:
        UserError: the layout is another one, a file is damaged, or h5py is needed and missing.
    """
    config_name = f"cuhk03_new_protocol_config_{boxes}.mat"

    def is_root(folder: pathlib.Path) -> bool:
        return _np_folder(folder, boxes) is not None or (folder / _MAT).is_file()

    expected = f"{boxes}/ with {market1501.EXPECTED}, or {_MAT} and {config_name}"
    root = listing.find_root(source.folder, is_root, expected)
    folder = _np_folder(root, boxes)
    if folder is not None:
        return market1501.read_market_layout(folder, _NAME, _EXAMPLE)
    # The protocol's files come from elsewhere and often lie one level above the release's own folder.
    config = listing.find_root(
        source.folder, lambda folder: (folder / config_name).is_file(), f"{config_name} beside {_MAT}"
    )
    return _read_mat(root / _MAT, config / config_name, boxes, source)


def _np_folder(folder: pathlib.Path, boxes: str) -> pathlib.Path | None:
    """Returns the folder in Market-1501's layout that holds these boxes, whether its parent was given or itself."""
    names = ("labeled", "labelled") if boxes == "labeled" else (boxes,)
    candidates = [folder / name for name in names] + [folder] * (folder.name in names)
    return next((path for path in candidates if market1501.is_market_layout(path)), None)


def _read_mat(mat: pathlib.Path, config: pathlib.Path, boxes: str, source: listing.Source) -> list[listing.Record]:
    protocol = _load_protocol(config)
    total = sum(len(rows) for rows in protocol.values())
    stream = None if source.progress else io.StringIO()
    records = []
    with _open_hdf5(mat) as file, ProgressBar(total, f"reading {mat.name}", unit="images", stream=stream) as bar:
        for split, rows in protocol.items():
            for name, pid in rows:
                _, _, camid, _ = _mat_position(name)
                # Query and gallery never share an image, so one folder per split is enough.
                target = source.scratch / split / name
                target.parent.mkdir(exist_ok=True)
                _image(file, boxes, name).save(target)
                records.append(listing.Record(split, f"{boxes}/{name}", pid, camid, identities.UNKNOWN, target))
                bar.update()
    return records


def _load_protocol(config: pathlib.Path) -> dict[str, list[tuple[str, int]]]:
    """Returns the (file name, pid) of every image by split."""
    try:
        content = scipy.io.loadmat(config)
        names = [str(np.asarray(name).item()) for name in content["filelist"].ravel()]
        pids = content["labels"].ravel()
        # MATLAB counts from 1.
        return {
            split: [(names[i], int(pids[i])) for i in content[key].ravel().astype(int) - 1]
            for split, key in _SPLIT_KEYS.items()
        }
    except (KeyError, IndexError, ValueError, NotImplementedError, TypeError) as error:
        keys = ", ".join(("filelist", "labels", *_SPLIT_KEYS.values()))
        raise errors.UserError(f"--source: {config.name} must be a MATLAB file with {keys}: {error}") from error


def _open_hdf5(path: pathlib.Path) -> Any:
    try:
        import h5py
    except ImportError:
        raise errors.UserError(f"reading {_MAT} needs h5py, the extra [cuhk03]") from None
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise errors.UserError(f"--source: {path.name} is no readable HDF5 file: {error}") from error


def _mat_position(name: str) -> tuple[int, int, int, int]:
    match = _MAT_NAME.fullmatch(name)
    if match is None:
        raise errors.UserError(f"--source: the protocol names {name!r}, expected names like 1_001_1_01.png")
    pair, person, view, index = (int(number) for number in match.groups())
    return pair, person, view, index


def _image(file: Any, boxes: str, name: str) -> Image.Image:
    """Returns one image of the MATLAB cell array {camera pair}{person, image}.

    HDF5 holds MATLAB's arrays transposed: cells are [image, person] and images [3, width, height].
    """
    pair, person, _, index = _mat_position(name)
    try:
        cells = file[file[boxes][0, pair - 1]]
        pixels = np.asarray(file[cells[index - 1, person - 1]]).T
    except (KeyError, IndexError, ValueError) as error:
        raise errors.UserError(f"--source: {_MAT} has no {boxes} image {name}: {error}") from error
    if pixels.ndim != 3 or pixels.shape[-1] != 3 or pixels.dtype != np.uint8:
        raise errors.UserError(f"--source: {_MAT}: the {boxes} image {name} is empty or not [height, width, 3] uint8")
    return Image.fromarray(np.ascontiguousarray(pixels))
