import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reid_jax import losses

RNG = np.random.default_rng(0)


def slow_losses(embeddings, labels, margin=0.5, soft_margin=False):
    """Hermans et al. 2017, eq. (5), image by image."""
    found = []
    for i, anchor in enumerate(embeddings.astype(np.float64)):
        distances = np.sqrt(((embeddings - anchor) ** 2).sum(1))
        gap = distances[labels == labels[i]].max() - distances[labels != labels[i]].min()
        found.append(np.log1p(np.exp(gap)) if soft_margin else max(0.0, margin + gap))
    return np.array(found)


@pytest.mark.parametrize("soft_margin", [False, True])
@pytest.mark.parametrize("scale", [0.1, 3.0])
def test_equals_the_definition(soft_margin, scale):
    embeddings = (scale * RNG.normal(size=(24, 7))).astype(np.float32)
    labels = RNG.permutation(np.repeat(np.arange(6), 4))
    expected = slow_losses(embeddings, labels, soft_margin=soft_margin)
    options = {"margin": 0.5, "soft_margin": soft_margin}
    assert losses.batch_hard_triplet(embeddings, labels, **options) == pytest.approx(expected.mean(), rel=1e-5)
    total = losses.batch_hard_triplet(embeddings, labels, reduction="sum", **options)
    assert total == pytest.approx(expected.sum(), rel=1e-5)


def test_by_hand():
    # On a line: a pair at 0 and 1, a pair at 3 and 3.2. Gaps: 1 - 3, 1 - 2, .2 - 2, .2 - 2.2; margin 1.5.
    embeddings = jnp.array([[0.0], [1.0], [3.0], [3.2]])
    loss = losses.batch_hard_triplet(embeddings, jnp.array([0, 0, 1, 1]), margin=1.5, reduction="sum")
    assert loss == pytest.approx(0.5, abs=1e-5)


def test_gradient_equals_finite_differences():
    # At one decimal of 1e-3 the loss is smooth unless the hardest pair changes, which the seed's does not.
    embeddings = RNG.normal(size=(8, 3)).astype(np.float32)
    labels = np.repeat(np.arange(4), 2)
    gradient = np.asarray(jax.grad(losses.batch_hard_triplet)(embeddings, labels))
    for index in np.ndindex(embeddings.shape):
        step = np.zeros_like(embeddings)
        step[index] = 1e-3
        higher, lower = (slow_losses(embeddings + sign * step, labels).mean() for sign in (1, -1))
        assert gradient[index] == pytest.approx((higher - lower) / 2e-3, abs=2e-3)


def test_identical_embeddings_have_a_finite_gradient():
    value, gradient = jax.value_and_grad(losses.batch_hard_triplet)(jnp.ones((8, 4)), jnp.repeat(jnp.arange(4), 2))
    assert value == pytest.approx(0.5) and np.isfinite(gradient).all()


def test_a_batch_of_one_identity_costs_nothing():
    embeddings = RNG.normal(size=(6, 3)).astype(np.float32)
    value, gradient = jax.value_and_grad(losses.batch_hard_triplet)(embeddings, jnp.zeros(6, int))
    assert value == 0 and (np.asarray(gradient) == 0).all()


def test_order_of_the_batch_does_not_matter():
    embeddings, labels = RNG.normal(size=(12, 5)).astype(np.float32), np.repeat(np.arange(3), 4)
    order = RNG.permutation(12)
    first, again = (losses.batch_hard_triplet(embeddings[o], labels[o]) for o in (np.arange(12), order))
    assert first == pytest.approx(float(again), rel=1e-6)


def test_errors():
    with pytest.raises(ValueError, match=r"embeddings must be \[B, D\] and labels \[B\]"):
        losses.batch_hard_triplet(jnp.ones((4, 2)), jnp.ones(3))
    with pytest.raises(ValueError, match="'mean' or 'sum', got 'none'"):
        losses.batch_hard_triplet(jnp.ones((4, 2)), jnp.ones(4), reduction="none")
