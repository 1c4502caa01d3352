"""BUC as its user runs it: whole runs on tiny data, killed, resumed, on one and eight devices, and gone wrong."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_runs
from tiny_data import SHARED_DATA

from reid_jax import errors, pseudo_labels
from reid_jax.data_prep import prepare
from reid_jax.embeddings import Features, l2_normalize
from reid_jax.experiments import buc
from reid_jax.experiments.configs import buc as buc_config
from reid_jax.runs import dataset as dataset_lib
from reid_jax.runs import session, stages

OVERRIDES = tiny_runs.OVERRIDES | {
    "cluster.merge_percent": 0.1,  # 2 of 24
    "train.num_iterations": 4,
    "train.first_epochs": 3,
    "train.drop_epoch": 2,
    "train.num_epochs": 2,
    "train.batch_size": 8,
    "stop.when": "never",
    "checkpoint.every_minutes": 0.0,
}
pytestmark = pytest.mark.usefixtures("own_backbone")


def make_config(data_dir, **more):
    return tiny_runs.make_config(buc_config.get_config, data_dir, OVERRIDES, **more)


def start(data_dir, workdir, **more):
    return tiny_runs.start("buc", data_dir, workdir, OVERRIDES, **more)


@pytest.fixture(scope="module")
def uninterrupted(prepared, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("buc") / "whole"
    return tiny_runs.run(buc.run_buc, make_config(prepared, num_devices=1), workdir)


def test_a_whole_run(uninterrupted):
    workdir, output = uninterrupted
    assert output.count("\niteration ") == 5 and "direct transfer" in output
    lines = tiny_runs.metrics(workdir)
    assert [line["num_clusters"] for line in lines[1:]] == [24, 22, 20, 18]
    assert json.loads((workdir / "result.json").read_text())["method"] == "buc"
    # Labels are never reset: whoever was together stays together.
    labels = [np.load(workdir / f"pseudo_labels/iteration_{i:03d}.npz")["pseudo_labels"] for i in range(1, 5)]
    for before, after in zip(labels, labels[1:]):
        assert len(np.unique(np.stack([before, after]), axis=1).T) == before.max() + 1


def test_one_compile_for_all_stages_and_the_same_on_eight_devices(prepared, tmp_path, monkeypatch):
    steps, found = tiny_runs.record_train_steps(monkeypatch), []
    for devices in (1, 8):
        buc.run_buc(make_config(prepared, num_devices=devices, head__dropout=0.0), tmp_path / str(devices))
        found.append(tiny_runs.metrics(tmp_path / str(devices)))
    assert [step._cache_size() for step in steps] == [1, 1]
    for one, eight in zip(*(lines[1:] for lines in found)):
        assert eight["loss"] == pytest.approx(one["loss"], rel=2e-3)
    first = [np.load(tmp_path / str(n) / "pseudo_labels/iteration_002.npz")["pseudo_labels"] for n in (1, 8)]
    np.testing.assert_array_equal(*first)


def test_tracklets_parts_and_cameras(prepared_tracklets, tmp_path):
    config = make_config(
        prepared_tracklets,
        data__dataset="walks",
        data__tracklets=True,
        cluster__merge_percent=0.25,
        train__num_iterations=2,
        train__batch_size=4,
        train__num_frames=2,
        dissimilarity__part_weight=0.5,
        dissimilarity__num_parts=3,
        dissimilarity__camera_penalty=0.02,
        num_devices=1,
    )
    result = buc.run_buc(config, tmp_path)
    assert result["last"]["num_clusters"] == 6 and result["last"]["queries_ranked"] == 4


def test_cifar10_by_its_config_on_generated_images(tmp_path):
    """BUC section 4.6: rank-1 is the accuracy of the nearest-neighbour classifier over the training images."""
    rng = np.random.default_rng(0)
    (tmp_path / "cifar-10-batches-bin").mkdir()
    # Ten classes, each of one colour: records of a label and 3 planes of 32 x 32.
    for name, count in [*((f"data_batch_{i}.bin", 10) for i in range(1, 6)), ("test_batch.bin", 10)]:
        labels = np.arange(count) % 10
        planes = 25 * labels[:, None, None] * np.array([1, -1, 0])[:, None] % 256 + rng.integers(0, 9, (count, 3, 1024))
        rows = np.concatenate([labels[:, None], planes.reshape(count, -1)], axis=1).astype(np.uint8)
        rows.tofile(tmp_path / "cifar-10-batches-bin" / name)
    prepare.prepare("cifar10", source=tmp_path, data_dir=tmp_path / "data", progress=False)
    fields = {
        "model.backbone": "resnet18",
        "model.width": 4,
        "train.num_iterations": 2,
        "train.first_epochs": 1,
        "train.num_epochs": 1,
        "train.batch_size": 10,
        "evaluation.batch_size": 16,
    }
    config = buc_config.get_config("cifar10")
    config.update_from_flattened_dict(fields | {"data.dir": str(tmp_path / "data"), "num_devices": 1})
    last = buc.run_buc(config, tmp_path / "run")["last"]
    assert last["queries_ranked"] == 10 and last["num_clusters"] == 48
    assert last["rank1"] >= 0.5


def test_stops_when_the_metric_falls(prepared, tmp_path, monkeypatch):
    scores = iter([0.1, 0.3, 0.5, 0.4, 0.6])
    monkeypatch.setattr(
        session,
        "evaluate_model",
        lambda *args, **kwargs: dict.fromkeys(
            ("mAP", "rank1", "rank5", "rank10", "rank20", "mINP", "queries_skipped"), next(scores)
        ),
    )
    result = buc.run_buc(make_config(prepared, stop__when="metric", stop__patience=1), tmp_path)
    assert result["last"]["iteration"] == 3 and result["best"]["iteration"] == 2


def slow_stage(embeddings, labels, num_merges, size_penalty, criterion):
    """BUC eq. (4), (6) as they are written: all pairs of clusters in the order of their dissimilarity."""
    clusters = [np.flatnonzero(labels == label) for label in range(labels.max() + 1)]
    distances = np.sqrt(np.maximum(0, 2 - 2 * embeddings.astype(np.float64) @ embeddings.T.astype(np.float64)))
    pairs = []
    for b in range(len(clusters)):
        for a in range(b):
            block = distances[np.ix_(clusters[a], clusters[b])]
            pairs.append((criterion(block) + size_penalty * (len(clusters[a]) + len(clusters[b])), a, b))
    group, left = list(range(len(clusters))), num_merges
    for _, a, b in sorted(pairs):
        if left and group[a] != group[b]:
            old, new = max(group[a], group[b]), min(group[a], group[b])
            group = [new if g == old else g for g in group]
            left -= 1
    return np.unique(np.array(group)[labels], return_inverse=True)[1]


def merge(embeddings, labels, num_merges, linkage_name="single"):
    penalty = buc_config.get_config("market1501").cluster.size_penalty
    options = {"num_merges": num_merges, "linkage_name": linkage_name, "size_penalty": penalty}
    return pseudo_labels.bottom_up_labels(Features(embeddings), labels, **options)


@pytest.mark.parametrize("criterion,name", [(np.min, "single"), (np.max, "complete"), (np.mean, "average")])
def test_stages_equal_the_slow_definition(criterion, name):
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(12, 8))
    embeddings = (centres[np.arange(120) % 12] + 0.6 * rng.normal(size=(120, 8))).astype(np.float32)
    embeddings = l2_normalize(embeddings)
    found = slow = np.arange(120)
    for _ in range(8):
        found, _ = merge(embeddings, found, 12, linkage_name=name)
        slow = slow_stage(embeddings, slow, 12, 0.003, criterion)
        np.testing.assert_array_equal(found, slow)


def test_a_whole_stage_on_the_coil100_features_equals_the_slow_definition():
    path = SHARED_DATA / "coil100_mobilenet_features.npz"
    if not path.exists():
        pytest.skip("the COIL-100 features are not part of the repository")
    arrays = np.load(path)
    embeddings = l2_normalize(arrays["embeddings"][arrays["split"] == "train"].astype(np.float32))
    num_merges = int(0.05 * len(embeddings))
    found = np.arange(len(embeddings))
    for _ in range(12):
        found, _ = merge(embeddings, found, num_merges)
    # One more stage, from clusters of different sizes.
    slow = slow_stage(embeddings, found, num_merges, 0.003, np.min)
    after, _ = merge(embeddings, found, num_merges)
    np.testing.assert_array_equal(after, slow)


@pytest.mark.parametrize(
    "overrides,message",
    [
        ({"train__num_iterations": 13}, "leave 24 - 12 x 2 = 0 clusters"),
        ({"cluster__merge_percent": 0.01}, "at least 2 and one union a stage are needed"),
        ({"cluster__size_penalty": float("inf")}, "cluster.size_penalty must be a finite number, got inf"),
        ({"cluster__merge_percent": float("nan")}, "cluster.merge_percent must be a finite number, got nan"),
        ({"cluster__size_penalty": -0.1}, "cluster.size_penalty must be at least 0, got -0.1"),
        ({"cluster__linkage": "minimum"}, "cluster.linkage must be one of average"),
        ({"cluster__linkage": "centroid", "dissimilarity__camera_penalty": 0.1}, "compares mean embeddings"),
        ({"dissimilarity__part_weight": 0.5, "dissimilarity__num_parts": 4}, "must divide the feature map's height 6"),
        ({"dissimilarity__part_weight": 1.5}, "part_weight must be in 0..1"),
        ({"dissimilarity__metric": "l2"}, "dissimilarity.metric must be one of cosine"),
        ({"train__batch_size": 32}, "train.batch_size must be at most the 24 training samples, got 32"),
        ({"train__batch_size": 12}, "a batch of 12 images must be a multiple of the 8 devices"),
        ({"loss__temperature": 0.0}, "loss.temperature must be greater than 0, got 0.0"),
        ({"memory__momentum": 1.5}, "memory.momentum must be in 0..1, got 1.5"),
        ({"train__later_learning_rate": -0.1}, "train.later_learning_rate must be greater than 0"),
        ({"data__tracklets": True}, "24 of 24 images belong to no tracklet"),
        (
            {"model__backbone": "resnet18", "model__frozen_stages": 2},
            "model.frozen_stages must be 0 where training starts from random weights",
        ),
        ({"model__checkpoint": "nowhere"}, "no checkpoint in 'nowhere'"),
        ({"head__dropout": 1.0}, "head.dropout must be at least 0 and less than 1"),
    ],
)
def test_what_a_user_gets_wrong(prepared, tmp_path, overrides, message):
    with pytest.raises(errors.UserError, match=message):
        buc.run_buc(make_config(prepared, **overrides), tmp_path)


def test_cameras_known_for_some_samples_only(prepared, capsys):
    samples = dataset_lib.load_dataset(make_config(prepared).data).samples["train"]
    options = make_config(prepared, dissimilarity__camera_penalty=0.02).dissimilarity
    assert stages.dissimilarity_terms(options, samples)["camera_penalty"] == 0.02
    some = samples.camids.copy()
    some[3] = -1
    import dataclasses

    with pytest.raises(errors.UserError, match=f"1 of 24 have none, the first is {samples.names[3]}"):
        stages.dissimilarity_terms(options, dataclasses.replace(samples, camids=some))
    none = dataclasses.replace(samples, camids=np.full(24, -1))
    assert "camids" not in stages.dissimilarity_terms(options, none)
    config = make_config(prepared, dissimilarity__camera_penalty=0.02)
    data = dataset_lib.load_training_data(config)
    data.joined.samples["train"] = none
    stages.check_cameras(config, data)
    assert "no camera ids: the cross-camera term (CCE) is off" in capsys.readouterr().out


def test_every_epoch_has_its_rate_and_every_stage_an_empty_table(prepared, tmp_path, monkeypatch):
    """Stage 0: 0.1, 0.1, then 0.05 from drop_epoch 2 on; the later stages 0.05."""
    seen = []
    train_epoch = session.train_epoch

    def recording(step, state, *args, **kwargs):
        rate = optax.tree_utils.tree_get(state.opt_state, "learning_rate")
        trace = optax.tree_utils.tree_get(state.opt_state, "trace")
        momentum = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(trace))
        table = state.memory
        seen.append((float(rate), momentum == 0, not bool(table.rows.any()), int(table.num_classes)))
        return train_epoch(step, state, *args, **kwargs)

    monkeypatch.setattr(session, "train_epoch", recording)
    buc.run_buc(make_config(prepared, train__num_iterations=2, num_devices=1), tmp_path)
    rates, fresh, empty, classes = zip(*seen)
    assert rates == pytest.approx((0.1, 0.1, 0.05, 0.05, 0.05))
    assert fresh == empty == (True, False, False, True, False)
    assert classes == (24, 24, 24, 22, 22)


def test_the_papers_values():
    config = buc_config.get_config("market1501")
    assert int(config.cluster.merge_percent * 12_936) == 646 and buc.merges_per_stage(config, 12_936) == 646
    train = config.train
    assert (train.first_epochs, train.num_epochs, train.batch_size, train.drop_epoch) == (20, 2, 16, 15)
    assert (train.learning_rate, train.later_learning_rate, train.backbone_rate_factor) == (0.1, 0.01, 0.1)
    assert (config.loss.temperature, config.cluster.size_penalty, config.head.dropout) == (0.1, 0.003, 0.5)
    video = buc_config.get_config("mars")
    assert (video.train.num_epochs, video.train.num_frames, video.model.frozen_stages) == (5, 16, 2)
    cifar = buc_config.get_config("cifar10")
    assert (cifar.model.backbone, cifar.model.stem, cifar.data.height) == ("resnet18", "cifar", 32)
