"""Post-processing of a run's embeddings: fitted to the target's training samples, kept in the train state."""

from typing import Any

import numpy as np
from ml_collections import ConfigDict

from reid_jax import errors, postprocess
from reid_jax.embeddings import Features
from reid_jax.postprocess import Postprocess
from reid_jax.runs.dataset import Dataset, TrainingData

AUTO = "auto"
# Images per camera, on average, from which on a camera's mean tells the camera rather than who passed it.
_LEAST_PER_CAMERA = 8


def choose(config: ConfigDict, data: Dataset) -> str:
    """Chooses the post-processing that measured best (docs/results.md): whitening for published weights, else centring.

    It is per camera where two or more are known, with enough images.

    Args:
        config: a run's, with config.embedding.postprocess "auto".
        data: the target.
    """
    camids = data.samples["train"].camids
    num_cameras = len(postprocess.known_cameras(camids))
    per_camera = num_cameras > 1 and len(camids) >= _LEAST_PER_CAMERA * num_cameras
    if config.model.weights and not config.model.checkpoint:
        return "camera_whiten" if per_camera else "pca_whiten"
    return "camera_center" if per_camera else "center"


def check(config: ConfigDict, data: TrainingData) -> None:
    """Checks config.embedding against the data.

    Raises:
        UserError: cameras are asked for, and none is known.
    """
    kind = config.embedding.postprocess
    if kind in postprocess.CAMERA_KINDS and not len(_cameras(data)):
        others = ", ".join(each for each in postprocess.KINDS if each not in postprocess.CAMERA_KINDS)
        raise errors.UserError(
            f"embedding.postprocess must be one of {others} where no image's camera is known, got {kind!r}"
        )


def can_fit(options: ConfigDict, rows: np.ndarray, data: TrainingData) -> bool:
    """Whether the embeddings [N, D] of the target differ, within a camera where that is what is asked for."""
    camids = data.target.samples["train"].camids if options.postprocess in postprocess.CAMERA_KINDS else None
    return postprocess.is_spread(rows[data.num_source :], camids)


def fit(options: ConfigDict, rows: np.ndarray, data: TrainingData) -> Postprocess:
    """Fits config.embedding's post-processing to the target's part of all training samples' embeddings.

    Args:
        options: config.embedding; its postprocess is not "none".
        rows: [N, D] float.
        data: what they are of.

    Raises:
        NonFiniteLossError: the embeddings do not differ from each other.
    """
    samples = data.target.samples["train"]
    try:
        return postprocess.fit(
            options.postprocess, [rows[data.num_source :]], camids=samples.camids, shrinkage=options.shrinkage
        )
    except ValueError as error:
        raise errors.NonFiniteLossError(f"embedding.postprocess = {options.postprocess!r}: {error}") from error


def fitted_of(options: ConfigDict, arrays: dict[str, Any]) -> Postprocess | None:
    """Returns what a train state's arrays say was fitted; None: nothing."""
    if not arrays:
        return None
    return postprocess.from_arrays(options.postprocess, {name: np.asarray(values) for name, values in arrays.items()})


def zeros(options: ConfigDict, dim: int, data: TrainingData) -> Postprocess:
    """Returns post-processing of the shapes that `fit` gives, of embeddings with `dim` numbers."""
    cameras = _cameras(data) if options.postprocess in postprocess.CAMERA_KINDS else np.zeros(0)
    size = dim if options.postprocess in postprocess.WHITENING_KINDS else 0
    return Postprocess(
        options.postprocess,
        np.zeros(dim, np.float32),
        cameras.astype(np.int32),
        np.zeros((len(cameras), dim), np.float32),
        np.zeros((size, size), np.float32),
    )


def processed(options: ConfigDict, raw: Features, fitted: Postprocess, data: TrainingData) -> Features:
    """Post-processes the training samples' features; stripes by fits of their own."""
    stripes = raw.stripes
    if stripes is not None:
        each = [np.ascontiguousarray(stripes[:, place]) for place in range(stripes.shape[1])]
        stripes = np.stack([postprocess.apply(fit(options, rows, data), rows, data.camids) for rows in each], axis=1)
    return Features(postprocess.apply(fitted, raw.embeddings, data.camids), stripes)


def _cameras(data: TrainingData) -> np.ndarray:
    return postprocess.known_cameras(data.target.samples["train"].camids)
