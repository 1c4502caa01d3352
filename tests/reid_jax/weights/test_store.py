"""Weights in the cache: what is written is found and read, and what else lies there is told in one line."""

import os
import stat
import threading

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors

from reid_jax import errors
from reid_jax.weights import store

GOT = store.Got("tiny", "resnet18", "half", "noise", "identities of people", True, "CC0", "tiny.pth", "0" * 64)
STATE = {
    "conv1.weight": np.arange(8, dtype=np.float64).reshape(2, 4)[:, ::2],
    "half": jnp.ones((3,), jnp.bfloat16),
    "scale": np.float32(2.5),
    "num_batches_tracked": np.int64(3),
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("REID_JAX_WEIGHTS", str(tmp_path / "w"))
    return tmp_path / "w"


def test_what_is_added_is_found_and_read(folder):
    assert store.names() == [] and store.find("tiny") is None
    path = store.add({name: np.asarray(array) for name, array in STATE.items()}, GOT)
    assert path == folder / "tiny.safetensors" and store.names() == ["tiny"] and store.find("tiny") == GOT
    state, got = store.read("tiny")
    assert got == GOT and set(state) == {"conv1.weight", "half", "scale"}
    np.testing.assert_array_equal(state["conv1.weight"], np.float32([[0, 2], [4, 6]]), strict=True)
    np.testing.assert_array_equal(state["half"], np.ones(3, np.float32), strict=True)
    np.testing.assert_array_equal(state["scale"], np.array(2.5, np.float32), strict=True)
    # As the user's umask has it: a folder may be shared.
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~_umask()


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_tensors_that_were_altered_are_told(folder):
    path = store.add({"w": np.ones(50_000, np.float32)}, GOT)
    content = bytearray(path.read_bytes())
    content[-100_000:-90_000] = bytes(10_000)
    path.write_bytes(content)
    with pytest.raises(
        errors.UserError, match=r"tiny.safetensors is damaged: get or import tiny again, with --overwrite"
    ):
        store.read("tiny")


def test_later_weights_replace_earlier_ones(folder):
    for value in (1.0, 2.0):
        store.add({"w": np.full(3, value, np.float32)}, GOT)
    assert store.read("tiny")[0]["w"][0] == 2 and [path.name for path in folder.iterdir()] == ["tiny.safetensors"]


def test_readers_see_the_old_file_or_the_new_one():
    store.add({"w": np.zeros(100_000, np.float32)}, GOT)
    done = threading.Event()

    def write():
        for value in range(1, 20):
            store.add({"w": np.full(100_000, value, np.float32)}, GOT)
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    while not done.is_set():
        assert len(np.unique(store.read("tiny")[0]["w"])) == 1
    thread.join()


def test_where_the_folder_is(monkeypatch, tmp_path, folder):
    assert store.folder() == folder
    monkeypatch.delenv("REID_JAX_WEIGHTS")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert store.folder() == tmp_path / "cache/reid_jax/weights"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert store.folder() == tmp_path / ".cache/reid_jax/weights"


@pytest.mark.parametrize("name", ["../tiny", "/etc/passwd", "a/b", ".hidden", "..", "", "-x", "a\n", "a\0", "x" * 101])
def test_a_name_is_never_a_path(name):
    for function in (store.find, store.read, store.path_of, lambda name: store.add({}, GOT._replace(name=name))):
        with pytest.raises(errors.UserError, match="^name must be up to 100 letters"):
            function(name)


def test_weights_that_are_not_there():
    with pytest.raises(errors.UserError, match="no weights 'tinny' in .*w; reid weights list"):
        store.read("tinny")
    store.add({}, GOT)
    with pytest.raises(errors.UserError, match="did you mean 'tiny'. reid weights list"):
        store.read("tinny")


def test_files_that_are_damaged_or_foreign(folder):
    path = store.add({"w": np.zeros(100, np.float32)}, GOT)
    whole = path.read_bytes()
    for content in (whole[:-1], whole[:50], b"", b"hello" * 100, whole + b"x"):
        path.write_bytes(content)
        _is_told(r"tiny.safetensors is damaged \(.*with --overwrite$")
    for metadata in (None, {}, {"reid_jax.weights": "{"}, {"reid_jax.weights": "{}"}, {"reid_jax.weights": "[1]"}):
        path.write_bytes(safetensors.save({"w": np.zeros(1)}, metadata=metadata))
        _is_told("does not say what it is")
    wrong_type = whole.replace(b'\\"people_labels\\": true', b'\\"people_labels\\": 1234')
    assert len(wrong_type) == len(whole) and wrong_type != whole
    path.write_bytes(wrong_type)
    _is_told("does not say what it is")
    path.write_bytes(whole)
    path.rename(folder / "other.safetensors")
    with pytest.raises(errors.UserError, match="was renamed: it holds 'tiny', and must be called tiny.safetensors"):
        store.find("other")


def _is_told(match):
    for function in (store.find, store.read):
        with pytest.raises(errors.UserError, match=match) as told:
            function("tiny")
        assert len(str(told.value).splitlines()) == 1


def test_what_is_no_file_of_weights_is_not_listed(folder):
    store.add({}, GOT)
    (folder / ".tmp-host-1@new.safetensors").write_text("half written")
    (folder / "notes.txt").write_text("")
    (folder / "downloads").mkdir()
    assert store.names() == ["tiny"]


def test_a_disk_that_fails_leaves_nothing(folder, monkeypatch):
    def fail(*unused):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        store.add({"w": np.zeros(10, np.float32)}, GOT)
    assert list(folder.iterdir()) == []
