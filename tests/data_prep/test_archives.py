import errno
import io
import pathlib
import shutil
import struct
import tarfile
import zipfile

import pytest

from reid_jax import errors
from reid_jax.cli import program
from reid_jax.data_prep import archives

FILES = {"shop/alice/1.jpg": b"one", "shop/bob/1.jpg": b"two" * 1000, "shop/readme.txt": b""}


def write_zip(path: pathlib.Path, files: dict[str, bytes]) -> pathlib.Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def write_tar(path: pathlib.Path, files: dict[str, bytes], mode: str = "w") -> pathlib.Path:
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def tree(folder: pathlib.Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def target(tmp_path):
    folder = tmp_path / "target"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("kind", ["zip", "w", "w:gz", "w:bz2", "w:xz"])
def test_extract_gives_the_files_of_the_only_top_folder(tmp_path, target, kind):
    path = tmp_path / "anything"  # the content decides, not the name
    write_zip(path, FILES) if kind == "zip" else write_tar(path, FILES, kind)
    assert archives.is_archive(path)
    root = archives.extract(path, target, progress=False)
    assert root == target / "shop"
    assert tree(root) == {name.removeprefix("shop/"): data for name, data in FILES.items()}


def test_extract_keeps_several_top_entries_and_split_folders(tmp_path, target):
    path = write_zip(tmp_path / "a.zip", {"a/1.jpg": b"1", "b/1.jpg": b"2"})
    assert archives.extract(path, target, progress=False) == target
    (tmp_path / "other").mkdir()
    path = write_zip(tmp_path / "b.zip", {"query/1.jpg": b"1"})
    assert archives.extract(path, tmp_path / "other", progress=False) == tmp_path / "other"


def test_a_split_folder_may_be_in_capitals(tmp_path, target):
    path = write_zip(tmp_path / "a.zip", {"Train/1.jpg": b"1"})
    assert archives.extract(path, target, progress=False) == target


def test_extract_leaves_out_what_macos_adds(tmp_path, target):
    path = write_zip(tmp_path / "a.zip", {"shop/1.jpg": b"1", "__MACOSX/shop/._1.jpg": b"x", "shop/._1.jpg": b"x"})
    assert tree(archives.extract(path, target, progress=False)) == {"1.jpg": b"1"}


@pytest.mark.parametrize("write", [write_zip, write_tar])
@pytest.mark.parametrize(
    "name", ["../out.jpg", "a/../../out.jpg", "/tmp/out.jpg", "C:/out.jpg", "..\\out.jpg", "a/b/../../../out.jpg"]
)
def test_extract_refuses_paths_that_leave_the_folder_before_writing(tmp_path, target, write, name):
    path = write(tmp_path / "a", {"good.jpg": b"1", name: b"2"})
    with pytest.raises(errors.UserError, match="outside of its folder; nothing was unpacked"):
        archives.extract(path, target, progress=False)
    assert tree(target) == {}
    assert not (tmp_path / "out.jpg").exists()


@pytest.mark.parametrize(
    ("kind", "words"), [(tarfile.SYMTYPE, "a link"), (tarfile.LNKTYPE, "a link"), (tarfile.FIFOTYPE, "a device")]
)
def test_extract_refuses_links_and_devices_in_a_tar(tmp_path, target, kind, words):
    path = write_tar(tmp_path / "a.tar", {"good.jpg": b"1"})
    with tarfile.open(path, "a") as archive:
        info = tarfile.TarInfo("odd.jpg")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(errors.UserError, match=f"'odd.jpg', which is {words}; only files and folders"):
        archives.extract(path, target, progress=False)
    assert tree(target) == {}


def test_extract_refuses_a_link_and_an_encrypted_member_in_a_zip(tmp_path, target):
    path = write_zip(tmp_path / "a.zip", {"good.jpg": b"1"})
    link = zipfile.ZipInfo("odd.jpg")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(errors.UserError, match="which is a link"):
        archives.extract(path, target, progress=False)

    data = bytearray(write_zip(tmp_path / "b.zip", {"good.jpg": b"1"}).read_bytes())
    flags = data.index(b"PK\x01\x02") + 8  # in the central directory
    data[flags : flags + 2] = struct.pack("<H", 1)
    (tmp_path / "b.zip").write_bytes(data)
    with pytest.raises(errors.UserError, match="which is encrypted"):
        archives.extract(tmp_path / "b.zip", target, progress=False)
    assert tree(target) == {}


def test_extract_refuses_a_name_that_comes_twice_and_an_archive_without_files(tmp_path, target):
    path = write_tar(tmp_path / "a.tar", {"a.jpg": b"1"})
    with tarfile.open(path, "a") as archive:
        archive.addfile(tarfile.TarInfo("./a.jpg"))
    with pytest.raises(errors.UserError, match="'./a.jpg' twice; every name must come once"):
        archives.extract(path, target, progress=False)
    with pytest.raises(errors.UserError, match="holds no files"):
        archives.extract(write_zip(tmp_path / "b.zip", {"a/": b""}), target, progress=False)


def test_extract_names_damage(tmp_path, target):
    whole = write_tar(tmp_path / "a.tar", FILES, "w:gz").read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(errors.UserError, match="the archive a.tar is damaged"):
        archives.extract(tmp_path / "a.tar", target, progress=False)

    data = write_zip(tmp_path / "b.zip", {"a.jpg": bytes(range(256)) * 9}).read_bytes()
    (tmp_path / "b.zip").write_bytes(data[:60] + bytes(20) + data[80:])
    with pytest.raises(errors.UserError, match="the archive b.zip is damaged"):
        archives.extract(tmp_path / "b.zip", target, progress=False)


def test_damage_that_has_no_error_number_is_one_line(tmp_path, target, capsys):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a.jpg", bytes(range(256)) * 9)
    data = path.read_bytes()
    path.write_bytes(data[:60] + bytes(20) + data[80:])
    with pytest.raises(errors.UserError, match="the archive a.zip is damaged: Invalid data stream"):
        archives.extract(path, target, progress=False)

    def main():
        raise OSError("Invalid data stream")

    with pytest.raises(SystemExit) as exit_info:
        program._guarded(main, ["prepare.py"])
    assert exit_info.value.code == 2 and capsys.readouterr().err == "error: Invalid data stream\n"


def test_extract_passes_on_what_the_file_system_says(tmp_path, target, monkeypatch):
    def full(source, copy):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(archives.shutil, "copyfileobj", full)
    with pytest.raises(OSError, match="No space left on device"):
        archives.extract(write_zip(tmp_path / "a.zip", FILES), target, progress=False)


def test_extract_refuses_what_does_not_fit(tmp_path, target, monkeypatch):
    path = write_zip(tmp_path / "a.zip", {"a.jpg": bytes(10_000_000)})
    assert path.stat().st_size < 20_000  # small as an archive
    usage = shutil._ntuple_diskusage(total=0, used=0, free=5_000_000)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(errors.UserError, match="unpacking a.zip needs 10.0 MB there, 5.0 MB are free"):
        archives.extract(path, target, progress=False)
    assert tree(target) == {}


def test_is_archive_knows_other_files(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"Rar!\x1a\x07\x00 something else")
    assert not archives.is_archive(tmp_path / "a.zip")
