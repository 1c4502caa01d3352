"""Shared by BUC and softened similarity: epochs and learning rate of a stage, and the dissimilarity's options."""

from typing import Any

import numpy as np
from ml_collections import ConfigDict

from reid_jax import errors, sampling
from reid_jax.data.samples import Samples
from reid_jax.runs import objectives
from reid_jax.runs.dataset import TrainingData
from reid_jax.runs.session import Session
from reid_jax.training.train_step import TrainState


def check_batch(config: ConfigDict, data: TrainingData) -> None:
    """Checks that there are samples for a batch.

    Raises:
        UserError: there are fewer.
    """
    if config.train.batch_size > len(data.samples):
        raise errors.UserError(
            f"train.batch_size must be at most the {len(data.samples)} training samples, got {config.train.batch_size}"
        )


def start(session: Session) -> TrainState:
    """Returns the state to go on from, with a lookup table of a row for each sample; see `Session.start`."""
    return session.start(lambda state: objectives.empty_table(state, len(session.data.samples)))


def train_stage(session: Session, state: TrainState, targets: dict[str, np.ndarray]) -> TrainState:
    """Trains for the rest of a stage's epochs, every sample once in each, and returns the state after them.

    The first stage has train.first_epochs at train.learning_rate, dropped after train.drop_epoch; the later ones have
    train.num_epochs at the dropped rate.

    Args:
        session: the run's.
        state: the state before.
        targets: of every sample, [N, ...] each, "labels" among them.
    """
    train, is_first = session.config.train, session.run.iteration == 1
    num_epochs = train.first_epochs if is_first else train.num_epochs
    every = np.arange(len(session.data.samples))

    def rate(epoch: int) -> float:
        return train.learning_rate if is_first and epoch < train.drop_epoch else train.later_learning_rate

    epochs = session.draw_epochs(
        lambda rng: sampling.shuffled_batches(rng, every, batch_size=train.batch_size), num_epochs=num_epochs
    )
    return session.train_epochs(state, epochs, targets, num_epochs=num_epochs, learning_rate=rate)


def dissimilarity_terms(options: ConfigDict, samples: Samples) -> dict[str, Any]:
    """Returns config.dissimilarity as `dissimilarity.dissimilarities` takes it, with the cameras where they count.

    Raises:
        UserError: some cameras are known and some are not.
    """
    terms = {"metric": options.metric, "part_weight": options.part_weight}
    unknown = np.flatnonzero(samples.camids < 0)
    if not options.camera_penalty or len(unknown) == len(samples):
        return terms
    if len(unknown):
        raise errors.UserError(
            f"dissimilarity.camera_penalty = {options.camera_penalty} needs the camera of every sample; "
            f"{len(unknown)} of {len(samples)} have none, the first is {samples.names[unknown[0]]}. Prepare the data "
            "with all cameras, or set it to 0"
        )
    return terms | {"camids": samples.camids, "camera_penalty": options.camera_penalty}


def check_cameras(config: ConfigDict, data: TrainingData) -> None:
    """Checks that cameras are known where they count; where none is, standard output says that they do not.

    Raises:
        UserError: as `dissimilarity_terms`.
    """
    terms = dissimilarity_terms(config.dissimilarity, data.samples)
    if config.dissimilarity.camera_penalty and "camids" not in terms:
        print("no camera ids: the cross-camera term (CCE) is off", flush=True)
