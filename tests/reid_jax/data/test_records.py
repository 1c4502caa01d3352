import dataclasses
import shutil

import numpy as np
import pytest
import tiny_data

from reid_jax import errors
from reid_jax.data import records as records_lib
from reid_jax.data_prep import prepare, writing


def test_in_path_order_with_verbatim_bytes(prepared):
    records = records_lib.load_records(prepared, "tiny")
    assert {split: len(items) for split, items in records.items()} == {"train": 24, "query": 4, "gallery": 24}
    train = records["train"]
    assert list(train.paths) == sorted(train.paths)
    for index in (0, 7, 23):
        name = train.paths[index].split("/")[-1]
        assert (train.pids[index], train.camids[index]) == (int(name[:4]), int(name[6]))
        source = prepared.parent / "source" / train.paths[index]
        assert train.encoded(index) == source.read_bytes()


def test_fingerprint_tells_splits_apart_and_is_stable(prepared):
    first, again = (records_lib.load_records(prepared, "tiny") for _ in range(2))
    assert first["train"].fingerprint == again["train"].fingerprint != first["gallery"].fingerprint


def test_errors(prepared, tmp_path):
    with pytest.raises(errors.UserError, match="no prepared data set 'shop' in '.*', which holds tiny; .*") as raised:
        records_lib.load_records(prepared, "shop")
    assert f"reid prepare --data_dir={prepared} and --dataset=shop --source=..., or " in str(raised.value)
    assert str(raised.value).endswith(" --dataset=folder --name=shop --source=...")
    with pytest.raises(errors.UserError, match="no prepared data set 'tiny' in '.*', which holds none; make it"):
        records_lib.load_records(tmp_path / "nowhere", "tiny")
    assert records_lib.find_dataset(tmp_path, "tiny") is None
    assert records_lib.find_dataset(prepared, "tiny").name == "1.0.0"
    assert records_lib.load_records(prepared, "tiny")["train"].tracklets.dtype == np.int64


def same(first: records_lib.Records, second: records_lib.Records) -> bool:
    names = [field.name for field in dataclasses.fields(first) if field.name != "_source"]
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in names)


@pytest.fixture
def own(prepared, tmp_path):
    """A copy of the prepared data set "tiny", to damage."""
    shutil.copytree(prepared / "tiny", tmp_path / "tiny")
    return tmp_path / "tiny" / "1.0.0"


def test_index_and_scan_give_the_same_records(own, monkeypatch):
    data_dir = own.parent.parent
    with monkeypatch.context() as patch:
        patch.setattr(records_lib, "_scan", None)
        by_index = records_lib.load_records(data_dir, "tiny")
    for split in by_index:
        (own / f"index_{split}.npz").unlink()
    by_scan = records_lib.load_records(data_dir, "tiny")
    assert set(by_scan) == set(by_index) == {"train", "query", "gallery"}
    for split, items in by_scan.items():
        assert same(by_index[split], items)
        assert [by_index[split].encoded(i) for i in range(len(items))] == [items.encoded(i) for i in range(len(items))]


def test_index_and_scan_agree_over_several_files_and_a_skipped_image(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "_CHUNK", 4)
    monkeypatch.setattr(writing, "_SHARD", 5)
    source = tiny_data.write_market_folder(tmp_path / "source")
    images = sorted((source / "bounding_box_train").iterdir())
    images[3].write_bytes(b"no image")
    prepare.prepare("market1501", source=source, data_dir=tmp_path, name="many", on_bad_image="skip", progress=False)
    by_index = records_lib.load_records(tmp_path, "many")["train"]
    (tmp_path / "many" / "1.0.0" / "index_train.npz").unlink()
    by_scan = records_lib.load_records(tmp_path, "many")["train"]
    assert same(by_index, by_scan)
    kept = images[:3] + images[4:]
    assert [by_index.encoded(i) for i in range(len(by_index))] == [image.read_bytes() for image in kept]


def test_examples_in_another_order_are_found_by_their_positions():
    labels, checksums = np.array([[1, 4, 7], [2, 5, 8], [3, 6, 9]]), np.array([10, 20, 30], np.uint32)
    index = records_lib.make_index(["b", "c", "a"], labels, checksums)
    assert index.paths.tolist() == ["a", "b", "c"]
    assert index.positions.tolist() == [2, 0, 1]
    assert (index.pids.tolist(), index.camids.tolist()) == ([3, 1, 2], [6, 4, 5])
    assert (index.tracklets.tolist(), index.checksums.tolist()) == ([9, 7, 8], [30, 10, 20])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pids": np.zeros(3, np.int64)}, r"pids in .*index_query.npz' must be \[4\] int64, .* it is \[3\] int64"),
        ({"camids": np.zeros((4, 1), np.int64)}, r"camids in .* must be \[4\] int64, .* it is \[4, 1\] int64"),
        ({"tracklets": np.zeros(4)}, r"tracklets in .* must be \[4\] int64, .* it is \[4\] float64"),
        ({"paths": np.zeros(4, np.int64)}, r"paths in .* must be \[4\] str_, .* it is \[4\] int64"),
        ({"positions": np.array([0, 1, 2, 4])}, r"positions in .* must be 0..3, each once; prepare it again"),
        ({"positions": np.array([0, 1, 1, 3])}, r"positions in .* must be 0..3, each once; prepare it again"),
        ({"checksums": None}, "index_query.npz' is no index of a split .*checksums.*; prepare it again"),
        ({"paths": np.array([None] * 4)}, "index_query.npz' is no index of a split .*allow_pickle.*; prepare it again"),
    ],
)
def test_index_that_does_not_fit_is_refused(own, changes, message):
    file = own / "index_query.npz"
    with np.load(file) as arrays:
        changed = dict(arrays) | changes
    np.savez(file, **{name: array for name, array in changed.items() if array is not None})
    with pytest.raises(errors.UserError, match=message):
        records_lib.load_records(own.parent.parent, "tiny")


@pytest.mark.parametrize("keep", [0, 10, -30])
def test_damaged_index_is_refused(own, keep):
    file = own / "index_query.npz"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(errors.UserError, match="index_query.npz' is no index of a split .*; prepare it again"):
        records_lib.load_records(own.parent.parent, "tiny")


def test_index_with_damaged_content_is_refused(own):
    file = own / "index_query.npz"
    data = bytearray(file.read_bytes())
    data[70] ^= 255
    file.write_bytes(data)
    with pytest.raises(errors.UserError, match="index_query.npz' is no index of a split .*; prepare it again"):
        records_lib.load_records(own.parent.parent, "tiny")


def test_joined_splits_share_no_identity_camera_or_tracklet(prepared):
    parts = [dataclasses.replace(records_lib.load_records(prepared, "tiny")["train"], dataset=name) for name in "ab"]
    pids = parts[1].pids.copy()
    pids[:2] = -1, 0
    parts[1] = dataclasses.replace(parts[1], pids=pids, tracklets=np.arange(24))
    joined = records_lib.join(parts)
    assert (joined.dataset, joined.split, len(joined)) == ("a+b", "train", 48)
    np.testing.assert_array_equal(joined.pids[:24], parts[0].pids)
    np.testing.assert_array_equal(joined.pids[24:26], [-1, 0])
    np.testing.assert_array_equal(joined.pids[26:], pids[2:] + 5)  # a has 1..4
    np.testing.assert_array_equal(joined.camids, np.concatenate([parts[0].camids, parts[1].camids + 3]))
    np.testing.assert_array_equal(joined.tracklets, np.concatenate([np.full(24, -1), np.arange(24)]))
    assert joined.paths[0] == f"a/{parts[0].paths[0]}" and joined.paths[47] == f"b/{parts[1].paths[23]}"
    for index in (0, 23, 24, 47):
        assert joined.encoded(index) == parts[0].encoded(index % 24)
    assert joined.fingerprint != records_lib.join(parts[::-1]).fingerprint
