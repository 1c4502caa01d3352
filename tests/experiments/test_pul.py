"""PUL as its user runs it: whole runs on tiny data, killed, resumed, with labels, and gone wrong."""

import json
import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tiny_runs
from tiny_data import write_market_folder

from reid_jax import errors, source_model
from reid_jax.data_prep import prepare
from reid_jax.experiments import pul, supervised
from reid_jax.experiments.configs import pul as pul_config
from reid_jax.runs import compatibility, objectives
from reid_jax.runs import dataset as dataset_lib

OVERRIDES = tiny_runs.OVERRIDES | {
    "source.dataset": "tiny",
    "source.num_epochs": 4,
    "cluster.num_clusters": 8,
    "selection.threshold": 0.9,
    "train.batch_size": 8,
    "train.num_iterations": 3,
    "train.num_epochs": 3,
    "checkpoint.every_minutes": 0.0,
    "stop.when": "never",
}
pytestmark = pytest.mark.usefixtures("own_backbone")


def make_config(data_dir, **more):
    return tiny_runs.make_config(pul_config.get_config, data_dir, OVERRIDES, **more)


def start(data_dir, workdir, **more):
    return tiny_runs.start("pul", data_dir, workdir, OVERRIDES, **more)


@pytest.fixture(scope="module")
def uninterrupted(prepared, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("pul") / "whole"
    return tiny_runs.run(pul.run_pul, make_config(prepared, num_devices=1), workdir)


def find_source(workdir):
    (source,) = workdir.parent.glob("source_tiny_0_*")
    return source


@pytest.fixture(scope="module")
def prepared_other(prepared, tmp_path_factory):
    """Adds "other", other labelled people, to the prepared data sets."""
    folder = write_market_folder(tmp_path_factory.mktemp("other") / "source", seed=1)
    prepare.prepare("market1501", source=folder, data_dir=prepared, name="other", progress=False)


@pytest.fixture(scope="module")
def prepared_shop(prepared, tmp_path_factory):
    """Adds "shop", crops of nobody known, to the prepared data sets."""
    crops = tmp_path_factory.mktemp("crops")
    for path in sorted((prepared.parent / "source" / "bounding_box_train").iterdir())[:8]:
        (crops / path.name).write_bytes(path.read_bytes())
    prepare.prepare("folder", source=crops, data_dir=prepared, name="shop", progress=False)


def test_a_whole_run(uninterrupted):
    workdir, output = uninterrupted
    assert f"original model: ID classifier on tiny, {find_source(workdir)}\n" in output
    result = json.loads((workdir / "result.json").read_text())
    assert result["method"] == "pul" and result["last"]["iteration"] == 3
    source = json.loads((find_source(workdir) / "result.json").read_text())
    assert source["method"] == "supervised classifier"
    # Direct transfer is the original model, the source's last one.
    assert result["direct_transfer"]["mAP"] == pytest.approx(source["last"]["mAP"], abs=1e-6)
    for record in [json.loads(line) for line in open(workdir / "metrics.jsonl")][1:]:
        labels = np.load(workdir / f"pseudo_labels/iteration_{record['iteration']:03d}.npz")["pseudo_labels"]
        assert record["selected"] == pytest.approx((labels >= 0).mean())
        assert sorted(set(labels[labels >= 0])) == list(range(8)) and record["kmeans_iterations"] >= 1


def test_the_source_model_is_trained_once(uninterrupted, prepared, tmp_path):
    source = find_source(uninterrupted[0])
    before = (source / "checkpoints" / "last").stat().st_mtime_ns
    config = make_config(prepared, num_devices=1, source__dir=str(source.parent), train__num_iterations=1)
    pul.run_pul(config, tmp_path / "run")
    assert (source / "checkpoints" / "last").stat().st_mtime_ns == before


def test_one_and_eight_devices_give_the_same_first_iteration(uninterrupted, prepared, tmp_path):
    source = find_source(uninterrupted[0]) / "checkpoints" / "last"
    found = []
    for devices in (1, 8):
        options = {"num_devices": devices, "train__num_iterations": 1, "model__checkpoint": str(source)}
        pul.run_pul(make_config(prepared, **options), tmp_path / str(devices))
        labels = np.load(tmp_path / str(devices) / "pseudo_labels/iteration_001.npz")["pseudo_labels"]
        found.append((labels, tiny_runs.metrics(tmp_path / str(devices))[1]))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    assert found[1][1]["loss"] == pytest.approx(found[0][1]["loss"], rel=1e-4)
    assert found[1][1]["mAP"] == pytest.approx(found[0][1]["mAP"], abs=1e-3)


def select(config, embeddings, known):
    return pul.cluster_and_select(jax.random.key(0), embeddings, known, config, None)


def test_without_selection_every_sample_has_its_cluster_and_labelled_ones_their_class(prepared):
    embeddings = np.random.default_rng(0).normal(size=(24, 5)).astype(np.float32)
    none_known = np.full(24, -1)
    labels, facts = select(make_config(prepared, selection__compared="none"), embeddings, none_known)
    assert facts["selected"] == 1 and sorted(set(labels)) == list(range(8))
    strict, facts = select(make_config(prepared, selection__threshold=1.0), embeddings, none_known)
    assert (strict >= 0).sum() == 8 and sorted(strict[strict >= 0]) == list(range(8))  # the centres alone
    np.testing.assert_array_equal(strict[strict >= 0], labels[strict >= 0])

    config = make_config(prepared, selection__num_labelled_ids=2)
    train_ids = dataset_lib.load_dataset(config.data).train_ids
    known = pul.known_classes(config, train_ids)
    assert sorted(set(known)) == [-1, 0, 1] and len(set(train_ids[known == 0])) == 1
    labels, _ = select(config, embeddings, known)
    np.testing.assert_array_equal(labels[known >= 0], 8 + known[known >= 0])
    assert set(labels[known < 0]) <= {-1, *range(8)}


def test_with_all_labels_known_it_is_supervised_training(prepared):
    config = make_config(prepared, selection__num_labelled_ids=4)
    train_ids = dataset_lib.load_dataset(config.data).train_ids
    known = pul.known_classes(config, train_ids)
    labels, facts = select(config, np.zeros((24, 5), np.float32), known)
    assert facts == {"selected": 1.0} and len(set(zip(labels, train_ids))) == 4


def test_every_iteration_starts_from_the_original_model(prepared, uninterrupted, tmp_path, monkeypatch):
    source = find_source(uninterrupted[0]) / "checkpoints" / "last"
    starts = []
    restart = objectives.restart_classifier

    def recording(*args):
        starts.append(jax.tree.map(np.asarray, restart(*args)))
        return restart(*args)

    monkeypatch.setattr(objectives, "restart_classifier", recording)
    pul.run_pul(make_config(prepared, model__checkpoint=str(source), num_devices=1, train__num_iterations=2), tmp_path)
    first, second = starts
    assert second.step > first.step == 0
    jax.tree.map(np.testing.assert_array_equal, first.params["backbone"], second.params["backbone"])
    kernels = [start.params["classifier"]["kernel"] for start in starts]
    assert kernels[0].shape == (16, 8) and (kernels[0] != kernels[1]).all() and np.std(kernels[0]) < 0.002


def test_one_compilation_serves_all_iterations_though_the_number_selected_changes(
    prepared, uninterrupted, tmp_path, monkeypatch
):
    source = find_source(uninterrupted[0]) / "checkpoints" / "last"
    steps = tiny_runs.record_train_steps(monkeypatch)
    pul.run_pul(make_config(prepared, model__checkpoint=str(source), num_devices=1), tmp_path)
    assert len({line["selected"] for line in tiny_runs.metrics(tmp_path)[1:]}) > 1
    assert [step._cache_size() for step in steps] == [1]


def test_a_run_ends_when_the_number_selected_is_saturated(prepared, uninterrupted, tmp_path):
    source = find_source(uninterrupted[0]) / "checkpoints" / "last"
    options = {"model__checkpoint": str(source), "num_devices": 1, "train__num_epochs": 1, "train__num_iterations": 9}
    options |= {"stop__when": "label_free", "stop__patience": 1, "stop__min_rise": 1.0}
    result = pul.run_pul(make_config(prepared, **options), tmp_path / "selected")
    assert result["iterations"] == 2 and result["label_free_choice"]["iteration"] == 2
    assert pul.run_pul(make_config(prepared, **options), tmp_path / "selected")["iterations"] == 2
    # Without selection the number says nothing.
    options |= {"selection__compared": "none", "train__num_iterations": 3}
    assert pul.run_pul(make_config(prepared, **options), tmp_path / "all")["iterations"] == 3


def test_an_original_model_that_has_changed_is_not_gone_on_with(prepared, uninterrupted, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(find_source(uninterrupted[0]), source)
    options = {"model__checkpoint": str(source), "num_devices": 1, "train__num_epochs": 1}
    pul.run_pul(make_config(prepared, train__num_iterations=1, **options), tmp_path / "run")
    shutil.rmtree(source / "checkpoints" / "best")
    shutil.copytree(uninterrupted[0] / "checkpoints" / "best", source / "checkpoints" / "best")
    with pytest.raises(errors.UserError, match="holds a run with another original model; choose another --workdir"):
        pul.run_pul(make_config(prepared, train__num_iterations=2, **options), tmp_path / "run")
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    assert len(record["original_model"]) == 16 and record["train"]["num_iterations"] == 1


def test_a_source_joined_of_two(prepared, prepared_other, tmp_path):
    options = {"source__dataset": "tiny+other", "num_devices": 1, "train__num_epochs": 1, "train__num_iterations": 1}
    pul.run_pul(make_config(prepared, **options), tmp_path / "run")
    (source,) = tmp_path.glob("source_tiny+other_0_*")
    with ocp.StandardCheckpointer() as checkpointer:
        newest = max((source / "checkpoints" / "last").iterdir(), key=lambda path: int(path.name))
        kernel = checkpointer.restore(newest / "variables")["params"]["classifier"]["kernel"]
    assert kernel.shape[1] == 8  # 4 identities of each


@pytest.mark.parametrize(
    "overrides,message",
    [
        ({"cluster__num_clusters": 25}, "cluster.num_clusters must be at most the 24 samples without labels, got 25"),
        ({"selection__threshold": 1.2}, "selection.threshold must be in 0..1, got 1.2"),
        ({"selection__compared": "all"}, "selection.compared must be one of own, any, none"),
        ({"selection__num_labelled_ids": 5}, "must be at most the 4 known identities, got 5"),
        (
            {"train__batch_size": 16},
            "train.batch_size must be at most 8, got 16: of cluster.num_clusters = 8 clusters 8 samples are sure",
        ),
        ({"stop__signal": "silhouette"}, "stop.signal must be 'selected', 'agreement' or 'last'"),
        ({"source__dataset": "nowhere"}, "no prepared data set 'nowhere'"),
        ({"source__dataset": "", "model__checkpoint": "nowhere"}, "no checkpoint in 'nowhere'"),
        ({"source__dataset": "shop"}, "source.dataset = 'shop': 'shop' has no known train identities"),
        ({"source__dataset": "tiny+shop"}, "source.dataset = 'tiny.shop': 'shop' has no known train identities"),
        ({"source__dataset": "tiny+"}, "'tiny.' must name different data sets"),
        ({"source__dataset": "tiny+tiny"}, "data.dataset: 'tiny.tiny' must name different data sets"),
    ],
)
def test_what_a_user_gets_wrong(prepared, prepared_shop, tmp_path, overrides, message):
    with pytest.raises(errors.UserError, match=message):
        pul.run_pul(make_config(prepared, **overrides), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_source_model_of_another_architecture_is_told(uninterrupted, prepared, tmp_path):
    source = find_source(uninterrupted[0])
    config = make_config(prepared, model__checkpoint=str(source), model__backbone="resnet18", model__width=2)
    with pytest.raises(errors.UserError, match="is of another model: .* is absent there"):
        pul.run_pul(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_source_model_is_not_trained_for_a_run_that_cannot_be(uninterrupted, prepared, tmp_path):
    shutil.copytree(uninterrupted[0], tmp_path / "run")
    with pytest.raises(errors.UserError, match="holds a run with train.learning_rate = 0.01, this one has 0.02"):
        pul.run_pul(make_config(prepared, train__learning_rate=0.02), tmp_path / "run")
    assert not list(tmp_path.glob("source_*"))


def test_a_finished_run_shows_its_result_without_its_original_model(uninterrupted, prepared, tmp_path, capsys):
    shutil.copytree(uninterrupted[0], tmp_path / "run")
    result = pul.run_pul(make_config(prepared), tmp_path / "run")
    assert result["last"] == json.loads((uninterrupted[0] / "result.json").read_text())["last"]
    assert not list(tmp_path.glob("source_*")) and "original model" not in capsys.readouterr().out


def test_a_finished_run_of_a_damaged_checkpoint_does_not_go_on_from_nothing(uninterrupted, prepared, tmp_path):
    shutil.copytree(uninterrupted[0], tmp_path / "run")
    newest = max((tmp_path / "run/checkpoints/last").iterdir(), key=lambda path: int(path.name))
    shutil.rmtree(newest / "variables")
    with pytest.raises(errors.UserError, match="the last checkpoint in .* is damaged; start again to go on"):
        pul.run_pul(make_config(prepared), tmp_path / "run")
    # Started again, it is a run to resume, with its original model.
    assert not compatibility.is_finished(tmp_path / "run", make_config(prepared))


def test_it_waits_while_another_process_trains_the_original_model(prepared, tmp_path, monkeypatch, capsys):
    run_supervised, started = supervised.run_supervised, []

    def busy_at_first(config, workdir):
        started.append(workdir)
        if len(started) < 3:
            raise errors.BusyError("workdir: another process is running there")
        return run_supervised(config, workdir)

    monkeypatch.setattr(supervised, "run_supervised", busy_at_first)
    monkeypatch.setattr(source_model, "_WAIT_SECONDS", 0.0)
    checkpoint = source_model.train_source(make_config(prepared, num_devices=1, source__num_epochs=1), tmp_path)
    assert checkpoint.is_dir() and len(started) == 3
    assert capsys.readouterr().out.count("another process trains it; waiting for") == 1


def test_where_all_images_embed_alike_it_says_so(prepared):
    config = make_config(prepared)
    with pytest.raises(errors.UserError, match="only 1 samples were selected, fewer than train.batch_size = 8"):
        select(config, np.zeros((24, 5), np.float32), np.full(24, -1))


def test_without_selection_a_batch_may_be_larger_than_the_clusters(prepared):
    config = make_config(prepared, selection__compared="none", cluster__num_clusters=4)
    assert pul.count_clusters(config, np.full(24, -1)) == 4
