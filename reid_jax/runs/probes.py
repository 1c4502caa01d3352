"""Augmented copies of training images, by which it is seen without labels whether a model still tells images apart."""

from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from reid_jax import postprocess, recognition, sampling
from reid_jax.data.batches import device_batches
from reid_jax.embeddings import Features
from reid_jax.postprocess import Postprocess
from reid_jax.runs.dataset import TrainingData


def measure_recognition(
    embed_copies: Callable[[jax.Array, jax.Array], Features],
    key: jax.Array,
    rows: np.ndarray,
    *,
    options: ConfigDict,
    images_per_identity: float,
    data: TrainingData,
    fitted: Postprocess | None,
    mesh: Mesh,
) -> dict[str, float]:
    """Measures how well a model knows augmented copies of the target's images again (`recognition.recognition`).

    The same key gives the same copies, so that a run's iterations compare.

    Args:
        embed_copies: (key, images [B, H, W, 3] uint8) -> features of augmented copies of them.
        key: jax PRNG key of the copies.
        rows: [N, D] float, all training samples' embeddings, post-processed.
        options: config.evaluation: num_probes, how many samples are looked at, evenly spaced, and batch_size.
        images_per_identity: about how many samples there are of one identity; 0: not known.
        data: whose samples they are; a tracklet's copy is of its first frame.
        fitted: post-processing of the copies' embeddings.
        mesh: the devices.

    Returns:
        recognition, the mean reciprocal rank of the copies' own samples; nothing of fewer than two samples.
    """
    samples = data.samples
    places = np.arange(data.num_source, len(samples))
    places = places[:: -(-len(places) // options.num_probes)]
    if len(places) < 2:
        return {}
    batches = sampling.sequential_batches(len(places), batch_size=options.batch_size)
    images = device_batches(data.images, samples.frames[samples.starts[places]][batches], mesh)
    copies = [
        np.asarray(embed_copies(jax.random.fold_in(key, place), batch).embeddings) for place, batch in enumerate(images)
    ]
    copies = postprocess.apply(fitted, np.concatenate(copies)[: len(places)], data.camids[places])
    num_alike = max(1, round(images_per_identity * len(places) / data.num_target))
    return {"recognition": recognition.recognition(rows[places], copies, num_alike=num_alike)[1]}
