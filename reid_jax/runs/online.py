"""Training with online labels (HCD): a feature bank and a label bank that every batch updates before its loss.

Every train step embeds the batch, updates the labels of its samples in the bank, descends the loss, and updates the
batch's entries in the feature bank. The DBSCAN baselines draw their batches in the same way.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from reid_jax import cluster_dynamics, errors, losses, memory, pseudo_labels, sampling
from reid_jax.cluster_dynamics import LabelBank
from reid_jax.distances import k_reciprocal
from reid_jax.embeddings import Features, l2_normalize
from reid_jax.models import pooling
from reid_jax.models.reid import ReidModel
from reid_jax.runs.dataset import TrainingData
from reid_jax.runs.models import build_model
from reid_jax.runs.objectives import Objective, Targets, batch_embeddings, contrast_with_means
from reid_jax.runs.session import LABEL_STREAM, Session
from reid_jax.training.train_step import TrainState


class BankMemory(NamedTuple):
    """What the loss remembers.

    Attributes:
        features: [N_s + N_t, D] float32, the feature bank.
        bank: the target's labels, at every level.
        step: scalar int32, train steps so far.
    """

    features: jax.Array
    bank: LabelBank
    step: jax.Array


def check_batch(config: ConfigDict, data: TrainingData, *, signals: tuple[str, ...] = ("agreement",)) -> None:
    """Checks what the data's size bounds, and that one of the signals computed is chosen to stop by.

    Raises:
        UserError: a batch does not fit, or the signal to stop by is not computed.
    """
    train = config.train
    if train.num_ids * train.num_instances > data.num_target:
        raise errors.UserError(
            f"train.num_ids x train.num_instances must be at most the {data.num_target} training samples, got "
            f"{train.num_ids} x {train.num_instances}; lower train.num_ids"
        )
    if config.stop.signal not in signals:
        allowed = " or ".join(repr(signal) for signal in signals)
        raise errors.UserError(f"stop.signal must be {allowed}, got {config.stop.signal!r}, which is not computed")


def check_dbscan(config: ConfigDict, data: TrainingData) -> None:
    """Checks config.cluster, DBSCAN's, against the data's size.

    Raises:
        UserError: it asks for more neighbours than there are.
    """
    with errors.prefixed("cluster.", ValueError):
        k_reciprocal.check_sizes(data.num_target, k1=config.cluster.k1, k2=config.cluster.k2)


def check(config: ConfigDict, data: TrainingData) -> None:
    """Checks HCD's fields against the data's size.

    Raises:
        UserError: one is out of its range.
    """
    check_batch(config, data)
    with errors.prefixed("dynamics.", ValueError):
        cluster_dynamics.check_options(cluster_dynamics.Options(**config.dynamics), data.num_target)
    if config.labels.init == "dbscan":
        check_dbscan(config, data)


def contrastive(config: ConfigDict, data: TrainingData) -> Objective:
    """Returns HCD's objective: the loss of equation (1), by the labels that the bank step gives the batch."""

    def loss(outputs: Features, targets: Targets, bank: BankMemory) -> jax.Array:
        embeddings = batch_embeddings(outputs, config.train.num_frames)
        labels = data.with_source(bank.bank.labels[-1])
        return contrast_with_means(
            bank.features, labels, embeddings, targets["indices"], temperature=config.loss.temperature
        )

    return with_bank_step(config, data, build_model(config.model), loss)


def triplet(config: ConfigDict, data: TrainingData) -> Objective:
    """Returns the batch-hard triplet loss by the labels that the bank step gives the batch."""
    options = {name: config.loss[name] for name in ("margin", "soft_margin", "reduction")}

    def loss(outputs: Features, targets: Targets, bank: BankMemory) -> jax.Array:
        embeddings = pooling.frame_mean(outputs.embeddings, config.train.num_frames)
        labels = data.with_source(bank.bank.labels[-1])[targets["indices"]]
        return losses.batch_hard_triplet(embeddings, labels, **options)

    return with_bank_step(config, data, build_model(config.model), loss)


def with_bank_step(
    config: ConfigDict,
    data: TrainingData,
    model: ReidModel,
    loss: Callable[[Features, Targets, BankMemory], jax.Array],
) -> Objective:
    """Wraps a loss so that each step first updates the label bank and afterwards the feature bank."""
    key = jax.random.fold_in(jax.random.key(config.seed), LABEL_STREAM)

    def prepare_memory(bank: BankMemory, outputs: Features, targets: Targets) -> BankMemory:
        embeddings = batch_embeddings(outputs, config.train.num_frames)
        return bank_step(config, data, bank, embeddings, targets["indices"], key=key)

    def update_memory(bank: BankMemory, outputs: Features, targets: Targets) -> BankMemory:
        embeddings = batch_embeddings(outputs, config.train.num_frames)
        features = update_features(config, bank, embeddings, targets["indices"])
        return bank._replace(features=features, step=bank.step + 1)

    return Objective(model, model, loss, prepare_memory=prepare_memory, update_memory=update_memory)


def bank_step(
    config: ConfigDict,
    data: TrainingData,
    bank: BankMemory,
    embeddings: jax.Array,
    indices: jax.Array,
    *,
    key: jax.Array,
) -> BankMemory:
    """Updates the labels of a batch (section 4.2), by the features as they are with this batch in the bank.

    Args:
        config: the run's.
        data: its training samples.
        bank: the memory before; its features stay, since the loss takes those from before the batch.
        embeddings: [B, D] float, of norm 1.
        indices: [B], which training samples those are: the source's, if there is one, before the target's.
        key: jax PRNG key of the run's dynamics.
    """
    features = update_features(config, bank, embeddings, indices)[data.num_source :]
    own = indices[-config.train.num_ids * config.train.num_instances :] - data.num_source

    def split_and_merge() -> LabelBank:  # for h = 1..H
        step_key = jax.random.fold_in(key, bank.step)
        return cluster_dynamics.update_label_bank(bank.bank, features, own, key=step_key, **config.dynamics)

    # Table 4: every (I + 1)-th step; the reference code's first ones are a warm-up.
    is_due = (bank.step >= config.labels.warmup_steps) & (bank.step % (config.labels.interval + 1) == 0)
    return bank._replace(bank=jax.lax.cond(is_due, split_and_merge, lambda: bank.bank))


def update_features(config: ConfigDict, bank: BankMemory, embeddings: jax.Array, indices: jax.Array) -> jax.Array:
    """Returns the feature bank with a batch's entries updated by its embeddings (momentum update, section 5.1)."""
    return memory.update_lookup_table(bank.features, embeddings, indices, momentum=config.memory.momentum)


def initial_memory(session: Session, state: TrainState) -> BankMemory:
    """Returns the memory before the first step: features of the initial model, labels by config.labels.init."""
    config, data, is_resuming = session.config, session.data, session.run.is_resuming()
    # A checkpoint will replace it: then only its shapes matter.
    features = session.embedding_zeros(state) if is_resuming else embed(session, state)
    num_levels = config.labels.num_levels
    if config.labels.init == "singletons" or is_resuming:
        bank = cluster_dynamics.init_label_bank(data.num_target, num_levels=num_levels)  # section 4.1
    else:  # the reference code
        with session.run.phase("cluster"):
            labels, _ = pseudo_labels.dbscan_labels(features[data.num_source :], **config.cluster)
        bank = cluster_dynamics.label_bank_from(labels, num_levels=num_levels)
    return BankMemory(jnp.asarray(features), bank, jnp.int32(0))


def embed(session: Session, state: TrainState) -> np.ndarray:
    """Returns all training samples' features [N_s + N_t, D], L2-normalised."""
    return l2_normalize(session.embed(state).embeddings)


def refresh_features(session: Session, state: TrainState) -> TrainState:
    """Returns the state with all features of the bank embedded anew; the labels stay."""
    return session.with_memory(state, state.memory._replace(features=jnp.asarray(embed(session, state))))


def level_labels(state: TrainState) -> np.ndarray:
    """Returns the pseudo labels [N_t, H] int32, at each level 0..C-1 without gaps.

    Raises:
        RuntimeError: the bank does not have the cluster preserve property (section 4.1), which updates keep.
    """
    bank = state.memory.bank
    if not cluster_dynamics.preserves_clusters(bank):
        raise RuntimeError("label bank: a cluster is spread over several clusters of the level above")
    levels = [np.unique(labels, return_inverse=True)[1] for labels in np.asarray(bank.labels)]
    return np.stack(levels, axis=1).astype(np.int32)


def top_labels(state: TrainState) -> np.ndarray:
    """Returns the top level's labels [N_t], 0..N_t-1 with gaps."""
    return np.asarray(state.memory.bank.labels[-1])


def draw_batches(
    config: ConfigDict, data: TrainingData, labels: np.ndarray, *, iteration: int, epoch: int
) -> np.ndarray:
    """Draws an epoch's batches: samples of the source by identity, then as many of the target by pseudo label.

    Args:
        config: the run's.
        data: its training samples.
        labels: [N_t] integer; negative: not drawn.
        iteration: the loop's.
        epoch: of that iteration.

    Returns:
        [steps, B] indices of training samples.
    """
    train = config.train
    options: dict[str, Any] = {
        "batch_size": train.num_ids * train.num_instances,
        "num_instances": train.num_instances,
        "num_steps": train.num_steps,
    }
    rng = np.random.default_rng([config.seed, iteration, epoch])
    target = data.num_source + sampling.grouped_batches(rng, labels, **options)
    if not data.num_source:
        return target
    return np.concatenate([sampling.grouped_batches(rng, data.source_labels, **options), target], axis=1)
