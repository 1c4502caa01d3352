import errno
import hashlib
import io
import json
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import zipfile
import zlib

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from reid_jax import errors
from reid_jax.cli import program
from reid_jax.data import images as images_lib
from reid_jax.data import records as records_lib
from reid_jax.data import verification
from reid_jax.data_prep import catalog, prepare, publishing, synthetic, writing
from reid_jax.data_prep.readers import listing

SCRIPT = pathlib.Path(prepare.__file__)


def picture(seed: int, mode: str = "RGB") -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (24, 12, 3), np.uint8)).convert(mode)


def encoded(seed: int, kind: str = "JPEG", mode: str = "RGB", **options) -> bytes:
    buffer = io.BytesIO()
    picture(seed, mode).save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG file that says how large it is and then holds next to nothing."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


@pytest.fixture
def crops(tmp_path) -> pathlib.Path:
    """A folder in splits: 5 training images, 1 query, 2 gallery."""
    root = tmp_path / "crops"
    for seed, name in enumerate(
        ["train/z.jpg", "train/b.jpg", "train/a.jpg", "train/B.png", "train/ä.jpg", "query/ann/1.jpg"]
        + ["gallery/bob/1.jpg", "gallery/ann/2.jpg"]
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(encoded(seed, "PNG" if name.endswith("png") else "JPEG"))
    return root


def run(crops: pathlib.Path, **changes) -> pathlib.Path:
    arguments = {"source": crops, "data_dir": crops.parent / "data", "name": "shop", "progress": False} | changes
    return prepare.prepare(arguments.pop("dataset", "folder"), **arguments)


def read(folder: pathlib.Path, split: str) -> list[dict]:
    source = tfds.builder_from_directory(folder).as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
    return [source[i] for i in range(len(source))]


def entries(folder: pathlib.Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_plain_tfds_reads_the_files_bytes_and_labels_in_path_order(crops):
    folder = run(crops)
    assert folder == crops.parent / "data" / "shop" / "1.0.0"
    assert entries(crops.parent / "data") == ["shop"]
    train = read(folder, "train")
    names = ["train/B.png", "train/a.jpg", "train/b.jpg", "train/z.jpg", "train/ä.jpg"]
    assert [example["path"].decode() for example in train] == names
    assert [example["image"] for example in train] == [(crops / name).read_bytes() for name in names]
    assert {(e["pid"], e["camid"], e["tracklet"]) for e in train} == {(-1, -1, -1)}
    assert [(e["path"].decode(), e["pid"]) for e in read(folder, "gallery")] == [
        ("gallery/ann/2.jpg", 1),
        ("gallery/bob/1.jpg", 2),
    ]
    builder = tfds.builder("shop", data_dir=crops.parent / "data")
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == {
        "train": 5, "query": 1, "gallery": 2,
    }  # fmt: skip
    features = builder.info.features
    assert features["image"].shape == (None, None, 3)
    assert {features[name].np_dtype for name in ("pid", "camid", "tracklet")} == {np.dtype(np.int64)}
    decoded = builder.as_data_source("query")[0]["image"]
    assert decoded.shape == (24, 12, 3)
    assert "tensorflow" not in sys.modules


def test_many_images_span_chunks_and_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "_CHUNK", 4)
    monkeypatch.setattr(writing, "_SHARD", 5)
    (tmp_path / "crops").mkdir()
    for i in range(13):
        (tmp_path / "crops" / f"{i:02}.jpg").write_bytes(encoded(i))
    folder = run(tmp_path / "crops")
    assert tfds.builder_from_directory(folder).info.splits["train"].num_shards == 3
    assert [e["image"] for e in read(folder, "train")] == [encoded(i) for i in range(13)]


def test_split_without_images_is_left_out(crops):
    shutil.rmtree(crops / "query")
    assert list(tfds.builder_from_directory(run(crops)).info.splits) == ["train", "gallery"]


def test_archive_gives_the_same_data_set_and_is_left_alone(crops):
    folder = run(crops)
    archive = crops.parent / "crops.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in crops.rglob("*.*"):
            file.write(path, path.relative_to(crops.parent))
    before = entries(crops.parent)
    other = run(crops, source=archive, name="zipped")
    assert entries(crops.parent) == before
    assert entries(crops.parent / "data") == ["shop", "zipped"]
    for split in listing.SPLITS:
        assert read(other, split) == read(folder, split)


def test_manifest_says_what_was_done(crops):
    manifest = json.loads((run(crops) / "prepared.json").read_text())
    assert manifest["request"] == {
        "dataset": "folder", "source": str(crops), "on_bad_image": "fail", "options": {},
    }  # fmt: skip
    assert manifest["splits"]["gallery"] == {"images": 2, "identities": 2, "cameras": 0}
    assert manifest["skipped"] == {}


@pytest.mark.parametrize(
    ("kind", "mode"), [("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "RGBA"), ("PNG", "P"), ("PNG", "1")]
)
def test_images_of_any_mode_are_kept_as_they_are(kind, mode):
    assert verification.image_problem(encoded(0, kind, mode)) is None


def test_other_formats_are_stored_as_png_of_the_picture(crops, capsys):
    (crops / "train" / "c.bmp").write_bytes(encoded(10, "BMP"))
    (crops / "train" / "d.webp").write_bytes(encoded(11, "WEBP", lossless=True))
    (crops / "train" / "e.tif").write_bytes(encoded(12, "TIFF", save_all=True, append_images=[picture(13)]))
    (crops / "train" / "f.gif").write_bytes(encoded(14, "GIF"))
    exif = Image.Exif()
    exif[0x0112] = 6
    (crops / "train" / "g.webp").write_bytes(encoded(15, "WEBP", lossless=True, exif=exif))
    (crops / "train" / "h.jpg").write_bytes(encoded(16, exif=exif))
    train = {example["path"].decode(): example["image"] for example in read(run(crops), "train")}
    assert len(train) == 11
    for path, data in train.items():
        if path.endswith(("jpg", "B.png")):
            assert data == (crops / path).read_bytes()
        else:
            assert data.startswith(b"\x89PNG")
    pixels = {
        path[6]: images_lib.decode(data, *Image.open(io.BytesIO(data)).size[::-1]) for path, data in train.items()
    }
    for name, seed in (("c", 10), ("d", 11), ("e", 12)):
        np.testing.assert_array_equal(pixels[name], np.asarray(picture(seed)))
    np.testing.assert_array_equal(pixels["f"], images_lib.decode(encoded(14, "GIF"), 24, 12))
    np.testing.assert_array_equal(pixels["g"], np.rot90(np.asarray(picture(15)), -1))
    # As a JPEG file it is turned when it is read.
    turned = images_lib.decode(encoded(16), 24, 12)
    np.testing.assert_array_equal(images_lib.decode(train["train/h.jpg"], 12, 24), np.rot90(turned, -1))
    assert capsys.readouterr().err == (
        "warning: left something out of 1 images:\n  train/e.tif: only the first of its 2 pages is read\n"
    )


def test_fingerprint_is_of_paths_and_of_the_files_bytes(crops):
    run(crops)
    train = records_lib.load_records(crops.parent / "data", "shop")["train"]
    checksums = np.array([zlib.crc32((crops / path).read_bytes()) for path in train.paths], np.uint32)
    digest = hashlib.sha256("\n".join(train.paths).encode() + checksums.tobytes())
    assert train.fingerprint == digest.hexdigest()[:16]


BAD = {
    "truncated": (encoded(0)[:-40], r"it cannot be decoded \(image file is truncated"),
    "truncated png": (encoded(0, "PNG")[:-100], "it cannot be decoded"),
    "no image": (b"hello", "it is no image file"),
    "empty": (b"", "the file is empty"),
    "icon": (encoded(0, "ICO"), "it is a ICO image"),
    "animated": (encoded(0, "GIF", save_all=True, append_images=[picture(1)]), "it is an animated GIF image of 2 fr"),
    "heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "it is a file of the format HEIC that cannot be read"),
    "large": (png_header(10_000, 5_001), "it has 10000 x 5001 pixels"),
    "bomb": (png_header(10_000, 10_000), "it has more than .* pixels"),
    "huge bomb": (png_header(50_000, 50_000), "it has more than .* pixels"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_image_ends_the_run_and_leaves_nothing(crops, kind):
    data, message = BAD[kind]
    (crops / "query" / "ann" / "1.jpg").write_bytes(data)
    with pytest.raises(
        errors.UserError, match=f"query/ann/1.jpg: {message}.*; an image must be a whole JPEG, PNG, WebP, TIFF,"
    ):
        run(crops)
    assert entries(crops.parent / "data") == []


def test_image_of_exactly_the_limit_is_decoded():
    assert verification.image_problem(png_header(10_000, 5_000)).startswith("it cannot be decoded")  # half is missing


def test_skip_leaves_bad_images_out_and_lists_them(crops, capsys):
    (crops / "train" / "b.jpg").write_bytes(encoded(0)[:-40])
    (crops / "train" / "link.jpg").symlink_to(crops / "nowhere.jpg")
    (crops / "query" / "ann" / "1.jpg").write_bytes(b"")
    folder = run(crops, on_bad_image="skip")
    kept = ["train/B.png", "train/a.jpg", "train/z.jpg", "train/ä.jpg"]
    assert [e["path"].decode() for e in read(folder, "train")] == kept
    assert list(tfds.builder_from_directory(folder).info.splits) == ["train", "gallery"]
    manifest = publishing.read_manifest(folder)
    assert {split: counts["images"] for split, counts in manifest["splits"].items()} == {"train": 4, "gallery": 2}
    skipped = manifest["skipped"]
    assert list(skipped) == ["train/b.jpg", "train/link.jpg", "query/ann/1.jpg"]
    assert skipped["train/link.jpg"] == "it cannot be read (No such file or directory)"
    printed = capsys.readouterr().err
    assert "warning: skipped 3 images:\n  train/b.jpg: it cannot be decoded" in printed
    for path in crops.rglob("*.*"):
        path.unlink()
        path.write_bytes(b"")
    with pytest.raises(errors.UserError, match="none of the 9 images is usable; train/B.png: the file is empty"):
        run(crops, on_bad_image="skip", name="other")


def test_second_run_does_nothing(crops, monkeypatch, capsys):
    folder = run(crops)
    shutil.rmtree(crops)
    monkeypatch.setattr(writing, "write_dataset", None)
    assert run(crops, progress=True) == folder
    assert "shop is prepared already, nothing to do" in capsys.readouterr().out


def test_another_request_needs_overwrite(crops):
    folder = run(crops)
    other = crops.parent / "other"
    other.mkdir()
    (other / "1.jpg").write_bytes(encoded(1))
    with pytest.raises(
        errors.UserError, match=f"shop was prepared with source='{crops}', not '{other}'; .*--overwrite"
    ):
        run(other)
    with pytest.raises(errors.UserError, match="shop was prepared with on_bad_image='fail', not 'skip'"):
        run(crops, on_bad_image="skip")
    with pytest.raises(errors.UserError, match="shop was prepared with options="):
        run(crops, camid_from=r"(\d)")
    assert len(read(folder, "train")) == 5
    run(other, overwrite=True)
    assert len(read(folder, "train")) == 1
    assert list(tfds.builder_from_directory(folder).info.splits) == ["train"]
    assert entries(crops.parent / "data") == ["shop"]


def test_failed_overwrite_keeps_the_old_data_set(crops):
    folder = run(crops)
    (crops / "train" / "a.jpg").write_bytes(b"")
    with pytest.raises(errors.UserError, match="the file is empty"):
        run(crops, overwrite=True)
    assert len(read(folder, "train")) == 5
    assert entries(crops.parent / "data") == ["shop"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_something_else_of_that_name_is_never_touched(crops, overwrite):
    with pytest.raises(errors.UserError, match="crops' exists and was not made by reid prepare"):
        run(crops, data_dir=crops.parent, name="crops", overwrite=overwrite)
    assert (crops / "train" / "a.jpg").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "marked1501"}, "--dataset: there is no data set 'marked1501', it must be one of market1501, duke"),
        ({"source": None}, "--source: folder needs a folder or an archive"),
        ({"dataset": "synthetic"}, "--source: synthetic is made, not read; leave it out"),
        ({"source": "nowhere"}, "--source: there is no folder or archive '.*nowhere'"),
        ({"source": __file__}, "test_prepare.py is no folder and no zip or tar archive"),
        ({"name": "My-Shop"}, "--name: 'My-Shop' must be lower-case letters, digits and _, a letter first"),
        ({"name": "../x"}, "--name: '../x' must be"),
        ({"on_bad_image": "ignore"}, "--on_bad_image: 'ignore' must be one of fail, skip"),
        ({"seed": 3}, "--seed: folder has no such option, it has csv, camid_from, tracklets"),
        ({"dataset": "market1501", "csv": "a.csv"}, "--csv: market1501 has no such option, it has none"),
        ({"data_dir": __file__}, "--data_dir: '.*test_prepare.py' is a file, it must be a folder"),
    ],
)
def test_bad_arguments_are_named(crops, changes, message):
    with pytest.raises(errors.UserError, match=message):
        run(crops, **changes)
    assert entries(crops.parent) == ["crops"] or entries(crops.parent / "data") == []


def test_folder_without_images_is_refused(tmp_path):
    (tmp_path / "crops").mkdir()
    with pytest.raises(errors.UserError, match="no images in it, found nothing: it is empty"):
        run(tmp_path / "crops")
    (tmp_path / "crops" / "a.txt").write_text("")
    with pytest.raises(errors.UserError, match="no images in it, found a.txt"):
        run(tmp_path / "crops")


def test_file_names_are_unique_where_the_protocol_asks():
    records = [listing.Record("train", path, 1, 1, -1, pathlib.Path()) for path in ("a/1.jpg", "b/1.jpg", "b/2.jpg")]
    prepare._check_unique(records, names=False)
    prepare._check_unique([records[0], records[1]._replace(split="query")], names=True)
    with pytest.raises(errors.UserError, match="the file name '1.jpg' comes 2 times in the split train"):
        prepare._check_unique(records, names=True)
    with pytest.raises(errors.UserError, match="the path 'a/1.jpg' comes 2 times in the split train"):
        prepare._check_unique([records[0], *records], names=False)


def test_prepare_asks_for_unique_names_where_the_data_set_does(crops, monkeypatch):
    entry = catalog.DATASETS["folder"]
    run(crops)
    (crops / "gallery" / "bob" / "2.jpg").write_bytes(encoded(9))
    run(crops, overwrite=True)
    monkeypatch.setattr(catalog, "DATASETS", {"folder": entry._replace(unique_names=True)})
    with pytest.raises(errors.UserError, match="the file name '2.jpg' comes 2 times in the split gallery"):
        run(crops, overwrite=True)


def test_images_are_stored_in_path_order_whatever_the_order_of_an_index(crops):
    (crops / "index.csv").write_text("path\ntrain/z.jpg\ntrain/b.jpg\nquery/ann/1.jpg\n")
    paths = [example["path"].decode() for example in read(run(crops), "train")]
    assert paths == ["query/ann/1.jpg", "train/b.jpg", "train/z.jpg"]


def test_warns_where_a_copy_differs_from_the_published_sizes(crops, monkeypatch, capsys):
    entry = catalog.DATASETS["folder"]._replace(published=catalog.Published(5, 1, 3, 2, 0))
    monkeypatch.setattr(catalog, "DATASETS", {"folder": entry})
    run(crops)
    assert capsys.readouterr().err.splitlines() == [
        "warning: folder: 2 gallery images, the published data set has 3",
        "warning: folder: 0 training identities, the published data set has 2",
    ]


def test_images_that_an_index_makes_distractors_are_told(crops, capsys):
    rows = ["train/z.jpg,0,train", "train/b.jpg,1,train", "query/ann/1.jpg,1,query", "gallery/ann/2.jpg,-1,gallery"]
    rows += ["train/a.jpg,0,train", "gallery/bob/1.jpg,0,gallery"]
    (crops / "index.csv").write_text("\n".join(["path,pid,split", *rows]))
    run(crops)
    assert capsys.readouterr().err == (
        "warning: images of pid 0: 2 in train, 1 in gallery; they count as distractors, no identity "
        "in train and no query's match in gallery; if 0 is a person, number from 1\n"
    )
    prepare._warn_distractors("market1501", [listing.Record("gallery", "a.jpg", 0, 1, -1, pathlib.Path())])
    assert capsys.readouterr().err == ""


def test_synthetic_data_set_is_rendered_and_read(tmp_path, monkeypatch):
    def write_synthetic(root, *, seed, progress):
        assert progress is None
        for i, folder in enumerate(("bounding_box_train", "query", "bounding_box_test")):
            (root / folder).mkdir()
            (root / folder / f"0001_c{i + 1}s1_000001_00.jpg").write_bytes(encoded(seed + i))

    monkeypatch.setattr(synthetic, "write_synthetic", write_synthetic)
    folder = prepare.prepare("synthetic", data_dir=tmp_path, seed=7, progress=False)
    assert entries(tmp_path) == ["synthetic"]
    assert [e["image"] for e in read(folder, "query")] == [encoded(8)]
    assert publishing.read_manifest(folder)["request"]["options"] == {"seed": 7}


TINY = {
    "num_train_ids": 2, "num_test_ids": 1, "images_per_id": 4, "num_cameras": 2, "height": 32, "width": 16,
    "num_distractors": 1, "num_junk": 1,
}  # fmt: skip


def test_synthetic_takes_every_option_of_its_renderer(tmp_path):
    options = TINY | {"seed": 1, "palette": 1}
    assert set(options) == set(catalog.DATASETS["synthetic"].options)
    folder = prepare.prepare("synthetic", data_dir=tmp_path, name="tiny", **options)
    assert {split: len(read(folder, split)) for split in listing.SPLITS} == {"train": 8, "query": 2, "gallery": 4}
    with pytest.raises(errors.UserError, match="num_cameras must be"):
        prepare.prepare("synthetic", data_dir=tmp_path, name="none", num_cameras=1)
    with pytest.raises(errors.UserError, match=r"^palette must be in 0\.\.1, got 2$"):
        prepare.prepare("synthetic", data_dir=tmp_path, name="none", palette=2)
    assert entries(tmp_path) == ["tiny"]


def test_synthetic_source_is_another_world_by_default(tmp_path):
    def images(dataset, **options):
        folder = prepare.prepare(dataset, data_dir=tmp_path, progress=False, **(TINY | options))
        return [example["image"] for split in listing.SPLITS for example in read(folder, split)]

    source = images("synthetic_source")
    assert entries(tmp_path) == ["synthetic_source"]
    assert set(catalog.DATASETS["synthetic_source"].options) == set(catalog.DATASETS["synthetic"].options)
    assert source == images("synthetic", name="same", seed=1, palette=1)
    assert not set(source) & set(images("synthetic"))
    assert images("synthetic_source", name="other", seed=2) == images("synthetic", name="like", seed=2, palette=1)
    assert images("synthetic_source", name="day", palette=0) == images("synthetic", name="too", seed=1)


def test_help_names_each_made_data_sets_own_defaults():
    text = " ".join(command("--help").stdout.split())
    assert "and all else. (default: 0 of synthetic, 0 of synthetic_video, 1 of synthetic_source)" in text
    assert "walk alike. (default: 0 of synthetic, 0 of synthetic_video, 1 of synthetic_source)" in text
    assert "badly cropped. (default: 50 of synthetic, 50 of synthetic_source)" in text


@pytest.fixture
def walks(tmp_path) -> pathlib.Path:
    """Folders in DukeMTMC-VideoReID's layout: 2 training tracklets, 1 query, 1 gallery, of two frames each."""
    root = tmp_path / "walks"
    folders = ("train/0002/0001", "train/0002/0002", "query/0001/0001", "gallery/0001/0001")
    for camera, folder in enumerate(folders, start=1):
        (root / folder).mkdir(parents=True)
        for frame in (1, 2):
            name = f"{folder.split('/')[1]}_C{camera}_F{frame:04d}_X{frame:05d}.jpg"
            (root / folder / name).write_bytes(encoded(10 * camera + frame))
    return root


def test_tracklets_are_stored_compared_and_reported(walks, capsys):
    folder = run(walks, dataset="dukemtmc_videoreid", name="walks", progress=True)
    printed = capsys.readouterr()
    assert printed.out.splitlines()[1:] == [
        "  train: 4 images, 1 identities, 2 cameras, 2 tracklets",
        "  query: 2 images, 1 identities, 1 cameras, 1 tracklets",
        "  gallery: 2 images, 1 identities, 1 cameras, 1 tracklets",
    ]
    warnings = [line for line in printed.err.splitlines() if line.startswith("warning")]
    assert warnings[0] == "warning: dukemtmc_videoreid: 2 train tracklets, the published data set has 2196"
    assert [(e["pid"], e["camid"], e["tracklet"]) for e in read(folder, "train")] == [
        (2, 1, 0), (2, 1, 0), (2, 2, 1), (2, 2, 1),
    ]  # fmt: skip
    records = records_lib.load_records(walks.parent / "data", "walks")
    assert records["train"].tracklets.tolist() == [0, 0, 1, 1]
    assert records["gallery"].tracklets.tolist() == [0, 0]


def test_folder_of_tracklets_is_an_option(walks):
    with pytest.raises(errors.UserError, match="--tracklets: dukemtmc_videoreid has no such option"):
        run(walks, dataset="dukemtmc_videoreid", tracklets=True)
    data_dir = walks.parent / "data"
    done = command("--dataset=folder", f"--source={walks}", f"--data_dir={data_dir}", "--name=shop", "--tracklets")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1] == "  train: 4 images, 1 identities, 0 cameras, 2 tracklets"
    records = records_lib.load_records(data_dir, "shop")["train"]
    assert (records.tracklets.tolist(), records.pids.tolist()) == ([0, 0, 1, 1], [2, 2, 2, 2])


def test_synthetic_video_takes_every_option_of_its_renderer(tmp_path):
    options = {"seed": 1, "palette": 1, "num_train_ids": 1, "num_test_ids": 1, "frames_per_tracklet": 2}
    options |= {"num_cameras": 2, "height": 32, "width": 16, "num_distractors": 1}
    assert set(options) == set(catalog.DATASETS["synthetic_video"].options)
    folder = prepare.prepare("synthetic_video", data_dir=tmp_path, name="tiny", progress=False, **options)
    # Two cameras see each identity twice; the gallery also holds a distractor.
    splits = publishing.read_manifest(folder)["splits"]
    assert {split: (counts["images"], counts["tracklets"]) for split, counts in splits.items()} == {
        "train": (8, 4), "query": (4, 2), "gallery": (6, 3),
    }  # fmt: skip
    with pytest.raises(errors.UserError, match="--num_junk: synthetic_video has no such option"):
        prepare.prepare("synthetic_video", data_dir=tmp_path, num_junk=1)
    assert entries(tmp_path) == ["tiny"]


def test_too_little_space_is_seen_before_writing(crops, monkeypatch):
    usage = shutil._ntuple_diskusage(total=0, used=0, free=1000)
    monkeypatch.setattr(publishing.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(errors.UserError, match="the images need 0.0 MB, 0.0 MB are free"):
        run(crops)
    assert entries(crops.parent / "data") == []


def test_disk_that_fills_up_is_an_oserror_and_leaves_nothing(crops, monkeypatch):
    def add_examples(self, _):
        raise RuntimeError("write() failed: No space left on device; at byte 3145728")

    monkeypatch.setattr(tfds.core.SequentialWriter, "add_examples", add_examples)
    with pytest.raises(OSError, match="No space left on device") as caught:
        run(crops)
    assert caught.value.errno == errno.ENOSPC
    assert entries(crops.parent / "data") == []


SLOW = """
import sys, time
from reid_jax.data_prep import prepare, writing
check = writing.verification.image_problem
writing._CHUNK = 1
writing.verification.image_problem = lambda data: time.sleep(0.1) or check(data)
prepare.prepare("folder", source=sys.argv[1], data_dir=sys.argv[2], name="shop", overwrite=True)
"""


def test_killed_run_leaves_nothing_that_looks_finished(crops):
    data_dir = crops.parent / "data"
    process = subprocess.Popen([sys.executable, "-c", SLOW, crops, data_dir])
    try:
        deadline = time.monotonic() + 60
        while not list(data_dir.glob(".shop.tmp-*/shop/1.0.0/*array_record*")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert [name.rpartition("-")[0] for name in entries(data_dir)] == [f".shop.tmp-{socket.gethostname()}"]
    assert not (data_dir / "shop").exists()
    folder = run(crops)
    assert entries(data_dir) == ["shop"]
    assert len(read(folder, "train")) == 5


def dead_pid() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_only_dead_builds_are_cleared(crops):
    data_dir = crops.parent / "data"
    host = socket.gethostname()
    keep = [f".shop.tmp-{host}-1", ".shop.tmp-elsewhere-1234567", f".shop2.tmp-{host}-{dead_pid()}"]
    for name in [*keep, f".shop.tmp-{host}-{dead_pid()}"]:
        (data_dir / name / "work").mkdir(parents=True)
    run(crops)
    assert entries(data_dir) == sorted([*keep, "shop"])


def test_overwrite_killed_between_its_two_renames_gets_the_old_data_set_back(crops, monkeypatch):
    folder = run(crops)
    data_dir = crops.parent / "data"
    build = data_dir / f".shop.tmp-{socket.gethostname()}-{dead_pid()}"
    build.mkdir()
    (data_dir / "shop").rename(build / "previous")
    monkeypatch.setattr(writing, "write_dataset", None)
    assert run(crops) == folder
    assert len(read(folder, "train")) == 5
    assert entries(data_dir) == ["shop"]


def test_run_that_was_overtaken_by_an_equal_one_succeeds(crops, monkeypatch):
    write_dataset = writing.write_dataset

    def overtaken(*arguments, **options):
        monkeypatch.setattr(writing, "write_dataset", write_dataset)
        monkeypatch.setattr(os, "getpid", lambda: 2**22 + 1)
        run(crops)
        return write_dataset(*arguments, **options)

    monkeypatch.setattr(writing, "write_dataset", overtaken)
    folder = run(crops)
    assert len(read(folder, "train")) == 5
    assert entries(crops.parent / "data") == ["shop"]


def command(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, timeout=60)


def test_command_line(crops):
    data_dir = crops.parent / "data"
    done = command("--dataset=folder", f"--source={crops}", f"--data_dir={data_dir}", "--name=shop")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"prepared shop: {data_dir}/shop/1.0.0",
        "  train: 5 images, 0 identities, 0 cameras",
        "  query: 1 images, 1 identities, 0 cameras",
        "  gallery: 2 images, 2 identities, 0 cameras",
    ]


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (errors.UserError("a\nb\r\n  c"), 2, "error: a b c"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "x.jpg"), 2, "error: x.jpg: No such file"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), 2, "error: x: Permission denied"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "error: No space left on device"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_errors_a_user_can_cause_end_in_one_line(error, status, line, capsys):
    def main():
        raise error

    with pytest.raises(SystemExit) as stopped:
        program._guarded(main, ["prepare.py"])
    printed = capsys.readouterr()
    assert (stopped.value.code, printed.out, printed.err.count("\n")) == (status, "", 1)
    assert printed.err.startswith(line)


def test_other_errors_keep_their_traceback_and_arguments_need_a_flag(capsys):
    def main():
        raise OSError(errno.EBADF, "Bad file descriptor")

    with pytest.raises(OSError, match="Bad file descriptor"):
        program._guarded(main, ["prepare.py"])
    with pytest.raises(SystemExit) as stopped:
        program._guarded(main, ["prepare.py", "market1501"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: unexpected argument 'market1501'; every option is written --name=value\n"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--datset=folder"], "error: Unknown command line flag 'datset'. Did you mean: dataset ?"),
        (["--dataset=folder", "--data_dir=x", "--source=no\nwhere"], "error: --source: there is no folder or archive"),
    ],
)
def test_command_line_errors_are_one_line_and_status_2(arguments, line, tmp_path):
    done = command(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1
