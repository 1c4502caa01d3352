import io
import json
import pathlib
import sys

import h5py
import numpy as np
import pytest
import scipy.io
import tensorflow_datasets as tfds
from PIL import Image

from reid_jax import errors
from reid_jax.data_prep import catalog
from reid_jax.data_prep.readers import cifar10, coil100, cuhk03, dukemtmcreid, folder, listing, market1501, msmt17


def fill(root: pathlib.Path, *names: str) -> pathlib.Path:
    """Makes files; a reader does not look into images."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"image")
    return root


def source(root: pathlib.Path) -> listing.Source:
    scratch = root.parent / f"{root.name}-scratch"
    scratch.mkdir(exist_ok=True)
    return listing.Source(root, scratch, progress=False)


def labels(records: list[listing.Record]) -> set[tuple]:
    return {(r.split, r.path, r.pid, r.camid) for r in records}


MARKET = (
    "bounding_box_train/0002_c1s1_000451_03.jpg",
    "query/0001_c6s4_001051_00.jpg",
    "bounding_box_test/-1_c3s1_000401_03.jpg",
    "bounding_box_test/0000_c2s1_000076_02.jpg",
    "bounding_box_test/0001_c1s1_001051_03.jpg.jpg",
)
MARKET_LABELS = {
    ("train", MARKET[0], 2, 1),
    ("query", MARKET[1], 1, 6),
    ("gallery", MARKET[2], -1, 3),
    ("gallery", MARKET[3], 0, 2),
    ("gallery", MARKET[4], 1, 1),
}


def test_market1501_reads_labels_from_names(tmp_path):
    root = fill(tmp_path / "m", *MARKET, "query/Thumbs.db", "query/._0001_c6s4_001051_00.jpg", "gt_bbox/a.jpg")
    records = market1501.read(source(root))
    assert labels(records) == MARKET_LABELS
    assert all(r.tracklet == -1 and r.file.read_bytes() == b"image" for r in records)


def test_market1501_finds_its_top_folder(tmp_path):
    root = fill(tmp_path / "m" / "downloads" / "Market-1501-v15.09.15", *MARKET).parent.parent
    assert labels(market1501.read(source(root))) == MARKET_LABELS
    fill(tmp_path / "m" / "downloads" / "again", *MARKET)
    with pytest.raises(errors.UserError, match="several folders .*downloads/Market-1501-v15.09.15, downloads/again"):
        market1501.read(source(root))


def test_market1501_names_what_is_wrong(tmp_path):
    root = fill(tmp_path / "m", *MARKET[:2], "notes.txt")
    expected = "expected the folders bounding_box_train, query, bounding_box_test, found bounding_box_train/, notes.txt"
    with pytest.raises(errors.UserError, match=expected):
        market1501.read(source(root))
    (root / "bounding_box_test").mkdir()
    with pytest.raises(errors.UserError, match="bounding_box_test holds no images, found nothing: it is empty"):
        market1501.read(source(root))
    fill(root, "bounding_box_test/0001_c2_f0046182.jpg")
    message = "bounding_box_test/0001_c2_f0046182.jpg: the name must give .* like 0002_c1s1_000451_03.jpg"
    with pytest.raises(errors.UserError, match=message):
        market1501.read(source(root))
    (tmp_path / "empty").mkdir()
    with pytest.raises(errors.UserError, match="found nothing: it is empty"):
        market1501.read(source(tmp_path / "empty"))


def test_dukemtmcreid_reads_labels_from_names(tmp_path):
    names = ("bounding_box_train/0001_c2_f0046182.jpg", "query/0005_c8_f1.jpg", "bounding_box_test/7139_c5_f2.jpg")
    root = fill(tmp_path / "d", *names)
    expected = {("train", names[0], 1, 2), ("query", names[1], 5, 8), ("gallery", names[2], 7139, 5)}
    assert labels(dukemtmcreid.read(source(root))) == expected


NP = ("bounding_box_train/0003_c1_21.png", "query/0001_c2_6.png", "bounding_box_test/0001_c1_1.png")
NP_LABELS = {("train", NP[0], 3, 1), ("query", NP[1], 1, 2), ("gallery", NP[2], 1, 1)}


@pytest.mark.parametrize("labeled", ["labeled", "labelled"])
def test_cuhk03_np_keeps_detected_and_labelled_apart(tmp_path, labeled):
    root = fill(tmp_path / "cuhk03-np", *(f"detected/{name}" for name in NP))
    assert labels(cuhk03.read(source(root), boxes="detected")) == NP_LABELS
    assert labels(cuhk03.read(source(root / "detected"), boxes="detected")) == NP_LABELS
    for given in (root, root / "detected"):
        with pytest.raises(errors.UserError, match="expected labeled/ with the folders bounding_box_train"):
            cuhk03.read(source(given), boxes="labeled")
    fill(root, *(f"{labeled}/{name}" for name in NP), f"{labeled}/query/0009_c2_6.png")
    assert len(cuhk03.read(source(root), boxes="labeled")) == 4
    assert len(cuhk03.read(source(root), boxes="detected")) == 3


def write_cuhk03_mat(path: pathlib.Path, images: dict[str, np.ndarray]) -> None:
    """Lays images out like MATLAB: file[boxes] -> 5 camera pairs -> cells [10, persons] -> [3, W, H]."""
    with h5py.File(path, "w") as file:
        store = file.create_group("#refs#")
        empty = store.create_dataset("empty", data=np.zeros(2, np.uint64)).ref
        pairs = np.empty((1, 5), h5py.ref_dtype)
        for pair in range(5):
            cells = np.empty((10, 3), h5py.ref_dtype)
            cells[:] = empty
            for name, image in images.items():
                its_pair, person, _, index = (int(part) for part in name.removesuffix(".png").split("_"))
                if its_pair == pair + 1:
                    cells[index - 1, person - 1] = store.create_dataset(name, data=image.T).ref
            pairs[0, pair] = store.create_dataset(f"pair{pair}", data=cells, dtype=h5py.ref_dtype).ref
        file.create_dataset("detected", data=pairs, dtype=h5py.ref_dtype)


def write_protocol(path: pathlib.Path, names: list[str], **changes) -> None:
    filelist = np.empty((len(names), 1), object)
    filelist[:, 0] = names
    content = {
        "filelist": filelist,
        "labels": np.array([[7], [9], [9]], np.uint16),
        "train_idx": [[1]],
        "query_idx": [[3]],
        "gallery_idx": [[2]],
    } | changes
    scipy.io.savemat(path, {key: value for key, value in content.items() if value is not None})


@pytest.fixture
def cuhk03_mat(tmp_path):
    rng = np.random.default_rng(0)
    names = ["1_002_1_01.png", "5_001_1_03.png", "5_001_2_06.png"]
    images = {name: rng.integers(0, 256, (9 + i, 5, 3), np.uint8) for i, name in enumerate(names)}
    (tmp_path / "c" / "cuhk03_release").mkdir(parents=True)
    write_cuhk03_mat(tmp_path / "c" / "cuhk03_release" / "cuhk-03.mat", images)
    write_protocol(tmp_path / "c" / "cuhk03_new_protocol_config_detected.mat", names)
    return tmp_path / "c", images


def test_cuhk03_mat_stores_the_arrays_exactly(cuhk03_mat):
    root, images = cuhk03_mat
    records = cuhk03.read(source(root), boxes="detected")
    assert labels(records) == {
        ("train", "detected/1_002_1_01.png", 7, 1),
        ("gallery", "detected/5_001_1_03.png", 9, 1),
        ("query", "detected/5_001_2_06.png", 9, 2),
    }
    for record in records:
        with Image.open(record.file) as image:
            np.testing.assert_array_equal(np.asarray(image), images[record.file.name])


def test_cuhk03_mat_names_what_is_wrong(cuhk03_mat, monkeypatch):
    root, _ = cuhk03_mat
    config = root / "cuhk03_new_protocol_config_detected.mat"
    write_protocol(config, ["1_002_1_01.png", "5_001_1_03.png", "5_002_2_06.png"])
    with pytest.raises(errors.UserError, match="the detected image 5_002_2_06.png is empty"):
        cuhk03.read(source(root), boxes="detected")
    write_protocol(config, ["1_002_1_01.png", "5_001_1_03.png", "5_999_2_06.png"])
    with pytest.raises(errors.UserError, match="has no detected image 5_999_2_06.png"):
        cuhk03.read(source(root), boxes="detected")
    write_protocol(config, ["1.png"] * 3)
    with pytest.raises(errors.UserError, match="names '1.png', expected names like 1_001_1_01.png"):
        cuhk03.read(source(root), boxes="detected")
    write_protocol(config, ["1_002_1_01.png"] * 3, query_idx=None)
    with pytest.raises(errors.UserError, match="must be a MATLAB file with filelist, labels, .*query_idx"):
        cuhk03.read(source(root), boxes="detected")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "h5py", None)
        write_protocol(config, ["1_002_1_01.png"] * 3)
        with pytest.raises(errors.UserError, match=r"needs h5py, the extra \[cuhk03\]"):
            cuhk03.read(source(root), boxes="detected")
    (root / "cuhk03_release" / "cuhk-03.mat").write_bytes(b"nonsense")
    with pytest.raises(errors.UserError, match="cuhk-03.mat is no readable HDF5 file"):
        cuhk03.read(source(root), boxes="detected")
    config.unlink()
    with pytest.raises(errors.UserError, match="expected cuhk03_new_protocol_config_detected.mat beside cuhk-03.mat"):
        cuhk03.read(source(root), boxes="detected")


def write_msmt17(root: pathlib.Path, train: str, test: str) -> pathlib.Path:
    lists = {
        "list_train.txt": (train, "0000/0000_000_01_0303morning_0008_0.jpg 0"),
        "list_val.txt": (train, "1040/1040_000_15_0303noon_0008_1.jpg 1040"),
        "list_query.txt": (test, "0000/0000_000_07_0303morning_0008_0.jpg 0"),
        "list_gallery.txt": (test, "0000/0000_001_08_0303morning_0008_0.jpg 0"),
    }
    for name, (images, line) in lists.items():
        fill(root, f"{images}/{line.split()[0]}")
        (root / name).write_text(line + "\n\n")
    return root


@pytest.mark.parametrize(("train", "test"), [("train", "test"), ("mask_train_v2", "mask_test_v2")])
def test_msmt17_joins_train_and_val_and_numbers_from_one(tmp_path, train, test):
    write_msmt17(tmp_path / "s" / "MSMT17", train, test)
    assert labels(msmt17.read(source(tmp_path / "s"))) == {
        ("train", f"{train}/0000/0000_000_01_0303morning_0008_0.jpg", 1, 1),
        ("train", f"{train}/1040/1040_000_15_0303noon_0008_1.jpg", 1041, 15),
        ("query", f"{test}/0000/0000_000_07_0303morning_0008_0.jpg", 1, 7),
        ("gallery", f"{test}/0000/0000_001_08_0303morning_0008_0.jpg", 1, 8),
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0000/0000_000_01_x_1_0.jpg", "list_val.txt line 1: .* must be like"),
        ("0000/0000_000_01_x_1_0.jpg a", "list_val.txt line 1: .* must be like"),
        ("0000/0000-000.jpg 3", "list_val.txt line 1: .* must be like"),
        ("../test/0000_000_01_x_1_0.jpg 3", "line 1: '../test/.*' must lie inside train/"),
        ("/0000_000_01_x_1_0.jpg 3", "must lie inside train/"),
        ("0000/0000_000_01_x_1_0.jpg 3", "line 1: there is no image train/0000/0000_000_01_x_1_0.jpg"),
    ],
)
def test_msmt17_names_what_is_wrong_with_a_line(tmp_path, line, message):
    root = write_msmt17(tmp_path / "s", "train", "test")
    (root / "list_val.txt").write_text(line)
    with pytest.raises(errors.UserError, match=message):
        msmt17.read(source(root))


def test_msmt17_refuses_another_layout(tmp_path):
    root = write_msmt17(tmp_path / "s", "train", "mask_test_v2")
    with pytest.raises(errors.UserError, match="list_gallery.txt beside the folders train/, test/ or mask_train_v2/"):
        msmt17.read(source(root))


def test_coil100_splits_by_object_and_angle(tmp_path):
    root = fill(tmp_path / "c", *(f"coil-100/obj{o}__{d}.png" for o in (1, 2) for d in range(0, 360, 5)))
    records = coil100.read(source(root))
    by_path = {record.path: record for record in records}
    assert len(records) == 144
    assert {r.pid for r in records if r.split == "train"} == {1}
    assert sorted((r.path, r.camid) for r in records if r.split == "query") == [
        ("obj2__135.png", 2), ("obj2__225.png", 3), ("obj2__315.png", 4), ("obj2__45.png", 1),
    ]  # fmt: skip
    assert sum(r.split == "gallery" for r in records) == 68
    angles = (0, 85, 90, 175, 180, 265, 270, 355)
    assert [by_path[f"obj1__{angle}.png"].camid for angle in angles] == [1, 1, 2, 2, 3, 3, 4, 4]


def test_coil100_reads_the_market_layout_and_refuses_others(tmp_path):
    assert labels(coil100.read(source(fill(tmp_path / "m", *MARKET)))) == MARKET_LABELS
    for name in ("obj1__360.png", "obj101__5.png", "obj0__5.png", "cat.png"):
        root = fill(tmp_path / name, "obj1__0.png", name)
        with pytest.raises(errors.UserError, match=f"{name}: the name must be obj1__0.png to obj100__355.png"):
            coil100.read(source(root))


@pytest.fixture
def cifar10_images():
    """Twelve images [12, 32, 32, 3] and their classes."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (12, 32, 32, 3), np.uint8), rng.permutation(np.arange(12) % 10).astype(np.uint8)


def write_cifar10(root: pathlib.Path, images: np.ndarray, classes: np.ndarray) -> pathlib.Path:
    """The binary version: two images in each of the six files."""
    root.mkdir(parents=True)
    records = np.concatenate([classes[:, None], images.transpose(0, 3, 1, 2).reshape(12, -1)], axis=1)
    for number, name in enumerate([f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]):
        (root / name).write_bytes(records[2 * number : 2 * number + 2].tobytes())
    return root


def write_cifar10_tfds(root: pathlib.Path, images: np.ndarray, classes: np.ndarray, **changes) -> pathlib.Path:
    """The same images as a TFDS data set, ten for training."""
    options = {"name": "cifar10", "file_format": "array_record", "size": 32} | changes
    root.mkdir(parents=True)
    features = tfds.features.FeaturesDict(
        {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(options["size"],) * 2 + (3,)),
            "label": tfds.features.ClassLabel(num_classes=10),
        }
    )
    identity = tfds.core.DatasetIdentity(
        name=options["name"], version=tfds.core.Version("3.0.2"), data_dir=str(root), module_name="tests"
    )
    info = tfds.core.DatasetInfo(builder=identity, features=features, disable_shuffling=True)
    writer = tfds.core.SequentialWriter(info, max_examples_per_shard=100, file_format=options["file_format"])
    examples = []
    for index, (image, label) in enumerate(zip(images, classes, strict=True)):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        examples.append({"id": str(index), "image": buffer.getvalue(), "label": int(label)})
    writer.initialize_splits(["train", "test"])
    writer.add_examples({"train": examples[:10], "test": examples[10:]})
    writer.close_all()
    return root


def check_cifar10(records: list[listing.Record], images: np.ndarray, classes: np.ndarray) -> None:
    by_split = {split: [r for r in records if r.split == split] for split in listing.SPLITS}
    assert {split: len(chosen) for split, chosen in by_split.items()} == {"train": 10, "query": 2, "gallery": 10}
    assert [r.path for r in by_split["train"]] == [r.path for r in by_split["gallery"]]
    assert by_split["query"][1].path == "test/00001.png"
    for record, image, label in zip(by_split["gallery"] + by_split["query"], images, classes, strict=True):
        assert (record.pid, record.camid, record.tracklet) == (label + 1, -1, -1)
        with Image.open(record.file) as stored:
            assert (stored.format, stored.mode) == ("PNG", "RGB")
            np.testing.assert_array_equal(np.asarray(stored), image)


def test_cifar10_binary_version(tmp_path, cifar10_images):
    root = write_cifar10(tmp_path / "c" / "cifar-10-batches-bin", *cifar10_images).parent
    check_cifar10(cifar10.read(source(root)), *cifar10_images)


def test_cifar10_tfds_data_set(tmp_path, cifar10_images):
    root = write_cifar10_tfds(tmp_path / "c" / "cifar10" / "3.0.2", *cifar10_images).parent.parent
    check_cifar10(cifar10.read(source(root)), *cifar10_images)
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("data_batch_3.bin", bytes(3073 + 3072), "data_batch_3.bin has 6145 bytes, it must hold whole images of 3073"),
        ("test_batch.bin", b"", "test_batch.bin has 0 bytes, it must hold whole images"),
        ("data_batch_2.bin", None, "data_batch_2.bin is missing beside data_batch_1.bin"),
        ("test_batch.bin", b"\x0a" + bytes(3072), "image 0 of test is of class 10, it must be 0..9"),
    ],
)
def test_cifar10_names_what_is_wrong_with_a_file(tmp_path, cifar10_images, name, data, message):
    root = write_cifar10(tmp_path / "c", *cifar10_images)
    (root / name).unlink()
    if data is not None:
        (root / name).write_bytes(data)
    with pytest.raises(errors.UserError, match=message):
        cifar10.read(source(root))


def test_cifar10_never_reads_pickles(tmp_path):
    root = fill(tmp_path / "c", "cifar-10-batches-py/data_batch_1", "cifar-10-batches-py/test_batch")
    with pytest.raises(
        errors.UserError, match="data_batch_1 is CIFAR-10's python version, .*; give the binary version"
    ):
        cifar10.read(source(root))
    with pytest.raises(errors.UserError, match="expected data_batch_1.bin to .*, found nothing: it is empty"):
        (tmp_path / "empty").mkdir()
        cifar10.read(source(tmp_path / "empty"))


def test_cifar10_refuses_other_tfds_data_sets(tmp_path, cifar10_images):
    images, classes = cifar10_images
    other = write_cifar10_tfds(tmp_path / "a", images, classes, name="cifar100")
    with pytest.raises(errors.UserError, match="must be cifar10 with the splits train and test, it is cifar100 with"):
        cifar10.read(source(other))
    small = write_cifar10_tfds(tmp_path / "b", images[:, :16, :16], classes, size=16)
    with pytest.raises(errors.UserError, match=r"image 0 of train must be \[32, 32, 3\], it is \[16, 16, 3\]"):
        cifar10.read(source(small))
    tfrecord = write_cifar10_tfds(tmp_path / "d", images, classes)
    info = json.loads((tfrecord / "dataset_info.json").read_text())
    text = json.dumps(info).replace("array_record", "tfrecord")
    (tfrecord / "dataset_info.json").write_text(text)
    with pytest.raises(errors.UserError, match="is in tfrecord files, which need TensorFlow .*'array_record'"):
        cifar10.read(source(tfrecord))


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"name": 3}', '{"name": "cifar10"}'])
def test_cifar10_refuses_a_damaged_tfds_data_set(tmp_path, cifar10_images, text):
    root = write_cifar10_tfds(tmp_path / "c", *cifar10_images)
    (root / "dataset_info.json").write_text(text)
    with pytest.raises(errors.UserError, match="TFDS data set"):
        cifar10.read(source(root))


def test_folder_without_structure_is_unlabelled_training_data(tmp_path):
    root = fill(tmp_path / "f", "b.JPG", "a.png", "c.webp", "notes.txt", ".hidden.jpg")
    records = folder.read(source(root))
    assert labels(records) == {("train", name, -1, -1) for name in ("a.png", "b.JPG", "c.webp")}


def test_folder_numbers_identities_by_sorted_name(tmp_path):
    root = fill(tmp_path / "f", "zoe/1.jpg", "alice/1.jpg", "alice/day2/1.jpg", "empty/readme.txt")
    assert labels(folder.read(source(root))) == {
        ("train", "alice/1.jpg", 1, -1),
        ("train", "alice/day2/1.jpg", 1, -1),
        ("train", "zoe/1.jpg", 2, -1),
    }


def test_folder_splits_share_their_identities(tmp_path):
    root = fill(tmp_path / "f", "train/1.jpg", "query/b/c2_1.jpg", "gallery/b/c3_1.jpg", "gallery/a/c14_1.jpg")
    assert labels(folder.read(source(root))) == {
        ("train", "train/1.jpg", -1, -1),
        ("query", "query/b/c2_1.jpg", 2, -1),
        ("gallery", "gallery/b/c3_1.jpg", 2, -1),
        ("gallery", "gallery/a/c14_1.jpg", 1, -1),
    }
    (root / "train" / "1.jpg").rename(root / "train" / "c0_1.jpg")
    camids = {r.path: r.camid for r in folder.read(source(root), camid_from=r"c(\d+)_")}
    assert camids["gallery/a/c14_1.jpg"] == 14
    assert camids["train/c0_1.jpg"] == 0


def test_split_folders_may_be_in_capitals(tmp_path):
    root = fill(tmp_path / "f", "Train/1.jpg", "QUERY/b/1.jpg", "gallery/b/2.jpg", "gallery/Query/1.jpg")
    assert labels(folder.read(source(root))) == {
        ("train", "Train/1.jpg", -1, -1),
        ("query", "QUERY/b/1.jpg", 2, -1),
        ("gallery", "gallery/b/2.jpg", 2, -1),
        ("gallery", "gallery/Query/1.jpg", 1, -1),
    }
    fill(root, "extra/1.jpg")
    with pytest.raises(errors.UserError, match="extra/ lies beside Train/, QUERY/, gallery/; with such folders"):
        folder.read(source(root))
    fill(root, "train/2.jpg")
    with pytest.raises(errors.UserError, match="Train/ and train/ are both the split train; there must be one"):
        folder.read(source(root))


def test_folder_follows_links_to_folders(tmp_path):
    root = fill(tmp_path / "f", "ann/1.jpg")
    fill(tmp_path / "elsewhere", "day/2.jpg")
    (root / "ann" / "more").symlink_to(tmp_path / "elsewhere")
    (root / "bob").symlink_to(tmp_path / "elsewhere" / "day")
    (root / "ann" / "back").symlink_to(root)
    assert labels(folder.read(source(root))) == {
        ("train", "ann/1.jpg", 1, -1),
        ("train", "ann/more/day/2.jpg", 1, -1),
        ("train", "bob/2.jpg", 2, -1),
    }


def test_folder_refuses_mixtures(tmp_path):
    root = fill(tmp_path / "f", "alice/1.jpg", "2.jpg")
    with pytest.raises(errors.UserError, match=r"holds both images \(2.jpg\) and identity folders \(alice/\)"):
        folder.read(source(root))
    (root / "train").mkdir()
    with pytest.raises(errors.UserError, match="alice/ lies beside train/; .* every image must be in one of them"):
        folder.read(source(root))


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("c(", "'c\\(' is no regular expression"),
        ("c[0-9]", "must have exactly one group, it has 0"),
        (r"x(\d+)", "finds no camera number in 'c1.jpg'"),
        ("(c)", "finds no camera number in 'c1.jpg'"),
    ],
)
def test_folder_refuses_bad_camera_patterns(tmp_path, pattern, message):
    with pytest.raises(errors.UserError, match=message):
        folder.read(source(fill(tmp_path / "f", "c1.jpg")), camid_from=pattern)


def test_csv_index_gives_every_label(tmp_path):
    root = fill(tmp_path / "f", "x/a.jpg", "b c.jpg", "unlisted.jpg")
    rows = "\ufeffsplit,path,camid,pid,tracklet\r\nquery,x/a.jpg,3,17,4\r\n,b c.jpg,,-1,\r\n"
    (root / "index.csv").write_bytes(rows.encode())
    records = folder.read(source(root))
    assert labels(records) == {("query", "x/a.jpg", 17, 3), ("train", "b c.jpg", -1, -1)}
    assert [r.tracklet for r in records] == [4, -1]


def test_csv_index_may_lie_elsewhere_and_needs_only_paths(tmp_path):
    root = fill(tmp_path / "f", "a.jpg", "b.jpg")
    (tmp_path / "mine.csv").write_text("path\na.jpg\n")
    (root / "other.csv").write_text("path\nb.jpg\n")
    assert labels(folder.read(source(root), csv=str(tmp_path / "mine.csv"))) == {("train", "a.jpg", -1, -1)}
    assert labels(folder.read(source(root), csv="other.csv")) == {("train", "b.jpg", -1, -1)}
    with pytest.raises(errors.UserError, match="--csv: there is no file 'none.csv'"):
        folder.read(source(root), csv="none.csv")
    with pytest.raises(errors.UserError, match="--camid_from: other.csv is used"):
        folder.read(source(root), csv="other.csv", camid_from=r"(\d)")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,pid\na.jpg,1\n", "index.csv must have a column 'path', found 'file', 'pid'"),
        ("", "must have a column 'path', found none"),
        ("path,pids\na.jpg,1\n", "may have the columns path, pid, .*, each once, found 'path', 'pids'"),
        ("path,pid,pid\na.jpg,1,1\n", "each once"),
        ("path,camid\na.jpg,front\n", "line 2: camid is 'front', it must be a whole number"),
        ("path,pid\na.jpg,1.5\n", "line 2: pid is '1.5', it must be a whole number"),
        ("path,pid\na.jpg,-2\n", "line 2: pid is -2, it must be at least -1"),
        ("path,pid\na.jpg,9223372036854775808\n", "below 2\\*\\*63"),
        ("path,split\na.jpg,test\n", "line 2: split is 'test', it must be one of train, query, gallery"),
        ("path\n../a.jpg\n", "line 2: the path '../a.jpg' must lie inside the source folder"),
        ("path\n/etc/passwd\n", "must lie inside the source folder"),
        ('path\n""\n', "must lie inside the source folder"),
        ("path\nb.jpg\n", "line 2: there is no image 'b.jpg' in the source folder"),
        ("path\na.jpg\n./a.jpg\n", "line 3: 'a.jpg' is listed twice, first in line 2"),
        ("path,pid\na.jpg\n", "line 2: the row must have as many cells"),
        ("path\na.jpg,1\n", "line 2: the row must have as many cells"),
        ("path\n", "index.csv lists no images"),
        ('path\n"a.jpg\n', "index.csv is no UTF-8 CSV file"),
        (b"path\n\xff\xfe.jpg\n", "index.csv is no UTF-8 CSV file"),
    ],
)
def test_csv_index_names_line_and_rule(tmp_path, text, message):
    root = fill(tmp_path / "f", "a.jpg")
    (root / "index.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(errors.UserError, match=message):
        folder.read(source(root))


def test_listing_refuses_names_that_are_not_utf8(tmp_path):
    (tmp_path / "f").mkdir()
    with open(bytes(tmp_path / "f") + b"/\xff.jpg", "wb"):
        pass
    with pytest.raises(errors.UserError, match=r"xff.jpg' is not UTF-8"):
        folder.read(source(tmp_path / "f"))


def make_records(counts: dict[str, int], num_ids: int, num_cameras: int) -> list[listing.Record]:
    return [
        listing.Record(split, str(i), 1 + i % num_ids, 1 + i % num_cameras, -1, pathlib.Path())
        for split, count in counts.items()
        for i in range(count)
    ]


def test_differences_name_both_numbers():
    published = catalog.Published(train=12, query=3, gallery=4, train_ids=5, cameras=6)
    assert catalog.differences(published, make_records({"train": 12, "query": 3, "gallery": 4}, 5, 6)) == []
    assert catalog.differences(published, make_records({"train": 11, "query": 3}, 4, 6)) == [
        "11 train images, the published data set has 12",
        "0 gallery images, the published data set has 4",
        "4 training identities, the published data set has 5",
    ]


def test_summary_counts_neither_junk_nor_distractors(tmp_path):
    summary = catalog.summarize(market1501.read(source(fill(tmp_path / "m", *MARKET))))
    assert summary == {
        "train": {"images": 1, "identities": 1, "cameras": 1},
        "query": {"images": 1, "identities": 1, "cameras": 1},
        "gallery": {"images": 3, "identities": 1, "cameras": 3},
    }


@pytest.mark.parametrize(
    ("dataset", "published"),
    [
        ("market1501", (12936, 3368, 19732, 751, 6)),
        ("dukemtmcreid", (16522, 2228, 17661, 702, 8)),
        ("cuhk03", (7365, 1400, 5332, 767, 2)),
        ("msmt17", (32621, 11659, 82161, 1041, 15)),
        ("cifar10", (50000, 10000, 50000, 10, 0)),
    ],
)
def test_published_sizes(dataset, published):
    assert catalog.DATASETS[dataset].published == published
