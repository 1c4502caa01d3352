"""Embed a data set: one row per image, in index order."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from reid_jax import augment, sampling, sharding
from reid_jax.data.batches import device_batches
from reid_jax.data.images import ImageSource
from reid_jax.progress import ProgressBar

EmbedStep = Callable[[dict[str, Any], jax.Array], jax.Array]


def make_embed_step(model: nn.Module, mesh: Mesh) -> EmbedStep:
    """Builds the jitted function (variables, images [B, H, W, 3] uint8) -> embeddings [B, D] float32."""

    def embed_step(variables, images):
        return model.apply(variables, augment.normalize(images), train=False).embeddings

    whole, split = sharding.replicated(mesh), sharding.batch_sharded(mesh)
    return jax.jit(embed_step, in_shardings=(whole, split), out_shardings=split)


def embed_images(
    embed_step: EmbedStep,
    variables: dict[str, Any],
    images: ImageSource,
    mesh: Mesh,
    *,
    batch_size: int,
    description: str = "embedding",
) -> np.ndarray:
    """Embeds every image, without augmentation.

    Args:
        embed_step: from `make_embed_step`.
        variables: the model's.
        images: N images.
        mesh: the devices.
        batch_size: images at a time; a multiple of the mesh's size. The last batch is filled up.
        description: for the progress bar.

    Returns:
        [N, D] float32, not normalised.
    """
    index_batches = sampling.sequential_batches(len(images), batch_size=batch_size)
    pieces, waiting = [], None
    with ProgressBar(len(index_batches) * batch_size, description, unit="images") as bar:
        for batch in device_batches(images, index_batches, mesh):
            embeddings = embed_step(variables, batch)
            # Fetching the previous result only now lets the device work on this one meanwhile.
            if waiting is not None:
                pieces.append(np.asarray(waiting))
            waiting = embeddings
            bar.update(batch_size)
        pieces.append(np.asarray(waiting))
    return np.concatenate(pieces)[: len(images)]
