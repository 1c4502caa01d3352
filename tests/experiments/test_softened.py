"""Softened similarity as its user runs it: whole runs on tiny data, killed, resumed, streamed, and gone wrong."""

import json

import numpy as np
import pytest
import tiny_runs

from reid_jax import errors
from reid_jax.experiments import softened
from reid_jax.experiments.configs import softened as softened_config
from reid_jax.runs import dataset as dataset_lib

OVERRIDES = tiny_runs.OVERRIDES | {
    "train.num_iterations": 3,
    "train.first_epochs": 3,
    "train.drop_epoch": 2,
    "train.num_epochs": 2,
    "train.batch_size": 8,
    "dissimilarity.num_parts": 3,
    "checkpoint.every_minutes": 0.0,
}
pytestmark = pytest.mark.usefixtures("own_backbone")


def make_config(data_dir, **more):
    return tiny_runs.make_config(softened_config.get_config, data_dir, OVERRIDES, **more)


def start(data_dir, workdir, **more):
    return tiny_runs.start("softened", data_dir, workdir, OVERRIDES, **more)


@pytest.fixture(scope="module")
def uninterrupted(prepared, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("softened") / "whole"
    return tiny_runs.run(softened.run_softened, make_config(prepared, num_devices=1), workdir)


def test_a_whole_run(uninterrupted):
    workdir, output = uninterrupted
    assert output.count("\niteration ") == 4 and "reliable" in output and "across cameras" in output
    assert json.loads((workdir / "result.json").read_text())["method"] == "softened"
    first, second, third = (
        np.load(workdir / f"pseudo_labels/iteration_{i:03d}.npz")["pseudo_labels"] for i in (1, 2, 3)
    )
    np.testing.assert_array_equal(first, np.repeat(np.arange(24)[:, None], 4, axis=1))  # the baseline's hard labels
    assert second.shape == third.shape == (24, 4) and not (second == np.arange(24)[:, None]).any()
    line = tiny_runs.metrics(workdir)[3]
    kept = np.mean([len(set(a) & set(b)) / 4 for a, b in zip(second, third)])
    assert line["agreement"] == pytest.approx(kept)
    pids = np.repeat([1, 2, 3, 4], 6)
    assert line["reliable_precision"] == pytest.approx((pids[third] == pids[:, None]).mean())


def test_one_compile_for_baseline_and_softened_labels(prepared, tmp_path, monkeypatch):
    steps = tiny_runs.record_train_steps(monkeypatch)
    softened.run_softened(make_config(prepared), tmp_path)
    assert [step._cache_size() for step in steps] == [1]


def test_tracklets_without_cameras(prepared_tracklets, tmp_path, monkeypatch, capsys):
    load_dataset = dataset_lib.load_dataset

    def without_cameras(data):
        import dataclasses

        dataset = load_dataset(data)
        samples = dataset.samples["train"]
        unknown = dataclasses.replace(samples, camids=np.full(len(samples), -1))
        return dataset._replace(samples=dataset.samples | {"train": unknown})

    monkeypatch.setattr(dataset_lib, "load_dataset", without_cameras)
    config = make_config(
        prepared_tracklets,
        data__dataset="walks",
        data__tracklets=True,
        train__num_iterations=2,
        train__batch_size=4,
        train__num_frames=2,
        memory__reset=True,
        num_devices=1,
    )
    result = softened.run_softened(config, tmp_path)
    assert "no camera ids: the cross-camera term (CCE) is off" in capsys.readouterr().out
    assert "reliable_cross_camera" not in result["last"] and result["last"]["queries_ranked"] == 4


def test_streamed_tracklets_give_the_same(prepared_tracklets, tmp_path):
    for name, cache_gib in (("cached", 16.0), ("streamed", 0.0)):
        config = make_config(
            prepared_tracklets,
            data__dataset="walks",
            data__tracklets=True,
            data__cache_dir=str(tmp_path / f"cache_{name}"),
            data__cache_gib=cache_gib,
            train__num_iterations=2,
            train__batch_size=4,
            train__num_frames=2,
            num_devices=1,
        )
        softened.run_softened(config, tmp_path / name)
    assert not (tmp_path / "cache_streamed").exists() and (tmp_path / "cache_cached").exists()
    tiny_runs.assert_same(tmp_path / "cached", tmp_path / "streamed")


@pytest.mark.parametrize(
    "overrides,message",
    [
        ({"dissimilarity__num_reliable": 24}, "dissimilarity.num_reliable must be in 1..23, .* got 24"),
        ({"dissimilarity__num_reliable": 0}, "dissimilarity.num_reliable must be at least 1, got 0"),
        (
            {"dissimilarity__num_parts": 8},
            "dissimilarity.num_parts = 8: num_stripes must divide the feature map's height 6, got 8",
        ),
        ({"loss__own_weight": 1.2}, "loss.own_weight must be in 0..1, got 1.2"),
        ({"stop__signal": "silhouette"}, "stop.signal must be 'agreement' or 'last' where nothing is clustered"),
        ({"train__first_epochs": 0}, "train.first_epochs must be at least 1, got 0"),
    ],
)
def test_what_a_user_gets_wrong(prepared, tmp_path, overrides, message):
    with pytest.raises(errors.UserError, match=message):
        softened.run_softened(make_config(prepared, **overrides), tmp_path)


def test_the_papers_values():
    config = softened_config.get_config("market1501")
    assert (config.train.first_epochs, config.train.batch_size, config.train.num_iterations) == (25, 16, 26)
    assert (config.loss.own_weight, config.loss.temperature) == (0.6, 0.1)
    terms = config.dissimilarity
    assert (terms.num_reliable, terms.num_parts, terms.part_weight, terms.camera_penalty) == (4, 8, 0.5, 0.02)
    assert softened_config.get_config("dukemtmc_videoreid").train.first_epochs == 30
