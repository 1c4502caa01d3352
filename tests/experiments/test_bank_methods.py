"""HCD and the DBSCAN baselines as their user runs them: whole runs on tiny data, killed, adaptive, and gone wrong."""

import json

import jax
import numpy as np
import pytest
import tiny_runs
from tiny_data import write_market_folder

from reid_jax import cluster_dynamics as update_module
from reid_jax import errors
from reid_jax.cluster_dynamics import LabelBank, preserves_clusters
from reid_jax.data_prep import prepare
from reid_jax.experiments import cluster_dynamics, combine, dbscan
from reid_jax.experiments.configs import cluster_dynamics as cluster_dynamics_config
from reid_jax.experiments.configs import combine as combine_config
from reid_jax.experiments.configs import dbscan as dbscan_config
from reid_jax.runs import online, session
from reid_jax.runs.dataset import load_training_data

SHARED = tiny_runs.PK_OVERRIDES | {
    "train.num_iterations": 3,
    "train.num_epochs": 2,
    "train.num_steps": 2,
    "checkpoint.every_minutes": 0.0,
    "cluster.k1": 6,
    "cluster.k2": 3,
}
OVERRIDES = {
    "cluster_dynamics": SHARED | {"dynamics.num_neighbors": 8, "dynamics.k": 4, "dynamics.max_units": 8},
    "dbscan": SHARED | {"cluster.min_samples": 2},
}
CONFIGS = {"cluster_dynamics": cluster_dynamics_config, "dbscan": dbscan_config}
RUNS = {"cluster_dynamics": cluster_dynamics.run_cluster_dynamics, "dbscan": dbscan.run_dbscan}
pytestmark = pytest.mark.usefixtures("own_backbone")


def make_config(method, data_dir, **more):
    return tiny_runs.make_config(CONFIGS[method].get_config, data_dir, OVERRIDES[method], **more)


def start(method, data_dir, workdir, **more):
    return tiny_runs.start(method, data_dir, workdir, OVERRIDES[method], **more)


@pytest.fixture(scope="module")
def prepared_source(prepared, tmp_path_factory):
    """Adds "other", labelled people, to the prepared data sets."""
    folder = write_market_folder(tmp_path_factory.mktemp("other") / "source", seed=1)
    prepare.prepare("market1501", source=folder, data_dir=prepared, name="other", progress=False)
    return prepared


@pytest.fixture(scope="module", params=OVERRIDES)
def uninterrupted(request, prepared, tmp_path_factory):
    workdir = tmp_path_factory.mktemp(request.param) / "whole"
    config = make_config(request.param, prepared, num_devices=1)
    return request.param, *tiny_runs.run(RUNS[request.param], config, workdir)


def test_a_whole_run(uninterrupted):
    method, workdir, output = uninterrupted
    assert output.count("\niteration ") == 4 and "direct transfer" in output
    assert json.loads((workdir / "result.json").read_text())["method"] == method
    assert (workdir / "hierarchy.png").exists() == (method == "cluster_dynamics")
    for line in tiny_runs.metrics(workdir)[1:]:
        for name in ("bcubed_f", "loss", "mAP", "nmi", "num_clusters"):
            assert np.isfinite(line[name]), name


def test_every_level_is_kept_and_judged(uninterrupted):
    method, workdir, _ = uninterrupted
    if method == "dbscan":
        pytest.skip("has one level")
    for number, line in enumerate(tiny_runs.metrics(workdir)[1:], start=1):
        labels = np.load(workdir / f"pseudo_labels/iteration_{number:03d}.npz")["pseudo_labels"]
        assert labels.shape == (24, 3) and preserves_clusters(LabelBank(labels.T))
        assert [line[f"level{level}_num_clusters"] for level in (1, 2, 3)] == (labels.max(axis=0) + 1).tolist()
        assert line["level3_bcubed_f"] == line["bcubed_f"] and line["level3_num_clusters"] == line["num_clusters"]


@pytest.mark.parametrize(
    "method,more",
    [
        (
            "cluster_dynamics",
            {
                "labels__init": "dbscan",
                "labels__warmup_steps": 4,
                "labels__interval": 1,
                "labels__similar_steps": 3,
                "dynamics__anchors": "random",
                "loss__levels": "all",
                "loss__singletons": False,
                "memory__momentum": 0.2,
                "memory__refresh": False,
                "train__sampling_level": 1,
                "train__average_decay": 0.9,
            },
        ),
        ("dbscan", {"memory__kind": "cluster"}),
    ],
)
def test_with_a_labelled_source_and_one_compile(prepared_source, tmp_path, monkeypatch, method, more):
    steps = tiny_runs.record_train_steps(monkeypatch)
    config = make_config(method, prepared_source, source__dataset="other", train__num_iterations=2, **more)
    result = RUNS[method](config, tmp_path)
    assert steps[0]._cache_size() == 1 and result["last"]["iteration"] == 2 and np.isfinite(result["last"]["loss"])


def test_before_the_first_update_dbscan_labels_stay(prepared, tmp_path):
    config = make_config(
        "cluster_dynamics", prepared, labels__init="dbscan", labels__warmup_steps=9, train__num_iterations=2
    )
    config.cluster.min_samples = 2
    result = cluster_dynamics.run_cluster_dynamics(config, tmp_path)
    assert result["last"]["agreement"] == 1 and result["last"]["num_clusters"] < 24


@pytest.mark.parametrize("module", [cluster_dynamics, combine])
def test_who_is_alone_is_not_drawn_where_that_is_asked_for(prepared, tmp_path, monkeypatch, module):
    class StoppedRunError(Exception):
        pass

    def stop(self, state, epochs, targets, **options):
        raise StoppedRunError(*epochs)

    labels = np.where(np.arange(24) < 10, np.arange(24) // 2, -1)
    monkeypatch.setattr(online.pseudo_labels, "dbscan_labels", lambda features, **options: (labels, {}))
    monkeypatch.setattr(session.Session, "train_epochs", stop)
    config = tiny_runs.make_config(
        (cluster_dynamics_config if module is cluster_dynamics else combine_config).get_config,
        prepared,
        OVERRIDES["cluster_dynamics"],
        labels__init="dbscan",
        loss__singletons=False,
    )
    if module is combine:
        config.labels.method, config.loss.kind = "cluster_dynamics", "unified"
    with pytest.raises(StoppedRunError) as caught:
        (module.run_combine if module is combine else module.run_cluster_dynamics)(config, tmp_path)
    (batches,) = caught.value.args
    assert batches.shape == (2, 8) and set(batches.ravel()) == set(range(10))


def test_a_batch_has_the_source_first(prepared_source):
    config = make_config("dbscan", prepared_source, source__dataset="other")
    domains = load_training_data(config, joins_source=True)
    assert (domains.num_source, domains.num_target) == (24, 24)
    assert domains.source_labels.tolist() == np.repeat([0, 6, 12, 18], 6).tolist()
    batches = online.draw_batches(config, domains, np.arange(24) // 2, iteration=1, epoch=0)
    assert batches.shape == (2, 16) and batches[:, :8].max() < 24 <= batches[:, 8:].min()
    classes = domains.with_source(jax.numpy.arange(24) // 2 * 2)
    assert classes.tolist() == [*np.repeat([0, 6, 12, 18], 6), *(24 + np.arange(24) // 2 * 2)]


@pytest.mark.parametrize("interval", [0, 1])
def test_labels_are_updated_for_the_targets_own_items_when_due(prepared_source, tmp_path, monkeypatch, interval):
    def one_cluster(bank, features, indices, **options):
        """In place of the update: the batch's items become one cluster."""
        assert features.shape[0] == bank.labels.shape[1] == 24 and indices.shape == (8,)
        return bank._replace(labels=bank.labels.at[:, indices].set(jax.numpy.min(indices)))

    monkeypatch.setattr(update_module, "update_label_bank", one_cluster)
    config = make_config(
        "cluster_dynamics",
        prepared_source,
        source__dataset="other",
        labels__interval=interval,
        train__num_iterations=1,
        train__num_epochs=1,
    )
    cluster_dynamics.run_cluster_dynamics(config, tmp_path)
    domains = load_training_data(config, joins_source=True)
    batches = online.draw_batches(config, domains, np.arange(24), iteration=1, epoch=0)[:, 8:] - 24
    expected = np.arange(24)
    for batch in batches if interval == 0 else batches[:1]:
        expected[batch] = batch.min()
    labels = np.load(tmp_path / "pseudo_labels/iteration_001.npz")["pseudo_labels"]
    assert (labels == np.unique(expected, return_inverse=True)[1][:, None]).all()


def test_one_and_eight_devices_give_the_same_labels(prepared, tmp_path):
    found = []
    for devices in (1, 8):
        config = make_config("cluster_dynamics", prepared, num_devices=devices, train__num_iterations=1)
        result = cluster_dynamics.run_cluster_dynamics(config, tmp_path / str(devices))
        labels = np.load(tmp_path / str(devices) / "pseudo_labels/iteration_001.npz")["pseudo_labels"]
        found.append((labels.tolist(), result["last"]["loss"]))
    (labels_one, one), (labels_eight, eight) = found
    assert labels_one == labels_eight and eight == pytest.approx(one, rel=1e-4)
    assert len(np.unique(labels_one)) < 24


@pytest.mark.parametrize("method", RUNS)
@pytest.mark.parametrize(
    "field,value,message",
    [
        (
            "train__num_ids",
            20,
            "train.num_ids x train.num_instances must be at most the 24 training samples, got 20 x 2",
        ),
        ("source__dataset", "nowhere", "source.dataset = 'nowhere': data.dir: no prepared data set 'nowhere' in"),
        ("source__dataset", "tiny", "source.dataset must not name data.dataset, the target, 'tiny', got 'tiny'"),
        ("model__checkpoint", "nowhere", "no checkpoint in 'nowhere'; expected the folder checkpoints/best in it"),
        (
            "stop__signal",
            "silhouette",
            "stop.signal must be 'last' or 'agreement', got 'silhouette', which is not computed",
        ),
    ],
)
def test_errors(prepared, tmp_path, method, field, value, message):
    with pytest.raises(errors.UserError, match=message):
        RUNS[method](make_config(method, prepared, **{field: value}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_errors_of_the_methods_own(prepared, tmp_path):
    for method, field, value, message in (
        (
            "cluster_dynamics",
            "dynamics__num_similar",
            23.0,
            "dynamics.num_similar must be at least 0 and less than the 23",
        ),
        ("cluster_dynamics", "dynamics__peak_similarity", ("a", "b"), r"dynamics.peak_similarity must be two numbers"),
        (
            "cluster_dynamics",
            "labels__warmup_steps",
            2**31,
            "labels.warmup_steps must be in 0..2147483646, got 2147483648",
        ),
        ("cluster_dynamics", "dynamics__threshold", -1.0, "dynamics.threshold must be at least 0, got -1.0"),
        ("dbscan", "cluster__k1", 24, "cluster.k1 must be in 1..23, the number of other rows, got 24"),
        ("dbscan", "cluster__eps", 1.0, "cluster.eps must be greater than 0 and less than 1, got 1.0"),
    ):
        with pytest.raises(errors.UserError, match=message):
            RUNS[method](make_config(method, prepared, **{field: value}), tmp_path / "run")


@pytest.mark.parametrize("method,more", [("dbscan", {}), ("cluster_dynamics", {"labels__init": "dbscan"})])
def test_where_nothing_is_dense_it_says_so(prepared, tmp_path, method, more):
    config = make_config(method, prepared, cluster__eps=0.01, cluster__min_samples=5, **more)
    with pytest.raises(errors.UserError, match="eps = 0.01 and min_samples = 5 gives no cluster of 24"):
        RUNS[method](config, tmp_path)
