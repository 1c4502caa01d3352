"""What every method's run keeps to: killed and resumed it gives the same, finished it shows its result and computes
nothing, another config or a wrong one is refused. (What is one line on a terminal: test_command_line.)"""

import importlib
import json

import numpy as np
import pytest
import tiny_runs

from reid_jax import errors, features, postprocess, sharding
from reid_jax.experiments import sweep
from reid_jax.inference import networks
from reid_jax.runs import baselines, evaluation, results, session, settings
from reid_jax.runs.dataset import load_dataset, with_images

pytestmark = pytest.mark.usefixtures("own_backbone")

BASE = tiny_runs.OVERRIDES | {"checkpoint.every_minutes": 0.0, "train.num_iterations": 2, "train.num_epochs": 2}
PK = BASE | tiny_runs.PK_OVERRIDES
LOOKUP = BASE | {"train.first_epochs": 2, "train.batch_size": 8}
DBSCAN = {"cluster.k1": 6, "cluster.k2": 3, "train.num_steps": 2}
METHODS = {
    "contrast": PK
    | DBSCAN
    | {
        "cluster.min_samples": 2,
        "cluster.eps_gap": 0.02,
        "train.warmup_steps": 2,
        "embedding.postprocess": "camera_whiten",
        "evaluation.num_probes": 8,
    },
    # The one with baselines.
    "hct": PK | {"cluster.merge_percent": 0.1, "cluster.num_steps": 8, "evaluation.baselines": True},
    "buc": LOOKUP | {"cluster.merge_percent": 0.1, "stop.when": "never"},
    "softened": LOOKUP | {"dissimilarity.num_parts": 3},
    "supervised": PK | {"loss.normalize": True},
    "pul": BASE | {"source.dataset": "tiny", "source.num_epochs": 2, "cluster.num_clusters": 8, "train.batch_size": 8},
    "cluster_dynamics": PK
    | DBSCAN
    | {"dynamics.num_neighbors": 8, "dynamics.k": 4, "dynamics.max_units": 8, "dynamics.num_similar": 5.0}
    | {"labels.similar_steps": 3, "loss.levels": "all", "loss.singletons": False, "train.sampling_level": 1},
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


@pytest.mark.parametrize("whole", ["contrast"], indirect=True)
def test_the_model_that_is_kept_has_its_post_processing(whole):
    """Loaded again it ranks as the run's table says, and copies of images were looked at in every iteration."""
    _, workdir, _ = whole
    network = networks.load_network(workdir)
    assert network.fitted.kind == "camera_whiten" and network.fitted.projection.any()
    mesh = sharding.make_mesh(1)
    dataset = load_dataset(network.config.data)
    scores = evaluation.evaluate_model(
        network.config.evaluation,
        features.make_embed_step(network.module, mesh),
        network.variables,
        dataset=with_images(dataset, network.config.data),
        mesh=mesh,
        fitted=network.fitted,
    )
    best = json.loads((workdir / "result.json").read_text())["best"]
    assert scores["mAP"] == best["mAP"] and scores["mINP"] == best["mINP"]
    assert all(0 < line["recognition"] <= 1 for line in tiny_runs.metrics(workdir))


@pytest.mark.parametrize("whole", ["hct"], indirect=True)
def test_baselines_come_before_training(whole):
    _, workdir, output = whole
    kept = json.loads((workdir / "baselines.json").read_text())
    result = json.loads((workdir / "result.json").read_text())
    colors, own = kept
    start, kind = own.split(", ")
    assert result["baselines"] == kept and (colors, start) == ("color_histogram", "direct transfer")
    assert kind in postprocess.KINDS[1:]
    for scores in kept.values():
        assert all(0 < scores[name] <= 1 for name in ("mAP", "rank1", "mINP"))
    # Images are noise of an identity's colour.
    assert kept["color_histogram"]["mAP"] > 0.4
    rows = ["color_histogram", "direct transfer", f"direct transfer, {kind}", "best (iteration", "last (iteration 2)"]
    lines = output.splitlines()
    (top,) = (
        place for place, line in enumerate(lines) if line.split() == ["mAP", "rank-1", "rank-5", "rank-10", "mINP"]
    )
    table = lines[top + 1 : top + 1 + len(rows)]
    assert all(line.startswith(row) for line, row in zip(table, rows)), table
    assert table[0].split()[1] == f"{100 * kept['color_histogram']['mAP']:.1f}"
    assert "learned from tiny by hct, no labels of people used in training; from random weights" in output
    first = json.loads((workdir / "metrics.jsonl").read_text().splitlines()[0])
    assert first["seconds"]["baselines"] > 0


@pytest.mark.parametrize("whole", ["hct"], indirect=True)
def test_a_run_below_its_baselines_says_so(whole):
    _, workdir, output = whole
    result = json.loads((workdir / "result.json").read_text())
    better = [name for name, row in result["baselines"].items() if row["mAP"] > result["best"]["mAP"]]
    line = results.compare_with_baselines(result)
    assert better and all(name in line for name in better) and line in output


@pytest.mark.parametrize("whole", ["hct"], indirect=True)
def test_baselines_are_measured_once_per_data_set(whole, prepared, tmp_path, monkeypatch):
    method, workdir, _ = whole
    monkeypatch.setattr(baselines, "_measure", lambda *args: pytest.fail("it measures again"))
    again, _ = run(method, prepared, tmp_path / "again", train__num_iterations=1, train__num_epochs=1)
    assert (again / "baselines.json").read_bytes() == (workdir / "baselines.json").read_bytes()
    off, output = run(method, prepared, tmp_path / "off", evaluation__baselines=False, train__num_iterations=1)
    assert not (off / "baselines.json").exists() and "color_histogram" not in output
    # Measuring them changes nothing of the run.
    assert tiny_runs.metrics(off) == tiny_runs.metrics(workdir)[:2]


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("combine", "supervised")])
def test_open_fields_are_chosen_and_few_images_of_each_identity_are_enough(method, prepared, tmp_path, monkeypatch):
    get_config = importlib.import_module(f"reid_jax.experiments.configs.{method}").get_config
    more = {"train__num_iterations": 1, "train__num_epochs": 1, "data__images_per_identity": 2.0}
    more["evaluation__baselines"] = False
    config = tiny_runs.make_config(get_config, prepared, METHODS[method], num_devices=1, **more)
    settings.leave_open(config, given=["train.num_steps"], stages=method == "buc")
    opened = settings.open_fields(config)
    assert opened
    workdir, output = tiny_runs.run(sweep.load_method(method), config, tmp_path / "run")
    kept = json.loads((workdir / "config.json").read_text())
    for name in opened:
        section, field = name.split(".")
        assert kept[section][field] is not None and f"{name} = {kept[section][field]}" in output
    # The same command again takes what was chosen from the run.
    monkeypatch.setattr(session, "train_epoch", lambda *args, **options: pytest.fail("it trains again"))
    assert "best (iteration" in tiny_runs.run(sweep.load_method(method), config, workdir)[1]


def test_interrupted_and_started_again_it_gives_the_same(whole, prepared, tmp_path, monkeypatch):
    """Between two epochs of the first iteration: memories and optimizers are in the state.

    One method goes on in another process, which costs seconds. (Killed with signal 9, and where nothing is half written:
    test_hct.)
    """
    method, uninterrupted, _ = whole
    workdir = tmp_path / "interrupted"
    more = {"source__dir": str(uninterrupted.parent)} if method == "pul" else {}
    tiny_runs.interrupt(lambda: run(method, prepared, workdir, **more), monkeypatch)
    assert len((workdir / "metrics.jsonl").read_text().splitlines()) == 1
    if method == "contrast":
        status, output, errors = tiny_runs.finish(start(method, prepared, workdir, **more))
        assert status == 0, errors
    else:
        _, output = run(method, prepared, workdir, **more)
    assert "resuming" in output
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
