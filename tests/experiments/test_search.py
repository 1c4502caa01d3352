"""experiments/search.py, embed.py, collection.py, image_folder.py: a person found again in one's own images."""

import csv

import numpy as np
import pytest
import tiny_runs
from PIL import Image
from tiny_runs import finish, made, start_script

from reid_jax import errors
from reid_jax.data import image_folder
from reid_jax.experiments import embed
from reid_jax.inference import trained_model
from reid_jax.pictures.image_rows import Mark
from reid_jax.retrieval import embedding_files, ranking, search_results
from reid_jax.retrieval.collection import Collection, check_comparable, open_collection
from reid_jax.retrieval.embedding_files import Origin

pytestmark = pytest.mark.usefixtures("own_backbone")


@pytest.fixture(scope="module")
def workdir(prepared, tmp_path_factory):
    return tiny_runs.write_run(tmp_path_factory.mktemp("runs") / "tiny", prepared)


@pytest.fixture
def model(workdir):
    return trained_model.load(str(workdir), batch_size=8)


def test_a_folder_and_its_npz_are_the_same_collection(model, people_folder, tmp_path):
    folder = open_collection(str(people_folder), flag="gallery", model=model, batch_size=8, people_in_folders=True)
    assert len(folder) == 24 and folder.shape == (24, 16)
    np.testing.assert_allclose(np.linalg.norm(folder.embeddings(), axis=1), 1, rtol=1e-5)
    assert sorted(set(folder.pids.tolist())) == [1, 2, 3, 4]
    file = tmp_path / "people.npz"
    embedding_files.write_embeddings(file, folder.embeddings(), folder.paths, origin=folder.origin, pids=folder.pids)
    again = open_collection(str(file), flag="gallery", model=model, batch_size=8)
    np.testing.assert_array_equal(again.embeddings(), folder.embeddings())
    np.testing.assert_array_equal(np.concatenate(list(again.blocks())), folder.embeddings())
    for index in (0, 23):
        assert again.place(index) == folder.place(index)
        np.testing.assert_array_equal(
            again.thumbnail(index), np.asarray(Image.open(people_folder / folder.paths[index]))
        )
    one = open_collection(str(people_folder / folder.paths[5]), flag="query", model=model, batch_size=8)
    # Alone in its batch or with others, an image has the same embedding.
    np.testing.assert_allclose(one.embeddings()[0], folder.embeddings()[5], atol=1e-6)
    assert one.place(0) == folder.place(5) != folder.place(6)


def test_a_prepared_data_set_s_images(model, prepared, tmp_path):
    origin = Origin(model.digest, 24, 12, "", (str(prepared), "tiny", "query"))
    paths = np.array(["query/0101_c1s1_000010_00.jpg", "query/none.jpg"])
    file = tmp_path / "q.npz"
    embedding_files.write_embeddings(file, np.eye(2, 16), paths, origin=origin)
    opened = open_collection(str(file), flag="query", model=None, batch_size=8)
    assert opened.thumbnail(0).shape == (24, 12, 3) and opened.thumbnail(1) is None
    moved = Collection(
        "q", (2, 16), paths, opened.pids, opened.camids, origin._replace(dataset=("gone", "tiny", "query")), None
    )
    assert moved.thumbnail(0) is None


def test_images_that_are_not_there(tmp_path):
    images = made(np.eye(3), paths=["a.jpg", "text.jpg", "../../etc/passwd"], folder=str(tmp_path))
    (tmp_path / "text.jpg").write_text("no image")
    assert images.thumbnail(0) is None and images.thumbnail(1) is None
    with pytest.raises(errors.UserError, match="must lead to a file inside"):
        images.thumbnail(2)


def test_what_cannot_be_compared(model, tmp_path):
    a, b = made(np.eye(2)), made(np.eye(3))
    with pytest.raises(errors.UserError, match="--gallery: the embeddings of 'made' have 3 numbers, those of --query"):
        check_comparable([("query", a), ("gallery", b)])
    with pytest.raises(errors.UserError, match="is of a model with the weights n, --query .* of m"):
        check_comparable([("query", a), ("gallery", made(np.eye(2), model="n"))])
    check_comparable([("query", a), ("gallery", made(np.eye(2), model=""))])
    embedding_files.write_embeddings(tmp_path / "x.npz", np.eye(2), np.array(["a", "b"]), origin=Origin("other"))
    with pytest.raises(errors.UserError, match="is of a model with the weights other, .* has the weights"):
        open_collection(str(tmp_path / "x.npz"), flag="gallery", model=model, batch_size=8)
    with pytest.raises(errors.UserError, match="--model is needed to embed --gallery"):
        open_collection(str(tmp_path), flag="gallery", model=None, batch_size=8)


def test_images_of_a_folder(tmp_path):
    with pytest.raises(errors.UserError, match="--source: there is no folder and no image"):
        image_folder.find_images(str(tmp_path / "none"), flag="source")
    with pytest.raises(errors.UserError, match="--source: no images in the folder .* it is empty"):
        image_folder.find_images(str(tmp_path), flag="source")
    Image.new("RGB", (5, 5)).save(tmp_path / "b.png")
    (tmp_path / "a.jpg").write_bytes(b"broken")
    with pytest.raises(
        errors.UserError, match="1 of 2 images cannot be used, the first is 'a.jpg': it is no image file"
    ):
        image_folder.find_images(str(tmp_path), flag="source")
    found = image_folder.find_images(str(tmp_path), flag="source", on_bad_image="skip")
    assert found.paths.tolist() == ["b.png"]
    (tmp_path / "b.png").unlink()
    with pytest.raises(errors.UserError, match="none of the 1 images"):
        image_folder.find_images(str(tmp_path), flag="source", on_bad_image="skip")


def test_identities_are_sub_folders():
    assert image_folder.person_numbers(["b/1.jpg", "a/x/2.jpg", "b/3.jpg"]).tolist() == [2, 1, 2]
    assert image_folder.person_numbers(["b/1.jpg", "2.jpg"]).tolist() == [-1, -1]


def test_an_image_is_not_its_own_match():
    gallery = made([[1, 0], [1, 0.1], [0, 1]])
    ranked = ranking.rank(gallery, gallery, top=5, max_distance=0.5)
    assert [[match.index for match in matches] for matches in ranked] == [[1, 2], [0, 2], [1, 0]]
    assert [match.is_near for match in ranked[0]] == [True, False]
    # Of images whose folder is not known a path says nothing.
    unknown = made([[1, 0]], folder="")
    assert [match.index for match in ranking.rank(unknown, made([[1, 0]], folder=""), top=2, max_distance=1.0)[0]] == [
        0
    ]
    elsewhere = made([[1, 0]], folder="/elsewhere")
    assert [match.index for match in ranking.rank(elsewhere, gallery, top=2, max_distance=1.0)[0]] == [0, 1]


def test_verdicts():
    gallery = made([[1, 0], [0, 1]], folder="/b")
    (matches,) = ranking.rank(made([[1, 1]]), gallery, top=5, max_distance=0.2)
    assert search_results.verdict(matches, 0.2) == "not in the gallery: the nearest is at 0.2929, the limit 0.2000"
    (matches,) = ranking.rank(made([[1, 0.1]]), gallery, top=5, max_distance=0.2)
    assert search_results.verdict(matches, 0.2) == "1 of 2 within the limit of 0.200"
    assert search_results.verdict([], 0.2).startswith("nothing to compare with")
    assert search_results.verdict(matches, np.inf) == "the nearest is at 0.005"


def test_a_limit_of_people_known(capsys):
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(30, 8))
    pids = np.repeat(np.arange(1, 31), 6)
    known = made(centres[pids - 1] + 0.3 * rng.normal(size=(180, 8)), pids=pids, source="known")
    limits = [ranking.calibrate(known, known, false_alarms=rate) for rate in (0.01, 0.1, 0.5)]
    assert limits == sorted(limits) and limits[0] < limits[2]
    output = capsys.readouterr().out
    assert output.count("by 180 images of 30 people in known") == 3 and "false alarms" not in output
    assert output.count("30 people are few") == 3
    # Strangers drawn alike are taken for someone about as often as was asked.
    strangers = made(rng.normal(size=(2000, 8)))
    ranked = ranking.rank(strangers, made(known.embeddings(), folder="/g"), top=1, max_distance=limits[1])
    assert 0.02 < np.mean([matches[0].is_near for matches in ranked]) < 0.3
    ranking.calibrate(known, made(np.eye(400)), false_alarms=0.1)
    assert "the gallery has 400 images, more than the 180 of the calibration" in capsys.readouterr().out
    with pytest.raises(errors.UserError, match="two known people at least"):
        ranking.calibrate(made(np.eye(3), pids=[1, 1, -1]), known, false_alarms=0.1)


def test_the_table_and_the_sheet(people_folder, monkeypatch):
    paths = ["0101/" + path.name for path in sorted((people_folder / "0101").iterdir())[:3]]
    gallery = made([[1, 0], [1, 0.2], [0, 1]], pids=[1, 2, 1], paths=paths, folder=str(people_folder))
    queries = made([[1, 0.1]], pids=[1], paths=['a,"b".jpg'], folder=str(people_folder))
    ranked = ranking.rank(queries, gallery, top=3, max_distance=0.5)
    rows = list(csv.DictReader(search_results.results_table(queries, gallery, ranked, 0.5).splitlines()))
    assert [(row["query"], row["rank"], row["within_limit"], row["match"]) for row in rows] == [
        ('a,"b".jpg', "1", "yes", paths[1]), ('a,"b".jpg', "2", "yes", paths[0]), ('a,"b".jpg', "3", "no", paths[2])
    ]  # fmt: skip
    unlimited = csv.DictReader(search_results.results_table(queries, gallery, ranked, np.inf).splitlines())
    assert {row["within_limit"] for row in unlimited} == {""}
    drawn = []
    monkeypatch.setattr(search_results.image_rows, "draw_rows", lambda rows, **_: drawn.extend(rows))
    search_results.contact_sheet(queries, gallery, ranked, 0.5)
    assert [tile.mark for tile in drawn[0].tiles] == [Mark.QUERY, Mark.WRONG, Mark.RIGHT, Mark.DIMMED]
    assert drawn[0].tiles[0].image is None and drawn[0].tiles[1].caption.startswith("1: 0.0")
    # Numbers of another folder's people say nothing of these.
    elsewhere = made([[1, 0.1]], pids=[1])
    search_results.contact_sheet(elsewhere, gallery, ranked, 0.5)
    assert [tile.mark for tile in drawn[1].tiles] == [Mark.QUERY, Mark.NEUTRAL, Mark.NEUTRAL, Mark.DIMMED]
    assert drawn[0].tiles[1].image.shape == (24, 12, 3)


def test_what_embed_cannot_write(tmp_path):
    with pytest.raises(errors.UserError, match="must be a file that ends in .npz"):
        embed.check_output(str(tmp_path / "x.npy"))
    with pytest.raises(errors.UserError, match="the folder of .* is not there"):
        embed.check_output(str(tmp_path / "none" / "x.npz"))


def test_as_its_user_runs_it(workdir, people_folder, prepared, tmp_path):
    gallery, found = tmp_path / "gallery.npz", tmp_path / "found"
    query = next((people_folder / "0101").iterdir())
    processes = [
        start_script("embed", f"--model={workdir}", f"--source={people_folder}", f"--output={gallery}"),
        start_script(
            "embed", f"--model={workdir}", "--dataset=tiny", f"--data_dir={prepared}", f"--output={tmp_path / 'd.npz'}"
        ),
    ]
    (first, output, errors), (second, _, more) = map(finish, processes)
    assert (first, second) == (0, 0), errors + more
    assert "24 embeddings of 16 numbers in" in output
    # By way of the prepared data set, images have the same embeddings as from the folder.
    own, prepared_file = (np.load(file) for file in (gallery, tmp_path / "d.npz"))
    np.testing.assert_allclose(own["embeddings"], prepared_file["embeddings"], atol=1e-6)
    assert set(prepared_file["camids"].tolist()) == {1, 2}

    common = [f"--model={workdir}", f"--query={query}", f"--gallery={gallery}"]
    processes = [
        start_script(
            "search",
            *common,
            f"--output={found}",
            "--top=4",
            "--false_alarms=0.2",
            f"--calibration={people_folder}",
        ),
        start_script("search", *common, "--max_distance=0.1", "--false_alarms=0.1"),
    ]
    (status, output, errors), (wrong, _, message) = map(finish, processes)
    assert status == 0, errors
    assert output.startswith("model: tiny by hct, no labels of people used in training; from random weights")
    assert "\nlimit " in output and f"{query.name}: " in output and "    4  " in output
    assert len((found / "results.csv").read_text().splitlines()) == 5
    assert query.name not in [row["match"] for row in csv.DictReader(open(found / "results.csv"))]
    assert Image.open(found / "results.png").width > 300
    assert wrong == 2 and "give one of them" in message
