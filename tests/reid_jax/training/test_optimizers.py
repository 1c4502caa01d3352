import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reid_jax import errors
from reid_jax.training import optimizers


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


PARAMS = {"backbone": {"conv1": {"kernel": jnp.ones(2)}, "layer1_0": jnp.ones(1)}, "head": jnp.ones(3)}


def updates_of(optimizer, params=PARAMS, state=None):
    """The first update for gradients of 1, and the state after it."""
    ones = jax.tree.map(jnp.ones_like, params)
    return optimizer.update(ones, optimizer.init(params) if state is None else state, params)


def test_rate_factors_are_torchs_parameter_groups():
    plain, _ = updates_of(optimizers.make_optimizer("sgd", 0.1, weight_decay=0.5, nesterov=True))
    factors = {"backbone/": 0.1, "backbone/conv1/": 0.0}
    found, _ = updates_of(optimizers.make_optimizer("sgd", 0.1, weight_decay=0.5, nesterov=True, rate_factors=factors))
    np.testing.assert_allclose(found["head"], plain["head"])
    np.testing.assert_allclose(found["backbone"]["layer1_0"], 0.1 * plain["backbone"]["layer1_0"], rtol=1e-6)
    # Frozen: not even the weight decay moves it.
    np.testing.assert_array_equal(found["backbone"]["conv1"]["kernel"], np.zeros(2))


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_a_settable_rate_is_part_of_the_state(name):
    optimizer = optimizers.make_optimizer(name, 0.1, weight_decay=0.0, settable=True)
    fixed = [updates_of(optimizers.make_optimizer(name, rate, weight_decay=0.0))[0]["head"] for rate in (0.1, 0.02)]
    state = optimizer.init(PARAMS)
    changed = optimizers.with_learning_rate(state, 0.02)
    assert jax.tree.structure(state) == jax.tree.structure(changed)
    for each, expected in zip((state, changed), fixed):
        np.testing.assert_allclose(updates_of(optimizer, state=each)[0]["head"], expected, rtol=1e-6)


def test_errors():
    with pytest.raises(errors.UserError, match="'sgd' or 'adam', got 'sdg'"):
        optimizers.make_optimizer("sdg", 0.1, weight_decay=0.0)
    with pytest.raises(errors.UserError, match="learning_rate must be greater than 0"):
        optimizers.make_optimizer("sgd", 0.0, weight_decay=0.0)
    with pytest.raises(errors.UserError, match="weight_decay"):
        optimizers.make_optimizer("sgd", 0.1, weight_decay=-1.0)


def test_the_rate_rises_over_the_first_steps():
    optimizer = optimizers.make_optimizer("sgd", 1.0, weight_decay=0.0, momentum=0.0, warmup_steps=4)
    state, found = optimizer.init(jnp.float32(0)), []
    for _ in range(6):
        update, state = optimizer.update(jnp.float32(1), state, jnp.float32(0))
        found.append(-float(update))
    assert found == [0.25, 0.5, 0.75, 1, 1, 1]
    # Without it the state is as it was before there was such an option, so that checkpoints stay readable.
    without = optimizers.make_optimizer("sgd", 1.0, weight_decay=0.0, momentum=0.0)
    assert len(optimizer.init(jnp.float32(0))) == len(without.init(jnp.float32(0))) + 1
