"""What BUC and softened similarity share: the model with a lookup table, its training, how unlike two samples are."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from experiments import run_directory, setup_run
from reid_jax import augment, features, memory, optimizers, sampling, sharding, train, types
from reid_jax.data.batches import device_batches
from reid_jax.data.samples import Samples
from reid_jax.models.lookup import LookupModel


class Trunk(NamedTuple):
    """What both loops are made of.

    Attributes:
        model: the one that is trained.
        optimizer: with a learning rate that is set epoch by epoch.
        train_step: compiled once for the run.
        embed_step: for evaluation.
        embed_parts_step: for labels: with stripes where the dissimilarity needs them.
    """

    model: LookupModel
    optimizer: optax.GradientTransformation
    train_step: train.TrainStep
    embed_step: features.EmbedStep
    embed_parts_step: features.EmbedStep


def check(config: ConfigDict, num_samples: int, mesh: Mesh) -> None:
    """Checks what the data's size and the devices bound.

    Raises:
        UserError: a batch does not fit.
    """
    sharding.check_batch_size(mesh, config.train.batch_size)
    sharding.check_batch_size(mesh, config.evaluation.batch_size)
    if config.train.batch_size > num_samples:
        raise types.UserError(
            f"train.batch_size must be at most the {num_samples} training samples, got {config.train.batch_size}"
        )


def make_trunk(
    config: ConfigDict, loss: Callable[[jax.Array, Any, memory.LookupTable], jax.Array], mesh: Mesh
) -> Trunk:
    """Builds the trunk.

    Args:
        config: the run's.
        loss: (head's embeddings [B, D'], targets, the lookup table) -> scalar. The labels are targets["labels"].
        mesh: the devices.

    Raises:
        UserError: an option breaks its rule, such as parts that do not divide the feature map.
    """
    parts = config.dissimilarity.num_parts if config.dissimilarity.part_weight else 0
    embedder = setup_run.build_model(config.model)
    part_embedder = setup_run.build_model(config.model, num_stripes=parts) if parts else embedder
    model = setup_run.build_model(
        config.model,
        LookupModel,
        head_dim=config.head.dim,
        dropout=config.head.dropout,
        num_frames=config.train.num_frames,
    )
    num_images = config.train.batch_size * config.train.num_frames
    setup_run.check_training(model, config.data, batch_size=num_images)
    try:
        setup_run.check_training(part_embedder, config.data, batch_size=num_images)
    except types.UserError as error:
        raise types.UserError(f"dissimilarity.num_parts = {parts}: {error}") from error
    optimizer = optimizers.make_optimizer(
        config.train.optimizer,
        config.train.learning_rate,
        momentum=config.train.momentum,
        nesterov=config.train.nesterov,
        weight_decay=config.train.weight_decay,
        rate_factors=setup_run.rate_factors(config.model, backbone=config.train.backbone_rate_factor),
        settable=True,
    )

    def update_table(table, outputs, targets):
        _, embeddings = outputs
        rows = memory.update_lookup_table(
            table.rows, embeddings, targets["labels"], momentum=config.memory.momentum
        )
        return table._replace(rows=rows)

    train_step = train.make_train_step(
        model,
        lambda outputs, targets, table: loss(outputs[1], targets, table),
        optimizer,
        functools.partial(augment.augment, **config.augment),
        mesh,
        update_memory=update_table,
    )
    embed_step = features.make_embed_step(embedder, mesh)
    embed_parts_step = features.make_embed_step(part_embedder, mesh) if parts else embed_step
    return Trunk(model, optimizer, train_step, embed_step, embed_parts_step)


def initial_state(
    config: ConfigDict, trunk: Trunk, dataset: setup_run.Dataset, mesh: Mesh, *, resuming: bool
) -> train.TrainState:
    """Returns the state before the first step; see `setup_run.initial_variables`."""
    variables = setup_run.initial_variables(
        config,
        trunk.model,
        dataset.images["train"],
        batch_size=config.train.batch_size * config.train.num_frames,
        resuming=resuming,
    )
    dim = variables["params"]["head"]["linear"]["kernel"].shape[1]
    table = memory.init_lookup_table(len(dataset.samples["train"]), dim)
    return train.init_train_state(variables, trunk.optimizer, mesh, memory=table)


def embed(
    config: ConfigDict, trunk: Trunk, state: train.TrainState, dataset: setup_run.Dataset, mesh: Mesh
) -> types.Features:
    """Returns the training samples' features, L2-normalised, as the dissimilarity takes them."""
    embedded = features.embed_samples(
        trunk.embed_parts_step,
        state.variables,
        dataset.images["train"],
        dataset.samples["train"],
        mesh,
        batch_size=config.evaluation.batch_size,
    )
    return features.l2_normalized(embedded)


def restarted(state: train.TrainState, trunk: Trunk, mesh: Mesh, *, num_classes: int | None) -> train.TrainState:
    """Returns the state at the beginning of a stage: a fresh optimizer and, with num_classes, an empty table.

    Args:
        state: of the stage before.
        trunk: whose optimizer it is.
        mesh: the devices.
        num_classes: C of the empty table; None keeps the old table.
    """
    table = state.memory
    if num_classes is not None:
        table = memory.init_lookup_table(*table.rows.shape, num_classes=num_classes)
    fresh = trunk.optimizer.init(state.params), table
    opt_state, table = sharding.put_replicated(mesh, fresh)
    return state._replace(opt_state=opt_state, memory=table)


def train_epochs(
    config: ConfigDict,
    trunk: Trunk,
    run: run_directory.RunDirectory,
    state: train.TrainState,
    dataset: setup_run.Dataset,
    targets: dict[str, np.ndarray],
    mesh: Mesh,
) -> train.TrainState:
    """Trains for the rest of an iteration's epochs and returns the state after them.

    The first iteration has train.first_epochs at train.learning_rate, dropped after train.drop_epoch; the later ones
    train.num_epochs at the dropped rate.

    Args:
        targets: of every sample [N, ...], among them "labels".
    """
    samples, is_first = dataset.samples["train"], run.iteration == 1
    num_epochs = config.train.first_epochs if is_first else config.train.num_epochs
    epochs = [
        sampling.shuffled_batches(
            np.random.default_rng([config.seed, run.iteration, epoch]),
            np.arange(len(samples)),
            batch_size=config.train.batch_size,
        )
        for epoch in range(run.epoch, num_epochs)
    ]
    frames = setup_run.draw_epoch_frames(config, samples, epochs, run.iteration, first_epoch=run.epoch)
    batches = device_batches(dataset.images["train"], frames, mesh)
    train_key = jax.random.fold_in(jax.random.key(config.seed), 1)
    for index_batches in epochs:
        is_early = is_first and run.epoch < config.train.drop_epoch
        rate = config.train.learning_rate if is_early else config.train.later_learning_rate
        opt_state = sharding.put_replicated(mesh, optimizers.with_learning_rate(state.opt_state, rate))
        with run.phase("train"):
            state, losses = train.train_epoch(
                trunk.train_step,
                state._replace(opt_state=opt_state),
                train_key,
                batches,
                {name: values[index_batches] for name, values in targets.items()},
                mesh,
                description=run.place(),
            )
        run.end_epoch(state, float(losses.mean()), num_epochs=num_epochs)
    return state


def dissimilarity_options(options: ConfigDict, samples: Samples) -> dict[str, Any]:
    """Returns config.dissimilarity as `dissimilarity.dissimilarities` takes it, with the cameras where they count.

    Where no camera is known, the cross-camera term is off, and standard output says so.

    Raises:
        UserError: some cameras are known and some are not.
    """
    found = {"metric": options.metric, "part_weight": options.part_weight}
    unknown = np.flatnonzero(samples.camids < 0)
    if not options.camera_penalty or len(unknown) == len(samples):
        if options.camera_penalty:
            print("no camera ids: the cross-camera term (CCE) is off", flush=True)
        return found
    if len(unknown):
        raise types.UserError(
            f"dissimilarity.camera_penalty = {options.camera_penalty} needs the camera of every sample; "
            f"{len(unknown)} of {len(samples)} have none, the first is {samples.names[unknown[0]]}. Prepare the data "
            "with all cameras, or set it to 0"
        )
    return found | {"camids": samples.camids, "camera_penalty": options.camera_penalty}
