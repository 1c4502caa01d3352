"""Eight virtual devices for all tests, before jax starts, so that sharded can be compared with unsharded.

XLA optimises little: most of the suite's time would go into compiling. What it compiled is shared by all processes of the
suite, and by the next one.
"""

import os
import pathlib
import shutil

import compiler_flags

os.environ["JAX_PLATFORMS"] = "cpu"
_FLAGS = (os.environ.get("XLA_FLAGS", ""), compiler_flags.EIGHT_DEVICES, compiler_flags.QUICK)
os.environ["XLA_FLAGS"] = " ".join(_FLAGS)

_CACHE = pathlib.Path(__file__).parents[1] / ".pytest_cache" / "xla"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

import pytest  # noqa: E402
import tiny_data  # noqa: E402
from absl import flags  # noqa: E402

# grain's worker processes read absl flags, which nothing parses under pytest.
flags.FLAGS.mark_as_parsed()


@pytest.fixture
def rng():
    """A test's own generator: what it draws does not depend on which tests ran before."""
    import numpy as np

    return np.random.default_rng(0)


@pytest.fixture
def own_backbone(monkeypatch):
    """Makes tests/support/data/own_backbone.py importable."""
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


@pytest.fixture(scope="session")
def prepared_once(tmp_path_factory):
    """What `prepared` copies."""
    from reid_jax.data_prep import prepare

    root = tmp_path_factory.mktemp("prepared")
    source = tiny_data.write_market_folder(root / "source")
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


@pytest.fixture(scope="session")
def prepared_tracklets(tmp_path_factory):
    """A data_dir with "walks": 8 train, 4 query and 8 gallery tracklets of 3 to 5 frames of 24 x 12 pixels."""
    from reid_jax.data_prep import prepare

    root = tmp_path_factory.mktemp("prepared_tracklets")
    source = tiny_data.write_tracklet_folder(root / "source")
    prepare.prepare("folder", source=source, data_dir=root / "data", name="walks", progress=False)
    return root / "data"
