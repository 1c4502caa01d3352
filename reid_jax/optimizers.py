"""Optimizers with torch's arithmetic, so that the papers' learning rates and decays mean what they meant there."""

import optax

from reid_jax import types


def make_optimizer(
    name: str, learning_rate: optax.ScalarOrSchedule, *, weight_decay: float, momentum: float = 0.9, nesterov: bool = False
) -> optax.GradientTransformation:
    """Builds SGD or Adam with the weight decay added to the gradient (L2, as torch's are; not decoupled).

    Args:
        name: "sgd" or "adam".
        learning_rate: a number, or a function of the step.
        weight_decay: times the parameter is added to its gradient; applies to every parameter, as in torch.
        momentum: of SGD.
        nesterov: of SGD.

    Raises:
        UserError: unknown name, or a negative rate or decay.
    """
    if not callable(learning_rate) and not learning_rate > 0:
        raise types.UserError(f"learning_rate must be greater than 0, got {learning_rate}")
    if not weight_decay >= 0:
        raise types.UserError(f"weight_decay must be at least 0, got {weight_decay}")
    if name == "sgd":
        update = optax.sgd(learning_rate, momentum=momentum or None, nesterov=nesterov)
    elif name == "adam":
        update = optax.adam(learning_rate)
    else:
        raise types.UserError(f"optimizer must be 'sgd' or 'adam', got {name!r}")
    return optax.chain(optax.add_decayed_weights(weight_decay), update)


def step_schedule(learning_rate: float, *, drop_every: int, factor: float = 0.1) -> optax.Schedule:
    """Returns the schedule that multiplies the rate by `factor` after every `drop_every` steps; 0: never."""
    if drop_every == 0:
        return optax.constant_schedule(learning_rate)
    return optax.exponential_decay(learning_rate, drop_every, factor, staircase=True)
