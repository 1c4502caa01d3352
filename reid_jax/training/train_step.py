"""The train state and the train step, jitted once per run and sharded over a mesh."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import Mesh

from reid_jax import sharding

PyTree = Any


class TrainState(NamedTuple):
    """Everything a train step changes; the same on every device.

    Attributes:
        step: scalar int32, updates so far.
        params: the model's parameters.
        batch_stats: the batch norms' running statistics.
        opt_state: the optimizer's state.
        memory: what the loss remembers between batches, such as a lookup table; () for most losses.
        average: the moving average of the model's variables; (): none is kept.
        fitted: post-processing of the embeddings, arrays by name (`postprocess.arrays`), which no step changes; (): none.
    """

    step: jax.Array
    params: PyTree
    batch_stats: PyTree
    opt_state: optax.OptState
    memory: PyTree = ()
    average: PyTree = ()
    fitted: PyTree = ()

    @property
    def trained(self) -> dict[str, PyTree]:
        """The variables that the optimizer moves, as `model.apply` takes them."""
        return {"params": self.params, "batch_stats": self.batch_stats}

    @property
    def variables(self) -> dict[str, PyTree]:
        """The variables to embed with, and to keep: the average, where there is one."""
        return self.average or self.trained


TrainStep = Callable[[TrainState, jax.Array, jax.Array, PyTree], tuple[TrainState, jax.Array]]

# Folded into the run's key: a stream that no step number, folded in for augmentation, can meet.
_DROPOUT_STREAM = 2**32 - 1


def init_train_state(
    variables: dict[str, PyTree],
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    memory: PyTree = (),
    averaged: bool = False,
) -> TrainState:
    """Returns the state before the first step, copied to every device of the mesh.

    Args:
        variables: the model's.
        optimizer: of the train step.
        mesh: the devices.
        memory: what the loss remembers.
        averaged: whether a moving average of the variables is kept, which begins with these.
    """
    params = variables["params"]
    state = TrainState(jnp.int32(0), params, variables.get("batch_stats", {}), optimizer.init(params), memory)
    if averaged:
        state = state._replace(average=state.trained)
    # The step gives its state's memory up; the caller's variables must not be part of it.
    return sharding.put_replicated(mesh, jax.tree.map(jnp.copy, state))


def move_average(average: PyTree, values: PyTree, step: jax.Array, *, decay: float) -> PyTree:
    """Moves an average of variables towards their values after a step (Tarvainen and Valpola 2017, eq. 1).

    The first steps count for more than `decay` says, so that the start is soon forgotten: the average keeps
    min(decay, (1 + n) / (10 + n)) of itself at the n-th step, as TensorFlow's ExponentialMovingAverage does.

    Args:
        average: before the step.
        values: after the step, of the same structure.
        step: scalar int32, n, from 0.
        decay: the greatest share that the average keeps of itself, 0..1.
    """
    kept = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda old, new: kept * old + (1 - kept) * new, average, values)


def keep_memory(memory: PyTree, outputs: Any, targets: PyTree) -> PyTree:
    """Returns the memory as it is: of losses that remember nothing."""
    del outputs, targets
    return memory


def make_train_step(
    model: nn.Module,
    loss_fn: Callable[[Any, PyTree, PyTree], jax.Array],
    optimizer: optax.GradientTransformation,
    augment: Callable[[jax.Array, jax.Array], jax.Array],
    mesh: Mesh,
    *,
    prepare_memory: Callable[[PyTree, Any, PyTree], PyTree] = keep_memory,
    update_memory: Callable[[PyTree, Any, PyTree], PyTree] = keep_memory,
    average_decay: float = 0.0,
) -> TrainStep:
    """Builds the jitted step (state, key, images, targets) -> (state, loss).

    The loss and the batch norms are those of the global batch, however many devices share it. The old state's
    memory is given to the new one.

    Args:
        model: called as `model.apply(variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": key})`.
        loss_fn: (the model's outputs, targets, memory) -> scalar; among the targets, as "fitted", is the state's
            post-processing where it has one.
        optimizer: its state is in the train state.
        augment: (key, uint8 images) -> normalised float images; the key is folded with the step.
        mesh: the devices; images [B * T, H, W, 3] uint8 and targets [B, ...] come split over it.
        prepare_memory: (memory, the model's outputs, targets) -> memory, before the loss, which sees the result; no
            gradient goes through it.
        update_memory: the same after the loss.
        average_decay: of `move_average`, in states that keep an average.

    Returns:
        The step; the same key may be given to all steps of a run.
    """

    def train_step(state: TrainState, key: jax.Array, images: jax.Array, targets: PyTree):
        if state.fitted:
            targets = {**targets, "fitted": state.fitted}
        inputs = augment(jax.random.fold_in(key, state.step), images)
        dropout_key = jax.random.fold_in(jax.random.fold_in(key, _DROPOUT_STREAM), state.step)

        def loss_of(params):
            variables = {"params": params, "batch_stats": state.batch_stats}
            outputs, updated = model.apply(
                variables, inputs, train=True, mutable=["batch_stats"], rngs={"dropout": dropout_key}
            )
            memory = prepare_memory(state.memory, jax.lax.stop_gradient(outputs), targets)
            return loss_fn(outputs, targets, memory), (outputs, updated.get("batch_stats", {}), memory)

        (loss, (outputs, batch_stats, memory)), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        memory = update_memory(memory, outputs, targets)
        moved = TrainState(state.step + 1, params, batch_stats, opt_state, memory, fitted=state.fitted)
        if state.average:
            average = move_average(state.average, moved.trained, state.step, decay=average_decay)
            moved = moved._replace(average=average)
        return moved, loss

    whole, split = sharding.replicated(mesh), sharding.batch_sharded(mesh)
    return jax.jit(
        train_step, in_shardings=(whole, whole, split, split), out_shardings=(whole, whole), donate_argnums=0
    )
