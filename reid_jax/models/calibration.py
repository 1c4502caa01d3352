"""Batch-norm statistics measured on data, for models that start from random weights."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from reid_jax import types


def calibrate_batch_norm(
    model: nn.Module,
    variables: Mapping[str, Any],
    batches: Iterable[jax.Array],
    *,
    rngs: Mapping[str, jax.Array] | None = None,
) -> dict[str, Any]:
    """Sets the running statistics to the mean over the batches of each batch's statistics.

    Random weights come with mean 0 and variance 1, under which the embeddings of all images nearly coincide. Weights
    stay as they are. The same batches give the same statistics, bit for bit on CPU.

    Args:
        model: called as `model.apply(variables, images, train=True, mutable=["batch_stats"], rngs=rngs)`. Its batch
            norms must move every running statistic r to m r + (1 - m) s, of any momentum m below 1 (Flax's own do as
            well).
        variables: the model's; those of a model without batch norms are returned as they are.
        batches: of images [B, H, W, 3] float, normalised, all of one shape (each new shape compiles anew).
        rngs: PRNG keys by name, for models that draw in training (dropout); every batch has the same.

    Returns:
        The variables with the measured statistics.

    Raises:
        UserError: no batches.
    """
    if not variables.get("batch_stats"):
        return dict(variables)
    weights = {name: collection for name, collection in variables.items() if name != "batch_stats"}
    zeros = jax.tree.map(jnp.zeros_like, variables["batch_stats"])
    ones = jax.tree.map(jnp.ones_like, zeros)

    @jax.jit
    def add_statistics(weights, total, images):
        def updated(running):
            return model.apply(
                {**weights, "batch_stats": running}, images, train=True, mutable=["batch_stats"], rngs=rngs
            )[1]["batch_stats"]

        # The update is linear in r: from r = 0 it gives (1 - m) s, and its derivative is m.
        scaled, momentum = jax.jvp(updated, (zeros,), (ones,))
        return jax.tree.map(lambda t, s, m: t + s / (1 - m), total, scaled, momentum)

    total, count = zeros, 0
    for images in batches:
        total = add_statistics(weights, total, images)
        count += 1
    if count == 0:
        raise types.UserError("batch-norm calibration needs at least one batch of images, got none")
    return {**weights, "batch_stats": jax.tree.map(lambda t: t / count, total)}
