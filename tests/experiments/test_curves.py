"""experiments/curve_data.py and reid_jax/report.py: which runs are curves, what their points are, and the picture."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from reid_jax import errors
from reid_jax.experiments import curves
from reid_jax.pictures import plots
from reid_jax.reports import curves as curve_data
from reid_jax.runs import metrics_files


def write_run(folder, values, **more):
    """A run directory whose iterations from 0 selected `values`; None: not logged."""
    folder.mkdir(parents=True)
    records = [{"iteration": i, "mAP": 0.1 * i, **more} for i in range(len(values))]
    for record, value in zip(records, values):
        if value is not None:
            record["selected"] = value
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture
def sweep_folder(tmp_path):
    folder = tmp_path / "pul_threshold"
    for seed in (0, 1):
        write_run(folder / "lambda_0.85" / f"seed_{seed}", [None, 0.5 + 0.1 * seed, 0.7])
        write_run(folder / "lambda_0.9" / f"seed_{seed}", [None, 0.3])
    write_run(folder / "source_other_0_12345678", [None, 1.0])
    return folder


def test_a_sweeps_rows_are_curves_and_their_seeds_runs(sweep_folder):
    runs = curve_data.find_runs([str(sweep_folder)])
    assert {name: len(histories) for name, histories in runs.items()} == {"lambda_0.85": 2, "lambda_0.9": 2}
    found = curve_data.make_curves(runs, "selected")
    np.testing.assert_allclose(found["lambda_0.85"], [[[1, 50], [2, 70]], [[1, 60], [2, 70]]])
    np.testing.assert_allclose(found["lambda_0.9"], [[[1, 30]], [[1, 30]]])


def test_run_directories_are_named_by_their_folders(sweep_folder, tmp_path):
    write_run(tmp_path / "hct_0", [None])
    assert list(curve_data.find_runs([str(tmp_path / "hct_0")])) == ["hct_0"]
    names = list(curve_data.find_runs([str(tmp_path / "hct_0"), str(sweep_folder)]))
    assert names == ["hct_0", "pul_threshold lambda_0.85", "pul_threshold lambda_0.9"]
    assert list(curve_data.find_runs([str(sweep_folder / "lambda_0.9")])) == ["lambda_0.9"]


def test_folders_of_the_same_name_are_not_one_curve(tmp_path):
    for place in ("a", "b"):
        write_run(tmp_path / place / "run", [None, 0.5])
    names = list(curve_data.find_runs([str(tmp_path / place / "run") for place in ("a", "b")]))
    assert names == [f"{tmp_path}/a/run", f"{tmp_path}/b/run"]


def test_an_original_models_own_curve(sweep_folder):
    source = sweep_folder / "source_other_0_12345678"
    assert list(curve_data.find_runs([str(source)])) == ["source_other_0_12345678"]


def test_a_curve_is_the_mean_of_its_runs_and_the_band_their_range(tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    drawn = []
    monkeypatch.setattr(Axes, "fill_between", lambda self, *band, **options: drawn.append(band))
    runs = [np.array([[1.0, 2.0], [2.0, 4.0]]), np.array([[1.0, 4.0]])]
    path = tmp_path / "x.png"
    plots.save_curves(path, {"loss": {"a": runs, "nothing": [np.zeros((0, 2))]}, "mAP": {"a": runs}})
    iterations, lower, upper = drawn[0]
    assert (list(iterations), lower, upper) == ([1, 2], [2, 4], [4, 4]) and len(drawn) == 2
    with Image.open(path) as picture:
        assert picture.format == "PNG" and picture.width > 2 * picture.height
    assert [file.name for file in tmp_path.iterdir()] == ["x.png"]


def test_a_run_has_the_same_colour_in_all_panels(tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    colors = []
    monkeypatch.setattr(Axes, "plot", lambda self, *points, label, color, **options: colors.append((label, color)))
    one = [np.array([[1.0, 2.0]])]
    plots.save_curves(tmp_path / "x.svg", {"a": {"x": [np.zeros((0, 2))], "y": one}, "b": {"x": one, "y": one}})
    assert colors == [("y", "C1"), ("x", "C0"), ("y", "C1")]


def test_what_is_drawn_by_default_is_what_there_is(sweep_folder, tmp_path):
    assert curve_data.default_fields(curve_data.find_runs([str(sweep_folder)])) == ["selected", "mAP"]
    write_run(tmp_path / "hct", [None, None], loss=0.5)
    assert curve_data.default_fields(curve_data.find_runs([str(tmp_path / "hct")])) == ["mAP", "loss"]


@pytest.fixture
def levels_folder(tmp_path):
    """Two seeds of a run with three levels, and a run without."""
    for seed in (0, 1):
        levels = {f"level{level}_num_clusters": 100 - 10 * level - seed for level in (1, 2, 3)}
        recalls = {f"level{level}_bcubed_recall": 0.2 * level + 0.1 * seed for level in (1, 2, 3)}
        write_run(tmp_path / "hcd" / f"seed_{seed}", [None, 1.0], num_clusters=7, **levels, **recalls)
        # The curves are of the last iteration.
        path = tmp_path / "hcd" / f"seed_{seed}" / "metrics.jsonl"
        earlier = {"iteration": 0, "level1_num_clusters": 1, "level4_nmi": 1.0}
        path.write_text(f"{json.dumps(earlier)}\n{path.read_text()}")
    write_run(tmp_path / "buc", [None, 1.0], num_clusters=7)
    return tmp_path


def test_over_levels_the_last_iterations_values(levels_folder):
    runs = curve_data.by_level(curve_data.find_runs([str(levels_folder)]))
    found = curve_data.make_curves(runs, "num_clusters", over="level")
    np.testing.assert_array_equal(found["hcd"], [[[1, 90], [2, 80], [3, 70]], [[1, 89], [2, 79], [3, 69]]])
    assert [run.shape for run in found["buc"]] == [(0, 2)]
    found = curve_data.make_curves(runs, "bcubed_recall", over="level")
    np.testing.assert_allclose(found["hcd"], [[[1, 20], [2, 40], [3, 60]], [[1, 30], [2, 50], [3, 70]]])
    assert curve_data.default_fields(runs, over="level") == ["bcubed_recall", "num_clusters"]
    with pytest.raises(errors.UserError, match="no run has 'mAP'; choose of bcubed_recall, num_clusters$"):
        curve_data.make_curves(runs, "mAP", over="level")


def test_runs_without_levels_have_no_curves_over_them(levels_folder):
    with pytest.raises(
        errors.UserError, match=r"--over: level needs .* experiments/cluster_dynamics.py; .* of buc has"
    ):
        curve_data.by_level(curve_data.find_runs([str(levels_folder / "buc")]))


def test_the_command_draws_over_levels(levels_folder):
    def run(*arguments):
        command = [sys.executable, curves.__file__, f"--runs={levels_folder}", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    output = levels_folder / "levels.svg"
    done = run("--over=level", f"--output={output}")
    assert done.returncode == 0, done.stderr
    texts = [text for text in re.findall("<!-- (.*) -->", output.read_text()) if text.strip("0123456789.")]
    assert set(texts) == {"BCubed recall, per cent", "hcd", "level", "number of clusters"} and texts.count("level") == 2
    failed = run("--over=levels", f"--output={output}")
    assert failed.returncode == 2 and "--over=levels: value should be one of <iteration|level>" in failed.stderr


def test_nothing_to_draw_and_other_endings_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no curve of 'loss' has a value"):
        plots.save_curves(tmp_path / "x.png", {"loss": {"a": [np.zeros((0, 2))]}})
    with pytest.raises(errors.UserError, match=r"x.doc' must end in one of \.png, \.pdf, \.svg"):
        plots.save_curves(tmp_path / "x.doc", {"loss": {"a": [np.ones((1, 2))]}})


def test_without_matplotlib_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(errors.UserError, match=r"pictures need matplotlib, the extra \[viz\]"):
        plots.save_curves(tmp_path / "x.png", {"loss": {"a": [np.ones((1, 2))]}})


def test_a_line_that_a_killed_run_left_half_written(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"iteration": 0}\n{"iterat')
    assert metrics_files.read_records(tmp_path / "metrics.jsonl") == [{"iteration": 0}]


@pytest.mark.parametrize(
    "text,message", [("{\n", "line 1 of .* is not JSON"), ("{}\n3\n", "line 2 of .* is no JSON object")]
)
def test_broken_records_are_named(tmp_path, text, message):
    (tmp_path / "metrics.jsonl").write_text(text)
    with pytest.raises(errors.UserError, match=f"--runs: {message}"):
        curve_data.find_runs([str(tmp_path)])


def test_what_a_user_gets_wrong(sweep_folder, tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "nowhere"):
        with pytest.raises(errors.UserError, match=f"--runs: no metrics.jsonl in .*{folder}'"):
            curve_data.find_runs([str(tmp_path / folder)])
    with pytest.raises(errors.UserError, match="--runs: a folder is given twice"):
        curve_data.find_runs([str(sweep_folder), f"{sweep_folder}/"])
    runs = curve_data.find_runs([str(sweep_folder)])
    with pytest.raises(errors.UserError, match="--fields: no run has 'loss'; choose of mAP, selected"):
        curve_data.make_curves(runs, "loss")
