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

from reid_jax import cluster_dynamics, errors, memory, pseudo_labels, sampling
from reid_jax.cluster_dynamics import LabelBank
from reid_jax.distances import k_reciprocal
from reid_jax.embeddings import Features, l2_normalize
from reid_jax.models.reid import ReidModel
from reid_jax.runs.dataset import TrainingData
from reid_jax.runs.models import build_model
from reid_jax.runs.objectives import Objective, Targets, batch_embeddings, batch_hard, contrast_with_means
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
    if train.get("camera_groups"):
        _check_groups(config)
    if config.stop.signal not in ("last", *signals):
        allowed = " or ".join(repr(signal) for signal in ("last", *signals))
        raise errors.UserError(f"stop.signal must be {allowed}, got {config.stop.signal!r}, which is not computed")


def _check_groups(config: ConfigDict) -> None:
    """Checks that batch-norm groups can be of one camera each."""
    train, group_size, batch_size = (
        config.train,
        config.model.bn_group_size,
        config.train.num_ids * config.train.num_instances,
    )
    if config.model.keep_batch_norm:
        raise errors.UserError("model.keep_batch_norm must be false with train.camera_groups, got true")
    if group_size < 1 or group_size % train.num_frames or batch_size % (group_size // train.num_frames):
        raise errors.UserError(
            f"model.bn_group_size must be images of whole samples that divide the batch of {batch_size} samples of "
            f"{train.num_frames} frames with train.camera_groups, got {group_size}"
        )


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
    labels = config.labels
    if labels.init == "dbscan":
        check_dbscan(config, data)
    elif labels.warmup_steps and not config.loss.singletons and not data.num_source:
        raise errors.UserError(
            "labels.warmup_steps must be 0 with loss.singletons = false and labels.init = 'singletons', by which nothing "
            f"would be trained until then, got {labels.warmup_steps}"
        )
    if config.train.sampling_level > labels.num_levels:
        raise errors.UserError(
            f"train.sampling_level must be at most labels.num_levels = {labels.num_levels}, got "
            f"{config.train.sampling_level}"
        )
    if labels.similar_steps:
        _check_rise(config, data)


def _check_rise(config: ConfigDict, data: TrainingData) -> None:
    """Checks what `num_similar_at` works with."""
    if config.dynamics.min_similarity is not None or not config.dynamics.num_similar:
        raise errors.UserError(
            f"labels.similar_steps = {config.labels.similar_steps} needs dynamics.num_similar greater than 0, up to which "
            f"it rises, and dynamics.min_similarity = None, got {config.dynamics.num_similar} and "
            f"{config.dynamics.min_similarity}"
        )
    if not config.labels.first_similar < data.num_target - 1:
        raise errors.UserError(
            f"labels.first_similar must be less than the {data.num_target - 1} others of a sample, got "
            f"{config.labels.first_similar}"
        )


def contrastive(config: ConfigDict, data: TrainingData) -> Objective:
    """Returns HCD's objective: the loss of equation (1), by the labels that the bank step gives the batch.

    With config.loss.levels "all" it is the mean over the levels of the losses by their labels.
    """
    options: dict[str, Any] = {"temperature": config.loss.temperature}
    if not config.loss.singletons:  # a class of the source's needs one sample
        options["least_samples"] = np.where(np.arange(len(data.samples)) < data.num_source, 1, 2)
    lowest = 0 if config.loss.levels == "all" else -1

    def loss(outputs: Features, targets: Targets, bank: BankMemory) -> jax.Array:
        embeddings = batch_embeddings(outputs, targets, config.train.num_frames)
        by_level = [
            contrast_with_means(bank.features, data.with_source(labels), embeddings, targets["indices"], **options)
            for labels in bank.bank.labels[lowest:]
        ]
        return sum(by_level) / len(by_level)

    return with_bank_step(config, data, build_model(config.model), loss)


def triplet(config: ConfigDict, data: TrainingData) -> Objective:
    """Returns the batch-hard triplet loss by the labels that the bank step gives the batch."""

    def loss(outputs: Features, targets: Targets, bank: BankMemory) -> jax.Array:
        return batch_hard(config, outputs, data.with_source(bank.bank.labels[-1])[targets["indices"]])

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
        embeddings = batch_embeddings(outputs, targets, config.train.num_frames)
        return bank_step(config, data, bank, embeddings, targets["indices"], key=key)

    def update_memory(bank: BankMemory, outputs: Features, targets: Targets) -> BankMemory:
        embeddings = batch_embeddings(outputs, targets, config.train.num_frames)
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
        options = dict(config.dynamics) | {"key": jax.random.fold_in(key, bank.step)}
        if config.labels.similar_steps:
            options["num_similar_now"] = num_similar_at(config, bank.step)
        return cluster_dynamics.update_label_bank(bank.bank, features, own, **options)

    # Table 4: every (I + 1)-th step; the reference code's first ones are a warm-up.
    is_due = (bank.step >= config.labels.warmup_steps) & (bank.step % (config.labels.interval + 1) == 0)
    return bank._replace(bank=jax.lax.cond(is_due, split_and_merge, lambda: bank.bank))


def num_similar_at(config: ConfigDict, step: jax.Array) -> jax.Array:
    """Returns how many similar samples one has at a train step, scalar float32.

    It rises linearly from labels.first_similar at the first label update to dynamics.num_similar, which it has from
    labels.similar_steps train steps later on.
    """
    labels, last = config.labels, config.dynamics.num_similar
    done = jnp.clip((step - labels.warmup_steps) / labels.similar_steps, 0.0, 1.0)
    return labels.first_similar + (last - labels.first_similar) * done


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


def sampling_labels(config: ConfigDict, bank: LabelBank) -> np.ndarray:
    """Returns the labels [N_t] that batches are drawn by, 0..N_t-1 with gaps; -1: not drawn.

    They are those of config.train.sampling_level. Without config.loss.singletons, samples that are alone at the top level
    are not drawn, unless fewer than a batch are not alone: then all are.
    """
    train, by_level = config.train, np.asarray(bank.labels)
    labels, top = by_level[train.sampling_level - 1], by_level[-1]  # level 0: the last, too
    is_drawn = config.loss.singletons | (np.bincount(top)[top] > 1)
    if is_drawn.sum() < train.num_ids * train.num_instances:
        return labels
    return np.where(is_drawn, labels, -1)


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
    if train.get("camera_groups"):
        camids = data.target.samples["train"].camids
        group_size = config.model.bn_group_size // train.num_frames
        target = data.num_source + sampling.camera_batches(rng, labels, camids, group_size=group_size, **options)
    else:
        target = data.num_source + sampling.grouped_batches(rng, labels, **options)
    if not data.num_source:
        return target
    return np.concatenate([sampling.grouped_batches(rng, data.source_labels, **options), target], axis=1)
