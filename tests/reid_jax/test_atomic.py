import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from reid_jax import atomic


def dead_pid():
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_the_old_file_stays_when_writing_fails(tmp_path):
    path = tmp_path / "result.json"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="killed"):
        with atomic.atomic_path(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("killed")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_the_file_appears_whole_with_its_own_ending(tmp_path):
    path = tmp_path / "labels.npz"
    with atomic.atomic_path(str(path)) as temporary:
        np.savez(temporary, labels=np.arange(3))
        assert not path.exists() and temporary.exists()
    with np.load(path) as arrays:
        assert arrays["labels"].tolist() == [0, 1, 2]
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_written_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        with atomic.atomic_path(tmp_path / "result.json"):
            pass


def test_only_dead_processes_of_this_computer_are_cleared(tmp_path):
    here, dead = socket.gethostname(), dead_pid()
    keep = {
        f".tmp-{here}-{os.getpid()}@a.npy",
        f".tmp-{here}-1@a.npy",
        f".tmp-{here}-more-{dead}@a.npy",
        f".tmp-elsewhere-{dead}@a.npy",
        ".tmp-anything",
        "a.npy",
    }
    for name in (*keep, f".tmp-{here}-{dead}@a.npy", f".tmp-{here}-{dead}@b@7.npy"):
        (tmp_path / name).touch()
    atomic.clear_temporaries(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == keep
    atomic.clear_temporaries(str(tmp_path), locked=True)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]


def test_the_name_tells_who_writes(tmp_path):
    script = (
        "import os, sys; from reid_jax import atomic\nwith atomic.atomic_path(sys.argv[1]) as t: t.touch(); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "a.npy")], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    atomic.clear_temporaries(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_has_none(tmp_path):
    atomic.clear_temporaries(tmp_path / "nowhere")
