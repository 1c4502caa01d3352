"""experiments/transfer.py: pairs of data sets, what starts from what, and a tiny transfer of HCT and of PUL."""

import json

import pytest
import tiny_runs

from experiments import source_model, transfer
from reid_jax import types

PAIRS = [("tiny", "synthetic"), ("dukemtmcreid+msmt17", "market1501")]


@pytest.fixture
def trained(monkeypatch):
    """Records the configs that original models would be trained by, and trains nothing."""
    configs = []

    def train_source(config, folder):
        configs.append(source_model.source_config(config))
        return source_model.source_workdir(configs[-1], folder) / "checkpoints" / "last"

    monkeypatch.setattr(source_model, "train_source", train_source)
    return configs


def plan(method, pairs, workdir, *, settings=None, seeds=(0,), num_epochs=0):
    return transfer.plan(method, pairs, settings=settings or {}, seeds=seeds, workdir=workdir, num_epochs=num_epochs)


def test_pairs_are_read():
    assert transfer.parse_pairs(["a:b", " c+d : b"]) == [("a", "b"), ("c+d", "b")]


@pytest.mark.parametrize(
    "texts,message",
    [
        ([], "give SOURCE:TARGET"),
        (["market1501"], "'market1501' is not SOURCE:TARGET"),
        ([":a"], "':a' is not SOURCE:TARGET"),
        (["a:b:c"], "'a:b:c' is not SOURCE:TARGET"),
        (["a:b", "c:b", "a:b"], "'a:b' comes twice"),
    ],
)
def test_other_pairs_are_refused(texts, message):
    with pytest.raises(types.UserError, match=f"--pairs: {message}"):
        transfer.parse_pairs(texts)


@pytest.mark.parametrize("method", ["hct", "buc", "pul", "softened"])
def test_every_method_starts_from_its_sources_model(trained, tmp_path, method):
    sweep, runs = plan(method, PAIRS, tmp_path, seeds=(3, 4), num_epochs=7)
    assert list(sweep.rows) == ["tiny to synthetic", "dukemtmcreid+msmt17 to market1501"]
    assert [(run.method, run.config.seed) for run in runs] == [(method, 3), (method, 4)] * 2
    for run, source in zip(runs, trained, strict=True):
        assert run.config.model.checkpoint == str(
            source_model.source_workdir(source, tmp_path) / "checkpoints" / "last"
        )
        assert source.seed == run.config.seed and source.train.num_iterations * source.train.num_epochs == 7
        # The source's images are of the size that the method's are, and its model is the method's.
        assert (source.data.height, source.data.width) == (run.config.data.height, run.config.data.width)
        assert source.model.to_dict() | {"checkpoint": ""} == run.config.model.to_dict() | {"checkpoint": ""}
        assert source.augment.max_shift == pytest.approx(45 / 224 * source.data.width, abs=0.05)
    assert [source.data.dataset for source in trained[::2]] == [source for source, _ in PAIRS]


def test_pul_starts_from_the_model_that_it_would_train_itself(trained, tmp_path):
    _, (run,) = plan("pul", [("synthetic_source", "synthetic")], tmp_path)
    run.config.model.checkpoint = ""
    assert trained == [source_model.source_config(run.config)]


def test_a_target_from_itself_is_supervised_learning(trained, tmp_path):
    sweep, (run,) = plan("hct", [("synthetic", "synthetic")], tmp_path, settings={"data.dir": "elsewhere"})
    assert list(sweep.rows) == ["supervised on synthetic"] and run.method == "supervised" and not trained
    assert run.config.train.loss == "classifier" and run.config.data.dir == "elsewhere"
    assert run.folder == source_model.source_workdir(run.config, tmp_path)


@pytest.mark.parametrize("field,flag", [("model.checkpoint", "pairs"), ("source.num_epochs", "source_epochs")])
def test_what_the_flags_give_is_not_set(trained, tmp_path, field, flag):
    with pytest.raises(types.UserError, match=f"--set: {field} is what --{flag} gives"):
        plan("pul", PAIRS, tmp_path, settings={field: 1})
    assert not trained


@pytest.mark.parametrize("method", ["hct", "pul"])
def test_a_tiny_transfer(prepared, tmp_path, method):
    settings = tiny_runs.OVERRIDES | {"data.dir": str(prepared), "num_devices": 1, "train.num_iterations": 1}
    settings |= {"train.num_epochs": 1}
    if method == "hct":
        settings |= tiny_runs.PK_OVERRIDES | {"cluster.merge_percent": 0.1, "cluster.num_steps": 8}
        # PUL's batches of 16 are drawn from the source's 24 images.
    else:
        settings |= {"train.batch_size": 8, "cluster.num_clusters": 8}
    texts = ",".join(f"{field}={value}" for field, value in settings.items())
    command = (f"--method={method}", "--pairs=tiny:synthetic", "--source_epochs=2", f"--set={texts}")
    command += (f"--workdir={tmp_path}",)
    status, output, errors = tiny_runs.finish(tiny_runs.start_script("transfer", *command))
    assert status == 0, errors
    (source,) = tmp_path.glob("source_tiny_0_*")
    assert f"starting from the checkpoint {source}/checkpoints/last" in output
    (row,) = json.loads((tmp_path / "table.json").read_text())["rows"]
    learned = json.loads((source / "result.json").read_text())
    # What is transferred is the source's last model.
    assert row["mean"]["direct_mAP"] == pytest.approx(learned["last"]["mAP"], abs=1e-6)

    status, output, errors = tiny_runs.finish(tiny_runs.start_script("transfer", *command))
    assert status == 0, errors
    assert "(finished before)" in output and "iteration  1/1  " not in output


def test_a_source_that_is_not_there_is_one_line(prepared, tmp_path):
    command = ("--pairs=nowhere:synthetic", f"--set=data.dir={prepared}", f"--workdir={tmp_path / 'x'}")
    status, _, errors = tiny_runs.finish(tiny_runs.start_script("transfer", *command))
    assert (
        status == 2
        and errors.startswith("error: data.dir: no prepared data set 'nowhere' ")
        and errors.count("\n") == 1
    )
