"""Supervised baselines: true identities in place of pseudo labels, the upper limit of HCT's Table 1.

python experiments/supervised.py                                           # batch-hard triplet loss
python experiments/supervised.py --config.train.loss=classifier            # cross-entropy over identities
"""

from typing import Any

import numpy as np
import optax
from ml_collections import ConfigDict

from reid_jax import errors, sampling
from reid_jax.cli import command_line
from reid_jax.runs import objectives
from reid_jax.runs.dataset import TrainingData
from reid_jax.runs.objectives import Objective
from reid_jax.runs.opening import open_session


def check(config: ConfigDict, data: TrainingData) -> None:
    """Checks the fields that the data bounds.

    Raises:
        UserError: no identities, or too few of them.
    """
    train_ids, train = data.target.train_ids, config.train
    num_identities = int(train_ids.max()) + 1
    num_labelled, batch_size = int((train_ids >= 0).sum()), train.num_ids * train.num_instances
    # A classifier's batches are drawn from all images.
    fewest, why = (2, "a classifier") if train.loss == "classifier" else (train.num_ids, "train.num_ids")
    if num_identities < fewest:
        raise errors.UserError(
            f"data.dataset: {config.data.dataset!r} has {num_identities} known train identities; supervised training "
            f"needs at least {fewest} ({why})"
        )
    if train.loss == "classifier" and num_labelled < batch_size:
        raise errors.UserError(
            f"train.num_ids x train.num_instances = {batch_size} must be at most the {num_labelled} labelled images"
        )


def make_objective(config: ConfigDict, data: TrainingData) -> Objective:
    """Returns the loss that config.train.loss names."""
    if config.train.loss == "triplet":
        return objectives.triplet(config)
    num_classes = int(data.target.train_ids.max()) + 1
    return objectives.classifier(config, num_classes=num_classes, label_smoothing=config.loss.label_smoothing)


def draw_batches(config: ConfigDict, epoch: int, labels: np.ndarray) -> np.ndarray:
    """Draws the index batches [steps, P * K] of one epoch, counted from the beginning of the run."""
    rng = np.random.default_rng([config.seed, epoch])
    num_ids, num_instances = config.train.num_ids, config.train.num_instances
    if config.train.loss == "triplet":
        return sampling.pk_batches(rng, labels, num_ids=num_ids, num_instances=num_instances)
    return sampling.shuffled_batches(rng, labels, batch_size=num_ids * num_instances)


def make_optimizer(config: ConfigDict, data: TrainingData) -> optax.GradientTransformation:
    """Returns the optimizer; train.drop_every counts epochs."""
    steps_per_epoch = len(draw_batches(config, 0, data.target.train_ids))
    return objectives.make_optimizer(config, steps_per_drop=steps_per_epoch)


def run_supervised(config: ConfigDict, workdir: str) -> dict[str, Any]:
    """Trains on the true identities, evaluating every few epochs, and returns the result."""
    method = f"supervised {config.train.loss}"
    session = open_session(
        config, workdir, method=method, check=check, objective=make_objective, optimizer=make_optimizer
    )
    run, config, labels = session.run, session.config, session.dataset.train_ids
    num_epochs = config.train.num_epochs
    state = session.start()

    while not run.is_over():
        done = (run.iteration - 1) * num_epochs
        epochs = [draw_batches(config, done + epoch, labels) for epoch in range(run.epoch, num_epochs)]
        state = session.train_epochs(state, epochs, {"labels": labels})
        state = session.end_iteration(state, {})
    return session.finish()


if __name__ == "__main__":
    command_line.run("supervised", run_supervised, variant_fields=("train.loss",))
