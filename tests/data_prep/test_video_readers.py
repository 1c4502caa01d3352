"""Readers of data sets whose images are frames of tracklets."""

import pathlib

import numpy as np
import pytest
import scipy.io

from reid_jax import errors
from reid_jax.data_prep import catalog
from reid_jax.data_prep.readers import dukemtmc_videoreid, folder, listing, mars


def fill(root: pathlib.Path, *names: str) -> pathlib.Path:
    """Makes files; a reader does not look into images."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"image")
    return root


def source(root: pathlib.Path) -> listing.Source:
    return listing.Source(root, root.parent, progress=False)


def tracklets(records: list[listing.Record]) -> dict[tuple, list[str]]:
    """(split, tracklet, pid, camid) -> the frames' file names, in the records' order."""
    found: dict[tuple, list[str]] = {}
    for record in records:
        found.setdefault((record.split, record.tracklet, record.pid, record.camid), []).append(record.file.name)
    return found


def test_tracklets_are_numbered_by_their_first_path_in_each_split():
    def record(split: str, path: str) -> listing.Record:
        return listing.Record(split, path, 1, 1, -1, pathlib.Path(path))

    given = [[record("train", "c"), record("train", "a")], [record("query", "z")], [record("train", "b")]]
    numbered = listing.number_tracklets(given)
    assert [(r.path, r.tracklet) for r in numbered] == [("a", 0), ("c", 0), ("b", 1), ("z", 0)]


# MARS: in the matrices' order, neither that of the paths nor that of the splits.
TRAIN_NAMES = ["0003C2T0001F001.jpg", "0003C2T0001F002.jpg", "0001C1T0001F001.jpg"]
TRAIN_MATRIX = [[1, 2, 3, 2], [3, 3, 1, 1]]
TEST_NAMES = [
    "00-1C1T0001F001.jpg", "0000C4T0001F001.jpg", "0002C1T0002F001.jpg", "0002C1T0002F002.jpg",
    "0002C1T0001F001.jpg", "0002C6T0001F001.jpg",
]  # fmt: skip
TEST_MATRIX = [[1, 1, -1, 1], [2, 2, 0, 4], [3, 4, 2, 1], [5, 5, 2, 1], [6, 6, 2, 6]]
MARS = {
    ("train", 0, 1, 1): ["0001C1T0001F001.jpg"],
    ("train", 1, 3, 2): ["0003C2T0001F001.jpg", "0003C2T0001F002.jpg"],
    ("query", 0, 2, 1): ["0002C1T0001F001.jpg"],
    ("gallery", 0, 0, 4): ["0000C4T0001F001.jpg"],
    ("gallery", 1, 2, 1): ["0002C1T0002F001.jpg", "0002C1T0002F002.jpg"],
    ("gallery", 2, 2, 6): ["0002C6T0001F001.jpg"],
}


def write_mars(root: pathlib.Path, *, info: str = "info") -> pathlib.Path:
    fill(root, *(f"bbox_train/{name[:4]}/{name}" for name in TRAIN_NAMES))
    fill(root, *(f"bbox_test/{name[:4]}/{name}" for name in TEST_NAMES))
    (root / info).mkdir(parents=True)
    (root / info / "train_name.txt").write_text("\n".join(TRAIN_NAMES) + "\n")
    (root / info / "test_name.txt").write_text("\r\n".join(TEST_NAMES) + "\r\n")
    # MATLAB's numbers are floating-point unless they were made integers.
    scipy.io.savemat(root / info / "tracks_train_info.mat", {"track_train_info": np.array(TRAIN_MATRIX, float)})
    scipy.io.savemat(root / info / "tracks_test_info.mat", {"track_test_info": np.array(TEST_MATRIX, np.int16)})
    scipy.io.savemat(root / info / "query_IDX.mat", {"query_IDX": np.array([[4]])})
    return root


@pytest.mark.parametrize("info", ["info", "MARS-evaluation-master/info"])
def test_mars_without_junk(tmp_path, info):
    records = mars.read(source(write_mars(tmp_path / "m" / "MARS", info=info).parent))
    assert tracklets(records) == MARS
    by_name = {record.file.name: record for record in records}
    assert by_name["0000C4T0001F001.jpg"].path == "bbox_test/0000/0000C4T0001F001.jpg"
    assert all(record.file.is_file() for record in records)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([4, 3, 2, 1], "tracks_test_info.mat tracklet 3 has no frames: it begins with line 4 and ends with line 3"),
        ([3, 7, 2, 1], "tracks_test_info.mat tracklet 3 has lines 3 to 7, test_name.txt has 1 to 6"),
        ([0, 3, 2, 1], "tracks_test_info.mat tracklet 3 has lines 0 to 3, test_name.txt has 1 to 6"),
        ([3, 4, 1, 1], "tracklet 3 is identity 1 in camera 1, its frame 0002C1T0002F001.jpg in test_name.txt is not"),
        ([3, 4, 2, 2], "tracklet 3 is identity 2 in camera 2, its frame 0002C1T0002F001.jpg in test_name.txt is not"),
        ([4, 6, 2, 1], "tracklet 3 is identity 2 in camera 1, its frame 0002C6T0001F001.jpg in test_name.txt is not"),
        ([1, 1, 2, 1], "tracklet 3 is identity 2 in camera 1, its frame 00-1C1T0001F001.jpg in test_name.txt is not"),
    ],
)
def test_mars_names_tracklet_and_file(tmp_path, row, message):
    root = write_mars(tmp_path / "m")
    matrix = TEST_MATRIX[:2] + [row] + TEST_MATRIX[3:]
    scipy.io.savemat(root / "info" / "tracks_test_info.mat", {"track_test_info": matrix})
    with pytest.raises(errors.UserError, match=message):
        mars.read(source(root))


def test_mars_names_a_missing_or_misnamed_frame(tmp_path):
    root = write_mars(tmp_path / "m")
    (root / "bbox_train" / "0003" / "0003C2T0001F002.jpg").unlink()
    message = "tracks_train_info.mat tracklet 1: there is no image bbox_train/0003/0003C2T0001F002.jpg"
    with pytest.raises(errors.UserError, match=message):
        mars.read(source(root))
    (root / "info" / "train_name.txt").write_text("\n".join(["a.jpg", *TRAIN_NAMES[1:]]))
    message = "tracks_train_info.mat tracklet 1: 'a.jpg' in train_name.txt must be like 0001C1T0001F001.jpg"
    with pytest.raises(errors.UserError, match=message):
        mars.read(source(root))


@pytest.mark.parametrize("name", ["test_name.txt", "tracks_train_info.mat", "tracks_test_info.mat", "query_IDX.mat"])
def test_mars_names_a_missing_file(tmp_path, name):
    root = write_mars(tmp_path / "m")
    (root / "info" / name).unlink()
    with pytest.raises(errors.UserError, match=f"--source: info/{name} is missing"):
        mars.read(source(root))


def test_mars_refuses_another_layout(tmp_path):
    root = write_mars(tmp_path / "m")
    (root / "info" / "train_name.txt").unlink()
    with pytest.raises(errors.UserError, match="expected info/train_name.txt, .* found bbox_test/, bbox_train/, info/"):
        mars.read(source(root))
    (root / "bbox_test").rename(root / "test")
    with pytest.raises(errors.UserError, match="expected the folders bbox_train, bbox_test, found bbox_train/"):
        mars.read(source(root))


@pytest.mark.parametrize("data", [b"", b"no MATLAB file", b"MATLAB 5.0" + bytes(300)])
def test_mars_names_a_damaged_matrix(tmp_path, data):
    root = write_mars(tmp_path / "m")
    (root / "info" / "tracks_train_info.mat").write_bytes(data)
    message = "tracks_train_info.mat must be a MATLAB file with track_train_info: "
    with pytest.raises(errors.UserError, match=message):
        mars.read(source(root))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tracks_train_info.mat", {"x": 1}, "tracks_train_info.mat must be a MATLAB file with track_train_info"),
        ("tracks_train_info.mat", {"track_train_info": [[1, 2, 3]]}, r"track_train_info must be \[T, 4\], it is"),
        ("tracks_train_info.mat", {"track_train_info": [[1.5, 2, 3, 2]]}, "holds a number that is not whole"),
        ("query_IDX.mat", {"query_IDX": [[4, 6]]}, "query_IDX.mat names the test tracklet 6, tracks_.* has 1 to 5"),
        ("query_IDX.mat", {"query_IDX": [[0]]}, "query_IDX.mat names the test tracklet 0, tracks_.* has 1 to 5"),
    ],
)
def test_mars_refuses_other_matrices(tmp_path, name, content, message):
    root = write_mars(tmp_path / "m")
    scipy.io.savemat(root / "info" / name, content)
    with pytest.raises(errors.UserError, match=message):
        mars.read(source(root))


DUKE = (
    "train/0001/0001/0001_C6_F0001_X30823.jpg",
    "train/0001/0001/0001_C6_F0002_X30835.jpg",
    "train/0001/0002/0001_C7_F0001_X40000.jpg",
    "query/0005/0001/0005_C1_F0001_X00010.jpg",
    "gallery/0000/0001/0000_C8_F0001_X00020.jpg",
    "gallery/0005/0003/0005C2F0001X00020.jpg",
)
DUKE_TRACKLETS = {
    ("train", 0, 1, 6): ["0001_C6_F0001_X30823.jpg", "0001_C6_F0002_X30835.jpg"],
    ("train", 1, 1, 7): ["0001_C7_F0001_X40000.jpg"],
    ("query", 0, 5, 1): ["0005_C1_F0001_X00010.jpg"],
    ("gallery", 0, 0, 8): ["0000_C8_F0001_X00020.jpg"],
    ("gallery", 1, 5, 2): ["0005C2F0001X00020.jpg"],
}


def test_dukemtmc_videoreid_with_either_kind_of_names(tmp_path):
    root = fill(tmp_path / "d" / "DukeMTMC-VideoReID", *DUKE, "train/0001/0001/notes.txt")
    records = dukemtmc_videoreid.read(source(root.parent))
    assert tracklets(records) == DUKE_TRACKLETS
    assert records[0].path == "gallery/0000/0001/0000_C8_F0001_X00020.jpg"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("train/0001/0003/notes.txt", "the tracklet train/0001/0003/ has no frames, found notes.txt"),
        ("train/0001/0002/deep/0001_C7_F0002_X40001.jpg", "the tracklet train/0001/0002/ holds the folder deep/, not"),
        ("train/0002/notes.txt", "train/0002/ holds no tracklet folders, found notes.txt"),
        ("train/0001/a.jpg", "train/0001/ holds the image a.jpg, it must hold tracklet folders only"),
        ("train/a.jpg", "train/ holds the image a.jpg, it must hold identity folders only"),
        ("train/0001/0002/0001_c7_1.jpg", "train/0001/0002/0001_c7_1.jpg: the name must give .* 0001_C6_F0001_X30"),
        ("train/0001/0002/0002_C7_F0002_X1.jpg", "0002_C7_F0002_X1.jpg: the name gives identity 2, its folder another"),
        ("train/ann/0002/0002_C7_F0002_X1.jpg", "0002_C7_F0002_X1.jpg: the name gives identity 2, its folder another"),
        (
            "train/0001/0002/0001_C6_F0002_X1.jpg",
            "tracklet train/0001/0002/ has frames of several cameras, 0001_C6_F0002_X1.jpg and 0001_C7_F0001_X40000",
        ),
    ],
)
def test_dukemtmc_videoreid_names_what_is_wrong(tmp_path, name, message):
    root = fill(tmp_path / "d", *DUKE, name)
    with pytest.raises(errors.UserError, match=message):
        dukemtmc_videoreid.read(source(root))


def test_dukemtmc_videoreid_refuses_another_layout(tmp_path):
    root = fill(tmp_path / "d", *DUKE[:3])
    with pytest.raises(errors.UserError, match="expected the folders train, query, gallery, found train/"):
        dukemtmc_videoreid.read(source(root))
    fill(root, DUKE[3])
    (root / "gallery").mkdir()
    with pytest.raises(errors.UserError, match="gallery/ holds no identity folders, found nothing: it is empty"):
        dukemtmc_videoreid.read(source(root))


def test_folder_of_tracklets_without_identities(tmp_path):
    root = fill(tmp_path / "f", "b/2.jpg", "b/1.jpg", "a/1.jpg")
    records = folder.read(source(root), tracklets=True)
    assert [(r.path, r.split, r.pid, r.tracklet) for r in records] == [
        ("a/1.jpg", "train", -1, 0), ("b/1.jpg", "train", -1, 1), ("b/2.jpg", "train", -1, 1),
    ]  # fmt: skip
    # The same folders are identities without the option.
    assert {(r.path, r.pid, r.tracklet) for r in folder.read(source(root))} == {
        ("a/1.jpg", 1, -1), ("b/1.jpg", 2, -1), ("b/2.jpg", 2, -1),
    }  # fmt: skip


def test_folder_of_tracklets_in_identities_and_splits(tmp_path):
    root = fill(tmp_path / "f", "train/t1/c1_1.jpg", "query/zoe/t1/c2_1.jpg", "query/ann/t9/c3_1.jpg")
    fill(root, "gallery/zoe/t1/c1_1.jpg", "gallery/zoe/t1/c1_2.jpg", "gallery/zoe/t2/c4_1.jpg")
    assert tracklets(folder.read(source(root), camid_from=r"/c(\d)_", tracklets=True)) == {
        ("train", 0, -1, 1): ["c1_1.jpg"],
        ("query", 0, 1, 3): ["c3_1.jpg"],
        ("query", 1, 2, 2): ["c2_1.jpg"],
        ("gallery", 0, 2, 1): ["c1_1.jpg", "c1_2.jpg"],
        ("gallery", 1, 2, 4): ["c4_1.jpg"],
    }


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ann/t3/notes.txt", "the folder ann/t3/ is a tracklet without frames, found notes.txt"),
        ("empty/notes.txt", "the folder f/empty/ is a tracklet without frames, found notes.txt"),
        ("t4/1.jpg", r"f/ holds both a tracklet \(t4/\) and an identity with tracklets in it \(ann/\)"),
        ("ann/t1/deep/1.jpg", "the folder ann/t1/ holds deep/; tracklets must lie in a split, or in an"),
        ("ann/1.jpg", "the image ann/1.jpg must be in the folder of a tracklet, without other folders or videos"),
        ("1.jpg", "the image f/1.jpg must be in the folder of a tracklet"),
    ],
)
def test_folder_of_tracklets_names_what_is_wrong(tmp_path, name, message):
    root = fill(tmp_path / "f", "ann/t1/1.jpg", "ann/t2/1.jpg", name)
    with pytest.raises(errors.UserError, match=message):
        folder.read(source(root), tracklets=True)


def test_folder_of_tracklets_refuses_two_cameras_and_an_index(tmp_path):
    root = fill(tmp_path / "f", "t1/c1_1.jpg", "t1/c2_2.jpg")
    message = "a tracklet must be of one camera; it finds 1 in 't1/c1_1.jpg' and 2 in 't1/c2_2.jpg'"
    with pytest.raises(errors.UserError, match=message):
        folder.read(source(root), camid_from=r"c(\d)_", tracklets=True)
    (root / "index.csv").write_text("path\nt1/c1_1.jpg\n")
    with pytest.raises(errors.UserError, match="--tracklets: index.csv is used; put the tracklets into its tracklet"):
        folder.read(source(root), tracklets=True)


def test_csv_index_gives_tracklets_by_split(tmp_path):
    root = fill(tmp_path / "f", "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    rows = ["a.jpg,1,2,5,query", "b.jpg,1,2,5,query", "c.jpg,3,4,5,gallery", "d.jpg,,,,train"]
    (root / "index.csv").write_text("\n".join(["path,pid,camid,tracklet,split", *rows]))
    assert tracklets(folder.read(source(root))) == {
        ("query", 5, 1, 2): ["a.jpg", "b.jpg"],
        ("gallery", 5, 3, 4): ["c.jpg"],
        ("train", -1, -1, -1): ["d.jpg"],
    }


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["a.jpg,1,2,5", "b.jpg,3,2,5"], "line 3: pid is 3, but 1 in line 2 of the same tracklet 5 in train"),
        (["a.jpg,1,2,5", "b.jpg,1,3,5"], "line 3: camid is 3, but 2 in line 2 of the same tracklet 5 in train"),
        (["a.jpg,1,2,5", "c.jpg,1,2,6", "b.jpg,1,,5"], "line 4: camid is -1, but 2 in line 2 of the same tracklet 5"),
        (["a.jpg,1,2,5", "b.jpg,1,2,"], "line 3 has no tracklet, unlike line 2; all rows of the split train must"),
        (["a.jpg,1,2,-1", "b.jpg,1,2,0"], "line 3 has a tracklet, unlike line 2; all rows of the split train must"),
    ],
)
def test_csv_index_names_the_line_where_tracklets_disagree(tmp_path, rows, message):
    root = fill(tmp_path / "f", "a.jpg", "b.jpg", "c.jpg")
    (root / "index.csv").write_text("\n".join(["path,pid,camid,tracklet", *rows]))
    with pytest.raises(errors.UserError, match=f"--csv: index.csv {message}"):
        folder.read(source(root))


def test_summary_and_differences_count_tracklets(tmp_path):
    records = dukemtmc_videoreid.read(source(fill(tmp_path / "d", *DUKE)))
    assert catalog.summarize(records) == {
        "train": {"images": 3, "identities": 1, "cameras": 2, "tracklets": 2},
        "query": {"images": 1, "identities": 1, "cameras": 1, "tracklets": 1},
        "gallery": {"images": 2, "identities": 1, "cameras": 2, "tracklets": 2},
    }
    published = catalog.Published(train=2, query=1, gallery=3, train_ids=1, cameras=5)
    message = "2 gallery tracklets, the published data set has 3"
    assert catalog.differences(published, records, counted="tracklets") == [message]


@pytest.mark.parametrize(
    ("dataset", "published"),
    [("mars", (8298, 1980, 9330, 625, 6)), ("dukemtmc_videoreid", (2196, 702, 2636, 702, 8))],
)
def test_published_sizes_are_of_tracklets(dataset, published):
    entry = catalog.DATASETS[dataset]
    assert (entry.published, entry.counted) == (published, "tracklets")
