"""Models to use from Python: run directories, model folders and exported files embed alike, at any size of image."""

import json

import numpy as np
import pytest
import tiny_runs
from PIL import Image

import reid_jax
from reid_jax import errors
from reid_jax.inference import model_folder, networks, writing

pytestmark = pytest.mark.usefixtures("own_backbone")


@pytest.fixture(scope="module")
def workdir(prepared, tmp_path_factory):
    return tiny_runs.write_run(tmp_path_factory.mktemp("run") / "tiny", prepared)


@pytest.fixture(scope="module")
def folder(workdir, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny"
    writing.export_folder(networks.load_network(workdir), None, str(path))
    return path


def pictures(rng, count, height, width):
    coarse = rng.integers(0, 256, (count, 4, 3, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(each).resize((width, height), Image.BICUBIC)) for each in coarse])


def test_a_model_folder_embeds_as_its_run(workdir, folder, rng):
    run, model = reid_jax.load_model(workdir), reid_jax.load_model(str(folder))
    assert (run.digest, run.height, run.width) == (model.digest, model.height, model.width)
    images = pictures(rng, 11, 24, 12)
    embeddings = model.embed(images)
    np.testing.assert_array_equal(embeddings, run.embed(images))
    assert embeddings.shape == (11, 16) and embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(model.embed(images, batch_size=3), embeddings, atol=1e-6)


def test_images_of_another_size_are_resized_as_in_training(folder, rng):
    model, large = reid_jax.load_model(folder), pictures(rng, 3, 60, 40)
    small = [np.asarray(Image.fromarray(each).resize((12, 24), Image.Resampling.BILINEAR)) for each in large]
    np.testing.assert_array_equal(model.embed(large), model.embed(np.stack(small)))


def test_images_may_each_have_a_size_of_their_own(folder, rng):
    model, images = reid_jax.load_model(folder), [pictures(rng, 1, *size)[0] for size in ((24, 12), (50, 31), (24, 12))]
    alone = np.concatenate([model.embed(image[None]) for image in images])
    np.testing.assert_allclose(model.embed(images), alone, atol=1e-6)
    np.testing.assert_array_equal(model.embed(images[::2]), model.embed(np.stack(images[::2])))
    with pytest.raises(errors.UserError, match="images must be"):
        model.embed([images[0], images[1][..., 0]])


def test_it_is_shown_without_its_weights(folder):
    assert len(repr(reid_jax.load_model(folder))) < 2000


def test_it_says_what_it_is(folder):
    record = json.loads((folder / "model.json").read_text())
    assert record["method"] == "hct" and record["trained_on"] == "tiny" and record["dim"] == 16
    assert record["network"]["backbone"] == "own_backbone:Backbone" and record["input"]["color"] == "RGB"
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "weights.safetensors"]


def test_search_and_group_in_a_notebook(rng):
    centers = rng.normal(size=(5, 16))
    people = np.repeat(np.arange(5), 6)
    gallery = (centers[people] + 0.1 * rng.normal(size=(30, 16))).astype(np.float32)
    distances, indices = reid_jax.search(gallery[:2], gallery, top=6)
    assert indices.shape == distances.shape == (2, 6) and indices[:, 0].tolist() == [0, 1]
    assert (people[indices] == 0).all() and (np.diff(distances, axis=1) >= 0).all()
    assert reid_jax.search(gallery[:2], gallery, top=99)[1].shape == (2, 30)
    labels = reid_jax.group(gallery, k1=5)
    assert len({(a, b) for a, b in zip(labels.tolist(), people.tolist())}) == 5
    np.testing.assert_array_equal(np.unique(reid_jax.group(gallery, num_groups=3)), [0, 1, 2])


@pytest.mark.parametrize(
    "images", [np.zeros((2, 24, 12, 3)), np.zeros((24, 12, 3), np.uint8), np.zeros((0, 24, 12, 3), np.uint8)]
)
def test_what_are_no_images(folder, images):
    with pytest.raises(errors.UserError, match="images must be"):
        reid_jax.load_model(folder).embed(images)


def test_as_many_cameras_as_images(folder):
    images = np.zeros((2, 24, 12, 3), np.uint8)
    embeddings = reid_jax.load_model(folder).embed(images, camids=np.array([1, -1]))
    np.testing.assert_array_equal(
        embeddings, reid_jax.load_model(folder).embed(images)
    )  # which nothing depends on here
    for camids in (np.array([1]), np.array([[1], [2]])):
        with pytest.raises(errors.UserError, match=r"camids must be \[2\], one for each image, got shape"):
            reid_jax.load_model(folder).embed(images, camids=camids)


def damaged(folder, tmp_path, change):
    copy = tmp_path / "model"
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    change(copy)
    return copy


@pytest.mark.parametrize(
    "change,message",
    [
        (lambda folder: (folder / "weights.safetensors").write_bytes(b"x"), "cannot be read"),
        (lambda folder: (folder / "weights.safetensors").unlink(), "cannot be read"),
        (lambda folder: (folder / "model.json").write_text("{"), "is not a JSON file"),
        (lambda folder: (folder / "model.json").write_text("{}"), "lacks 'height'"),
        (lambda folder: _edit(folder, format=2), "must be of format 1"),
        (lambda folder: _edit(folder, height=-1), "data.height must be at least 0, got -1"),
        (lambda folder: _edit(folder, height=0), r"must return a feature map \[1, h, w, C\]"),
        (lambda folder: _edit(folder, network={"backbone": "resnet18", "width": 4}), "is of another network"),
        (lambda folder: _edit(folder, network={"backbone": "os:getcwd"}), "is no Flax module class"),
    ],
)
def test_damaged_and_foreign_folders_are_told(folder, tmp_path, change, message):
    with pytest.raises(errors.UserError, match=message):
        reid_jax.load_model(damaged(folder, tmp_path, change))


def _edit(folder, **fields):
    record = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(record | fields))


def test_a_folder_of_something_else_is_not_replaced(workdir, folder, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"")
    with pytest.raises(errors.UserError, match="must be a new folder or one of an earlier model"):
        writing.export_folder(networks.load_network(workdir), None, str(tmp_path / "photos"))
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["a.jpg"]
    before = (folder / "weights.safetensors").read_bytes()
    writing.export_folder(networks.load_network(workdir), None, str(folder))  # an earlier model is
    assert (folder / "weights.safetensors").read_bytes() == before and model_folder.is_model_folder(folder)


def test_a_name_is_a_run_in_runs(workdir, tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "shop").symlink_to(workdir)
    monkeypatch.chdir(tmp_path)
    images = np.zeros((2, 30, 20, 3), np.uint8)
    np.testing.assert_array_equal(
        reid_jax.load_model("shop").embed(images), reid_jax.load_model(str(workdir)).embed(images)
    )
    with pytest.raises(errors.UserError, match="^there is no run directory"):
        reid_jax.load_model("shoe")


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="gallery"):
        reid_jax.search(np.ones((1, 2)), np.ones((0, 2)))
    with pytest.raises(ValueError, match="top"):
        reid_jax.search(np.ones((1, 2)), np.ones((3, 2)), top=0)
    for options in ({"num_groups": 0}, {"num_groups": 5}, {"k1": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            reid_jax.group(np.eye(5), **options)
    with pytest.raises(ValueError, match="embeddings"):
        reid_jax.group(np.ones((1, 2)))


def test_submodules_are_seen_before_they_are_imported():
    assert {"load_model", "search", "group", "Samples", "losses", "distances"} <= set(dir(reid_jax))
    assert "dissimilarity" in dir(reid_jax.distances) and reid_jax.distances.dissimilarity.dissimilarities
