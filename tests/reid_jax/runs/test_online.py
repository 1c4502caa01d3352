"""HCD's loss, what its batches are drawn by and its schedule, on banks written out by hand."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reid_jax import errors
from reid_jax.cluster_dynamics import LabelBank
from reid_jax.embeddings import Features
from reid_jax.experiments.configs import cluster_dynamics, combine, hct, supervised
from reid_jax.runs import compatibility, config_rules, online

# Two samples of one source class and a source class of one, then six of the target, at two levels: at the lower one
# {0, 1}, {3, 4} and singletons, at the top {0, 1, 2}, {3, 4} and 5 alone.
SOURCE = np.array([0, 0, 2])
LEVELS = np.array([[0, 0, 2, 3, 3, 5], [0, 0, 0, 3, 3, 5]])
DATA = types.SimpleNamespace(
    samples=range(9),
    num_source=3,
    num_target=6,
    with_source=lambda labels: jnp.concatenate([jnp.asarray(SOURCE), 3 + labels]),
)
BATCH = np.array([0, 2, 3, 5, 6, 8])
ROWS = np.random.default_rng(0).normal(size=(9, 4))
ROWS /= np.linalg.norm(ROWS, axis=1, keepdims=True)
VECTORS = np.random.default_rng(1).normal(size=(len(BATCH), 4))


def make_config(**fields):
    config = cluster_dynamics.get_config("synthetic")
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
    return config


def found_loss(config, vectors, levels=LEVELS, data=DATA, batch=BATCH):
    bank = online.BankMemory(jnp.float32(ROWS[-len(data.samples) :]), LabelBank(jnp.asarray(levels)), jnp.int32(0))
    targets = {"indices": jnp.asarray(batch)}
    return online.contrastive(config, data).loss(Features(jnp.float32(vectors)), targets, bank)


def plain_loss(labels, least):
    """HCD eq. (1) with loops: classes of at least so many samples, and all of the source; [N] labels."""
    classes = {label: ROWS[labels == label] for label in labels}
    classes = {label: rows.mean(axis=0) for label, rows in classes.items() if len(rows) >= least or label < 3}
    costs = []
    for vector, label in zip(VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True), labels[BATCH]):
        if label in classes:
            scores = {other: np.exp(vector @ mean / 0.05) for other, mean in classes.items()}
            costs.append(-np.log(scores[label] / sum(scores.values())))
    return np.mean(costs)


@pytest.mark.parametrize("singletons", [True, False])
@pytest.mark.parametrize("levels", ["top", "all"])
def test_the_loss_is_that_of_the_levels_and_clusters_that_are_asked_for(levels, singletons):
    config = make_config(loss__levels=levels, loss__singletons=singletons)
    of_level = [plain_loss(np.concatenate([SOURCE, 3 + row]), 1 if singletons else 2) for row in LEVELS]
    expected = of_level[-1] if levels == "top" else np.mean(of_level)
    assert float(found_loss(config, VECTORS)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("levels", ["top", "all"])
def test_where_everyone_is_alone_nothing_is_trained(levels):
    config = make_config(loss__levels=levels, loss__singletons=False)
    data = types.SimpleNamespace(samples=range(6), num_source=0, with_source=lambda labels: labels)
    alone = {"levels": np.tile(np.arange(6), (2, 1)), "data": data, "batch": np.arange(6)}
    value, gradient = jax.value_and_grad(lambda vectors: found_loss(config, vectors, **alone))(jnp.float32(VECTORS))
    assert value == 0 and (np.asarray(gradient) == 0).all()


@pytest.mark.parametrize(
    "singletons,level,batch,expected",
    [
        (True, 0, 4, [0, 0, 0, 3, 3, 5]),
        (True, 1, 4, [0, 0, 2, 3, 3, 5]),
        (True, 2, 4, [0, 0, 0, 3, 3, 5]),
        (False, 0, 4, [0, 0, 0, 3, 3, -1]),
        (False, 1, 4, [0, 0, 2, 3, 3, -1]),  # 2 is alone at its level, but not at the top
        (False, 1, 6, [0, 0, 2, 3, 3, 5]),  # five are fewer than a batch
    ],
)
def test_batches_are_drawn_by_the_level_asked_for_of_samples_that_are_not_alone(singletons, level, batch, expected):
    config = make_config(
        loss__singletons=singletons, train__sampling_level=level, train__num_ids=batch // 2, train__num_instances=2
    )
    labels = online.sampling_labels(config, LabelBank(jnp.asarray(LEVELS)))
    assert labels.tolist() == expected


def test_the_number_of_similar_samples_rises_from_the_first_update_on():
    config = make_config(labels__warmup_steps=10, labels__similar_steps=20, labels__first_similar=2.0)
    config.dynamics.num_similar = 12.0
    found = [float(online.num_similar_at(config, jnp.int32(step))) for step in (0, 10, 15, 20, 30, 1000)]
    assert found == [2.0, 2.0, 4.5, 7.0, 12.0, 12.0]


@pytest.mark.parametrize("similar_steps,expected", [(0, -1), (20, 7)])
def test_the_label_bank_is_updated_by_the_number_of_its_step(monkeypatch, similar_steps, expected):
    def update(bank, features, indices, *, num_similar_now=-1, **options):
        """In place of the update: all labels are the number that was passed."""
        return bank._replace(labels=jnp.full_like(bank.labels, num_similar_now))

    monkeypatch.setattr(online.cluster_dynamics, "update_label_bank", update)
    config = make_config(labels__warmup_steps=10, labels__similar_steps=similar_steps, labels__first_similar=2.0)
    config.dynamics.num_similar = 12.0
    memory = online.BankMemory(jnp.float32(ROWS), LabelBank(jnp.asarray(LEVELS)), jnp.int32(20))
    after = online.bank_step(config, DATA, memory, jnp.float32(ROWS[:4]), jnp.arange(5, 9), key=jax.random.key(0))
    assert (after.bank.labels == expected).all()


@pytest.mark.parametrize(
    "fields,message",
    [
        ({"train__sampling_level": 4}, "train.sampling_level must be at most labels.num_levels = 3, got 4"),
        (
            {"loss__singletons": False, "labels__warmup_steps": 5},
            "labels.warmup_steps must be 0 with loss.singletons = false and labels.init = 'singletons'",
        ),
        (
            {"labels__similar_steps": 5, "dynamics__num_similar": 0.0},
            "labels.similar_steps = 5 needs dynamics.num_similar greater than 0, up to which it rises, and "
            "dynamics.min_similarity = None, got 0.0 and None",
        ),
        ({"labels__similar_steps": 5, "dynamics__min_similarity": 0.4}, r"= None, got 15\.0 and 0\.4"),
        (
            {"labels__similar_steps": 5, "labels__first_similar": 199.0},
            r"labels.first_similar must be less than the 199 others of a sample, got 199\.0",
        ),
    ],
)
def test_fields_that_do_not_go_together_are_told(fields, message):
    data = types.SimpleNamespace(num_target=200, num_source=0)
    online.check(make_config(), data)
    with pytest.raises(errors.UserError, match=message):
        online.check(make_config(**fields), data)


def test_person_data_sets_have_the_papers_values():
    config = cluster_dynamics.get_config("market1501")
    train, dynamics = config.train, config.dynamics
    assert (train.optimizer, train.learning_rate, train.weight_decay) == ("adam", 3.5e-4, 5e-4)
    assert (train.drop_every, train.num_iterations * train.num_epochs * train.num_steps) == (8000, 24_000)
    assert (train.num_ids * train.num_instances, config.loss.temperature, config.labels.num_levels) == (64, 0.05, 3)
    assert (config.memory.momentum, config.memory.refresh, config.labels.init) == (0.2, False, "singletons")
    assert (dynamics.alpha_merge, dynamics.alpha_split, dynamics.k, dynamics.threshold) == (0.99, 0.99, 30, 0.25)
    assert (dynamics.max_anchors, config.data.height, config.data.width) == (8, 256, 128)


@pytest.mark.parametrize("method", [cluster_dynamics, combine, hct, supervised])
def test_runs_from_before_a_field_go_on_with_its_default(method):
    fields = config_rules.flat_fields(method.get_config("market1501").to_dict())
    later = ("labels.similar_steps", "labels.first_similar", "loss.levels", "loss.singletons", "loss.normalize")
    for name in fields.keys() & {*later, "train.sampling_level"}:
        assert fields[name] == compatibility.NEUTRAL[name], name
