"""experiments/export.py: a model that leaves as a file and comes back as a model."""

import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs
from tiny_runs import finish, start_script

from reid_jax import errors
from reid_jax.data.image_files import ImageFiles
from reid_jax.inference import exported, networks, onnx_export, trained_model, writing

pytestmark = pytest.mark.usefixtures("own_backbone")


@pytest.fixture(scope="module")
def workdir(prepared, tmp_path_factory):
    return tiny_runs.write_run(tmp_path_factory.mktemp("runs") / "tiny", prepared)


def export_run(workdir, output):
    return writing.export_model(networks.load_network(workdir), None, str(output), name="tiny")


@pytest.fixture(scope="module")
def file(workdir, tmp_path_factory):
    output = tmp_path_factory.mktemp("exported") / "tiny.zip"
    difference, resized = export_run(workdir, output)
    assert difference < 1e-5 and abs(resized) < 1e-3
    return output


def test_it_embeds_as_the_run_does(workdir, file, people_folder):
    paths = np.array(sorted(str(path.relative_to(people_folder)) for path in people_folder.rglob("*.jpg")))
    run, back = (trained_model.load(str(source), batch_size=8) for source in (workdir, file))
    assert (run.digest, run.height, run.width) == (back.digest, back.height, back.width) == (run.digest, 24, 12)
    found = [each.embed_files(ImageFiles(people_folder, paths), batch_size=8) for each in (run, back)]
    np.testing.assert_allclose(*found, atol=1e-6)


def test_what_it_says_of_itself(file):
    info = exported.read_model(file).info
    assert (info.dim, info.dtype, info.postprocess) == (16, "float32", "none")
    learned = "tiny by hct, no labels of people used in training; from random weights: no labels of people"
    assert info.description == f"tiny: {learned}"


def test_a_file_that_computes_something_else_is_not_kept(workdir, tmp_path, monkeypatch):
    function = exported.embedding_function
    monkeypatch.setattr(exported, "embedding_function", lambda *a, **k: lambda images: -function(*a, **k)(images))
    with pytest.raises(RuntimeError, match="differs by"):
        export_run(workdir, tmp_path / "x.zip")
    assert not list(tmp_path.iterdir())


def test_a_file_that_resizes_otherwise_is_not_kept(workdir, tmp_path, monkeypatch):
    resize = exported.resize
    monkeypatch.setattr(exported, "resize", lambda images, **size: resize(images, **size)[:, ::-1])
    with pytest.raises(RuntimeError, match="differs by"):
        export_run(workdir, tmp_path / "x.zip")

    # Nearest pixels in place of means: right at the model's own size, wrong at others.
    def nearest(images, *, height, width):
        rows, columns = (
            jnp.arange(size) * given // size for size, given in ((height, images.shape[1]), (width, images.shape[2]))
        )
        return images[:, rows][:, :, columns].astype(jnp.float32)

    monkeypatch.setattr(exported, "resize", nearest)
    monkeypatch.setattr(writing, "_RESIZED_TOLERANCE", 1e-6)
    with pytest.raises(RuntimeError, match="or of a resized image by"):
        export_run(workdir, tmp_path / "x.zip")
    assert not list(tmp_path.iterdir())


def test_packages_that_are_missing(monkeypatch):
    monkeypatch.setattr(onnx_export, "_PACKAGES", ("numpy", "no_such_package"))
    with pytest.raises(errors.UserError, match=r"needs no_such_package, the extra \[onnx\]"):
        onnx_export.check_installed()


def test_onnx(workdir, tmp_path):
    pytest.importorskip("jax2onnx")
    pytest.importorskip("onnxruntime")
    difference, resized = export_run(workdir, tmp_path / "tiny.onnx")
    assert difference < 1e-4 and resized is None
    call = onnx_export.load_onnx(tmp_path / "tiny.onnx")
    for count in (1, 5):
        assert call(np.zeros((count, 24, 12, 3), np.uint8)).shape == (count, 16)


def test_what_is_no_model(tmp_path):
    with pytest.raises(errors.UserError, match="there is no run directory, no model folder and no exported model"):
        trained_model.load(str(tmp_path / "none"), batch_size=8)
    (tmp_path / "x.zip").write_text("no model")
    with pytest.raises(
        errors.UserError, match="is neither a run directory, a model folder nor a whole .zip of export$"
    ):
        trained_model.load(str(tmp_path / "x.zip"), batch_size=8)


def test_as_its_user_runs_it(workdir, tmp_path):
    processes = [
        start_script("export", f"--model={workdir}", f"--output={tmp_path / 'x.zip'}"),
        start_script("export", f"--model={workdir}", f"--output={tmp_path / 'x.h5'}"),
    ]
    (status, output, errors), (second, _, message) = map(finish, processes)
    assert status == 0, errors
    assert "MiB, differs from the model by at most" in output
    assert second == 2 and "must be a file that ends in .zip or .onnx" in message
    assert {path.name for path in tmp_path.iterdir()} == {"x.zip"}
