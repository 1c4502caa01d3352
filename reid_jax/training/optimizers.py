"""Optimizers with torch's arithmetic, so that the papers' learning rates and decays mean what they meant there."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from reid_jax import errors


def make_optimizer(
    name: str,
    learning_rate: optax.ScalarOrSchedule,
    *,
    weight_decay: float,
    momentum: float = 0.9,
    nesterov: bool = False,
    rate_factors: Mapping[str, float] | None = None,
    settable: bool = False,
    warmup_steps: int = 0,
) -> optax.GradientTransformation:
    """Builds SGD or Adam with the weight decay added to the gradient (L2, as torch's are; not decoupled).

    Args:
        name: "sgd" or "adam".
        learning_rate: a number, or a function of the step.
        weight_decay: times the parameter is added to its gradient; applies to every parameter, as in torch.
        momentum: of SGD.
        nesterov: of SGD.
        rate_factors: for parameters whose path ("backbone/conv1/kernel") begins with a key, what their rate is
            multiplied by, as torch's parameter groups do; the longest key counts. 0 freezes them. A key that no
            parameter's path begins with is an error at `init`.
        settable: keep the rate, a number, in the optimizer's state, where `with_learning_rate` can change it.
        warmup_steps: the first steps, over which the rate rises from 0, linearly, to what it is without them.

    Raises:
        UserError: unknown name, or a negative rate or decay.
    """
    if not callable(learning_rate) and not learning_rate > 0:
        raise errors.UserError(f"learning_rate must be greater than 0, got {learning_rate}")
    if not weight_decay >= 0:
        raise errors.UserError(f"weight_decay must be at least 0, got {weight_decay}")
    if name == "sgd":
        direction = optax.trace(momentum, nesterov=nesterov) if momentum else optax.identity()
    elif name == "adam":
        direction = optax.scale_by_adam()
    else:
        raise errors.UserError(f"optimizer must be 'sgd' or 'adam', got {name!r}")
    scale = optax.inject_hyperparams(optax.scale_by_learning_rate) if settable else optax.scale_by_learning_rate
    parts = [
        optax.add_decayed_weights(weight_decay),
        direction,
        scale(learning_rate),
        _scale_by_path(rate_factors or {}),
    ]
    if warmup_steps:  # else no part of the state, so that checkpoints without it stay readable
        parts.append(optax.scale_by_schedule(lambda step: jnp.minimum(1.0, (step + 1) / warmup_steps)))
    return optax.chain(*parts)


def with_learning_rate(opt_state: optax.OptState, learning_rate: float) -> optax.OptState:
    """Returns the state of a `settable` optimizer with another learning rate."""
    return optax.tree_utils.tree_set(opt_state, learning_rate=jnp.asarray(learning_rate, jnp.float32))


def step_schedule(learning_rate: float, *, drop_every: int, factor: float = 0.1) -> optax.Schedule:
    """Returns the schedule that multiplies the rate by `factor` after every `drop_every` steps; 0: never."""
    if drop_every == 0:
        return optax.constant_schedule(learning_rate)
    return optax.exponential_decay(learning_rate, drop_every, factor, staircase=True)


def _scale_by_path(factors: Mapping[str, float]) -> optax.GradientTransformation:
    """Multiplies each update by the factor of the longest key that its path begins with."""
    if not factors:
        return optax.identity()
    longest_first = sorted(factors, key=len, reverse=True)

    def name_of(path: tuple[Any, ...]) -> str:
        return jax.tree_util.keystr(path, simple=True, separator="/")

    def init(params) -> optax.EmptyState:
        names = [name_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
        for key in factors:
            if not any(name.startswith(key) for name in names):
                raise ValueError(f"rate_factors: no parameter's path begins with {key!r}")
        return optax.EmptyState()

    def scale(path: tuple[Any, ...], update: jax.Array) -> jax.Array:
        key = next((key for key in longest_first if name_of(path).startswith(key)), None)
        return update if key is None else update * factors[key]

    def update(updates, state, params=None):
        del params
        return jax.tree_util.tree_map_with_path(scale, updates), state

    return optax.GradientTransformation(init, update)
