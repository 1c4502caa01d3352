"""Embed a data set: one row per sample, in index order."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from reid_jax import augment, errors, sampling, sharding
from reid_jax.data.batches import device_batches
from reid_jax.data.images import ImageSource
from reid_jax.data.samples import Samples
from reid_jax.embeddings import Features
from reid_jax.progress import ProgressBar

EmbedStep = Callable[[dict[str, Any], jax.Array], Features]


def make_embed_step(model: nn.Module, mesh: Mesh) -> EmbedStep:
    """Builds the jitted function (variables, images [B, H, W, 3] uint8) -> `Features` of the images."""

    def embed_step(variables, images):
        return model.apply(variables, augment.normalize(images), train=False)

    whole, split = sharding.replicated(mesh), sharding.batch_sharded(mesh)
    return jax.jit(embed_step, in_shardings=(whole, split), out_shardings=split)


def embed_copies(
    model: nn.Module,
    augmented: Callable[[jax.Array, jax.Array], jax.Array],
    mesh: Mesh,
) -> Callable[[dict[str, Any], jax.Array, jax.Array], Features]:
    """Builds the jitted function (variables, key, images [B, H, W, 3] uint8) -> `Features` of augmented copies of them.

    Args:
        model: returns features.
        augmented: (key, uint8 images) -> normalised float images.
        mesh: the devices.
    """

    def embed_step(variables, key, images):
        return model.apply(variables, augmented(key, images), train=False)

    whole, split = sharding.replicated(mesh), sharding.batch_sharded(mesh)
    return jax.jit(embed_step, in_shardings=(whole, whole, split), out_shardings=split)


def embed_samples(
    embed_step: EmbedStep,
    variables: dict[str, Any],
    images: ImageSource,
    samples: Samples,
    mesh: Mesh,
    *,
    batch_size: int,
    description: str = "embedding",
) -> Features:
    """Embeds every sample without augmentation: the mean over its frames.

    Args:
        embed_step: from `make_embed_step`.
        variables: the model's.
        images: what the samples' frames are indices of.
        samples: S samples.
        mesh: the devices.
        batch_size: images at a time; a multiple of the mesh's size. The last batch is filled up.
        description: for the progress bar.

    Returns:
        Features of NumPy arrays [S, ...] float32, not normalised. No more than that and one batch is held.

    Raises:
        errors.NonFiniteLossError: an embedding or its norm is nan or infinite in float32; names the first sample.
    """
    index_batches = sampling.sequential_batches(len(samples.frames), batch_size=batch_size)
    sample_of = np.repeat(np.arange(len(samples)), samples.counts)
    totals, waiting = None, None

    def add(place: int, batch_features: Features) -> None:
        nonlocal totals
        batch_features = jax.tree.map(np.asarray, batch_features)
        if totals is None:
            totals = jax.tree.map(lambda part: np.zeros((len(samples), *part.shape[1:]), np.float32), batch_features)
        owners = sample_of[place * batch_size : (place + 1) * batch_size]
        firsts = np.flatnonzero(np.diff(owners, prepend=-1))
        for total, part in zip(jax.tree.leaves(totals), jax.tree.leaves(batch_features)):
            total[owners[firsts]] += np.add.reduceat(part[: len(owners)], firsts)

    with ProgressBar(len(index_batches) * batch_size, description, unit="images") as bar:
        for place, batch in enumerate(device_batches(images, samples.frames[index_batches], mesh)):
            features = embed_step(variables, batch)
            # Fetching the previous result only now lets the device work on this one meanwhile.
            if waiting is not None:
                add(*waiting)
            waiting = place, features
            bar.update(batch_size)
        add(*waiting)
    counts = samples.counts.astype(np.float32)
    for total in jax.tree.leaves(totals):
        total /= counts.reshape(-1, *[1] * (total.ndim - 1))
    _check_finite(totals, samples, description)
    return totals


def _check_finite(features: Features, samples: Samples, description: str) -> None:
    """Raises NonFiniteLossError where distances would be nan or infinite, and a norm that divides would hide it."""
    for part in jax.tree.leaves(features):
        with np.errstate(over="ignore", invalid="ignore"):
            sq_norms = np.einsum("n...d,n...d->n...", part, part).reshape(len(part), -1)
        bad = np.flatnonzero(~np.isfinite(sq_norms).all(axis=1))
        if len(bad):
            raise errors.NonFiniteLossError(
                f"{description}: {len(bad)} of {len(part)} embeddings are not finite or too large for float32, the "
                f"first is that of {samples.names[bad[0]]}; the weights are at fault or, after training, its learning rate"
            )
