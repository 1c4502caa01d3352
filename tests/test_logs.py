import json
import math

import numpy as np
import pytest

from reid_jax import logs, types


def test_atomic_path_keeps_the_old_file_when_writing_fails(tmp_path):
    path = tmp_path / "result.json"
    logs.write_json(path, {"mAP": 0.5, "agreement": math.nan, "list": [math.inf, 1]})
    assert logs.read_json(path) == {"mAP": 0.5, "agreement": None, "list": [None, 1]}
    with pytest.raises(RuntimeError, match="killed"):
        with logs.atomic_path(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("killed")
    assert logs.read_json(path)["mAP"] == 0.5
    assert [file.name for file in tmp_path.iterdir()] == ["result.json"]


def test_read_json_names_a_broken_file(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(types.UserError, match="config.json.*is not a JSON file"):
        logs.read_json(tmp_path / "config.json")


def test_write_arrays(tmp_path):
    logs.write_arrays(tmp_path / "labels.npz", pseudo_labels=np.arange(3), silhouette=0.25)
    with np.load(tmp_path / "labels.npz") as arrays:
        assert arrays["pseudo_labels"].tolist() == [0, 1, 2] and float(arrays["silhouette"]) == 0.25


def test_only_one_process_works_in_a_run_directory(tmp_path):
    lock = logs.lock_workdir(tmp_path)
    with pytest.raises(types.UserError, match="another process is running"):
        logs.lock_workdir(tmp_path)
    lock.close()
    logs.lock_workdir(tmp_path).close()


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


def test_flatten():
    assert logs.flatten({"a": 1, "b": {"c": 2, "d": {"e": 3}}}) == {"a": 1, "b/c": 2, "b/d/e": 3}
