"""Model folders with post-processing, and of published weights; what a folder is without them: test_trained_model."""

import json

import numpy as np
import published
import pytest
import tiny_runs
from safetensors import numpy as safetensors

import reid_jax
from reid_jax import errors, postprocess
from reid_jax.inference import model_folder, networks, trained_model, writing

pytestmark = pytest.mark.usefixtures("own_backbone")


@pytest.fixture(scope="module")
def workdir(prepared, tmp_path_factory):
    return tiny_runs.write_run(tmp_path_factory.mktemp("run") / "tiny", prepared)


@pytest.fixture
def images(rng):
    return np.repeat(np.repeat(rng.integers(0, 256, (30, 6, 3, 3), dtype=np.uint8), 4, axis=1), 4, axis=2)


CAMERAS = np.resize([-1, 4, 9], 30)


@pytest.fixture
def write(workdir, images, tmp_path):
    """Writes a folder with post-processing fitted to the images: (kind) -> (folder, what was fitted, its network)."""

    def run(kind, **options):
        network = networks.load_network(workdir)
        rows = reid_jax.load_model(workdir).embed(images)
        fitted = None if kind == "none" else postprocess.fit(kind, [rows], camids=CAMERAS, **options)
        writing.export_folder(network, fitted, str(tmp_path / "model"))
        return tmp_path / "model", fitted, network

    return run


@pytest.mark.parametrize("kind,options", [(kind, {}) for kind in postprocess.KINDS] + [("pca_whiten", {"dim": 5})])
def test_a_folder_embeds_with_its_post_processing(write, images, workdir, kind, options):
    folder, fitted, network = write(kind, **options)
    model = reid_jax.load_model(folder)
    expected = postprocess.apply(fitted, reid_jax.load_model(workdir).embed(images), CAMERAS)
    np.testing.assert_allclose(model.embed(images, camids=CAMERAS), expected, atol=1e-5)
    unknown = postprocess.apply(fitted, reid_jax.load_model(workdir).embed(images))
    np.testing.assert_allclose(model.embed(images), unknown, atol=1e-5)
    assert np.abs(expected - unknown).max() > 1e-3 or kind not in postprocess.CAMERA_KINDS
    record = json.loads((folder / "model.json").read_text())
    assert (record["postprocess"], record["dim"]) == (kind, options.get("dim", 16))
    assert record["digest"] == model.digest == networks.digest(network._replace(fitted=fitted))
    assert (folder / "postprocess.safetensors").is_file() == (kind != "none")


def test_images_are_resized_a_part_at_a_time(write, images, monkeypatch):
    model = reid_jax.load_model(write("camera_center")[0])
    expected = model.embed(images, camids=CAMERAS)
    monkeypatch.setattr(trained_model, "_RESIZED_AT_A_TIME", 8)
    np.testing.assert_allclose(model.embed(images, camids=CAMERAS), expected, atol=1e-5)


def test_it_says_what_it_learned_from(write):
    folder, _, network = write("center")
    assert reid_jax.load_model(folder).about == network.about != ""
    record = json.loads((folder / "model.json").read_text())
    del record["about"], record["postprocess"]  # as versions before wrote it
    record["digest"] = "of the weights"
    (folder / "model.json").write_text(json.dumps(record))
    model = reid_jax.load_model(folder)
    assert model.about == "trained on tiny" and model.fitted is None


def test_a_folder_of_published_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("REID_JAX_WEIGHTS", str(tmp_path / "weights"))
    published.add_architecture(monkeypatch)
    published.add_random("tiny", normalization="half")
    network = networks.load_network("tiny", height=64, width=32)
    info = writing.export_folder(network, None, str(tmp_path / "model"))
    assert (info.trained_on, info.method, info.dim) == ("", "", 64) and info.about.startswith("tiny, trained on noise")
    monkeypatch.setenv("REID_JAX_WEIGHTS", str(tmp_path / "elsewhere"))  # it needs them no longer
    again = networks.load_network(tmp_path / "model")
    assert again.module == network.module and again.module.normalization == "half"
    assert networks.digest(again) == networks.digest(network)


def edit(folder, **fields):
    record = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(record | fields))


def edit_arrays(folder, **arrays):
    file = folder / "postprocess.safetensors"
    kept = {name: array for name, array in (safetensors.load_file(file) | arrays).items() if array is not None}
    file.write_bytes(safetensors.save(kept))


@pytest.mark.parametrize(
    "change,message",
    [
        (lambda folder: (folder / "postprocess.safetensors").unlink(), "postprocess.safetensors' cannot be read"),
        (
            lambda folder: (folder / "postprocess.safetensors").write_bytes(b"x"),
            "postprocess.safetensors' cannot be read",
        ),
        (lambda folder: edit_arrays(folder, mean=None), "postprocess.safetensors' is no post-processing: "),
        (lambda folder: edit_arrays(folder, more=np.zeros(1)), "postprocess.safetensors' is no post-processing: "),
        (lambda folder: edit_arrays(folder, mean=np.zeros(9, np.float32)), "is of other embeddings than those of 16"),
        (lambda folder: edit_arrays(folder, camera_means=np.zeros((1, 16), np.float32)), "is of other embeddings"),
        (lambda folder: edit_arrays(folder, projection=np.zeros((9, 16), np.float32)), "is of other embeddings"),
        (
            lambda folder: edit(folder, postprocess="sharpen"),
            "is of other embeddings than .* by sharpen that model.json",
        ),
        (lambda folder: edit(folder, dim=9), "is of other embeddings than those of 16 .* and the 9 by camera_whiten"),
        (
            lambda folder: edit(folder, postprocess="none", dim=9),
            "model.json' must have dim = 16, its network's, got 9",
        ),
    ],
)
def test_damaged_and_foreign_post_processing_is_told(write, change, message):
    folder, _, _ = write("camera_whiten")
    change(folder)
    with pytest.raises(errors.UserError, match=message):
        model_folder.read_model(folder)


def test_replacing_a_folder_leaves_nothing_of_the_old_one(write):
    folder, _, network = write("center")
    writing.export_folder(network, None, str(folder))
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "weights.safetensors"]
    assert model_folder.read_model(folder).fitted is None and list(folder.parent.iterdir()) == [folder]
