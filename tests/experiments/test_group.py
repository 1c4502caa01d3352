"""experiments/group.py: people_folder sorted into people, and the originals left alone."""

import csv
import hashlib

import numpy as np
import pytest
import tiny_data
import tiny_runs
from PIL import Image
from tiny_runs import finish, made, start_script

from reid_jax import cluster_quality, errors
from reid_jax.experiments import group
from reid_jax.retrieval import group_folders, groups

pytestmark = pytest.mark.usefixtures("own_backbone")


def test_people_are_found():
    features, pids = tiny_data.clustered_features(num_ids=8, size=12, dim=32, spread=0.3)
    labels = groups.find_groups(features, eps=0.6, min_samples=2, k1=20)
    # The same partition: each pair of labels occurs together only.
    assert len(np.unique(np.stack([labels, pids]), axis=1).T) == 8 and labels.max() == 7
    np.testing.assert_array_equal(groups.merge_to(features, 8, k1=11), groups.by_size(pids))


def test_few_images_have_few_of_each_person():
    found = {}
    for size in (2, 4, 8, 24):
        features, pids = tiny_data.clustered_features(num_ids=12, size=size, dim=16, spread=0.3)
        found[size] = groups.choose_k1(features)
        labels = groups.group(features)
        assert cluster_quality.bcubed(labels, pids)[2] > 0.8, size
    # 1.75 times as many as there are of a person, 4 at least and 30 at most.
    assert found == {2: 4, 4: 6, 8: 14, 24: 30}
    assert [groups.choose_k1(np.eye(n, 8)) for n in (1, 2, 3, 4)] == [4, 4, 4, 4]


def test_who_is_like_no_other_is_alone():
    features, _ = tiny_data.clustered_features(num_ids=2, size=10, dim=32, spread=0.1)
    stranger = np.random.default_rng(1).normal(size=(1, 32)).astype(np.float32)
    labels = groups.find_groups(np.concatenate([features, stranger]), eps=0.6, min_samples=2, k1=5)
    assert np.bincount(labels).tolist()[-1] == 1 and labels[-1] == labels.max()


@pytest.mark.parametrize("num_images", [3, 4, 7])
def test_few_images(num_images):
    features = np.eye(num_images, 16, dtype=np.float32)
    labels = groups.find_groups(features, eps=0.6, min_samples=2, k1=20)
    # Numbered from 0 without gaps, the largest first.
    sizes = np.bincount(labels)
    assert sizes.sum() == num_images and sizes.min() > 0 and (np.diff(sizes) <= 0).all()


def test_groups_are_numbered_by_size():
    assert groups.by_size(np.array([5, 2, 2, 9, 9, 9, 7])).tolist() == [2, 1, 1, 0, 0, 0, 3]


def test_distances_to_centres():
    found = groups.centre_distances(np.array([[1, 0], [0, 1], [1, 0]], np.float32), np.array([0, 0, 1]))
    np.testing.assert_allclose(found, [1 - np.sqrt(0.5), 1 - np.sqrt(0.5), 0], atol=1e-6)


def test_names_sort_as_numbers_do():
    assert (group_folders.folder_name(0, 5), group_folders.folder_name(9, 12345)) == ("person_0001", "person_00010")


def test_the_table_has_the_most_typical_image_first():
    images = made([[1, 0], [1, 0.1], [1, -0.4], [0, 1]])
    labels = np.array([0, 0, 0, 1])
    rows = list(
        csv.DictReader(
            group_folders.groups_table(
                images, labels, groups.centre_distances(images.embeddings(), labels)
            ).splitlines()
        )
    )
    assert [(row["group"], row["images"], row["path"]) for row in rows] == [
        ("person_0001", "3", "0.jpg"), ("person_0001", "3", "1.jpg"), ("person_0001", "3", "2.jpg"), ("person_0002", "1", "3.jpg")
    ]  # fmt: skip


def test_names_of_copies_do_not_meet(tmp_path):
    long = "n" * 240 + ".png"
    paths = ["a/x.png", "b/x.png", f"c/{long}", "d/no_image.png", "gone.png"]
    for path in paths[:3]:
        (tmp_path / "in" / path).parent.mkdir(parents=True)
        Image.new("RGB", (4, 4), {"a": "red", "b": "blue", "c": "green"}[path[0]]).save(tmp_path / "in" / path)
    (tmp_path / "in" / "d").mkdir()
    (tmp_path / "in" / paths[3]).write_text("a key that must not be copied")
    images = made(np.eye(5), paths=paths, folder=str(tmp_path / "in"))
    assert group_folders.copy_images(images, np.zeros(5, int), tmp_path / "out") == 2
    copies = {path.name: path.read_bytes() for path in (tmp_path / "out" / "person_0001").iterdir()}
    assert sorted(copies) == [f"{'n' * 150}_2.png", "x.png", "x_1.png"]
    assert sorted(copies.values()) == sorted((tmp_path / "in" / path).read_bytes() for path in paths[:3])


def test_what_it_says():
    text = group_folders.describe(made(np.eye(4), pids=[1, 1, 2, -1]), np.array([0, 0, 1, 2]))
    assert text.startswith(
        "4 images: 1 group of two images or more, the largest of 2, and 2 images that are like no other"
    )
    assert text.endswith("against the 2 people known: BCubed P/R/F 1.000/1.000/1.000")


def test_where_it_does_not_write(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(errors.UserError, match="must be a new or an empty folder"):
        group.check_output(str(tmp_path / "full"), str(tmp_path))
    with pytest.raises(errors.UserError, match="must not lie in --source"):
        group.check_output(str(tmp_path / "full" / "new"), str(tmp_path / "full"))
    with pytest.raises(errors.UserError, match="is not there"):
        group.check_output(str(tmp_path / "none" / "new"), str(tmp_path))


def test_as_its_user_runs_it(prepared, people_folder, tmp_path):
    workdir = tiny_runs.write_run(tmp_path / "tiny", prepared)
    before = {path: hashlib.sha256(path.read_bytes()).digest() for path in people_folder.rglob("*.jpg")}
    common = [f"--model={workdir}", f"--source={people_folder}"]
    status, output, errors = finish(start_script("group", *common, f"--output={tmp_path / 'sorted'}", "--num_groups=4"))
    assert status == 0, errors
    assert "24 images: " in output and "people known" not in output  # a sub-folder may be anything
    rows = list(csv.DictReader(open(tmp_path / "sorted" / "groups.csv")))
    assert len(rows) == 24 and len({row["group"] for row in rows}) == 4
    for row in rows:
        copy = tmp_path / "sorted" / "people" / row["group"] / row["path"].partition("/")[2]
        assert copy.read_bytes() == (people_folder / row["path"]).read_bytes()
    assert sorted(path.name for path in (tmp_path / "sorted").iterdir()) == ["groups.csv", "groups.png", "people"]
    assert before == {path: hashlib.sha256(path.read_bytes()).digest() for path in people_folder.rglob("*.jpg")}
    assert not list(tmp_path.glob(".tmp*"))
