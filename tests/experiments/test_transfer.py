"""experiments/transfer.py: pairs of data sets, what starts from what, and a tiny transfer of HCT and of PUL."""

import json

import pytest
import tiny_runs

from reid_jax import errors, source_model
from reid_jax.experiments import transfer
from reid_jax.runs import dataset, fitting

PAIRS = [("tiny", "synthetic"), ("dukemtmcreid+msmt17", "market1501")]


def plan(method, pairs, workdir, *, settings=None, seeds=(0,), num_epochs=0):
    return transfer.plan(method, pairs, settings=settings or {}, seeds=seeds, workdir=workdir, num_epochs=num_epochs)


def test_pairs_are_read():
    assert transfer.parse_pairs(["a:b, c+d : b", "e:b"]) == [("a", "b"), ("c+d", "b"), ("e", "b")]


@pytest.mark.parametrize(
    "texts,message",
    [
        ([], "give SOURCE:TARGET"),
        (["market1501"], "'market1501' is not SOURCE:TARGET"),
        ([":a"], "':a' is not SOURCE:TARGET"),
        (["a:b:c"], "'a:b:c' is not SOURCE:TARGET"),
        (["a:b,c:b", "a:b"], "'a:b' comes twice"),
    ],
)
def test_other_pairs_are_refused(texts, message):
    with pytest.raises(errors.UserError, match=f"--pairs: {message}"):
        transfer.parse_pairs(texts)


@pytest.mark.parametrize("method", ["hct", "buc", "pul", "softened"])
def test_every_method_starts_from_its_sources_model(tmp_path, method):
    sweep, runs = plan(method, PAIRS, tmp_path, seeds=(3, 4), num_epochs=7)
    sources, adapted = runs[::2], runs[1::2]
    assert list(dict.fromkeys(run.label for run in adapted)) == [f"{source} to {target}" for source, target in PAIRS]
    assert {run.label for run in runs} == set(sweep.rows) and len(sweep.rows) == 4
    assert [(run.method, run.config.seed) for run in adapted] == [(method, 3), (method, 4)] * 2
    for run, source in zip(adapted, sources, strict=True):
        config = source.config
        assert source.method == "supervised" and source.label.startswith(f"supervised on {config.data.dataset}, ")
        assert source.folder == source_model.source_workdir(config, tmp_path) and config.seed == run.config.seed
        assert config.train.loss == "classifier" and config.train.num_iterations * config.train.num_epochs == 7
        if method == "pul":  # trains it itself, if need be
            assert source_model.source_config(run.config) == config and run.config.source.dir == str(tmp_path)
        else:
            assert run.config.model.checkpoint == str(source.folder / "checkpoints" / "last")
        # The source's images are of the size that the method's are, and its model is the method's.
        assert (config.data.height, config.data.width) == (run.config.data.height, run.config.data.width)
        assert config.model.to_dict() | {"checkpoint": ""} == run.config.model.to_dict() | {"checkpoint": ""}
        assert config.augment.max_shift == pytest.approx(45 / 224 * config.data.width, abs=0.05)
    assert [source.config.data.dataset for source in sources[::2]] == [source for source, _ in PAIRS]


def test_puls_settings_are_its_original_models_too(tmp_path):
    settings = {"train.batch_size": 8, "evaluation.batch_size": 32, "augment.max_degrees": 5.0}
    (source, run) = plan("pul", PAIRS[:1], tmp_path, settings=settings)[1]
    assert (source.config.train.num_ids, source.config.evaluation.batch_size) == (8, 32)
    assert source.config.augment.max_degrees == 5 and source_model.source_config(run.config) == source.config


def test_a_target_from_itself_is_supervised_learning_alone(tmp_path):
    pairs = [("synthetic", "synthetic"), ("synthetic", "coil100"), ("synthetic_source", "synthetic")]
    _, runs = plan("pul", pairs, tmp_path, settings={"data.dir": "elsewhere"})
    assert [run.label for run in runs] == [
        "supervised on synthetic, 128x64",
        "supervised on synthetic, 64x64",
        "synthetic to coil100",
        "supervised on synthetic_source, 128x64",
        "synthetic_source to synthetic",
    ]
    assert all(run.config.data.dir == "elsewhere" for run in runs)


@pytest.mark.parametrize("field,flag", [("model.checkpoint", "pairs"), ("source.num_epochs", "source_epochs")])
def test_what_the_flags_give_is_not_set(tmp_path, field, flag):
    with pytest.raises(errors.UserError, match=f"--set: {field} is what --{flag} gives"):
        plan("pul", PAIRS, tmp_path, settings={field: 1})


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
    supervised, row = json.loads((tmp_path / "table.json").read_text())["rows"]
    # What is transferred is the source's last model; its own data set is the target here.
    assert row["mean"]["direct_mAP"] == pytest.approx(supervised["mean"]["last_mAP"], abs=1e-6)

    status, output, errors = tiny_runs.finish(tiny_runs.start_script("transfer", *command))
    assert status == 0, errors
    assert output.count("(finished before)") == 2 and "iteration  1/1  " not in output


@pytest.mark.parametrize("pair,name", [("nowhere:synthetic", "nowhere"), ("tiny:nowhere", "nowhere")])
def test_a_data_set_that_is_not_there_is_one_line_before_any_work(prepared, tmp_path, pair, name):
    folder = tmp_path / "x"
    command = (f"--pairs={pair}", f"--set=data.dir={prepared},model.weights=", f"--workdir={folder}")
    status, _, errors = tiny_runs.finish(tiny_runs.start_script("transfer", *command))
    assert status == 2 and errors.startswith("error: --pairs: ") and errors.count("\n") == 1
    assert f"no prepared data set '{name}' in" in errors and not folder.exists()


def test_ones_own_target_takes_folders_config(prepared, tmp_path):
    _, (source, run) = plan("hct", [("market1501", "tiny")], tmp_path, settings={"data.dir": str(prepared)})
    assert run.label == "market1501 to tiny" and run.config.data.dataset == "tiny"
    assert source.config.data.dataset == "market1501" and source.config.model.weights == "mobilenet_v2"
    # Source and target have one size, by the target's images of 24 x 12, and what follows from it.
    assert [(each.config.data.height, each.config.data.width) for each in (source, run)] == [(256, 128)] * 2
    assert source.label == "supervised on market1501, 256x128" and source.config.augment.max_shift == 25.7
    with pytest.raises(errors.UserError, match="^--pairs: .*no prepared data set 'shop'"):
        plan("hct", [("market1501", "shop")], tmp_path, settings={"data.dir": str(prepared)})


def test_puls_run_on_ones_own_target_finds_the_tables_source(prepared, tmp_path, meshes):
    """What the run finds out of its data before it looks for the source's model changes nothing of that."""
    settings = {"data.dir": str(prepared), "data.images_per_identity": 6.0}
    source, run = plan("pul", [("market1501", "tiny")], tmp_path, settings=settings)[1]
    assert run.config.cluster.num_clusters is None
    fitted = fitting.fit_config(run.config, dataset.load_dataset(run.config.data), tmp_path / "new", meshes[0])
    assert fitted.cluster.num_clusters >= 2 and fitted.data.images_per_identity > 1
    own = source_model.source_config(fitted)
    assert own == source.config and source_model.source_workdir(own, tmp_path) == source.folder


@pytest.mark.parametrize("method", ["cluster_dynamics", "dbscan"])
def test_adaptive_methods_start_from_the_source_and_go_on_learning_from_it(tmp_path, method):
    source, run = plan(method, [("market1501", "dukemtmcreid")], tmp_path)[1]
    assert run.config.source.dataset == "market1501" and run.config.data.dataset == "dukemtmcreid"
    assert run.config.model.checkpoint == str(source.folder / "checkpoints" / "last")
    assert source.config.model.neck == "bn" and source.config.data.dataset == "market1501"
