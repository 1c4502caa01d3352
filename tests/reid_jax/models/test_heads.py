import jax
import jax.numpy as jnp
import numpy as np

from reid_jax.models.heads import BNNeck, Classifier, EmbeddingHead


def test_bn_neck_centres_and_has_no_bias():
    x = np.random.default_rng(0).normal(5.0, 2.0, (16, 3)).astype(np.float32)
    neck = BNNeck()
    variables = neck.init(jax.random.key(0), x, train=False)
    assert set(variables["params"]) == {"scale"}
    y, _ = neck.apply(variables, x, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(y.mean(0), np.zeros(3), atol=1e-6)
    np.testing.assert_allclose(y.std(0), np.ones(3), rtol=1e-4)


def test_classifier_is_linear():
    x = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    kernel, bias = np.arange(12, dtype=np.float32).reshape(3, 4), np.arange(4, dtype=np.float32)
    logits = Classifier(4).apply({"params": {"kernel": kernel}}, x)
    np.testing.assert_allclose(logits, x @ kernel, rtol=1e-5, atol=1e-6)
    biased = Classifier(4, use_bias=True).apply({"params": {"kernel": kernel, "bias": bias}}, x)
    np.testing.assert_allclose(biased, logits + bias, rtol=1e-6)


def test_classifier_starts_as_asked():
    params = Classifier(500, init_std=0.02, use_bias=True).init(jax.random.key(0), jnp.zeros((1, 200)))["params"]
    np.testing.assert_allclose(params["kernel"].std(), 0.02, rtol=0.02)
    np.testing.assert_array_equal(params["bias"], np.zeros(500))
    assert set(Classifier(5).init(jax.random.key(0), jnp.zeros((1, 2)))["params"]) == {"kernel"}


def test_classifier_logits_are_float32():
    x = jnp.ones((2, 3), jnp.bfloat16)
    assert Classifier(4).apply({"params": {"kernel": jnp.ones((3, 4))}}, x).dtype == jnp.float32


def test_embedding_head_gives_unit_vectors_and_drops_half_of_them():
    x = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
    for dim in (0, 16):
        head = EmbeddingHead(dim, dropout=0.5)
        variables = head.init(jax.random.key(0), x, train=False)
        y = head.apply(variables, x, train=False)
        assert y.shape == (64, dim or 32) and y.dtype == jnp.float32
        np.testing.assert_allclose(np.linalg.norm(y, axis=1), np.ones(64), rtol=1e-5)
        rngs = {"dropout": jax.random.key(1)}
        dropped, _ = head.apply(variables, x, train=True, mutable=["batch_stats"], rngs=rngs)
        whole, _ = EmbeddingHead(dim, dropout=0.0).apply(variables, x, train=True, mutable=["batch_stats"], rngs=rngs)
        kept = np.asarray(dropped) != 0
        assert 0.4 < kept.mean() < 0.6
        np.testing.assert_allclose(np.asarray(dropped)[kept], 2 * np.asarray(whole)[kept], rtol=1e-6)


def test_embedding_head_of_zeros_has_a_finite_gradient():
    x = jnp.zeros((4, 3))
    head = EmbeddingHead(dropout=0.0)
    variables = head.init(jax.random.key(0), x, train=False)

    def total(x):
        return jnp.sum(head.apply(variables, x, train=True, mutable=["batch_stats"])[0])

    assert np.isfinite(jax.grad(total)(x)).all()
