"""Use without training: evaluate, embed, search, group and export by the name of published weights, and post-processing."""

import csv
import json

import commands
import numpy as np
import published
import pytest
import tiny_runs
from PIL import Image

import reid_jax
from reid_jax import evaluate, postprocess
from reid_jax.cli import shared_flags
from reid_jax.experiments import export

SIZE = ("--height=56", "--width=28")


@pytest.fixture(scope="module", autouse=True)
def weights(tmp_path_factory):
    """A folder of weights that has "tiny"; few images are enough for whitening."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tiny_runs.OWN_BACKBONE)
        patch.setenv("REID_JAX_WEIGHTS", str(tmp_path_factory.mktemp("weights")))
        patch.setattr(shared_flags, "_FEWEST_WHITENED", 20)
        published.add_architecture(patch)
        published.add_random("tiny", architecture=published.TRANSFORMER)
        yield


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def workdir(prepared, tmp_path_factory):
    return tiny_runs.write_run(tmp_path_factory.mktemp("runs") / "shop", prepared)


def succeed(name, *arguments):
    """Runs a command that must end well, and returns what it printed."""
    status, output, errors = commands.run(name, *arguments)
    assert status == 0, errors
    return output


def fail(name, *arguments):
    """Runs a command that must end with one line, and returns it."""
    status, _, errors = commands.run(name, *arguments)
    assert status == 2 and errors.startswith("error: ") and errors.count("\n") == 1, errors
    return errors.removeprefix("error: ").strip()


@pytest.fixture
def data(prepared):
    return ("--dataset=tiny", f"--data_dir={prepared}", "--batch_size=8")


def test_evaluate_with_every_post_processing(data, prepared, tmp_path):
    output = succeed("evaluate", "--model=tiny", *data, *SIZE, "--postprocess=all", "--json=scores.json")
    first, second, head, *rows = output.splitlines()
    assert (
        first
        == "model: tiny, trained on noise (labels: none); no labels of people; images of 56 x 28 pixels (height x width)"
    )
    assert second == "post-processing is fitted without labels on train"
    assert head.split() == ["mAP", "rank-1", "rank-5", "rank-10", "mINP"]
    assert [row.split()[1] for row in rows] == list(postprocess.KINDS)
    record = json.loads((tmp_path / "scores.json").read_text())
    assert list(record["scores"]) == list(postprocess.KINDS) and (record["height"], record["width"]) == (56, 28)
    # One kind alone has the same scores; fitted on the images that are ranked it has others.
    for fit_on, is_same in (("train", True), ("test", False)):
        output = succeed(
            "evaluate",
            "--model=tiny",
            *data,
            *SIZE,
            "--postprocess=camera_whiten",
            f"--fit_on={fit_on}",
            "--json=one.json",
        )
        one = json.loads((tmp_path / "one.json").read_text())
        assert (one["mAP"] == pytest.approx(record["scores"]["camera_whiten"]["mAP"], abs=1e-6)) == is_same
        assert one["postprocess"] == "camera_whiten" and one["fit_on"] == fit_on
    assert "fitted without labels on query and gallery" in output


def test_evaluate_chooses_the_size_by_the_gallery(data):
    output = succeed("evaluate", "--model=color_histogram", *data)
    assert (
        "no labels of people; images of 256 x 128 pixels (height x width)" in output
    )  # 24 x 12 are twice as high as wide
    output = succeed("evaluate", "--model=color_histogram", *data, "--height=32")
    assert "images of 32 x 32 pixels" in output


def test_evaluate_of_a_run(workdir, prepared):
    output = succeed("evaluate", f"--model={workdir}", "--batch_size=8", "--postprocess=all")
    assert output.count("tiny, ") == 5 and "tiny by hct, no labels of people used in training" in output
    plain = succeed("evaluate", f"--model={workdir}", "--batch_size=8")
    assert plain.splitlines()[2].split() == ["tiny", *output.splitlines()[3].split()[2:]]


@pytest.fixture
def embedded(people_folder):
    """crops.npz: the people, by "tiny"."""
    output = succeed("embed", "--model=tiny", f"--source={people_folder}", *SIZE, "--output=crops.npz")
    assert "tiny sees images of 56 x 28 pixels (height x width)\nmodel: tiny, trained on noise" in output
    assert "24 embeddings of 16 numbers" in output
    return np.load("crops.npz")


def test_embed(embedded, people_folder, prepared):
    paths = [people_folder / path for path in embedded["paths"]]
    expected = reid_jax.load_model("tiny", height=56, width=28).embed(
        np.stack([np.asarray(Image.open(path)) for path in paths])
    )
    np.testing.assert_allclose(embedded["embeddings"], expected, atol=1e-5)
    succeed("embed", "--model=tiny", "--dataset=tiny", f"--data_dir={prepared}", *SIZE, "--output=gallery.npz")
    np.testing.assert_allclose(np.load("gallery.npz")["embeddings"], expected, atol=1e-5)


def test_search_in_embeddings_of_the_same_name(embedded, people_folder):
    """The query is seen at the size that the gallery was, and both are whitened by the gallery."""
    query = next((people_folder / "0101").iterdir())
    output = succeed("search", "--model=tiny", f"--query={query}", "--gallery=crops.npz", "--output=found", "--top=3")
    assert "tiny sees images of 56 x 28 pixels" in output
    assert "post-processing: pca_whiten, fitted without labels on the 24 images of crops.npz" in output
    rows = list(csv.DictReader(open("found/results.csv")))
    whitened = postprocess.apply(postprocess.fit("pca_whiten", [embedded["embeddings"]]), embedded["embeddings"])
    own = embedded["paths"].tolist().index(f"0101/{query.name}")
    distances = 1 - whitened @ whitened[own]
    distances[own] = np.inf
    order = np.argsort(distances)[:3]
    assert [row["match"] for row in rows] == embedded["paths"][order].tolist()
    np.testing.assert_allclose([float(row["distance"]) for row in rows], distances[order], atol=1e-3)
    # The other way round, and without post-processing.
    plain = succeed(
        "search",
        "--model=tiny",
        "--query=crops.npz",
        f"--gallery={people_folder}",
        "--output=found",
        "--postprocess=none",
    )
    assert "sees images of 56 x 28 pixels" in plain and "post-processing" not in plain
    reranked = succeed(
        "search", "--model=tiny", f"--query={query}", "--gallery=crops.npz", "--output=found", "--rerank"
    )
    assert "post-processing: pca_whiten" in reranked


def test_search_of_images_alone(people_folder):
    query = next((people_folder / "0102").iterdir())
    arguments = ("--model=color_histogram", f"--query={query}", f"--gallery={people_folder}", "--output=found")
    output = succeed("search", *arguments, "--postprocess=center")
    assert "color_histogram sees images of 256 x 128 pixels" in output and "colours only" in output
    assert f"post-processing: center, fitted without labels on the 24 images of {people_folder}" in output
    assert len(list(csv.DictReader(open("found/results.csv")))) == 10


def test_what_cannot_be_compared(embedded, people_folder):
    succeed("embed", "--model=color_histogram", f"--source={people_folder}", *SIZE, "--output=colours.npz")
    arguments = ("--model=color_histogram", f"--query={people_folder}", "--output=found")
    line = fail("search", *arguments, "--gallery=colours.npz", "--height=64")
    assert "of 56 x 28 pixels (height x width), --query" in line and line.endswith(
        "of 64 x 28; both must be of one size"
    )
    line = fail("search", *arguments, "--gallery=crops.npz")
    assert line.startswith("--gallery: 'crops.npz' is of a model with the weights ")


def test_group(embedded, people_folder):
    output = succeed("group", "--model=tiny", "--source=crops.npz", "--output=sorted", "--copies=false")
    assert "tiny sees images of 56 x 28 pixels" in output and "fitted without labels on the 24 images of" in output
    assert len(list(csv.DictReader(open("sorted/groups.csv")))) == 24
    arguments = ("--model=color_histogram", f"--source={people_folder}", "--output=by_colour", *SIZE)
    succeed("group", *arguments, "--num_groups=4", "--k1=5", "--postprocess=none")
    assert len({row["group"] for row in csv.DictReader(open("by_colour/groups.csv"))}) == 4
    # Without a model nothing is known of the vectors: they are as they are.
    assert "post-processing" not in succeed("group", "--source=crops.npz", "--output=third", "--copies=false")


@pytest.fixture
def cameras(people_folder):
    return f"--fit_source={people_folder}", r"--camid_from=_c(\d)s"


def test_export_with_post_processing(embedded, people_folder, cameras):
    arguments = ("--model=tiny", *SIZE)
    succeed("export", *arguments, "--postprocess=pca_whiten", "--whiten_dim=9", cameras[0], "--output=whitened")
    fitted = postprocess.fit("pca_whiten", [embedded["embeddings"]], dim=9)
    expected = postprocess.apply(fitted, embedded["embeddings"])
    output = succeed(
        "export", *arguments, "--postprocess=pca_whiten", "--whiten_dim=9", cameras[0], "--output=whitened.zip"
    )
    assert "MiB, differs from the model by at most" in output
    images = np.stack(
        [np.asarray(Image.open(people_folder / path).resize((28, 56), Image.BILINEAR)) for path in embedded["paths"]]
    )
    for source in ("whitened", "whitened.zip"):
        np.testing.assert_allclose(reid_jax.load_model(source).embed(images), expected, atol=1e-4)
        succeed("embed", f"--model={source}", f"--source={people_folder}", f"--output={source}.npz")
        np.testing.assert_allclose(np.load(f"{source}.npz")["embeddings"], expected, atol=1e-3)
    # They are of one model, another than the raw one.
    succeed("search", "--model=whitened", "--query=whitened.zip.npz", "--gallery=whitened.npz", "--output=found")
    line = fail("search", "--model=whitened", "--query=whitened.npz", "--gallery=crops.npz", "--output=found")
    assert line.startswith("--gallery: 'crops.npz' is of a model with the weights ") and line.endswith(
        "with that model"
    )


def test_export_with_cameras(embedded, people_folder, cameras, prepared):
    succeed("export", "--model=tiny", *SIZE, "--postprocess=camera_center", *cameras, "--output=cameras")
    succeed("export", "--model=tiny", *SIZE, "--postprocess=camera_center", *cameras, "--output=cameras.zip")
    camids = np.array([int(path.partition("_c")[2][0]) for path in embedded["paths"]])
    fitted = postprocess.fit("camera_center", [embedded["embeddings"]], camids=camids)
    expected = postprocess.apply(fitted, embedded["embeddings"], camids)
    for source in ("cameras", "cameras.zip"):  # the same images, whose cameras are known there
        succeed("embed", f"--model={source}", "--dataset=tiny", f"--data_dir={prepared}", "--output=d.npz")
        np.testing.assert_allclose(np.load("d.npz")["embeddings"], expected, atol=1e-4)
    data = ("--dataset=tiny", f"--data_dir={prepared}")
    output = succeed("evaluate", "--model=cameras", *data, "--batch_size=8", "--json=scores.json")
    assert output.startswith("model: tiny, trained on noise")
    succeed("embed", "--model=cameras", *data, "--split=query", "--output=q.npz")
    query, gallery = np.load("q.npz"), np.load("d.npz")
    labels = [each[name] for each in (query, gallery) for name in ("pids", "camids")]
    expected = evaluate.evaluate_embeddings(query["embeddings"], gallery["embeddings"], *labels)
    np.testing.assert_allclose(json.loads(open("scores.json").read())["mAP"], expected.mAP, atol=1e-6)


def test_colours_as_a_model_folder(people_folder):
    succeed("export", "--model=color_histogram", "--output=colours", "--height=24", "--width=12")
    images = np.stack([np.asarray(Image.open(path)) for path in sorted((people_folder / "0101").iterdir())])
    expected = reid_jax.load_model("color_histogram", height=24, width=12).embed(images)
    np.testing.assert_allclose(reid_jax.load_model("colours").embed(images), expected, atol=1e-6)


@pytest.mark.parametrize(
    "command,arguments,line",
    [
        ("evaluate", ["--model=tiny"], "--dataset is needed"),
        (
            "evaluate",
            ["--model=mobilenet_v2"],
            "--model: the weights mobilenet_v2 are not on this machine yet; get them with:",
        ),
        (
            "evaluate",
            ["--model=tiny2"],
            "--model: there is no run directory, no model folder and no exported model at 'tiny2'",
        ),
        (
            "evaluate",
            ["--model=WORKDIR", "--height=100"],
            "--model: height and width must be those of the model's images, 24",
        ),
        (
            "evaluate",
            ["--model=tiny", "--whiten_dim=9"],
            "--whiten_dim: --postprocess=pca_whiten or camera_whiten is needed",
        ),
        (
            "evaluate",
            ["--model=tiny", "DATA", "--height=28", "--width=14", "--postprocess=pca_whiten", "--whiten_dim=17"],
            "--whiten_dim: it must be at most 16, the numbers of an embedding of this model, got 17",
        ),
        (
            "embed",
            ["--model=tiny", "--source=PEOPLE", "--output=x.npz", "--width=0"],
            "flag --width=0: it must be a positive",
        ),
        (
            "search",
            [
                "--model=tiny",
                "--query=PEOPLE",
                "--gallery=PEOPLE",
                "--height=28",
                "--width=14",
                "--postprocess=camera_center",
            ],
            "--postprocess: kind must be center or pca_whiten where no camera has two images, got 'camera_center'",
        ),
        ("search", ["--query=a.npz", "--gallery=none.npz", "--model=tiny"], "--gallery: there is no file 'none.npz'"),
        (
            "export",
            ["--model=tiny", "--output=x", "--fit_source=PEOPLE"],
            "--fit_source: --postprocess is needed with it",
        ),
        ("export", ["--model=tiny", "--output=x", "--postprocess=center"], "--fit_source is needed"),
        (
            "export",
            ["--model=tiny", "--output=x", "--postprocess=camera_center", "--fit_source=PEOPLE"],
            "--camid_from: it and a --postprocess with cameras, camera_center or camera_whiten, belong together",
        ),
        (
            "export",
            ["--model=tiny", "--output=x", "--camid_from=(1)"],
            "--camid_from: it and a --postprocess with cameras",
        ),
    ],
)
def test_what_does_not_go_together(command, arguments, line, workdir, people_folder, prepared):
    places = {"WORKDIR": str(workdir), "PEOPLE": str(people_folder)}
    given = []
    for argument in arguments:
        for name, place in places.items():
            argument = argument.replace(name, place)
        given += [argument] if argument != "DATA" else ["--dataset=tiny", f"--data_dir={prepared}", "--batch_size=8"]
    assert fail(command, *given).startswith(line)


def test_models_that_are_post_processed_already(people_folder, embedded, cameras):
    succeed("export", "--model=tiny", *SIZE, "--postprocess=center", cameras[0], "--output=centred")
    own = "--postprocess: it must be none, the model has center already, got pca_whiten"
    assert fail("export", "--model=centred", "--postprocess=pca_whiten", cameras[0], "--output=again") == own
    assert (
        fail("group", "--model=centred", f"--source={people_folder}", "--postprocess=pca_whiten", "--output=g") == own
    )
    assert fail("evaluate", "--model=centred", "--dataset=synthetic", "--postprocess=all") == own.replace(
        "pca_whiten", "all"
    )
    assert fail("evaluate", "--model=centred") == "--dataset is needed"  # published weights have none of their own
    output = succeed("group", "--model=centred", f"--source={people_folder}", "--output=g", "--copies=false")
    assert "post-processing" not in output  # "auto" is nothing more


@pytest.mark.parametrize(
    "pattern,message",
    [
        ("(", r"'\(' must be a regular expression whose group is a number: "),
        ("_c1", "'_c1' must be a regular expression whose group is a number: no such group"),
        (r"_c1(x)?", "must be a regular expression whose group is a number"),
        (r"(\w)_c", "must be a regular expression whose group is a number"),
        (r"_c(\d+)", "must be a regular expression whose group is a number"),
        (r"cam(\d)", r"'cam.*' is in none of the 2 paths, such as 'a_c1.jpg'"),
    ],
)
def test_cameras_in_paths(pattern, message):
    paths = np.array(["a_c1.jpg", f"b_c{2**40}.jpg"])
    assert export.camera_numbers(paths, r"_c(\d)\.").tolist() == [1, -1]
    with pytest.raises(ValueError, match=message):
        export.camera_numbers(paths, pattern)
