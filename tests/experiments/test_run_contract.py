"""What every method's run keeps to: killed and resumed it gives the same, finished it shows its result and computes
nothing, another config or a wrong one is refused. (What is one line on a terminal: test_command_line.)"""

import importlib
import json

import numpy as np
import pytest
import tiny_runs

from reid_jax import errors
from reid_jax.experiments import sweep
from reid_jax.runs import session

pytestmark = pytest.mark.usefixtures("own_backbone")

BASE = tiny_runs.OVERRIDES | {"checkpoint.every_minutes": 0.0, "train.num_iterations": 2, "train.num_epochs": 2}
PK = BASE | tiny_runs.PK_OVERRIDES
LOOKUP = BASE | {"train.first_epochs": 2, "train.batch_size": 8}
DBSCAN = {"cluster.k1": 6, "cluster.k2": 3, "train.num_steps": 2}
METHODS = {
    "hct": PK | {"cluster.merge_percent": 0.1, "cluster.num_steps": 8},
    "buc": LOOKUP | {"cluster.merge_percent": 0.1, "stop.when": "never"},
    "softened": LOOKUP | {"dissimilarity.num_parts": 3},
    "supervised": PK,
    "pul": BASE | {"source.dataset": "tiny", "source.num_epochs": 2, "cluster.num_clusters": 8, "train.batch_size": 8},
    "cluster_dynamics": PK
    | DBSCAN
    | {"dynamics.num_neighbors": 8, "dynamics.k": 4, "dynamics.max_units": 8, "dynamics.num_similar": 5.0},
    "dbscan": PK | DBSCAN | {"cluster.min_samples": 2},
    "combine": PK | DBSCAN | {"cluster.num_steps": 8, "labels.method": "hct", "loss.kind": "cluster"},
}


def start(method, data_dir, workdir, **more):
    return tiny_runs.start(method, data_dir, workdir, METHODS[method], **more)


def run(method, data_dir, workdir, **more):
    """The same in this process: (run directory, what it printed)."""
    get_config = importlib.import_module(f"reid_jax.experiments.configs.{method}").get_config
    config = tiny_runs.make_config(get_config, data_dir, METHODS[method], num_devices=1, **more)
    return tiny_runs.run(sweep.load_method(method), config, workdir)


@pytest.fixture(scope="module", params=METHODS)
def whole(request, prepared, tmp_path_factory):
    """(method, run directory, output) of a run that was never interrupted."""
    method = request.param
    return method, *run(method, prepared, tmp_path_factory.mktemp(method) / "whole")


def test_a_whole_run_leaves_its_files(whole):
    method, workdir, output = whole
    assert "\niteration  2/2" in output and "direct transfer" in output
    result = json.loads((workdir / "result.json").read_text())
    name = "supervised triplet" if method == "supervised" else method
    assert result["method"] == name == json.loads((workdir / "config.json").read_text())["method"]
    assert result["last"]["iteration"] == 2 and result["num_devices"] == 1
    for line in tiny_runs.metrics(workdir)[1:]:
        assert all(np.isfinite(line[name]) for name in ("loss", "mAP", "rank1", "rank5", "rank10", "mINP"))
    assert len(list((workdir / "pseudo_labels").iterdir())) == (0 if method == "supervised" else 2)
    assert list((workdir / "tensorboard").iterdir())


def test_interrupted_and_started_again_it_gives_the_same(whole, prepared, tmp_path, monkeypatch):
    """Between two epochs of the first iteration, then in another process: memories and optimizers are in the state.

    (Killed with signal 9, and where nothing is half written: test_hct.)
    """
    method, uninterrupted, _ = whole
    workdir = tmp_path / "interrupted"
    more = {"source__dir": str(uninterrupted.parent)} if method == "pul" else {}
    tiny_runs.interrupt(lambda: run(method, prepared, workdir, **more), monkeypatch)
    assert len((workdir / "metrics.jsonl").read_text().splitlines()) == 1
    status, output, errors = tiny_runs.finish(start(method, prepared, workdir, **more))
    assert status == 0 and "resuming" in output, errors
    tiny_runs.assert_same(workdir, uninterrupted)


def test_a_finished_run_shows_its_result_and_another_config_is_refused(whole, prepared, monkeypatch):
    method, workdir, _ = whole
    before = (workdir / "metrics.jsonl").read_bytes()
    monkeypatch.setattr(session, "train_epoch", lambda *args, **options: pytest.fail("it trains again"))
    _, output = run(method, prepared, workdir)
    assert "iteration  1/2" not in output and "best (iteration" in output
    with pytest.raises(errors.UserError, match="holds a run with train.learning_rate = "):
        run(method, prepared, workdir, train__learning_rate=0.5)
    with pytest.raises(errors.UserError, match="train.learning_rate must be greater than 0, got -1.0"):
        run(method, prepared, workdir, train__learning_rate=-1.0)
    assert (workdir / "metrics.jsonl").read_bytes() == before
