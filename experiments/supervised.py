"""Supervised baselines: true identities in place of pseudo labels, the upper limit of HCT's Table 1.

    python experiments/supervised.py                                           # batch-hard triplet loss
    python experiments/supervised.py --config.train.loss=classifier            # cross-entropy over identities
"""

import functools
from typing import Any

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from experiments import command_line, config_checks, run_directory, setup_run
from reid_jax import augment, features, losses, optimizers, sampling, sharding, train, types
from reid_jax.data.batches import device_batches
from reid_jax.models import pooling
from reid_jax.models.id_classifier import IdClassifier


def check(config: ConfigDict, dataset: setup_run.Dataset) -> None:
    """Checks the fields that the data bounds.

    Raises:
        UserError: no identities, or too few of them.
    """
    num_identities = int(dataset.train_ids.max()) + 1
    num_labelled, batch_size = int((dataset.train_ids >= 0).sum()), config.train.num_ids * config.train.num_instances
    # A classifier's batches are drawn from all images.
    fewest, why = (2, "a classifier") if config.train.loss == "classifier" else (config.train.num_ids, "train.num_ids")
    if num_identities < fewest:
        raise types.UserError(
            f"data.dataset: {config.data.dataset!r} has {num_identities} known train identities; supervised training "
            f"needs at least {fewest} ({why})"
        )
    if config.train.loss == "classifier" and num_labelled < batch_size:
        raise types.UserError(
            f"train.num_ids x train.num_instances = {batch_size} must be at most the {num_labelled} labelled images"
        )


def epoch_batches(config: ConfigDict, epoch: int, labels: np.ndarray) -> np.ndarray:
    """Draws the index batches [steps, P * K] of one epoch."""
    rng = np.random.default_rng([config.seed, epoch])
    num_ids, num_instances = config.train.num_ids, config.train.num_instances
    if config.train.loss == "triplet":
        return sampling.pk_batches(rng, labels, num_ids=num_ids, num_instances=num_instances)
    return sampling.shuffled_batches(rng, labels, batch_size=num_ids * num_instances)


def make_loss(config: ConfigDict):
    """Returns the training loss (outputs of the model, labels [B], memory: not used) -> scalar."""
    num_frames = config.train.num_frames

    def triplet(features, labels, memory):
        del memory
        options = {name: config.loss[name] for name in ("margin", "soft_margin", "reduction")}
        return losses.batch_hard_triplet(pooling.frame_mean(features.embeddings, num_frames), labels, **options)

    def cross_entropy(outputs, labels, memory):
        del memory
        _, logits = outputs
        logits = pooling.frame_mean(logits, num_frames)
        targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), config.loss.label_smoothing)
        return optax.softmax_cross_entropy(logits, targets).mean()

    return triplet if config.train.loss == "triplet" else cross_entropy


def run_supervised(config: ConfigDict, workdir: str) -> dict[str, Any]:
    """Trains on the true identities, evaluating every few epochs, and returns the result."""
    config_checks.check_config(config)
    mesh = sharding.make_mesh(config.num_devices)
    batch_size = config.train.num_ids * config.train.num_instances
    sharding.check_batch_size(mesh, batch_size)
    sharding.check_batch_size(mesh, config.evaluation.batch_size)
    dataset = setup_run.load_dataset(config.data)
    train_ids, samples = dataset.train_ids, dataset.samples["train"]
    check(config, dataset)
    embedder = model = setup_run.build_model(config.model)
    if config.train.loss == "classifier":
        num_classes = int(train_ids.max()) + 1
        model = setup_run.build_model(config.model, IdClassifier, num_classes=num_classes, dropout=config.head.dropout)
    setup_run.check_training(model, config.data, batch_size=batch_size * config.train.num_frames)
    setup_run.check_start(config, model, resuming=run_directory.has_checkpoint(workdir))
    run = run_directory.RunDirectory(workdir, config, dataset)
    dataset = setup_run.with_images(dataset, config.data)
    images = dataset.images["train"]

    steps_per_epoch = len(epoch_batches(config, 0, train_ids))
    optimizer = optimizers.make_optimizer(
        config.train.optimizer,
        optimizers.step_schedule(
            config.train.learning_rate,
            drop_every=config.train.drop_every * steps_per_epoch,
            factor=config.train.drop_factor,
        ),
        momentum=config.train.momentum,
        weight_decay=config.train.weight_decay,
        rate_factors=setup_run.rate_factors(config.model),
    )
    train_step = train.make_train_step(
        model, make_loss(config), optimizer, functools.partial(augment.augment, **config.augment), mesh
    )
    embed_step = features.make_embed_step(embedder, mesh)
    evaluate = functools.partial(setup_run.evaluate_model, config.evaluation, embed_step, dataset=dataset, mesh=mesh)
    train_key = jax.random.fold_in(jax.random.key(config.seed), 1)

    variables = setup_run.initial_variables(
        config, model, images, batch_size=batch_size, resuming=run.is_resuming()
    )
    state = run.restore(train.init_train_state(variables, optimizer, mesh))
    run.measure_initial(state, evaluate)

    while not run.is_over():
        done = (run.iteration - 1) * config.train.num_epochs
        epochs = [
            epoch_batches(config, done + epoch, train_ids) for epoch in range(run.epoch, config.train.num_epochs)
        ]
        frames = setup_run.draw_epoch_frames(config, samples, epochs, run.iteration, first_epoch=run.epoch)
        batches = device_batches(images, frames, mesh)
        for index_batches in epochs:
            with run.phase("train"):
                labels = train_ids[index_batches]
                state, epoch_losses = train.train_epoch(
                    train_step, state, train_key, batches, labels, mesh, description=run.place()
                )
            run.end_epoch(state, float(epoch_losses.mean()), num_epochs=config.train.num_epochs)
        with run.phase("evaluate"):
            scores = evaluate(state.variables)
        run.end_iteration(state, {"loss": float(np.mean(run.losses))} | scores)
    return run.finish(f"supervised {config.train.loss}", mesh)


if __name__ == "__main__":
    command_line.run("supervised", run_supervised, variant_fields=("train.loss",))
