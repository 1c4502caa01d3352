import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reid_jax import losses


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
def test_equals_the_definition(soft_margin, scale, rng):
    embeddings = (scale * rng.normal(size=(24, 7))).astype(np.float32)
    labels = rng.permutation(np.repeat(np.arange(6), 4))
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


def smooth_batch(rng, labels, *, gap=0.05):
    """Draws embeddings [B, 3] at which the loss is smooth: no hardest pair and no hinge is within `gap` of another."""
    same = labels[:, None] == labels
    while True:
        embeddings = rng.normal(size=(len(labels), 3)).astype(np.float32)
        distances = np.linalg.norm(embeddings[:, None].astype(np.float64) - embeddings, axis=2)
        positives = np.sort(np.where(same, distances, -np.inf), axis=1)[:, ::-1]
        negatives = np.sort(np.where(same, np.inf, distances), axis=1)
        hinges = 0.5 + positives[:, 0] - negatives[:, 0]
        if min(np.diff(negatives[:, :2]).min(), -np.diff(positives[:, :2]).max(), np.abs(hinges).min()) > gap:
            return embeddings


@pytest.mark.parametrize("seed", range(3))
def test_gradient_equals_finite_differences(seed):
    labels = np.repeat(np.arange(4), 2)
    embeddings = smooth_batch(np.random.default_rng(seed), labels)
    gradient = np.asarray(jax.grad(losses.batch_hard_triplet)(embeddings, labels))
    expected = finite_differences(lambda x: slow_losses(x, labels).mean(), embeddings.astype(np.float64))
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5)


def test_identical_embeddings_have_a_finite_gradient():
    value, gradient = jax.value_and_grad(losses.batch_hard_triplet)(jnp.ones((8, 4)), jnp.repeat(jnp.arange(4), 2))
    assert value == pytest.approx(0.5) and np.isfinite(gradient).all()


def test_a_batch_of_one_identity_costs_nothing(rng):
    embeddings = rng.normal(size=(6, 3)).astype(np.float32)
    value, gradient = jax.value_and_grad(losses.batch_hard_triplet)(embeddings, jnp.zeros(6, int))
    assert value == 0 and (np.asarray(gradient) == 0).all()


def test_order_of_the_batch_does_not_matter(rng):
    embeddings, labels = rng.normal(size=(12, 5)).astype(np.float32), np.repeat(np.arange(3), 4)
    order = rng.permutation(12)
    first, again = (losses.batch_hard_triplet(embeddings[o], labels[o]) for o in (np.arange(12), order))
    assert first == pytest.approx(float(again), rel=1e-6)


def test_errors():
    with pytest.raises(ValueError, match=r"embeddings must"):
        losses.batch_hard_triplet(jnp.ones((4, 2)), jnp.ones(3))
    with pytest.raises(ValueError, match="'mean' or 'sum', got 'none'"):
        losses.batch_hard_triplet(jnp.ones((4, 2)), jnp.ones(4), reduction="none")


RNG = np.random.default_rng(5)
TABLE = RNG.normal(size=(9, 4))
TABLE /= np.linalg.norm(TABLE, axis=1, keepdims=True)
TABLE[7] = 0  # not seen yet
VECTORS = RNG.normal(size=(5, 4))
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)
CLASSES = np.array([0, 3, 3, 6, 1])
RELIABLE = np.array([[1, 2], [3, 0], [5, 5], [7, 8], [0, 4]])


def plain_softened(vectors, reliable, own_weight, temperature, num_classes):
    """SSL eq. (1), (3), (4) with loops, in float64."""
    total = 0.0
    for vector, label, others in zip(vectors, CLASSES, reliable):
        scores = np.exp(TABLE[:num_classes] @ vector / temperature)
        log_p = np.log(scores / scores.sum())
        total -= own_weight * log_p[label] + (1 - own_weight) / len(others) * sum(log_p[other] for other in others)
    return total / len(vectors)


def finite_differences(function, x, step=1e-6):
    gradient = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[place] += step
        down[place] -= step
        gradient[place] = (function(up) - function(down)) / (2 * step)
    return gradient


@pytest.mark.parametrize("temperature", [0.1, 1.0])
@pytest.mark.parametrize("own_weight", [1.0, 0.6, 0.0])
def test_softened_equals_its_definition_and_so_does_its_gradient(own_weight, temperature):
    def plain(vectors):
        return plain_softened(vectors, RELIABLE, own_weight, temperature, 9)

    def ours(vectors):
        return losses.softened(vectors, CLASSES, RELIABLE, TABLE, own_weight=own_weight, temperature=temperature)

    vectors = jnp.float32(VECTORS)
    assert float(ours(vectors)) == pytest.approx(plain(VECTORS), rel=1e-5)
    np.testing.assert_allclose(jax.grad(ours)(vectors), finite_differences(plain, VECTORS), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("num_classes", [None, 8, 7])
def test_repelled_equals_its_definition_and_so_does_its_gradient(num_classes):
    def plain(vectors):
        return plain_softened(vectors, CLASSES[:, None], 1.0, 0.1, num_classes or 9)

    def ours(vectors):
        return losses.repelled(vectors, CLASSES, TABLE, temperature=0.1, num_classes=num_classes)

    vectors = jnp.float32(VECTORS)
    assert float(ours(vectors)) == pytest.approx(plain(VECTORS), rel=1e-5)
    np.testing.assert_allclose(jax.grad(ours)(vectors), finite_differences(plain, VECTORS), rtol=1e-3, atol=1e-5)


def test_repelled_by_hand():
    # An empty table of 4 classes knows nothing: log 4. With one row seen: exp(1) of exp(1) + 3.
    vectors, labels = jnp.array([[1.0, 0.0]]), jnp.array([0])
    assert float(losses.repelled(vectors, labels, jnp.zeros((4, 2)))) == pytest.approx(np.log(4))
    table = jnp.zeros((4, 2)).at[0, 0].set(1.0)
    expected = -np.log(np.e / (np.e + 3))
    assert float(losses.repelled(vectors, labels, table, temperature=1.0)) == pytest.approx(expected)


def test_hard_labels_are_a_special_case_of_softened():
    repelled = float(losses.repelled(VECTORS, CLASSES, TABLE))
    own = np.repeat(CLASSES[:, None], 3, axis=1)
    assert float(losses.softened(VECTORS, CLASSES, own, TABLE, own_weight=0.6)) == pytest.approx(repelled, rel=1e-5)
    assert float(losses.softened(VECTORS, CLASSES, RELIABLE, TABLE, own_weight=1.0)) == pytest.approx(
        repelled, rel=1e-5
    )


def test_no_gradient_flows_into_the_table():
    for loss in (
        lambda table: losses.repelled(VECTORS, CLASSES, table),
        lambda table: losses.softened(VECTORS, CLASSES, RELIABLE, table),
    ):
        np.testing.assert_array_equal(jax.grad(loss)(jnp.float32(TABLE)), np.zeros_like(TABLE))


def test_lookup_losses_have_finite_gradients_at_identical_embeddings():
    same = jnp.ones((4, 3)) / np.sqrt(3)
    labels, reliable = jnp.arange(4), jnp.array([[1], [2], [3], [0]])
    for table in (jnp.zeros((4, 3)), same):
        gradients = (
            jax.grad(losses.repelled)(same, labels, table, num_classes=4),
            jax.grad(losses.softened)(same, labels, reliable, table),
        )
        assert all(bool(jnp.isfinite(gradient).all()) for gradient in gradients)


def test_lookup_losses_refuse_wrong_shapes():
    with pytest.raises(ValueError, match=r"table must"):
        losses.repelled(VECTORS, CLASSES, TABLE[:, :3])
    with pytest.raises(ValueError, match=r"embeddings must"):
        losses.repelled(VECTORS, CLASSES[:3], TABLE)
    with pytest.raises(ValueError, match=r"reliable must"):
        losses.softened(VECTORS, CLASSES, CLASSES, TABLE)


def test_unified_contrastive_equals_its_definition_over_the_rows_in_use():
    in_use = np.isin(np.arange(9), CLASSES) | (np.arange(9) == 8)
    logits = np.asarray(VECTORS, np.float64) @ np.asarray(TABLE, np.float64).T / 0.05
    totals = np.log(np.exp(logits[:, in_use]).sum(axis=1))
    expected = np.mean(totals - logits[np.arange(5), CLASSES])
    found = losses.unified_contrastive(jnp.float32(VECTORS), CLASSES, jnp.float32(TABLE), in_use=jnp.asarray(in_use))
    assert float(found) == pytest.approx(expected, rel=1e-4)
    assert float(found) < float(losses.unified_contrastive(jnp.float32(VECTORS), CLASSES, jnp.float32(TABLE)))


def test_samples_that_do_not_count_are_as_if_not_there():
    in_use, counted = np.isin(np.arange(9), [1, 3, 8]), np.isin(CLASSES, [1, 3])

    def loss(vectors, classes, **options):
        return losses.unified_contrastive(vectors, classes, jnp.float32(TABLE), in_use=jnp.asarray(in_use), **options)

    whole, among = jax.value_and_grad(loss)(jnp.float32(VECTORS), CLASSES, counted=jnp.asarray(counted))
    alone, without = jax.value_and_grad(loss)(jnp.float32(VECTORS[counted]), CLASSES[counted])
    assert float(whole) == pytest.approx(float(alone), rel=1e-6)
    np.testing.assert_allclose(among[counted], without, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(among[~counted], 0)


@pytest.mark.parametrize("in_use", [None, np.zeros(9, bool)])
def test_where_no_sample_counts_the_loss_is_nothing(in_use):
    def loss(vectors):
        return losses.unified_contrastive(vectors, CLASSES, TABLE, in_use=in_use, counted=jnp.zeros(5, bool))

    value, gradient = jax.value_and_grad(loss)(jnp.float32(VECTORS))
    assert value == 0 and (np.asarray(gradient) == 0).all()
