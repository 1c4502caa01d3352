import jax.numpy as jnp
import numpy as np
import pytest

from reid_jax import optimizers, types


def run(optimizer, gradients, start):
    state, value = optimizer.init(start), start
    for gradient in gradients:
        update, state = optimizer.update(jnp.float32(gradient), state, value)
        value = value + update
    return float(value)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_is_torchs(nesterov):
    value, buffer = 2.0, None
    for gradient in (0.3, -0.1, 0.7):  # torch.optim.SGD's documented update
        gradient = gradient + 0.01 * value
        buffer = gradient if buffer is None else 0.9 * buffer + gradient
        value -= 0.1 * (gradient + 0.9 * buffer if nesterov else buffer)
    optimizer = optimizers.make_optimizer("sgd", 0.1, weight_decay=0.01, momentum=0.9, nesterov=nesterov)
    assert run(optimizer, (0.3, -0.1, 0.7), jnp.float32(2)) == pytest.approx(value, rel=1e-6)


def test_adam_has_l2_in_the_gradient():
    value, first, second = 2.0, 0.0, 0.0
    for step, gradient in enumerate((0.3, -0.1), start=1):
        gradient = gradient + 0.5 * value
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        value -= 0.1 * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    optimizer = optimizers.make_optimizer("adam", 0.1, weight_decay=0.5)
    assert run(optimizer, (0.3, -0.1), jnp.float32(2)) == pytest.approx(value, rel=1e-5)


def test_step_schedule():
    schedule = optimizers.step_schedule(0.1, drop_every=10, factor=0.5)
    assert [float(schedule(step)) for step in (0, 9, 10, 25)] == pytest.approx([0.1, 0.1, 0.05, 0.025])
    assert float(optimizers.step_schedule(0.1, drop_every=0)(1000)) == pytest.approx(0.1)


def test_errors():
    with pytest.raises(types.UserError, match="'sgd' or 'adam', got 'sdg'"):
        optimizers.make_optimizer("sdg", 0.1, weight_decay=0.0)
    with pytest.raises(types.UserError, match="learning_rate must be greater than 0"):
        optimizers.make_optimizer("sgd", 0.0, weight_decay=0.0)
    with pytest.raises(types.UserError, match="weight_decay"):
        optimizers.make_optimizer("sgd", 0.1, weight_decay=-1.0)
