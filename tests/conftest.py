"""Eight virtual devices for all tests, before jax starts, so that sharded can be compared with unsharded.

XLA optimises little: most of the suite's time would go into compiling.
"""

import os
import shutil

os.environ["JAX_PLATFORMS"] = "cpu"
_FLAGS = ("--xla_force_host_platform_device_count=8", "--xla_backend_optimization_level=0")
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *_FLAGS])

import pytest  # noqa: E402
from absl import flags  # noqa: E402

# grain's worker processes read absl flags, which nothing parses under pytest.
flags.FLAGS.mark_as_parsed()


@pytest.fixture
def own_backbone(monkeypatch):
    """Makes tests/data/own_backbone.py importable."""
    import tiny_runs

    monkeypatch.syspath_prepend(tiny_runs.OWN_BACKBONE)


@pytest.fixture
def drawn_texts(monkeypatch):
    """What Pillow writes into pictures from now on."""
    from PIL import ImageDraw

    texts, draw = [], ImageDraw.ImageDraw.text

    def noted(self, xy, text, **options):
        texts.append(text)
        draw(self, xy, text, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", noted)
    return texts


@pytest.fixture(scope="session")
def meshes():
    """Meshes over 1 and over 8 devices."""
    from reid_jax import sharding

    return sharding.make_mesh(1), sharding.make_mesh(8)


def _noise_image(rng, seed, pid, height, width):
    """Noise of an identity's colour under a light that changes more than the colours differ: not too easy."""
    import numpy as np

    colour = 100 + np.random.default_rng([seed, pid]).integers(-20, 20, 3)
    return (colour + rng.integers(-40, 40)) + rng.integers(0, 56, (height, width, 3))


def write_market_folder(root, *, num_ids=4, images_per_id=6, height=24, width=12, seed=0):
    """Writes a tiny Market-1501 layout of noise images: identities 1.. train, 101.. test, cameras 1 and 2."""
    import numpy as np
    from PIL import Image

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


@pytest.fixture(scope="session")
def prepared_once(tmp_path_factory):
    """What `prepared` copies."""
    from data_prep import prepare

    root = tmp_path_factory.mktemp("prepared")
    source = write_market_folder(root / "source")
    prepare.prepare("market1501", source=source, data_dir=root / "data", name="tiny", progress=False)
    return root


@pytest.fixture(scope="module")
def prepared(prepared_once, tmp_path_factory):
    """A data_dir with the tiny prepared data set "tiny": 24 train, 4 query, 24 gallery images of 24 x 12 pixels.

    A module's own, since some prepare others beside it.
    """
    return shutil.copytree(prepared_once, tmp_path_factory.mktemp("prepared") / "copy") / "data"


@pytest.fixture(scope="session")
def people_folder(prepared_once, tmp_path_factory):
    """A folder of 24 crops, six in a sub-folder for each of four persons: the gallery of "tiny"."""
    root = tmp_path_factory.mktemp("crops") / "people"
    for file in sorted((prepared_once / "source" / "bounding_box_test").iterdir()):
        target = root / file.name[:4] / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    return root


def write_tracklet_folder(root, *, num_ids=4, num_cameras=2, num_frames=3, height=24, width=12, seed=0):
    """Writes root/index.csv and tiny noise frames: every identity has a tracklet in each camera, per split."""
    import csv

    import numpy as np
    from PIL import Image

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


@pytest.fixture(scope="session")
def prepared_tracklets(tmp_path_factory):
    """A data_dir with "walks": 8 train, 4 query and 8 gallery tracklets of 3 to 5 frames of 24 x 12 pixels."""
    from data_prep import prepare

    root = tmp_path_factory.mktemp("prepared_tracklets")
    source = write_tracklet_folder(root / "source")
    prepare.prepare("folder", source=source, data_dir=root / "data", name="walks", progress=False)
    return root / "data"


def clustered_features(*, num_ids, size, dim, spread, seed=0):
    """Returns (features [num_ids * size, dim] float32 around each identity's centre, centred and L2-normalised, pids)."""
    import numpy as np

    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(num_ids, dim))
    pids = rng.permutation(np.repeat(np.arange(num_ids), size))
    rows = centers[pids] + spread * rng.normal(size=(len(pids), dim))
    rows -= rows.mean(axis=0)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), pids
