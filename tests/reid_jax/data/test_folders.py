import errno
import os
import pathlib

import pytest

from reid_jax import errors
from reid_jax.data import folders


def fill(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def listed(root, **options):
    return [folders.relative_path(path, root) for path in folders.list_images(root, **options)]


def refuse(monkeypatch, *unreadable):
    """Makes folders unreadable; the rights of a folder do not stop root."""
    scandir = os.scandir

    def guarded(path="."):
        if pathlib.Path(path) in unreadable:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)


def test_images_and_videos_by_their_names(tmp_path):
    images = ["a.JPG", "b.bmp", "c.webp", "d.tif", "d.tiff", "e.heic", "x/f.avif", "x/y/g.gif"]
    videos = ["v.mp4", "x/v.AVI", "x/y/v.mkv", "x/y/v.mov", "x/y/w.webm"]
    fill(tmp_path, *images, *videos, ".h.jpg", ".h.mp4", ".hidden/i.jpg", "x/.hidden/v.mp4", "notes.txt")
    assert listed(tmp_path, recursive=True) == images
    assert listed(tmp_path) == images[:6]
    found = folders.list_videos(tmp_path, recursive=True)
    assert [folders.relative_path(path, tmp_path) for path in found] == videos
    assert folders.list_videos(tmp_path) == [tmp_path / "v.mp4"]


def test_links_to_folders_are_followed(tmp_path):
    root = fill(tmp_path / "root", "a/1.jpg")
    fill(tmp_path / "elsewhere", "2.jpg", "deep/3.jpg")
    (root / "a" / "link").symlink_to(tmp_path / "elsewhere")
    (root / "b").symlink_to("a")
    names = ["a/1.jpg", "a/link/2.jpg", "a/link/deep/3.jpg"]
    assert listed(root, recursive=True) == names + [name.replace("a", "b", 1) for name in names]
    assert [path.name for path in folders.list_folders(root)] == ["a", "b"]


def test_links_that_lead_round_in_a_circle_end(tmp_path):
    root = fill(tmp_path / "root", "a/1.jpg", "b/2.jpg")
    (root / "a" / "self").symlink_to(root / "a")
    (root / "a" / "up").symlink_to(root)
    assert listed(root, recursive=True) == ["a/1.jpg", "b/2.jpg"]
    # Each leads to the other: both are seen from either, once.
    (root / "a" / "b").symlink_to(root / "b")
    (root / "b" / "a").symlink_to(root / "a")
    assert listed(root, recursive=True) == ["a/1.jpg", "a/b/2.jpg", "b/2.jpg", "b/a/1.jpg"]
    (root / "nowhere").symlink_to(root / "nowhere")
    assert len(listed(root, recursive=True)) == 4


def test_unreadable_folders_are_named(tmp_path, monkeypatch):
    root = fill(tmp_path / "root", "a/1.jpg", "b/c/2.jpg", "d/3.jpg")
    refuse(monkeypatch, root / "b" / "c")
    with pytest.raises(
        errors.UserError, match=r"^--gallery: the folder '.*root/b/c' cannot be read \(Permission den.*\)$"
    ):
        listed(root, recursive=True, flag="gallery")
    assert listed(root / "b") == [] and listed(root / "a", recursive=True) == ["1.jpg"]
    refuse(monkeypatch, root / "a", root / "d")
    with pytest.raises(errors.UserError, match=r"root/[abd].*' cannot be read \(Permission denied\), nor can 2 more$"):
        listed(root, recursive=True)
    with pytest.raises(errors.UserError, match="cannot be read"):
        folders.list_videos(root, recursive=True)
