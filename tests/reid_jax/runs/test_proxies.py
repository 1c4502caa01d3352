import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import PK_OVERRIDES, make_config

from reid_jax.embeddings import Features
from reid_jax.experiments.configs import contrast
from reid_jax.memory import init_class_memory
from reid_jax.runs import objectives, proxies
from reid_jax.runs.dataset import TrainingData, load_training_data

pytestmark = pytest.mark.usefixtures("own_backbone")
LABELS = np.array([0, 0, 1, 1, 1, -1, 0, 2])
CAMIDS = np.array([5, 6, 5, 5, 6, 6, 5, 6])
ROWS = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
FEATURES = ROWS / np.linalg.norm(ROWS, axis=1, keepdims=True)


class Data(TrainingData):
    """Eight samples of two cameras."""

    @property
    def camids(self):
        return CAMIDS


def make(**more):
    config = make_config(contrast.get_config, "", PK_OVERRIDES, **more)
    return config, proxies.contrastive(config, Data(None, None))


def test_there_is_a_vector_for_each_cluster_and_for_what_each_camera_saw_of_it():
    found = proxies.init_proxies(FEATURES, LABELS, CAMIDS, step=3, with_cameras=True)
    assert found.clusters.labels.tolist() == [0, 0, 2, 2, 2, -1, 0, 7]
    assert found.cameras.labels.tolist() == [0, 1, 2, 2, 4, -1, 0, 7] and int(found.step) == 3
    mean = FEATURES[[0, 6]].mean(axis=0)
    np.testing.assert_allclose(found.cameras.rows[0], mean / np.linalg.norm(mean), rtol=1e-5)
    assert proxies.init_proxies(FEATURES, LABELS, CAMIDS, step=0, with_cameras=False).cameras == ()
    unknown = np.where(np.arange(8) == 1, -1, CAMIDS)
    found = proxies.init_proxies(FEATURES, LABELS, unknown, step=0, with_cameras=True)
    assert found.cameras.labels.tolist() == [0, -1, 2, 2, 4, -1, 0, 7] and found.clusters.labels[1] == 0


def test_without_its_terms_it_is_cluster_contrast():
    _, objective = make(loss__camera_weight=0.0)
    start = proxies.init_proxies(FEATURES, LABELS, CAMIDS, step=0, with_cameras=False)
    config = make_config(contrast.get_config, "", PK_OVERRIDES)
    plain = objectives.cluster_memory(config)
    bank = init_class_memory(FEATURES, np.array([0, 0, 2, 2, 2, -1, 0, 7]), per_cluster=True)
    outputs, targets = Features(jnp.asarray(ROWS[[1, 3, 4]] * 2)), {"indices": jnp.array([1, 3, 4])}
    assert float(objective.loss(outputs, targets, start)) == float(plain.loss(outputs, targets, bank))
    moved, expected = objective.update_memory(start, outputs, targets), plain.update_memory(bank, outputs, targets)
    np.testing.assert_array_equal(moved.clusters.rows, expected.rows)
    assert int(moved.step) == 1


def test_cameras_add_their_term_and_move_their_own_vectors():
    config, objective = make(loss__camera_weight=0.5, memory__camera_momentum=0.0)
    _, without = make(loss__camera_weight=0.0)
    start = proxies.init_proxies(FEATURES, LABELS, CAMIDS, step=0, with_cameras=True)
    outputs, targets = Features(jnp.asarray(ROWS[[1, 3]])), {"indices": jnp.array([1, 3])}
    added = float(objective.loss(outputs, targets, start)) - float(without.loss(outputs, targets, start))

    def term(sample, positive):  # what the other camera saw of its cluster, against all of other clusters
        logits = FEATURES[sample] @ np.asarray(start.cameras.rows).T / config.loss.camera_temperature
        others = [row for row in (0, 1, 2, 4, 7) if start.clusters.labels[row] != start.clusters.labels[sample]]
        return np.log(np.exp(logits[[positive, *others]]).sum()) - logits[positive]

    assert added == pytest.approx(0.5 * (term(1, 0) + term(3, 4)) / 2, rel=1e-4)
    moved = objective.update_memory(start, outputs, targets)
    np.testing.assert_allclose(moved.cameras.rows[1], FEATURES[1], rtol=1e-5)
    np.testing.assert_array_equal(moved.cameras.rows[0], start.cameras.rows[0])


def test_support_samples_add_theirs_later_in_the_run():
    _, objective = make(loss__support_weight=1.0, loss__support_steps=1000, loss__camera_weight=0.0)
    _, without = make(loss__camera_weight=0.0)
    outputs, targets = Features(jnp.asarray(ROWS[[1, 3]])), {"indices": jnp.array([1, 3])}
    start = proxies.init_proxies(FEATURES, LABELS, CAMIDS, step=0, with_cameras=False)
    plain = float(without.loss(outputs, targets, start))
    assert float(objective.loss(outputs, targets, start)) == pytest.approx(2 * plain, rel=1e-5)  # not moved yet
    assert float(objective.loss(outputs, targets, start._replace(step=jnp.int32(500)))) > 2 * plain
    gradient = jax.grad(lambda rows: objective.loss(Features(rows), targets, start))(outputs.embeddings)
    assert jnp.isfinite(gradient).all()


def test_one_camera_has_no_term(prepared):
    config = make_config(contrast.get_config, prepared, PK_OVERRIDES)
    data = load_training_data(config)
    assert proxies.tells_cameras_apart(config, data)
    one = dataclasses.replace(data.target.samples["train"], camids=np.zeros(data.num_target, int))
    data = data._replace(target=data.target._replace(samples=data.target.samples | {"train": one}))
    assert not proxies.tells_cameras_apart(config, data)


def test_a_term_inside_each_camera_tells_its_clusters_apart():
    config, objective = make(loss__camera_weight=0.0, loss__intra_camera_weight=2.0)
    _, without = make(loss__camera_weight=0.0)
    start = proxies.init_proxies(FEATURES, LABELS, CAMIDS, step=0, with_cameras=True)
    outputs, targets = Features(jnp.asarray(ROWS[[1, 3]])), {"indices": jnp.array([1, 3])}
    added = float(objective.loss(outputs, targets, start)) - float(without.loss(outputs, targets, start))

    def term(sample, own, rows):  # its own row among those of its camera
        logits = FEATURES[sample] @ np.asarray(start.cameras.rows).T / config.loss.camera_temperature
        return np.log(np.exp(logits[rows]).sum()) - logits[own]

    assert added == pytest.approx(2 * (term(1, 1, [1, 4, 7]) + term(3, 2, [0, 2])) / 2, rel=1e-4)


def test_support_samples_are_told_from_other_classes_where_that_is_asked_for():
    fields = {"loss__support_weight": 1.0, "loss__support_steps": 1000, "loss__camera_weight": 0.0}
    (_, plain), (_, objective) = make(**fields), make(loss__consistency_weight=0.5, **fields)
    outputs, targets = Features(jnp.asarray(ROWS[[1, 3]])), {"indices": jnp.array([1, 3])}
    start = proxies.init_proxies(FEATURES, LABELS, CAMIDS, step=0, with_cameras=False)
    added = float(objective.loss(outputs, targets, start)) - float(plain.loss(outputs, targets, start))
    logits = FEATURES[[1, 3]] @ FEATURES[[1, 3]].T / 0.6  # before the first step the supports are the samples
    assert added == pytest.approx(0.5 * np.mean(np.log(np.exp(logits).sum(axis=1)) - np.diag(logits)), rel=1e-4)
