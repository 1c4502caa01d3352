"""Any labels with any loss: every pair that makes sense trains, the others are refused."""

import itertools

import numpy as np
import pytest
import tiny_runs

from reid_jax import errors
from reid_jax.experiments import combine
from reid_jax.experiments.configs import combine as combine_config

OVERRIDES = tiny_runs.PK_OVERRIDES | {
    "train.num_iterations": 2,
    "train.num_epochs": 1,
    "train.num_steps": 2,
    "cluster.k1": 6,
    "cluster.k2": 3,
    "cluster.min_samples": 2,
    "cluster.merge_percent": 0.1,
    "cluster.num_steps": 8,
    "cluster.num_clusters": 8,
    "selection.threshold": 0.0,
    "head.dim": 8,
    "dynamics.num_neighbors": 8,
    "dynamics.k": 4,
    "dynamics.max_units": 8,
    "dynamics.num_similar": 5.0,
    "num_devices": 1,
}
LOSSES = ("triplet", "classifier", "repelled", "unified", "cluster")
PAIRS = [
    *itertools.product(("hct",), LOSSES),
    *(("buc", "triplet"), ("buc", "classifier"), ("kmeans", "repelled"), ("kmeans", "cluster")),
    *(("dbscan", "classifier"), ("dbscan", "unified")),
    *itertools.product(("cluster_dynamics",), ("triplet", "unified")),
]
pytestmark = pytest.mark.usefixtures("own_backbone")


def make_config(data_dir, labels, loss, **more):
    overrides = OVERRIDES | {"labels.method": labels, "loss.kind": loss}
    return tiny_runs.make_config(combine_config.get_config, data_dir, overrides, **more)


@pytest.mark.parametrize("labels,loss", PAIRS)
def test_a_pair_trains_with_one_compilation(prepared, tmp_path, monkeypatch, labels, loss):
    steps = tiny_runs.record_train_steps(monkeypatch)
    result = combine.run_combine(make_config(prepared, labels, loss), tmp_path)
    last = result["last"]
    assert last["iteration"] == 2 and np.isfinite([last["loss"], last["mAP"]]).all() and last["num_clusters"] > 1
    assert [step._cache_size() for step in steps] == [1]


def test_of_kmeans_the_selected_are_measured_alone(prepared, tmp_path):
    """Samples that were not selected are no clusters of one each."""
    more = {"selection__compared": "own", "selection__threshold": 0.97, "stop__signal": "selected"}
    last = combine.run_combine(make_config(prepared, "kmeans", "triplet", **more), tmp_path)["last"]
    assert last["selected"] < 1 and last["num_clusters"] == 8


@pytest.mark.parametrize(
    "labels,loss,more,message",
    [
        ("cluster_dynamics", "repelled", {}, "loss.kind must be triplet or unified with labels.method"),
        ("hct", "tripelt", {}, "loss.kind must be one of triplet, classifier"),
        ("spectral", "triplet", {}, "labels.method must be one of hct, buc"),
        ("kmeans", "triplet", {"cluster__num_clusters": 25}, "cluster.num_clusters must be in train.num_ids = 4..24"),
        ("hct", "triplet", {"cluster__num_steps": 12}, "leave 24 - 12 x 2 = 0 clusters"),
        ("dbscan", "cluster", {"cluster__k1": 24}, "cluster.k1"),
        (
            "kmeans",
            "triplet",
            {"selection__compared": "own", "selection__threshold": 1.0, "train__num_ids": 8},
            "gives 8 clusters of 8 samples; at least",
        ),
    ],
)
def test_what_makes_no_sense_is_told(prepared, tmp_path, labels, loss, more, message):
    with pytest.raises(errors.UserError, match=message):
        combine.run_combine(make_config(prepared, labels, loss, **more), tmp_path)
