import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from reid_jax import errors
from reid_jax.models import calibration
from reid_jax.models.batch_norm import BatchNorm

BATCHES = np.random.default_rng(0).normal([1.0, -2.0, 30.0], [1.0, 3.0, 0.01], (3, 8, 4, 2, 3)).astype(np.float32)


class TwoNorms(nn.Module):
    """A batch norm of ours, a scaling, and one of Flax's with another momentum."""

    @nn.compact
    def __call__(self, images, *, train):
        x = 5.0 * BatchNorm(name="ours")(images, train=train) + 1.0
        return nn.BatchNorm(use_running_average=not train, momentum=0.99, name="theirs")(x)


@pytest.fixture(scope="module")
def calibrated():
    model = TwoNorms()
    variables = model.init(jax.random.key(0), BATCHES[0], train=False)
    # Statistics of before must not leak into the new ones.
    variables["batch_stats"] = jax.tree.map(lambda leaf: leaf + 100.0, variables["batch_stats"])
    return variables, calibration.calibrate_batch_norm(model, variables, iter(BATCHES))


def test_statistics_are_the_mean_of_the_batches(calibrated):
    statistics = calibrated[1]["batch_stats"]["ours"]
    flat = BATCHES.reshape(3, -1, 3).astype(np.float64)
    np.testing.assert_allclose(statistics["mean"], flat.mean(1).mean(0), rtol=1e-5)
    np.testing.assert_allclose(statistics["var"], flat.var(1, ddof=1).mean(0), rtol=1e-4)


def test_any_momentum_gives_the_same(calibrated):
    statistics = calibrated[1]["batch_stats"]["theirs"]
    np.testing.assert_allclose(statistics["mean"], np.ones(3), rtol=1e-3)
    np.testing.assert_allclose(statistics["var"][:2], np.full(2, 25.0), rtol=1e-3)


def test_weights_stay(calibrated):
    before, after = calibrated
    jax.tree.map(np.testing.assert_array_equal, before["params"], after["params"])


def test_deterministic_and_compiled_once(calibrated):
    traces = []

    class Counting(TwoNorms):
        @nn.compact
        def __call__(self, images, *, train):
            traces.append(train)
            return super().__call__(images, train=train)

    again = calibration.calibrate_batch_norm(Counting(), calibrated[0], list(BATCHES))
    jax.tree.map(np.testing.assert_array_equal, again, calibrated[1])
    assert traces == [True]


def test_no_batches_is_an_error(calibrated):
    with pytest.raises(errors.UserError, match="at least one batch"):
        calibration.calibrate_batch_norm(TwoNorms(), calibrated[0], [])


def test_a_model_without_batch_norms_comes_back():
    variables = {"params": {"kernel": jnp.ones((3, 2))}}
    assert calibration.calibrate_batch_norm(nn.Dense(2), variables, BATCHES) == variables


def test_a_fresh_neck_centres_what_comes_into_it_and_a_learned_one_stays():
    rows = np.random.default_rng(0).normal(3.0, 2.0, (40, 5)).astype(np.float32)

    def embed(variables, batch):
        neck = variables["batch_stats"]["neck"]
        return (batch - neck["mean"]) / jnp.sqrt(neck["var"])

    fresh = {"params": {}, "batch_stats": {"neck": {"mean": jnp.zeros(5), "var": jnp.ones(5)}}}
    measured = calibration.calibrate_neck(embed, fresh, [rows[:20], rows[20:]])
    embedded = np.asarray(embed(measured, rows))
    np.testing.assert_allclose(embedded.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(embedded.std(axis=0, ddof=1), 1, rtol=1e-5)
    assert calibration.calibrate_neck(embed, measured, []) == measured
    assert calibration.calibrate_neck(embed, {"params": {}}, []) == {"params": {}}
    with pytest.raises(errors.UserError, match="needs at least one batch"):
        calibration.calibrate_neck(embed, fresh, [])
