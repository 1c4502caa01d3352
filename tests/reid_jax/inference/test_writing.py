"""Exported files with post-processing and of published weights; what a file is without them: tests/experiments/test_export."""

import zipfile

import numpy as np
import published
import pytest
import tiny_runs
from PIL import Image

import reid_jax
from reid_jax import postprocess
from reid_jax.data.images import CachedImages
from reid_jax.data.samples import Samples
from reid_jax.inference import exported, networks, onnx_export, writing

pytestmark = pytest.mark.usefixtures("own_backbone")

CAMERAS = np.resize([7, -1, 3, 40, 3], 30)


@pytest.fixture(scope="module")
def workdir(prepared, tmp_path_factory):
    return tiny_runs.write_run(tmp_path_factory.mktemp("run") / "tiny", prepared)


@pytest.fixture(scope="module")
def images():
    coarse = np.random.default_rng(0).integers(0, 256, (30, 6, 4, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(each).resize((12, 24), Image.BICUBIC)) for each in coarse])


def fit(source, images, kind, **options):
    rows = reid_jax.load_model(source).embed(images)
    # Camera 40 and images without a camera come later.
    seen = CAMERAS < 10
    return postprocess.fit(kind, [rows[seen]], camids=CAMERAS[seen], **options), rows


@pytest.mark.parametrize("kind,options", [("center", {}), ("pca_whiten", {"dim": 6})])
def test_a_file_post_processes(workdir, images, tmp_path, kind, options):
    fitted, rows = fit(workdir, images, kind, **options)
    output = tmp_path / "model.zip"
    difference, resized = writing.export_model(networks.load_network(workdir), fitted, str(output), name="shop")
    assert difference < 1e-4 and abs(resized) < 1e-2
    info = exported.read_model(output).info
    assert (info.dim, info.postprocess) == (options.get("dim", 16), kind) and not info.takes_cameras
    model = reid_jax.load_model(output)
    assert not model.takes_cameras and model.fitted is None and model.about == info.description
    np.testing.assert_allclose(model.embed(images), postprocess.apply(fitted, rows), atol=1e-4)
    # The same model as the network with it, and another than without.
    network = networks.load_network(workdir)
    assert model.digest == networks.digest(network._replace(fitted=fitted)) != networks.digest(network)


@pytest.fixture(scope="module")
def with_cameras(workdir, images, tmp_path_factory):
    """(file, what is fitted, embeddings without it) of camera_center."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tiny_runs.OWN_BACKBONE)
        fitted, rows = fit(workdir, images, "camera_center")
        output = tmp_path_factory.mktemp("exported") / "model.zip"
        writing.export_model(networks.load_network(workdir), fitted, str(output), name="shop")
    return output, fitted, rows


def test_a_file_takes_cameras_where_they_count(with_cameras, images):
    output, fitted, rows = with_cameras
    call, info = exported.read_model(output)
    assert info.takes_cameras
    expected = postprocess.apply(fitted, rows, CAMERAS)
    np.testing.assert_allclose(call(images, CAMERAS.astype(np.int32)), expected, atol=1e-5)
    model = reid_jax.load_model(output)
    assert model.takes_cameras
    np.testing.assert_allclose(model.embed(images, camids=CAMERAS), expected, atol=1e-5)
    np.testing.assert_allclose(model.embed(images, camids=CAMERAS, batch_size=4), expected, atol=1e-5)
    np.testing.assert_allclose(model.embed(images), postprocess.apply(fitted, rows), atol=1e-5)


def test_tracklets_of_a_camera_are_embedded_together(with_cameras, images):
    output, fitted, _ = with_cameras
    starts = np.array([0, 3, 4, 9, 30])
    cameras = np.array([3, 7, -1, 3])
    samples = Samples(np.arange(30), starts, np.zeros(4, int), cameras, np.array(list("abcd")))
    model = reid_jax.load_model(output)
    found = model.embed_samples(CachedImages(images), samples, batch_size=8)
    call = exported.read_model(output).call
    for sample, camera in enumerate(cameras):
        frames = images[starts[sample] : starts[sample + 1]]
        mean = np.asarray(call(frames, np.full(len(frames), camera, np.int32))).mean(axis=0)
        np.testing.assert_allclose(found[sample], mean / np.linalg.norm(mean), atol=1e-5)


def test_what_is_said_of_cameras(with_cameras):
    with zipfile.ZipFile(with_cameras[0]) as archive:
        text = archive.read("README.txt").decode()
    assert "embed(image[None], np.array([-1], np.int32))" in text and "each image's camera, [B] int32" in text


def test_published_weights_and_colours(tmp_path, monkeypatch, images):
    monkeypatch.setenv("REID_JAX_WEIGHTS", str(tmp_path / "weights"))
    published.add_architecture(monkeypatch)
    published.add_random("tiny", normalization="clip", people_labels=True)
    for name in ("tiny", "color_histogram"):
        network, output = networks.load_network(name, height=32, width=16), tmp_path / f"{name}.zip"
        writing.export_model(network, None, str(output), name=name)
        model, original = reid_jax.load_model(output), reid_jax.load_model(name, height=32, width=16)
        large = images.repeat(2, axis=1).repeat(2, axis=2)[:, :32, :16]
        np.testing.assert_allclose(model.embed(large), original.embed(large), atol=1e-5)
        assert model.digest == original.digest and network.about in model.about
    assert "LABELS OF PEOPLE USED" in reid_jax.load_model(tmp_path / "tiny.zip").about


def test_a_file_that_forgets_the_post_processing_is_not_kept(workdir, images, tmp_path, monkeypatch):
    fitted, _ = fit(workdir, images, "center")
    make = exported.embedding_function
    monkeypatch.setattr(exported, "embedding_function", lambda *args, fitted, **options: make(*args, **options))
    with pytest.raises(RuntimeError, match="differs by .* from the model's, more than 1e-04"):
        writing.export_model(networks.load_network(workdir), fitted, str(tmp_path / "x.zip"), name="shop")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["pca_whiten", "camera_whiten"])
def test_onnx_with_post_processing(workdir, images, tmp_path, kind):
    pytest.importorskip("jax2onnx")
    pytest.importorskip("onnxruntime")
    fitted, rows = fit(workdir, images, kind)
    output = tmp_path / "model.onnx"
    writing.export_model(networks.load_network(workdir), fitted, str(output), name="shop")
    call = onnx_export.load_onnx(output)
    if kind == "camera_whiten":
        found = call(images, CAMERAS.astype(np.int32))
    else:
        found = call(images)
    np.testing.assert_allclose(found, postprocess.apply(fitted, rows, CAMERAS), atol=1e-3)
