"""One epoch of train steps."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from reid_jax import errors, sharding
from reid_jax.progress import ProgressBar
from reid_jax.training.train_step import PyTree, TrainState, TrainStep


def train_epoch(
    train_step: TrainStep,
    state: TrainState,
    key: jax.Array,
    batches: Iterator[jax.Array],
    targets: PyTree,
    mesh: Mesh,
    *,
    description: str = "training",
) -> tuple[TrainState, np.ndarray]:
    """Runs one train step per row of the targets.

    Args:
        train_step: from `make_train_step`.
        state: the state before; its memory is given up.
        key: jax PRNG key, the same for the whole run.
        batches: yields images [B * T, H, W, 3] uint8 on the mesh; only the epoch's are taken, so that reading ahead
            goes on over the border to the next epoch.
        targets: host arrays [steps, B, ...] integer, of each batch's samples: the labels, or a pytree of such.
        mesh: the devices.
        description: for the progress bar.

    Returns:
        (the state after, losses [steps] float32).

    Raises:
        errors.NonFiniteLossError: a loss or the model is nan or infinite; names the steps.
    """
    key = sharding.put_replicated(mesh, key)
    first_step, losses = int(state.step), []
    num_steps = len(jax.tree.leaves(targets)[0])
    with ProgressBar(num_steps, description, unit="steps") as bar:
        for index, images in zip(range(num_steps), batches):  # range first: zip must not take a batch too many
            batch_targets = jax.tree.map(lambda rows: rows[index].astype(np.int32), targets)
            state, loss = train_step(state, key, images, sharding.put_batch(mesh, batch_targets))
            losses.append(loss)
            # Two steps in flight keep the device busy; more would only hold their batches in memory.
            if len(losses) > 2:
                losses[-3].block_until_ready()
            bar.update()
    losses = np.array([float(loss) for loss in losses], np.float32)
    bad = np.flatnonzero(~np.isfinite(losses))
    if len(bad):
        raise errors.NonFiniteLossError(
            f"the loss is {losses[bad[0]]} at step {first_step + bad[0]} (of steps {first_step}.."
            f"{first_step + len(losses) - 1}, {description}); nothing from this epoch on was saved"
        )
    if not all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(state.variables)):
        raise errors.NonFiniteLossError(
            f"the model is not finite after step {int(state.step) - 1} ({description}); nothing from this epoch on was "
            "saved"
        )
    return state, losses
