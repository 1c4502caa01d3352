"""What a run trains: a model, a loss of its outputs, and what the loss remembers between batches.

The targets of every loss are a dictionary of a batch's rows: "labels" [B], the classes, and "indices" [B], which
training samples they are; what a loss needs besides is in it, too.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from reid_jax import errors, losses, memory, postprocess, sharding
from reid_jax.embeddings import Features, unit_vectors
from reid_jax.memory import ClassMemory, LookupTable
from reid_jax.models import pooling
from reid_jax.models.id_classifier import IdClassifier
from reid_jax.models.lookup import LookupModel
from reid_jax.models.reid import ReidModel
from reid_jax.runs.models import build_backbone, build_model
from reid_jax.training import optimizers
from reid_jax.training.train_step import PyTree, TrainState, init_train_state, keep_memory

Targets = dict[str, jax.Array]


class Objective(NamedTuple):
    """What is trained.

    Attributes:
        model: the network; its variables hold the embedder's.
        embedder: what embeds images, for labels and for evaluation.
        loss: (the model's outputs, targets, memory) -> scalar.
        prepare_memory: (memory, outputs, targets) -> memory, before the loss.
        update_memory: the same after it.
        label_embedder: what embeds for labels where that is another, such as one with stripes.
    """

    model: ReidModel
    embedder: ReidModel
    loss: Callable[[Any, Targets, PyTree], jax.Array]
    prepare_memory: Callable[[PyTree, Any, Targets], PyTree] = keep_memory
    update_memory: Callable[[PyTree, Any, Targets], PyTree] = keep_memory
    label_embedder: ReidModel | None = None


def triplet(config: ConfigDict) -> Objective:
    """Batch-hard triplet loss of the embeddings (HCT eq. 2)."""
    model = build_model(config.model)

    def loss(outputs: Features, targets: Targets, memory: tuple) -> jax.Array:
        del memory
        return batch_hard(config, outputs, targets["labels"])

    return Objective(model, model, loss)


def batch_hard(config: ConfigDict, outputs: Features, labels: jax.Array) -> jax.Array:
    """Computes config.loss, the batch-hard triplet loss, of a batch's samples, labels [B]."""
    embeddings = pooling.frame_mean(outputs.embeddings, config.train.num_frames)
    if config.loss.normalize:
        embeddings = unit_vectors(embeddings)
    options = {name: config.loss[name] for name in ("margin", "soft_margin", "reduction")}
    return losses.batch_hard_triplet(embeddings, labels, **options)


def classifier(config: ConfigDict, *, num_classes: int, label_smoothing: float | None = None) -> Objective:
    """Softmax cross-entropy of a linear classifier.

    Its memory is empty, or the number of classes in use, a scalar int32: the rows from there on count for nothing.

    Args:
        config: the run's.
        num_classes: rows of the classifier.
        label_smoothing: 0..1, what all classes share of the target; None: the target is the label alone.
    """
    model = build_model(config.model, IdClassifier, num_classes=num_classes, dropout=config.head.dropout)

    def loss(outputs: tuple[Features, jax.Array], targets: Targets, num_used: tuple | jax.Array) -> jax.Array:
        logits = pooling.frame_mean(outputs[1], config.train.num_frames)
        if jax.tree.leaves(num_used):
            logits = jnp.where(jnp.arange(num_classes) < num_used, logits, -jnp.inf)
        if label_smoothing is None:
            return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, targets["labels"]))
        one_hot = jax.nn.one_hot(targets["labels"], logits.shape[-1])
        return optax.softmax_cross_entropy(logits, optax.smooth_labels(one_hot, label_smoothing)).mean()

    return Objective(model, build_model(config.model), loss)


def repelled(config: ConfigDict) -> Objective:
    """Repelled loss over a lookup table (BUC eq. 2, 3)."""

    def loss(outputs: tuple[Features, jax.Array], targets: Targets, table: LookupTable) -> jax.Array:
        return losses.repelled(
            outputs[1],
            targets["labels"],
            table.rows,
            temperature=config.loss.temperature,
            num_classes=table.num_classes,
        )

    return _with_lookup_table(config, loss)


def softened(config: ConfigDict) -> Objective:
    """Softened cross-entropy over a lookup table (SSL eq. 3, 4); targets["reliable"] [B, k] are classes."""

    def loss(outputs: tuple[Features, jax.Array], targets: Targets, table: LookupTable) -> jax.Array:
        return losses.softened(
            outputs[1],
            targets["labels"],
            targets["reliable"],
            table.rows,
            own_weight=config.loss.own_weight,
            temperature=config.loss.temperature,
        )

    return _with_lookup_table(config, loss)


def _with_lookup_table(config: ConfigDict, loss: Callable) -> Objective:
    embedder = build_model(config.model)
    parts = config.dissimilarity.num_parts if config.get("dissimilarity", {}).get("part_weight") else 0
    model = build_model(
        config.model,
        LookupModel,
        head_dim=config.head.dim,
        dropout=config.head.dropout,
        num_frames=config.train.num_frames,
    )

    def update_table(table: LookupTable, outputs: tuple[Features, jax.Array], targets: Targets) -> LookupTable:
        momentum = config.memory.momentum
        rows = memory.update_lookup_table(table.rows, outputs[1], targets["labels"], momentum=momentum)
        return table._replace(rows=rows)

    return Objective(
        model,
        embedder,
        loss,
        update_memory=update_table,
        label_embedder=build_model(config.model, num_stripes=parts) if parts else None,
    )


def unified_memory(config: ConfigDict) -> Objective:
    """Contrastive loss against the mean features of all classes, of a memory of every sample (SpCL)."""
    model, num_frames = build_model(config.model), config.train.num_frames

    def update_features(bank: ClassMemory, outputs: Features, targets: Targets) -> ClassMemory:
        embeddings = batch_embeddings(outputs, targets, num_frames)
        momentum = config.memory.momentum
        return bank._replace(
            rows=memory.update_lookup_table(bank.rows, embeddings, targets["indices"], momentum=momentum)
        )

    def loss(outputs: Features, targets: Targets, bank: ClassMemory) -> jax.Array:
        embeddings = batch_embeddings(outputs, targets, num_frames)
        return contrast_with_means(*bank, embeddings, targets["indices"], temperature=config.loss.temperature)

    return Objective(model, model, loss, update_memory=update_features)


def cluster_memory(config: ConfigDict) -> Objective:
    """Contrastive loss against one vector per class (Cluster Contrast)."""
    model, num_frames = build_model(config.model), config.train.num_frames

    def update_clusters(bank: ClassMemory, outputs: Features, targets: Targets) -> ClassMemory:
        embeddings = batch_embeddings(outputs, targets, num_frames)
        labels, momentum = bank.labels[targets["indices"]], config.memory.cluster_momentum
        rows = memory.update_class_vectors(
            bank.rows, embeddings, labels, momentum=momentum, rule=config.memory.get("rule", "each")
        )
        return bank._replace(rows=rows)

    def loss(outputs: Features, targets: Targets, bank: ClassMemory) -> jax.Array:
        embeddings = batch_embeddings(outputs, targets, num_frames)
        in_use = jax.ops.segment_sum(jnp.ones_like(bank.labels), bank.labels, num_segments=len(bank.labels)) > 0
        return losses.unified_contrastive(
            embeddings,
            bank.labels[targets["indices"]],
            bank.rows,
            temperature=config.loss.temperature,
            in_use=in_use,
        )

    return Objective(model, model, loss, update_memory=update_clusters)


def batch_embeddings(outputs: Features, targets: Targets, num_frames: int) -> jax.Array:
    """Returns a batch's embeddings [B, D], of norm 1: the mean over each sample's frames, post-processed as in the labels."""
    rows = unit_vectors(pooling.frame_mean(outputs.embeddings, num_frames))
    return postprocess.in_loss(targets["fitted"], rows, targets["camids"]) if "fitted" in targets else rows


def contrast_with_means(
    bank: jax.Array,
    labels: jax.Array,
    embeddings: jax.Array,
    indices: jax.Array,
    *,
    temperature: float,
    least_samples: jax.Array | None = None,
) -> jax.Array:
    """Computes the loss of a batch against the mean features of all classes (HCD eq. 1).

    Args:
        bank: [N, D], all samples' features.
        labels: [N], all samples' classes, 0..N-1.
        embeddings: [B, D], of the batch.
        indices: [B], which samples those are.
        temperature: tau.
        least_samples: [N] int32, at least 1: how many samples a label must have to be a class; those of others count
            for nothing. None: one.
    """
    means, counts = memory.class_means(bank, labels)
    in_use, counted = counts > 0, None
    if least_samples is not None:
        in_use = counts >= least_samples
        counted = in_use[labels[indices]]
    return losses.unified_contrastive(
        embeddings, labels[indices], means, temperature=temperature, in_use=in_use, counted=counted
    )


def empty_table(state: TrainState, num_samples: int) -> LookupTable:
    """Returns the lookup table before the first sample, one row for each of N samples."""
    dim = state.params["head"]["linear"]["kernel"].shape[1]
    return memory.init_lookup_table(num_samples, dim)


def restart_stage(
    state: TrainState, optimizer: optax.GradientTransformation, mesh: jax.sharding.Mesh, *, num_classes: int | None
) -> TrainState:
    """Returns the state at the beginning of a stage: a fresh optimizer and, with num_classes, an empty table.

    Args:
        state: of the stage before.
        optimizer: the run's.
        mesh: the devices.
        num_classes: C of the empty table; None keeps the old table.
    """
    table = state.memory
    if num_classes is not None:
        table = memory.init_lookup_table(*table.rows.shape, num_classes=num_classes)
    opt_state, table = sharding.put_replicated(mesh, (optimizer.init(state.params), table))
    return state._replace(opt_state=opt_state, memory=table)


def restart_classifier(
    state: TrainState,
    original: dict[str, Any],
    key: jax.Array,
    optimizer: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
) -> TrainState:
    """Returns the state at the beginning of an iteration: the original model with a fresh classifier (PUL, line 2).

    The optimizer is fresh as well; only the number of steps goes on.

    Args:
        state: of the iteration before.
        original: the variables to start from again.
        key: jax PRNG key of the classifier: normal, standard deviation 0.001 (PUL's reference code).
        optimizer: the run's.
        mesh: the devices.
    """
    kernel = original["params"]["classifier"]["kernel"]
    fresh = {"kernel": 0.001 * jax.random.normal(key, kernel.shape)}
    variables = original | {"params": original["params"] | {"classifier": fresh}}
    fresh = init_train_state(variables, optimizer, mesh, averaged=bool(state.average))
    return fresh._replace(step=state.step, fitted=state.fitted)


def make_optimizer(config: ConfigDict, *, steps_per_drop: int = 1) -> optax.GradientTransformation:
    """Builds the optimizer that config.train describes.

    With train.drop_every the rate falls in steps of that many, with train.later_learning_rate it is set epoch by epoch
    (`Session.train_epochs`), else it is constant.

    Args:
        config: the run's.
        steps_per_drop: train steps in one unit of train.drop_every, for methods that count epochs.
    """
    train = config.train
    rate = train.learning_rate
    if "drop_every" in train:
        rate = optimizers.step_schedule(rate, drop_every=train.drop_every * steps_per_drop, factor=train.drop_factor)
    return optimizers.make_optimizer(
        train.optimizer,
        rate,
        momentum=train.momentum,
        nesterov=train.get("nesterov", False),
        weight_decay=train.weight_decay,
        rate_factors=_rate_factors(
            config.model, backbone=train.get("backbone_rate_factor", 1.0), layer_decay=train.layer_decay
        ),
        settable="later_learning_rate" in train,
        warmup_steps=train.warmup_steps,
    )


def _rate_factors(model: ConfigDict, *, backbone: float, layer_decay: float) -> dict[str, float]:
    """Returns the learning rate's factors by parameter: 0 for frozen stages, `backbone` or less for the others of it."""
    factors = {} if backbone == 1 else {"backbone/": backbone}
    if layer_decay < 1:
        factors |= _stage_factors(model, last=backbone, layer_decay=layer_decay)
    if model.frozen_stages:
        factors |= {f"backbone/{prefix}": 0.0 for prefix in build_backbone(model).frozen_prefixes()}
    return factors


def _stage_factors(model: ConfigDict, *, last: float, layer_decay: float) -> dict[str, float]:
    """Returns the factors of a backbone's stages, of which each has `layer_decay` times that of the one after it."""
    whole, factors = build_backbone(model), {}
    if not hasattr(whole, "num_stages"):
        raise errors.UserError(f"train.layer_decay must be 1 for a backbone of one's own, got {layer_decay}")
    for stage in range(whole.num_stages, 0, -1):  # the prefixes up to a stage have those of the stages before
        prefixes = whole.clone(frozen_stages=stage).frozen_prefixes()
        factors |= {f"backbone/{prefix}": last * layer_decay ** (whole.num_stages - stage) for prefix in prefixes}
    return factors
