from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reid_jax import losses, proxy_losses, sharding

RNG = np.random.default_rng(7)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


# Five clusters seen by four cameras, but not each by each; the last two rows are not in use.
TABLE = unit(RNG.normal(size=(16, 6)))
ROW_LABELS = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 4, 4, 4, 3, 0, 9])
ROW_CAMERAS = np.array([0, 1, 2, 0, 3, 0, 1, 2, 3, 1, 1, 2, 3, 2, 3, 0])
IN_USE = np.arange(16) < 14
VECTORS = unit(RNG.normal(size=(8, 6)))
LABELS = np.array([0, 0, 1, 2, 2, 3, 4, -1])
CAMERAS = np.array([0, 3, 0, 1, 2, 1, 2, 0])
OWN_ROWS = np.array([0, -1, 3, 6, 7, 9, 11, -1])


def softmax_cross_entropy(logits, targets):
    return np.log(np.exp(logits).sum()) - (targets * logits).sum()


def slow_camera_proxies(vectors, labels, num_negatives=50, cameras=None, temperature=0.07):
    """CAP's inter-camera loss, sample by sample; with cameras PPLR's."""
    found = []
    for i, (vector, label) in enumerate(zip(vectors, labels)):
        is_own = (ROW_LABELS == label) & IN_USE
        positives = np.flatnonzero(is_own & (True if cameras is None else ROW_CAMERAS != cameras[i]))
        if label < 0 or not len(positives):
            continue
        others = np.flatnonzero(~is_own & IN_USE)
        negatives = others[np.argsort(-(TABLE[others] @ vector))[:num_negatives]]
        logits = TABLE[np.concatenate([positives, negatives])] @ vector / temperature
        targets = np.where(np.arange(len(logits)) < len(positives), 1 / len(positives), 0)
        found.append(softmax_cross_entropy(logits, targets))
    return np.mean(found) if found else 0.0


def slow_intra_camera(vectors, cameras, rows, temperature=0.07):
    found = []
    for vector, camera, row in zip(vectors, cameras, rows):
        if row >= 0:
            candidates = np.flatnonzero((ROW_CAMERAS == camera) & IN_USE)
            found.append(softmax_cross_entropy(TABLE[candidates] @ vector / temperature, candidates == row))
    return np.mean(found)


def slow_support(vectors, labels, strength):
    supports = []
    for vector, label in zip(vectors, labels):
        others = [row for row in np.flatnonzero(IN_USE) if row != label]
        near = max(others, key=lambda row: TABLE[row] @ vector)
        supports.append(vector if label < 0 else vector + strength * (TABLE[near] - TABLE[label]))
    return unit(np.array(supports))


def slow_consistency(vectors, supports, labels, temperature=0.6):
    """ISE's label-preserving loss, class by class."""
    found = []
    for vector, label in zip(vectors, labels):
        if label >= 0:
            similarities = supports @ vector / temperature
            others = set(labels.tolist()) - {label, -1}
            chosen = [similarities[labels == label].min(), *(similarities[labels == c].max() for c in others)]
            found.append(softmax_cross_entropy(np.array(chosen), np.arange(len(chosen)) == 0))
    return np.mean(found)


def finite_differences(function, x, step=1e-6):
    gradient = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[place] += step
        down[place] -= step
        gradient[place] = (function(up) - function(down)) / (2 * step)
    return gradient


def assert_same_with_gradient(ours, plain, x):
    value, gradient = jax.jit(jax.value_and_grad(ours))(jnp.float32(x))
    assert value.dtype == jnp.float32 and float(value) == pytest.approx(plain(x), rel=1e-4)
    np.testing.assert_allclose(gradient, finite_differences(plain, x), rtol=2e-3, atol=2e-5)


def camera_proxies(vectors, labels=LABELS, table=TABLE, **options):
    return proxy_losses.camera_proxies(vectors, labels, table, ROW_LABELS, in_use=IN_USE, **options)


def intra_camera(vectors, rows=OWN_ROWS, table=TABLE, **options):
    return proxy_losses.intra_camera(vectors, CAMERAS, rows, table, ROW_CAMERAS, in_use=IN_USE, **options)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
@pytest.mark.parametrize("num_negatives", [1, 4, 50])
@pytest.mark.parametrize("cameras", [None, CAMERAS])
def test_camera_proxies_equal_their_definition_and_so_does_the_gradient(cameras, num_negatives, temperature):
    options = {"num_negatives": num_negatives, "temperature": temperature}
    given = {} if cameras is None else {"own_cameras": cameras, "row_cameras": ROW_CAMERAS}
    ours = partial(camera_proxies, **options, **given)
    assert_same_with_gradient(ours, lambda x: slow_camera_proxies(x, LABELS, cameras=cameras, **options), VECTORS)


def test_camera_proxies_by_hand():
    # Two positives at cosine 1 and 0, three negatives at 0, 0.6 and -1 of which two count; temperature 1.
    table = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.6, 0.8], [-1.0, 0.0]])
    row_labels, vectors = jnp.array([4, 4, 2, 0, 1]), jnp.array([[1.0, 0.0]])
    options = {"in_use": jnp.ones(5, bool), "temperature": 1.0, "num_negatives": 2}
    total = np.log(np.e + 1 + 1 + np.exp(0.6))
    found = proxy_losses.camera_proxies(vectors, jnp.array([4]), table, row_labels, **options)
    assert float(found) == pytest.approx(total - 0.5, rel=1e-6)
    # The first positive is of the sample's own camera, and so neither positive nor negative.
    cameras = {"own_cameras": jnp.array([3]), "row_cameras": jnp.array([3, 1, 3, 3, 3])}
    found = proxy_losses.camera_proxies(vectors, jnp.array([4]), table, row_labels, **options, **cameras)
    assert float(found) == pytest.approx(np.log(1 + 1 + np.exp(0.6)), rel=1e-6)


def test_camera_proxies_of_one_camera_are_the_unified_contrastive_loss():
    labels, in_use = np.array([0, 3, 3, 6, 1, 5, 2, 2]), np.arange(16) != 9
    expected = losses.unified_contrastive(VECTORS, labels, TABLE, temperature=0.07, in_use=in_use)
    for num_negatives in (14, 16, 1000):
        found = proxy_losses.camera_proxies(
            VECTORS, labels, TABLE, np.arange(16), in_use=in_use, num_negatives=num_negatives
        )
        assert float(found) == pytest.approx(float(expected), rel=1e-6)


def test_camera_proxies_count_only_samples_that_have_a_positive():
    kept = [0, 2, 3, 4, 5, 6]
    options = {"own_cameras": CAMERAS, "row_cameras": ROW_CAMERAS}
    without = np.where(np.isin(np.arange(8), kept), LABELS, -1)
    alone = {"own_cameras": CAMERAS[kept], "row_cameras": ROW_CAMERAS}
    found = camera_proxies(VECTORS, without, **options)
    assert float(found) == pytest.approx(float(camera_proxies(VECTORS[kept], LABELS[kept], **alone)), rel=1e-6)
    # A row without a cluster is no positive of a sample without one, but a negative of the others.
    options |= {
        "table": TABLE,
        "row_labels": np.where(np.isin(np.arange(16), [3, 4]), -1, ROW_LABELS),
        "in_use": IN_USE,
    }
    found = proxy_losses.camera_proxies(VECTORS, np.where(LABELS == 1, -1, LABELS), **options)
    assert float(found) == pytest.approx(
        slow_camera_proxies(VECTORS, np.where(LABELS == 1, -1, LABELS), cameras=CAMERAS), rel=1e-5
    )
    # No row of the cluster, none in use, or only of the own camera.
    for labels, rows_camera in ((np.full(8, -1), ROW_CAMERAS), (np.full(8, 9), ROW_CAMERAS), (LABELS, np.zeros(16))):
        loss = partial(camera_proxies, labels=labels, own_cameras=np.zeros(8), row_cameras=rows_camera)
        value, gradient = jax.value_and_grad(loss)(jnp.float32(VECTORS))
        assert value == 0 and (np.asarray(gradient) == 0).all()


def test_a_single_cluster_leaves_only_the_spread_of_its_rows():
    # Without negatives the target is uniform over the softmax's own rows; of one row there is nothing to learn.
    for in_use, expected in ((np.arange(3) < 2, np.log(1 + np.exp(-1 / 0.07)) + 0.5 / 0.07), (np.arange(3) < 1, 0.0)):
        loss = partial(proxy_losses.camera_proxies, labels=jnp.zeros(1, int), table=jnp.eye(3), in_use=in_use)
        value, gradient = jax.value_and_grad(lambda x: loss(x, row_labels=jnp.zeros(3, int)))(jnp.eye(3)[:1])
        assert float(value) == pytest.approx(expected, rel=1e-6) and np.isfinite(gradient).all()


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_intra_camera_equals_its_definition_and_so_does_the_gradient(temperature):
    ours = partial(intra_camera, temperature=temperature)
    assert_same_with_gradient(ours, lambda x: slow_intra_camera(x, CAMERAS, OWN_ROWS, temperature), VECTORS)


def test_intra_camera_by_hand():
    # Camera 1 has the own row at cosine 1 and another at 0; the best of all is of camera 0, one is not in use.
    table = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    row_cameras, in_use = jnp.array([1, 1, 0, 1]), jnp.array([True, True, True, False])
    found = proxy_losses.intra_camera(
        jnp.array([[1.0, 0.0], [0.0, 1.0]]),
        jnp.array([1, 1]),
        jnp.array([0, -1]),
        table,
        row_cameras,
        in_use=in_use,
        temperature=1.0,
    )
    assert float(found) == pytest.approx(np.log(np.e + 1) - 1, rel=1e-6)


def test_intra_camera_of_one_camera_is_the_unified_contrastive_loss():
    rows, same = np.array([0, 3, 3, 6, 1, 5, 2, 2]), np.zeros(16, int)
    expected = losses.unified_contrastive(VECTORS, rows, TABLE, temperature=0.07, in_use=IN_USE)
    found = proxy_losses.intra_camera(VECTORS, same[:8], rows, TABLE, same, in_use=IN_USE)
    assert float(found) == pytest.approx(float(expected), rel=1e-6)


def test_intra_camera_without_a_sample_that_counts_or_another_row_is_0():
    value, gradient = jax.value_and_grad(partial(intra_camera, rows=np.full(8, -1)))(jnp.float32(VECTORS))
    assert value == 0 and (np.asarray(gradient) == 0).all()
    only = partial(proxy_losses.intra_camera, VECTORS, np.full(8, 2), np.full(8, 4), TABLE, np.arange(16) // 2)
    assert float(only(in_use=np.arange(16) < 5)) == 0
    assert np.isinf(float(only(in_use=np.arange(16) > 4)))  # the own row is not in use


@pytest.mark.parametrize("strength", [0.0, 0.1, 0.25])
def test_supports_equal_their_definition_and_so_does_the_gradient(strength):
    labels, weights = np.array([0, 3, 5, -1, 12, 13, 7, 1]), np.cos(np.arange(48)).reshape(8, 6)

    def ours(vectors, strength=strength):
        supports = proxy_losses.implicit_support(vectors, labels, TABLE, in_use=IN_USE, strength=strength)
        return jnp.sum(weights * supports), supports

    _, supports = jax.jit(ours)(jnp.float32(VECTORS), jnp.float32(strength))
    np.testing.assert_allclose(supports, slow_support(VECTORS, labels, strength), atol=1e-6)
    assert_same_with_gradient(
        lambda x: ours(x)[0], lambda x: (weights * slow_support(x, labels, strength)).sum(), VECTORS
    )


def test_supports_by_hand():
    # (1, 0) is near to row 1, (0.6, 0.8), and not to row 2, which is its own, nor to row 0, which is not in use.
    table, in_use = jnp.array([[1.0, 0.0], [0.6, 0.8], [0.6, 0.0], [0.0, 1.0]]), jnp.array([False, True, True, True])
    vectors, labels = jnp.array([[1.0, 0.0], [1.0, 0.0]]), jnp.array([2, -1])
    found = proxy_losses.implicit_support(vectors, labels, table, in_use=in_use, strength=0.5)
    np.testing.assert_allclose(found, [unit(np.array([1.0, 0.4])), [1.0, 0.0]], rtol=1e-6)
    # With a single cluster there is nowhere to move.
    only = jnp.arange(4) == 2
    found = proxy_losses.implicit_support(vectors[:, ::-1], labels, table, in_use=only, strength=0.5)
    np.testing.assert_allclose(found, vectors[:, ::-1], rtol=1e-6)


def test_support_strength_rises_from_0_to_a_quarter():
    steps = np.arange(0, 101, 10)
    found = np.array([proxy_losses.support_strength(step, 100) for step in steps])
    np.testing.assert_allclose(found, 0.25 * np.log((np.e - 1) * steps / 100 + 1), rtol=1e-6)
    assert found[0] == 0 and found[-1] == pytest.approx(0.25) and (np.diff(found) > 0).all()
    assert float(jax.jit(lambda step: proxy_losses.support_strength(step, 100, base=2.0))(100)) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="num_steps must be at least 1, got 0"):
        proxy_losses.support_strength(0, 0)


@pytest.mark.parametrize("temperature", [0.6, 0.1])
def test_consistency_equals_its_definition_and_so_do_its_gradients(temperature):
    # Classes of one, two and three samples, in no order.
    labels, supports = np.array([4, 0, 2, 4, -1, 0, 4, -1]), unit(VECTORS + 0.5 * RNG.normal(size=(8, 6)))
    ours = partial(proxy_losses.support_consistency, labels=labels, temperature=temperature)
    plain = partial(slow_consistency, labels=labels, temperature=temperature)
    assert_same_with_gradient(lambda x: ours(x, supports), lambda x: plain(x, supports), VECTORS)
    assert_same_with_gradient(lambda x: ours(VECTORS, x), lambda x: plain(VECTORS, x), supports)


def test_consistency_by_hand():
    # Similarities to the supports: sample 0 1, .6, 0, -1, 0; the others 0, .8, 1, 0, -1. Temperature 1.
    vectors = jnp.array([[1.0, 0.0]] + [[0.0, 1.0]] * 4)
    supports = jnp.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    labels, e = jnp.array([3, 5, 3, 5, 7]), np.exp
    expected = [
        np.log(e(0) + e(0.6) + e(0)),  # 0, of class 3: the own at 1 and 0; class 5 at .6, class 7 at 0
        np.log(e(0) + e(1) + e(-1)),  # 1 and 3, of class 5: the own at .8 and 0; class 3 at 1, class 7 at -1
        np.log(e(0) + e(0.8) + e(-1)),  # 2, of class 3: the own at 0 and 1; class 5 at .8, class 7 at -1
        np.log(e(0) + e(1) + e(-1)),
        np.log(e(-1) + e(1) + e(0.8)) + 1,  # 4, of class 7: the own at -1; class 3 at 1, class 5 at .8
    ]
    found = proxy_losses.support_consistency(vectors, supports, labels, temperature=1.0)
    assert float(found) == pytest.approx(np.mean(expected), rel=1e-6)
    # Where only one class counts there is nothing to tell it from.
    for single in (jnp.zeros(5, int), jnp.array([3, -1, -1, -1, -1]), jnp.full(5, -1)):
        assert float(proxy_losses.support_consistency(vectors, supports, single)) == pytest.approx(0, abs=1e-6)


def test_order_of_the_batch_does_not_matter():
    order = RNG.permutation(8)
    options = {"own_cameras": CAMERAS, "row_cameras": ROW_CAMERAS}
    again = {"own_cameras": CAMERAS[order], "row_cameras": ROW_CAMERAS}
    pairs = [
        (camera_proxies(VECTORS, **options), camera_proxies(VECTORS[order], LABELS[order], **again)),
        tuple(proxy_losses.support_consistency(VECTORS[o], VECTORS[::-1][o], LABELS[o]) for o in (np.arange(8), order)),
    ]
    for first, second in pairs:
        assert float(first) == pytest.approx(float(second), rel=1e-6)


def test_no_gradient_flows_into_the_table():
    table = jnp.float32(TABLE)
    for loss in (
        lambda table: camera_proxies(VECTORS, table=table),
        lambda table: intra_camera(VECTORS, table=table),
        lambda table: jnp.sum(
            proxy_losses.implicit_support(VECTORS, OWN_ROWS, table, in_use=IN_USE, strength=0.2)[:, 0]
        ),
    ):
        np.testing.assert_array_equal(jax.grad(loss)(table), np.zeros_like(table))


@pytest.mark.parametrize("labels", [LABELS, np.zeros(8, int), np.full(8, -1)])
def test_gradients_are_finite_at_identical_and_at_zero_embeddings(labels):
    for vectors in (jnp.ones((8, 6)) / np.sqrt(6), jnp.zeros((8, 6))):
        table = jnp.tile(vectors, (2, 1))

        def supports(x):
            return proxy_losses.implicit_support(x, labels, table, in_use=IN_USE, strength=0.25)

        for loss in (
            lambda x: camera_proxies(x, labels, table),
            lambda x: camera_proxies(x, labels, table, own_cameras=CAMERAS, row_cameras=ROW_CAMERAS),
            lambda x: intra_camera(x, np.where(labels < 0, -1, OWN_ROWS), table),
            lambda x: jnp.sum(supports(x)),
            lambda x: proxy_losses.support_consistency(x, supports(x), labels),
        ):
            value, gradient = jax.value_and_grad(loss)(vectors)
            assert np.isfinite(value) and np.isfinite(gradient).all()


def test_gradients_are_finite_where_no_row_is_in_use():
    vectors, empty = jnp.float32(VECTORS), np.zeros(16, bool)
    for loss in (
        lambda x: proxy_losses.camera_proxies(x, LABELS, TABLE, ROW_LABELS, in_use=empty),
        lambda x: proxy_losses.intra_camera(x, CAMERAS, np.full(8, -1), TABLE, ROW_CAMERAS, in_use=empty),
    ):
        value, gradient = jax.value_and_grad(loss)(vectors)
        assert value == 0 and (np.asarray(gradient) == 0).all()
    supports = proxy_losses.implicit_support(vectors, LABELS, TABLE, in_use=empty, strength=0.25)
    np.testing.assert_allclose(supports, VECTORS, atol=1e-6)


def test_equal_on_one_and_eight_devices(meshes):
    def total(vectors, labels, cameras, rows):
        supports = proxy_losses.implicit_support(vectors, labels, TABLE, in_use=IN_USE, strength=0.2)
        options = {"in_use": IN_USE, "own_cameras": cameras, "row_cameras": ROW_CAMERAS}
        return (
            proxy_losses.camera_proxies(vectors, labels, TABLE, ROW_LABELS, **options)
            + proxy_losses.intra_camera(vectors, cameras, rows, TABLE, ROW_CAMERAS, in_use=IN_USE)
            + proxy_losses.support_consistency(vectors, supports, labels)
        )

    found = []
    for mesh in meshes:
        split = sharding.batch_sharded(mesh)
        gradient = jax.jit(jax.value_and_grad(total), in_shardings=split)
        found.append(gradient(jnp.float32(VECTORS), LABELS, CAMERAS, OWN_ROWS))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), *jax.device_get(found))


def test_errors():
    with pytest.raises(ValueError, match=r"table \[N, D\], got \(8, 6\) and \(16, 5\)"):
        camera_proxies(VECTORS, table=TABLE[:, :5])
    with pytest.raises(ValueError, match=r"labels must be \[B\] with B = 8, got \(7,\)"):
        camera_proxies(VECTORS, LABELS[:7])
    with pytest.raises(ValueError, match=r"row_labels must be \[N\] with N = 15, got \(16,\)"):
        camera_proxies(VECTORS, table=TABLE[:15])
    with pytest.raises(ValueError, match="num_negatives must be at least 1, got 0"):
        camera_proxies(VECTORS, num_negatives=0)
    with pytest.raises(ValueError, match="must be given together"):
        camera_proxies(VECTORS, own_cameras=CAMERAS)
    with pytest.raises(ValueError, match=r"own_cameras must be \[B\]"):
        camera_proxies(VECTORS, own_cameras=CAMERAS[:3], row_cameras=ROW_CAMERAS)
    with pytest.raises(ValueError, match=r"rows must be \[B\] with B = 8, got \(3,\)"):
        intra_camera(VECTORS, OWN_ROWS[:3])
    with pytest.raises(ValueError, match=r"in_use must be \[N\]"):
        proxy_losses.implicit_support(VECTORS, LABELS, TABLE, in_use=IN_USE[:3], strength=0.1)
    with pytest.raises(ValueError, match=r"must both be \[B, D\]"):
        proxy_losses.support_consistency(VECTORS, VECTORS[:3], LABELS)
    with pytest.raises(ValueError, match=r"labels must be \[B\]"):
        proxy_losses.support_consistency(VECTORS, VECTORS, LABELS[:3])
