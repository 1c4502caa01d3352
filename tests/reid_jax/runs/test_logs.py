import errno
import json
import math
import struct
import threading

import numpy as np
import pytest
from tensorboardX import record_writer
from tensorboardX.proto.event_pb2 import Event, SessionLog

from reid_jax import errors
from reid_jax.runs import logs


def test_json_has_null_for_what_is_not_finite(tmp_path):
    path = tmp_path / "result.json"
    logs.write_json(path, {"mAP": 0.5, "agreement": math.nan, "list": [math.inf, 1]})
    assert logs.read_json(path) == {"mAP": 0.5, "agreement": None, "list": [None, 1]}


def test_read_json_names_a_broken_file(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(errors.UserError, match="config.json.*is not a JSON file"):
        logs.read_json(tmp_path / "config.json")


def test_write_arrays(tmp_path):
    logs.write_arrays(tmp_path / "labels.npz", pseudo_labels=np.arange(3), silhouette=0.25)
    with np.load(tmp_path / "labels.npz") as arrays:
        assert arrays["pseudo_labels"].tolist() == [0, 1, 2] and float(arrays["silhouette"]) == 0.25


def test_only_one_process_works_in_a_run_directory(tmp_path):
    lock = logs.lock_workdir(tmp_path)
    with pytest.raises(errors.UserError, match="another process is running"):
        logs.lock_workdir(tmp_path)
    lock.close()
    logs.lock_workdir(tmp_path).close()


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch):
    def flock(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(logs.fcntl, "flock", flock)
    with pytest.raises(errors.UserError, match="workdir: cannot lock .*: No locks available"):
        logs.lock_workdir(tmp_path)


def test_locking_clears_what_killed_runs_left(tmp_path):
    (tmp_path / "pseudo_labels").mkdir()
    for name in (".tmp-1-old", ".tmp-elsewhere-7@result.json", "config.json", "pseudo_labels/.tmp-elsewhere-7@a.npz"):
        (tmp_path / name).touch()
    lock = logs.lock_workdir(tmp_path)
    assert {path.name for path in tmp_path.rglob("*")} == {".lock", "config.json", "pseudo_labels"}
    (tmp_path / ".tmp-elsewhere-7@result.json").touch()
    with pytest.raises(errors.UserError, match="another process"):
        logs.lock_workdir(tmp_path)
    assert (tmp_path / ".tmp-elsewhere-7@result.json").exists()  # the lock's holder may be writing it
    lock.close()


def test_metrics_log_drops_what_will_be_written_again(tmp_path):
    log = logs.MetricsLog(tmp_path, [])
    records = [{"iteration": i, "loss": i / 3, "agreement": None, "seconds": {"train": 1.5}} for i in range(3)]
    for record in records:
        log.write(record)
    log.close()
    resumed = logs.MetricsLog(tmp_path, records[:2])
    resumed.write({"iteration": 2, "loss": 0.5})
    resumed.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [*records[:2], {"iteration": 2, "loss": 0.5}]
    assert list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))


def read_events(folder):
    """The events of the newest file in order, its head left out."""
    data, events = max(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns).read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        events.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return events[1:]


def test_tensorboard_has_every_number_by_iteration(tmp_path):
    record = {"iteration": 3, "loss": 0.5, "agreement": None, "seconds": {"train": 1.5}, "num_clusters": 8}
    log = logs.MetricsLog(tmp_path, [])
    log.write(record)
    log.close()
    values = [(event.step, event.summary.value[0]) for event in read_events(tmp_path / "tensorboard")]
    assert [(step, value.tag, value.simple_value) for step, value in values] == [
        (3, "loss", 0.5), (3, "seconds/train", 1.5), (3, "num_clusters", 8.0)
    ]  # fmt: skip
    logs.MetricsLog(tmp_path, [record]).close()
    (start,) = read_events(tmp_path / "tensorboard")
    assert start.step == 4 and start.session_log.status == SessionLog.START


def test_a_full_disk_is_an_error_and_no_hang(tmp_path, monkeypatch):
    num_threads = threading.active_count()
    monkeypatch.setattr(record_writer, "open_file", lambda path: open("/dev/full", "wb"))
    log = logs.MetricsLog(tmp_path, [])
    assert threading.active_count() == num_threads  # none that could die of it while others wait for it
    with pytest.raises(OSError, match="No space left on device"):
        log.write({"iteration": 0} | {f"metric{i}": 0.5 for i in range(100)})


def test_flatten():
    assert logs.flatten({"a": 1, "b": {"c": 2, "d": {"e": 3}}}) == {"a": 1, "b/c": 2, "b/d/e": 3}
