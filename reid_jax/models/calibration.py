"""Batch-norm statistics measured on data, where there are none yet: of random weights, of a new neck."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from reid_jax import errors


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
        raise errors.UserError("batch-norm calibration needs at least one batch of images, got none")
    return {**weights, "batch_stats": jax.tree.map(lambda t: t / count, total)}


def calibrate_neck(
    embed: Callable[[dict[str, Any], jax.Array], jax.Array], variables: Mapping[str, Any], batches: Iterable[jax.Array]
) -> dict[str, Any]:
    """Sets the running statistics of a fresh BN neck to those of the features that come into it.

    The rest of the model stays as its weights have it. Variables without a neck, or with one that has learned, are
    returned as they are.

    Args:
        embed: (variables, images) -> embeddings [B, D], the neck's output by its running statistics.
        variables: the model's.
        batches: of images as `embed` takes them.

    Raises:
        UserError: no batches.
    """
    neck = variables.get("batch_stats", {}).get("neck")
    if neck is None or bool(jnp.any(neck["mean"] != 0)) or bool(jnp.any(neck["var"] != 1)):
        return dict(variables)
    # Mean 0 and variance 1 leave the features as they are, but for the epsilon.
    embedded = [np.asarray(embed(variables, images), np.float64) for images in batches]
    if not embedded:
        raise errors.UserError("batch-norm calibration needs at least one batch of images, got none")
    rows = np.concatenate(embedded)
    measured = {"mean": jnp.float32(rows.mean(axis=0)), "var": jnp.float32(rows.var(axis=0, ddof=1))}
    return {**variables, "batch_stats": {**variables["batch_stats"], "neck": measured}}
