"""experiments/sweep.py and sweep_rows.py: what the command line says, what is run, and a tiny sweep of HCT."""

import importlib.util
import json
import pathlib
import time
from types import SimpleNamespace

import jax
import pytest
import tiny_runs

from reid_jax import errors
from reid_jax.experiments import sweep
from reid_jax.experiments.configs import sweeps
from reid_jax.experiments.configs.sweeps import Sweep
from reid_jax.runs import compatibility
from reid_jax.sweeps import sweep_rows, sweep_table

TINY = tiny_runs.PK_OVERRIDES | {
    "cluster.merge_percent": 0.1,  # 2 of 24
    "train.num_iterations": 1,
    "train.num_epochs": 1,
    "num_devices": 1,
}
STEPS = Sweep("hct", "Steps", "", {"s = 7": {"cluster.num_steps": 7}, "s = 8": {"cluster.num_steps": 8}})


@pytest.fixture
def config():
    return sweep_rows.load_config("hct", "synthetic")


def plan(workdir, rows=STEPS, *, settings=None, seeds=()):
    return sweep_rows.plan(rows, dataset="synthetic", settings=settings or {}, seeds=seeds, workdir=workdir)


def result(mAP):
    """A result.json's relevant part."""
    return {"best": {"mAP": mAP}, "last": {"mAP": mAP}, "iterations": 3, "seconds": {"train": 10.0}}


@pytest.mark.parametrize(
    "text,current,value",
    [
        ("7", 1, 7),
        ("7", 1.5, 7.0),
        ("1e-4", 0.1, 1e-4),
        ("True", False, True),
        ("false", True, False),
        ("7", "text", "7"),
        ("", "text", ""),
        ("(3, 4)", (1, 2, 5), (3, 4)),
        ("[0.5,]", [1.0], [0.5]),
        ("1,2", (1.0,), (1.0, 2.0)),
    ],
)
def test_values_take_their_fields_type(text, current, value):
    found = sweep_rows.parse_value("field", text, current)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    "text,current,rule",
    [
        ("1.5", 1, "a whole number"),
        ("one", 1.5, "a finite number"),
        ("nan", 1.5, "a finite number"),
        ("1", True, "true or false"),
        ("(a,)", (1, 2), r"values like \(1, 2\)"),
        ("x", None, "a finite number"),
    ],
)
def test_values_of_another_type_are_refused(text, current, rule):
    with pytest.raises(errors.UserError, match=f"train.x must be {rule}"):
        sweep_rows.parse_value("train.x", text, current)


def test_commas_inside_brackets_do_not_separate():
    assert sweep_rows.split_values("(1,2), [3,4],5") == ["(1,2)", "[3,4]", "5"]


def test_settings(config):
    texts = ["train.num_epochs=4, data.dataset=tiny", "loss.soft_margin=true,model.weights="]
    assert sweep_rows.parse_settings(texts, config) == {
        "train.num_epochs": 4,
        "data.dataset": "tiny",
        "loss.soft_margin": True,
        "model.weights": "",
    }


@pytest.mark.parametrize(
    "text,message",
    [
        ("cluster.num_stepz=3", r"no field 'cluster.num_stepz'; did you mean 'cluster.num_steps'\?"),
        ("linkage=single", r"no field 'linkage'; did you mean 'cluster.linkage'\?"),
        ("cluster=3", "no field 'cluster'"),
        ("seed", "'seed' is not FIELD=VALUE"),
        ("seed=1,seed=2", "seed is given twice"),
        ("seed=-", "seed must be a whole number, got '-'"),
    ],
)
def test_wrong_settings_are_named(config, text, message):
    with pytest.raises(errors.UserError, match=message):
        sweep_rows.parse_settings([text], config)


def test_a_grid_is_all_combinations(config):
    rows = sweep_rows.grid_rows(["cluster.linkage=single,average", "loss.margin=0.50,1"], config)
    assert rows == {
        "cluster.linkage=single, loss.margin=0.5": {"cluster.linkage": "single", "loss.margin": 0.5},
        "cluster.linkage=single, loss.margin=1.0": {"cluster.linkage": "single", "loss.margin": 1.0},
        "cluster.linkage=average, loss.margin=0.5": {"cluster.linkage": "average", "loss.margin": 0.5},
        "cluster.linkage=average, loss.margin=1.0": {"cluster.linkage": "average", "loss.margin": 1.0},
    }
    assert sweep_rows.grid_rows([], config) == {"default": {}}


@pytest.mark.parametrize("texts", [["loss.margin=0.5,0.50"], ["seed=1", "seed=2"]])
def test_a_grid_has_no_value_twice(config, texts):
    with pytest.raises(errors.UserError, match="twice"):
        sweep_rows.grid_rows(texts, config)


def test_seeds():
    assert sweep_rows.parse_seeds(["0", "12"]) == [0, 12] and sweep_rows.parse_seeds([]) == []
    for wrong in (["-1"], ["0", "0"], ["a"], ["1.5"]):
        with pytest.raises(errors.UserError, match="--seeds must be different whole numbers"):
            sweep_rows.parse_seeds(wrong)


def test_slugs_are_plain_names():
    plain = {
        "s = 12": "s_12",
        "CCE + part": "CCE_part",
        "cluster.linkage=single, seed=0": "cluster.linkage_single_seed_0",
        "lr=1e-05": "lr_1e-05",
    }
    assert {label: sweep_rows.slug(label) for label in plain} == plain
    unsafe = ["..", "../../etc/passwd", "/etc", "a/b", "a_b ", "a:b", "", ".", "-", "λ", "\\", "a\0b"]
    unsafe += ["x" * 300, "x" * 301]
    slugs = [sweep_rows.slug(label) for label in unsafe]
    assert len(set(slugs)) == len(unsafe)
    for name in slugs:
        assert 0 < len(name) < 100 and set(name) <= set(map(chr, range(128))) and not name.startswith((".", "-"))
        assert pathlib.Path("/w", name).resolve().parent == pathlib.Path("/w")


def test_a_plan_has_a_folder_for_every_row_and_seed(tmp_path):
    runs = plan(tmp_path, settings={"train.num_epochs": 5}, seeds=[3, 4])
    assert [str(run.folder.relative_to(tmp_path)) for run in runs] == [
        "s_7/seed_3", "s_7/seed_4", "s_8/seed_3", "s_8/seed_4"
    ]  # fmt: skip
    assert [(run.config.cluster.num_steps, run.config.seed) for run in runs] == [(7, 3), (7, 4), (8, 3), (8, 4)]
    assert all(run.config.train.num_epochs == 5 for run in runs)
    (first, _) = plan(tmp_path)
    assert first.folder == tmp_path / "s_7" and first.config.seed == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "rows,options,message",
    [
        ({"a": {"cluster.num_step": 3}}, {}, "did you mean 'cluster.num_steps'"),
        ({"a": {"seed": 1}, "b": {"cluster.linkage": "avg"}}, {}, "row 'b': cluster.linkage must be one of"),
        ({"a b": {}, "a=b": {"seed": 1}}, {}, "another row has the folder"),
        ({"a": {}, "A": {"seed": 1}}, {}, "another row has the folder"),
        ({"a": {"seed": 1}}, {"settings": {"seed": 2}}, "--set: seed is what the rows differ in"),
        ({"a": {"seed": 1}}, {"seeds": [0]}, "--seeds: the seed is given"),
        (
            {"a": {"model.backbone": "resnet34"}},
            {"settings": {"model.weights": "mobilenet_v2"}},
            "row 'a': model.backbone must be 'mobilenet_v2', that of mobilenet_v2",
        ),
    ],
)
def test_wrong_rows_are_found_before_any_run(tmp_path, rows, options, message):
    with pytest.raises(errors.UserError, match=message):
        plan(tmp_path, Sweep("hct", "", "", rows), **options)


def test_rows_of_images_per_identity_leave_open_what_follows_from_it(tmp_path):
    rows = {
        "few": {"data.images_per_identity": 2.0},
        "as given": {"data.images_per_identity": 2.0, "cluster.num_steps": 9},
    }
    few, given = plan(tmp_path, Sweep("hct", "", "", rows), settings={"train.num_ids": 4})
    assert few.config.cluster.num_steps is None and few.config.train.num_instances is None
    assert (given.config.cluster.num_steps, few.config.train.num_ids) == (9, 4)


def test_an_unknown_data_set_is_named():
    with pytest.raises(errors.UserError, match="--dataset: no config for data set 'market'"):
        sweep_rows.load_config("hct", "market")


def test_choosing_a_sweep():
    assert sweep.choose_sweep("buc_criterion", None, [], "market1501") == sweeps.get_sweeps()["buc_criterion"]
    own = sweep.choose_sweep(None, "hct", ["seed=1,2"], "synthetic")
    assert own == Sweep("hct", "seed", "", {"seed=1": {"seed": 1}, "seed=2": {"seed": 2}})
    with pytest.raises(errors.UserError, match="there is no 'buc_criterium'; did you mean 'buc_criterion'"):
        sweep.choose_sweep("buc_criterium", None, [], "synthetic")
    for name, method, grid in ((None, None, []), ("buc_criterion", "buc", []), ("buc_criterion", None, ["seed=1"])):
        with pytest.raises(errors.UserError, match="give either --sweep=NAME"):
            sweep.choose_sweep(name, method, grid, "synthetic")


def test_the_list_names_every_sweep_with_its_source():
    lines = sweep.list_sweeps().splitlines()
    assert [line.split()[0] for line in lines] == list(sweeps.get_sweeps())
    (line,) = [line for line in lines if line.startswith("buc_criterion ")]
    assert " 4 rows " in line and "BUC (Lin et al., AAAI 2019), Table 3" in line


@pytest.mark.parametrize("name", sweeps.get_sweeps())
def test_named_sweeps_are_of_their_methods_configs(name, tmp_path):
    method = sweeps.get_sweeps()[name].method
    if importlib.util.find_spec(f"reid_jax.experiments.configs.{method}") is None:
        pytest.skip(f"no config of {method} yet")
    for dataset in ("synthetic", "market1501"):
        runs = sweep_rows.plan(sweeps.get_sweeps()[name], dataset=dataset, settings={}, seeds=[], workdir=tmp_path)
        configs = [run.config.to_json() for run in runs]
        assert len(set(configs)) == len(runs), "two rows are the same"


def test_hct_tables_rows():
    rows = sweeps.get_sweeps()["hct_merge_steps"].rows
    assert rows["s = 14"] == {"cluster.num_steps": 14, "train.num_epochs": 300}
    # Table 4 holds the number of clusters near Table 3's 1,171.
    for row in sweeps.get_sweeps()["hct_merge_percent"].rows.values():
        left = 12_936 - int(row["cluster.merge_percent"] * 12_936) * row["cluster.num_steps"]
        assert abs(left - 1_171) <= 12_936 * row["cluster.merge_percent"] / 2


def test_buc_merge_percents_leave_clusters():
    for row in sweeps.get_sweeps()["buc_merge_percent"].rows.values():
        assert 0.04 < 1 - (row["train.num_iterations"] - 1) * row["cluster.merge_percent"] <= 0.11


def finish(run, *, mAP=0.3, **other):
    """Writes what a finished run leaves."""
    run.folder.mkdir(parents=True)
    (run.folder / "config.json").write_text(json.dumps(run.config.to_dict() | other))
    (run.folder / "result.json").write_text(json.dumps(result(mAP)))


def test_finished_runs_are_not_run_again(tmp_path, monkeypatch, capsys):
    first, second = plan(tmp_path)
    finish(first)
    started = []

    def run_method(config, workdir):
        started.append((config.cluster.num_steps, workdir))
        return result(0.5)

    monkeypatch.setattr(sweep, "load_method", lambda method: run_method)
    found = sweep.run_sweep(STEPS, [first, second], tmp_path)
    assert started == [(8, str(tmp_path / "s_8"))]
    assert [outcome.measures["best_mAP"] for outcome in found] == [0.3, 0.5]
    assert capsys.readouterr().out.splitlines() == [
        f"[1/2] s = 7, seed 0: {tmp_path}/s_7 (finished before)",
        f"[2/2] s = 8, seed 0: {tmp_path}/s_8",
    ]


def test_another_sweeps_table_is_not_replaced(tmp_path, monkeypatch):
    (tmp_path / "table.json").write_text(json.dumps({"title": "Criterion"}))
    monkeypatch.setattr(sweep, "load_method", lambda method: pytest.fail("a run was started"))
    with pytest.raises(
        errors.UserError, match="is the table of the sweep 'Criterion', not of .*choose another --workdir"
    ):
        sweep.run_sweep(STEPS, plan(tmp_path), tmp_path)
    assert json.loads((tmp_path / "table.json").read_text()) == {"title": "Criterion"}


def test_a_row_that_is_not_asked_for_any_more_is_not_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "load_method", lambda method: lambda config, workdir: result(0.5))
    sweep.run_sweep(STEPS, plan(tmp_path), tmp_path)
    seven = STEPS._replace(rows={"s = 7": STEPS.rows["s = 7"]})
    with pytest.raises(errors.UserError, match="has a row 's = 8', which would be lost; ask for it as well"):
        sweep.run_sweep(seven, plan(tmp_path, seven), tmp_path)
    more = STEPS._replace(rows=STEPS.rows | {"s = 6": {"cluster.num_steps": 6}})
    assert len(sweep.run_sweep(more, plan(tmp_path, more), tmp_path)) == 3


def test_another_config_does_not_take_over_a_finished_run(tmp_path, monkeypatch):
    runs = plan(tmp_path)
    finish(runs[1], seed=5)
    monkeypatch.setattr(sweep, "load_method", lambda method: pytest.fail("a run was started"))
    with pytest.raises(
        errors.UserError, match="row 's = 8': workdir: .*s_8' holds a finished run with seed = 5, this one has 0"
    ):
        sweep.run_sweep(STEPS, runs, tmp_path)


def test_a_finished_run_on_other_data_is_not_taken(tmp_path, monkeypatch):
    run, _ = plan(tmp_path)
    finish(run, data_fingerprint="old")
    monkeypatch.setattr(compatibility, "load_dataset", lambda data: SimpleNamespace(fingerprint="old"))
    assert sweep.finished_result(run) == result(0.3)
    monkeypatch.setattr(compatibility, "load_dataset", lambda data: SimpleNamespace(fingerprint="new"))
    with pytest.raises(errors.UserError, match="holds a finished run on other data than data.dir = 'data' has"):
        sweep.finished_result(run)


def test_tuples_are_compared_as_json_keeps_them(tmp_path):
    crop = {"augment.sized_crop_area": (0.5, 1.0)}
    (run,) = plan(tmp_path, Sweep("buc", "", "", {"crop": crop}))
    assert sweep.finished_result(run) is None
    finish(run)
    assert sweep.finished_result(run) == result(0.3)
    run.config.augment.sized_crop_area = (0.5, 0.9)
    message = r"augment.sized_crop_area = \[0.5, 1.0\], this one has \[0.5, 0.9\]"
    with pytest.raises(errors.UserError, match=message):
        sweep.finished_result(run)


@pytest.mark.parametrize("field,value", [("data.dir", "elsewhere"), ("num_devices", 3), ("data.cache_gib", 0.5)])
def test_fields_that_change_nothing_may_differ_from_a_finished_runs(tmp_path, field, value):
    (run, _) = plan(tmp_path)
    finish(run)
    (other, _) = plan(tmp_path, settings={field: value})
    assert other.config != run.config and sweep.finished_result(other) == result(0.3)
    # Not even an older version's config, which lacks the field, is another one.
    config = json.loads((run.folder / "config.json").read_text())
    section, _, name = field.rpartition(".")
    del (config[section] if section else config)[name]
    (run.folder / "config.json").write_text(json.dumps(config))
    assert sweep.finished_result(other) == result(0.3)


@pytest.mark.parametrize(
    "field,value", [("train.num_iterations", 15), ("train.num_epochs", 5), ("data.height", 96), ("stop.when", "never")]
)
def test_fields_that_change_the_numbers_may_not(tmp_path, field, value):
    (run, _) = plan(tmp_path)
    finish(run)
    (other, _) = plan(tmp_path, settings={field: value})
    with pytest.raises(
        errors.UserError, match=f"row 's = 7': .* a finished run with {field} = .*, this one has {value!r}"
    ):
        sweep.finished_result(other)


@pytest.mark.parametrize(
    "error",
    [
        errors.UserError("too many\nsteps"),
        errors.NonFiniteLossError("too many steps"),
    ],
)
def test_a_row_that_fails_leaves_the_others(tmp_path, monkeypatch, error):
    def run_method(config, workdir):
        if config.cluster.num_steps == 7:
            raise error
        return result(0.5)

    monkeypatch.setattr(sweep, "load_method", lambda method: run_method)
    sweep.run_sweep(STEPS, plan(tmp_path), tmp_path)
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert rows[0]["runs"][0]["failure"] == "too many steps" and rows[0]["mean"]["best_mAP"] is None
    assert rows[1]["runs"][0]["failure"] is None and rows[1]["mean"]["best_mAP"] == 0.5
    assert "seed 0: too many steps" in (tmp_path / "table.md").read_text()


def test_a_row_that_runs_out_of_memory_leaves_the_others(tmp_path, monkeypatch):
    def run_method(config, workdir):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory.\nAllocations: ...")

    monkeypatch.setattr(sweep, "load_method", lambda method: run_method)
    outcomes = sweep.run_sweep(STEPS, plan(tmp_path), tmp_path)
    assert [outcome.failure for outcome in outcomes] == ["RESOURCE_EXHAUSTED: Out of memory."] * 2


@pytest.mark.parametrize(
    "error", [ZeroDivisionError, KeyboardInterrupt, jax.errors.JaxRuntimeError("INTERNAL: a fault")]
)
def test_what_stops_a_sweep_is_not_hidden_and_leaves_a_table_of_what_is_done(tmp_path, monkeypatch, error):
    def run_method(config, workdir):
        if config.cluster.num_steps == 8:
            raise error
        return result(0.5)

    monkeypatch.setattr(sweep, "load_method", lambda method: run_method)
    with pytest.raises(error if isinstance(error, type) else type(error)):
        sweep.run_sweep(STEPS, plan(tmp_path), tmp_path)
    assert [len(row["runs"]) for row in json.loads((tmp_path / "table.json").read_text())["rows"]] == [1, 0]
    assert "| s = 8 | – | – |" in (tmp_path / "table.md").read_text()


def test_a_killed_sweep_of_hct_goes_on_and_fails_where_a_row_does(prepared, tmp_path):
    grid = "cluster.num_steps=13,8"  # 24 - 13 x 2 leaves no cluster
    settings = TINY | {"data.dir": str(prepared)}
    texts = ",".join(f"{field}={value}" for field, value in settings.items())
    command = ("--method=hct", f"--grid={grid}", f"--set={texts}", f"--workdir={tmp_path}")
    _, run = plan(tmp_path, sweep.choose_sweep(None, "hct", [grid], "synthetic"), settings=settings)

    process = tiny_runs.start_script("sweep", *command)
    # After iteration 0's checkpoint.
    while process.poll() is None and not (run.folder / "pseudo_labels" / "iteration_001.npz").exists():
        time.sleep(0.001)
    process.kill()
    output, errors = tiny_runs.finish(process)[1:]
    assert "\niteration  0/1" in output and "\niteration  1/1" not in output, errors
    assert sweep.finished_result(run) is None
    assert [len(row["runs"]) for row in json.loads((tmp_path / "table.json").read_text())["rows"]] == [1, 0]

    status, output, errors = tiny_runs.finish(tiny_runs.start_script("sweep", *command))
    assert status == 2, errors
    assert errors.splitlines() == ["error: 1 of 2 runs failed; the table says why"]
    assert f"resuming {run.folder}: iteration 1/1" in output
    assert "\niteration  0/1" not in output and output.count("\niteration  1/1") == 1
    *_, title, titles, thirteen, eight, _, _ = output.splitlines()
    assert title == "cluster.num_steps: hct on tiny" and titles.endswith("failed")
    assert "–" in thirteen and "seed 0: cluster.merge_percent = 0.1 and cluster.num_steps = 13 leave" in thirteen
    assert eight.startswith("cluster.num_steps=8 ") and "–" not in eight
    # What is left is a finished run of this row.
    measures = sweep_table.measure(sweep.finished_result(run))
    assert measures["num_clusters"] == 8 and measures["iterations"] == 1 and 0 < measures["best_mAP"] <= 1


def test_a_typo_is_one_line_before_anything_is_written(tmp_path):
    folder = tmp_path / "x"
    arguments = ("--method=hct", "--grid=cluster.linkeage=single", f"--workdir={folder}")
    status, _, errors = tiny_runs.finish(tiny_runs.start_script("sweep", *arguments))
    assert status == 2 and not folder.exists()
    assert errors == "error: the config has no field 'cluster.linkeage'; did you mean 'cluster.linkage'?\n"
