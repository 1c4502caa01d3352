"""HCT as its user runs it: whole runs on tiny data, killed, resumed, on one and eight devices, and gone wrong."""

import json
import shutil

import numpy as np
import pytest
import tiny_runs
from PIL import Image
from tiny_runs import finish

from reid_jax import errors
from reid_jax.data_prep import prepare
from reid_jax.experiments import hct
from reid_jax.experiments.configs import hct as hct_config
from reid_jax.runs import compatibility, run_directory
from reid_jax.runs import dataset as dataset_lib

OVERRIDES = tiny_runs.PK_OVERRIDES | {
    "cluster.merge_percent": 0.1,  # 2 of 24
    "cluster.num_steps": 8,  # 8 clusters left
    "train.num_iterations": 3,
    "train.num_epochs": 4,
    "checkpoint.every_minutes": 0.0,
}
pytestmark = pytest.mark.usefixtures("own_backbone")


def make_config(data_dir, **more):
    return tiny_runs.make_config(hct_config.get_config, data_dir, OVERRIDES, **more)


def start(data_dir, workdir, **more):
    return tiny_runs.start("hct", data_dir, workdir, OVERRIDES, **more)


@pytest.fixture(scope="module")
def uninterrupted(prepared, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    status, output, errors = finish(start(prepared, workdir))
    assert status == 0, errors
    return workdir, output


def test_a_whole_run(uninterrupted):
    workdir, output = uninterrupted
    assert "starting from random weights; calibrating batch norm on 24 training images" in output
    assert output.count("\niteration ") == 4 and "direct transfer" in output
    result = json.loads((workdir / "result.json").read_text())
    assert result["method"] == "hct" and result["last"]["iteration"] == 3 and result["num_devices"] == 1
    assert result["best"]["mAP"] == max(json.loads(line)["mAP"] for line in open(workdir / "metrics.jsonl"))
    last = result["last"]
    assert last["num_clusters"] == 8 and set(last["seconds"]) == {"embed", "cluster", "train", "evaluate"}
    for name in (
        "bcubed_f",
        "agreement",
        "silhouette",
        "loss",
        "mAP",
        "rank1",
        "rank5",
        "rank10",
        "mINP",
        "nmi",
        "ari",
    ):
        assert np.isfinite(last[name]), name
    assert result["direct_transfer"]["iteration"] == 0
    assert json.loads((workdir / "config.json").read_text())["cluster"]["num_steps"] == 8
    assert list((workdir / "tensorboard").iterdir())


def test_killed_again_and_again_it_gives_the_same(uninterrupted, prepared, tmp_path):
    """Kill -9 right after each of these appears."""
    workdir = tmp_path / "killed"
    moments = [
        lambda: list(workdir.glob("checkpoints/last/*tmp*")),
        lambda: (workdir / "pseudo_labels/iteration_001.npz").exists(),
        lambda: list(workdir.glob("pseudo_labels/.tmp-*")) or (workdir / "pseudo_labels/iteration_002.npz").exists(),
        # Trained, not yet evaluated: no epoch is left when it comes back.
        lambda: len(list(workdir.glob("checkpoints/last/7"))) > 0,
    ]
    tiny_runs.run_killed_at(moments, lambda: start(prepared, workdir))
    tiny_runs.assert_same(workdir, uninterrupted[0])


def test_one_and_eight_devices_give_the_same_first_iteration(prepared, tmp_path):
    found = []
    for devices in (1, 8):
        config = make_config(prepared, num_devices=devices, train__num_iterations=1)
        hct.run_hct(config, tmp_path / str(devices))
        (line,) = (tmp_path / str(devices) / "metrics.jsonl").read_text().splitlines()[1:]
        labels = np.load(tmp_path / str(devices) / "pseudo_labels/iteration_001.npz")["pseudo_labels"]
        found.append((labels, json.loads(line)))
    (labels_one, one), (labels_eight, eight) = found
    np.testing.assert_array_equal(labels_one, labels_eight)
    assert eight["loss"] == pytest.approx(one["loss"], rel=1e-4)
    assert eight["mAP"] == pytest.approx(one["mAP"], abs=1e-3)


def test_tracklets_are_clustered_and_ranked_by_their_mean(prepared_tracklets, tmp_path):
    config = make_config(
        prepared_tracklets,
        data__dataset="walks",
        data__tracklets=True,
        cluster__merge_percent=0.125,
        cluster__num_steps=4,
        train__num_frames=2,
        train__num_iterations=1,
        num_devices=1,
    )
    result = hct.run_hct(config, tmp_path)
    labels = np.load(tmp_path / "pseudo_labels/iteration_001.npz")
    assert labels["pseudo_labels"].shape == (8,) and result["last"]["num_clusters"] == 4
    assert result["last"]["queries_ranked"] == 4 and result["last"]["mAP"] > 0.5


def test_a_folder_without_labels_trains_and_says_that_it_cannot_measure(tmp_path, capsys):
    rng = np.random.default_rng(0)
    (tmp_path / "crops").mkdir()
    for number in range(24):
        pixels = rng.integers(0, 256, (24, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "crops" / f"{number:03d}.png")
    prepare.prepare("folder", source=tmp_path / "crops", data_dir=tmp_path / "data", name="shop", progress=False)
    config = make_config(
        tmp_path / "data",
        data__dataset="shop",
        train__num_iterations=6,
        stop__signal="agreement",
        stop__patience=1,
        stop__min_rise=2.0,
    )
    result = hct.run_hct(config, tmp_path / "run")
    # No agreement rises by 2: the first is kept, and the second iteration without a rise is the last.
    assert result["last"]["iteration"] < 6 and result["direct_transfer"] is None
    assert not {"mAP", "bcubed_f"} & result["best"].keys() and np.isfinite(result["best"]["silhouette"])
    assert "no accuracy can be measured" in capsys.readouterr().out
    assert list((tmp_path / "run/checkpoints/best").iterdir())


@pytest.mark.parametrize(
    "overrides,status,message",
    [
        ({"cluster__num_steps": 13}, 2, "leave 24 - 13 x 2 = -2 clusters"),
        ({"cluster__num_stepz": 3}, 2, "num_stepz"),
        ({"train__learning_rate": 1e30}, 1, "the loss is"),
    ],
)
def test_what_a_user_gets_wrong_is_one_line(prepared, tmp_path, overrides, status, message):
    exit_status, _, errors = finish(start(prepared, tmp_path / "run", **overrides))
    assert exit_status == status, errors
    lines = [line for line in errors.splitlines() if line]
    assert len(lines) == 1 and lines[0].startswith("error: ") and message in lines[0]


@pytest.mark.parametrize(
    "overrides,message",
    [
        ({"data__dataset": "market1501"}, "no prepared data set 'market1501'"),
        ({"model__backbone": "resnet19"}, "model.backbone must be one of"),
        ({"cluster__linkage": "avg"}, "cluster.linkage must be one of average"),
        ({"train__num_epochs": 0}, "train.num_epochs must be at least 1, got 0"),
        ({"train__optimizer": "sdg"}, "train.optimizer must be one of sgd, adam"),
    ],
)
def test_a_wrong_config_is_refused_before_anything_is_written(prepared, tmp_path, overrides, message):
    with pytest.raises(errors.UserError, match=message):
        hct.run_hct(make_config(prepared, **overrides), tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_another_config_does_not_take_over_a_run(uninterrupted, prepared):
    with pytest.raises(errors.UserError, match="holds a run with seed = 0, this one has 1"):
        hct.run_hct(make_config(prepared, num_devices=1, seed=1), uninterrupted[0])


def test_checkpoints_without_a_config_are_not_taken_over(uninterrupted, prepared, tmp_path):
    shutil.copytree(uninterrupted[0], tmp_path / "run")
    (tmp_path / "run" / "config.json").unlink()
    with pytest.raises(errors.UserError, match="has checkpoints but no config.json"):
        hct.run_hct(make_config(prepared, num_devices=1), tmp_path / "run")


@pytest.mark.parametrize(
    "overrides,message", [({"model__weights": "none.npz"}, "no file 'none.npz'"), ({}, "holds a run")]
)
def test_what_is_wrong_is_found_before_images_are_decoded(uninterrupted, prepared, tmp_path, overrides, message):
    workdir = tmp_path if overrides else uninterrupted[0]
    config = make_config(prepared, seed=1, num_devices=1, data__cache_dir=str(tmp_path / "cache"), **overrides)
    with pytest.raises(errors.UserError, match=message):
        hct.run_hct(config, workdir)
    assert not (tmp_path / "cache").exists()


def test_a_result_never_lies_beside_another_config(uninterrupted, prepared, tmp_path):
    """A finished run that shall go on, killed while images are decoded: still the finished one."""
    shutil.copytree(uninterrupted[0], tmp_path / "run")
    config = make_config(prepared, num_devices=1, train__num_iterations=5, model__pooling="avg")  # as it was fitted
    run = run_directory.RunDirectory(tmp_path / "run", config, dataset_lib.load_dataset(config.data), method="hct")
    kept = json.loads((tmp_path / "run" / "config.json").read_text())
    assert kept["train"]["num_iterations"] == 3 and (tmp_path / "run" / "result.json").exists()
    del run
    # Without checkpoints nothing is left of the old run once the new one begins.
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    config = make_config(prepared, num_devices=1, seed=1)
    run = run_directory.RunDirectory(tmp_path / "run", config, dataset_lib.load_dataset(config.data), method="hct")
    run.restore(None)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["seed"] == 1
    assert not (tmp_path / "run" / "result.json").exists()


def test_market_has_1171_clusters():
    config = hct_config.get_config("market1501")
    assert hct.merges_per_step(config, 12_936) == 905 and 12_936 - 905 * config.cluster.num_steps == 1_171
    paper = (config.train.num_iterations, config.train.num_epochs, config.train.learning_rate, config.loss.margin)
    assert paper == (20, 60, 6e-5, 0.5)


def test_a_run_of_another_method_is_not_taken_over(uninterrupted):
    record = json.loads((uninterrupted[0] / "config.json").read_text())
    compatibility.check_same_run(uninterrupted[0], record)
    with pytest.raises(errors.UserError, match="holds a run of hct, this one is of buc"):
        compatibility.check_same_run(uninterrupted[0], record | {"method": "buc"})
