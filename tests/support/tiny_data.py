"""Tiny data sets of noise images, clustered features, and where the files of the tests are."""

import csv
import pathlib

import numpy as np
from PIL import Image

ROOT = pathlib.Path(__file__).parents[2]
DATA = pathlib.Path(__file__).parent / "data"
SHARED_DATA = ROOT.parent / "shared" / "data"  # real features, where they are at hand


def _noise_image(rng, seed, pid, height, width):
    """Noise of an identity's colour under a light that changes more than the colours differ: not too easy."""

    colour = 100 + np.random.default_rng([seed, pid]).integers(-20, 20, 3)
    return (colour + rng.integers(-40, 40)) + rng.integers(0, 56, (height, width, 3))


def write_market_folder(root, *, num_ids=4, images_per_id=6, height=24, width=12, seed=0):
    """Writes a tiny Market-1501 layout of noise images: identities 1.. train, 101.. test, cameras 1 and 2."""

    rng = np.random.default_rng(seed)
    for split, first in (("bounding_box_train", 1), ("query", 101), ("bounding_box_test", 101)):
        (root / split).mkdir(parents=True)
        for pid in range(first, first + num_ids):
            for image in range(1 if split == "query" else images_per_id):
                camera = 1 + image % 2 if split != "query" else 1
                pixels = _noise_image(rng, seed, pid, height, width)
                name = f"{pid:04d}_c{camera}s1_{image + 10 * (split == 'query'):06d}_00.jpg"
                Image.fromarray(pixels.astype(np.uint8)).save(root / split / name, quality=95)
    return root


def write_tracklet_folder(root, *, num_ids=4, num_cameras=2, num_frames=3, height=24, width=12, seed=0):
    """Writes root/index.csv and tiny noise frames: every identity has a tracklet in each camera, per split."""

    rng = np.random.default_rng(seed)
    root.mkdir(parents=True)
    rows, tracklet = [], 0
    for split, first in (("train", 1), ("query", 101), ("gallery", 101)):
        for pid in range(first, first + num_ids):
            for camera in range(1 if split == "query" else num_cameras):
                # Tracklets of different lengths.
                for frame in range(num_frames + (pid + camera) % 3):
                    pixels = _noise_image(rng, seed, pid, height, width)
                    name = f"{split}_{pid:04d}_{tracklet:03d}_{frame:02d}.png"
                    Image.fromarray(pixels.astype(np.uint8)).save(root / name)
                    rows.append([name, pid, camera + (split == "gallery"), tracklet, split])
                tracklet += 1
    with open(root / "index.csv", "w", newline="") as file:
        csv.writer(file).writerows([["path", "pid", "camid", "tracklet", "split"], *rows])
    return root


def clustered_features(*, num_ids, size, dim, spread, seed=0):
    """Returns (features [num_ids * size, dim] float32 around each identity's centre, centred and L2-normalised, pids)."""

    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(num_ids, dim))
    pids = rng.permutation(np.repeat(np.arange(num_ids), size))
    rows = centers[pids] + spread * rng.normal(size=(len(pids), dim))
    rows -= rows.mean(axis=0)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), pids
