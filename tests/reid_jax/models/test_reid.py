import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from reid_jax import augment, errors
from reid_jax.models import pooling, reid
from reid_jax.models.batch_norm import BatchNorm
from reid_jax.models.reid import ReidModel

IMAGES = np.random.default_rng(0).normal(size=(4, 8, 4, 3)).astype(np.float32)


class PatchBackbone(nn.Module):
    """A user's backbone: one convolution over 2x2 patches."""

    dtype: type = jnp.float32

    @nn.compact
    def __call__(self, images, *, train):
        return nn.relu(nn.Conv(5, (2, 2), strides=2, dtype=self.dtype)(images))


class FlatBackbone(nn.Module):
    """A backbone that pools by itself."""

    @nn.compact
    def __call__(self, images, *, train):
        return images.mean((1, 2))


class TupleBackbone(nn.Module):
    """A backbone that returns two things."""

    @nn.compact
    def __call__(self, images, *, train):
        return images, images


class TokenBackbone(nn.Module):
    """A backbone with an embedding of its own beside its map."""

    dtype: type = jnp.float32

    @nn.compact
    def __call__(self, images, *, train):
        images = jnp.asarray(images, self.dtype)
        return images, nn.Dense(6, dtype=self.dtype)(images.mean((1, 2)))


def init(model):
    return model.init(jax.random.key(0), jnp.asarray(IMAGES[:1]), train=False)


def test_average_embeddings_are_the_pooled_map():
    model = ReidModel(backbone=PatchBackbone())
    variables = init(model)
    feature_map = PatchBackbone().apply({"params": variables["params"]["backbone"]}, IMAGES, train=False)
    features = model.apply(variables, IMAGES, train=False)
    assert features.embeddings.shape == (4, 5) and features.stripes is None
    np.testing.assert_allclose(features.embeddings, pooling.average_pool(feature_map), rtol=1e-6)


def test_gem_exponent_is_a_parameter_that_learns():
    model = ReidModel(backbone=PatchBackbone(), pooling="gem")
    variables = init(model)
    assert variables["params"]["gem_p"] == 3.0
    total = lambda params: model.apply({"params": params}, IMAGES, train=False).embeddings.sum()
    gradient = jax.grad(total)(variables["params"])["gem_p"]
    assert np.isfinite(gradient) and gradient != 0


def test_stripes_average_to_the_embedding():
    features_of = lambda model: model.apply(init(model), IMAGES, train=False)
    features = features_of(ReidModel(backbone=PatchBackbone(), num_stripes=2))
    assert features.stripes.shape == (4, 2, 5)
    np.testing.assert_allclose(features.stripes.mean(1), features.embeddings, rtol=1e-5)


def test_bn_neck_normalises_embeddings_only():
    model = ReidModel(backbone=PatchBackbone(), neck="bn", num_stripes=2)
    variables = init(model)
    assert set(variables["params"]["neck"]) == {"scale"}
    features, updated = model.apply(variables, IMAGES, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(features.embeddings.mean(0), np.zeros(5), atol=1e-6)
    assert features.stripes.min() >= 0
    assert set(updated["batch_stats"]["neck"]) == {"mean", "var"}


def test_neck_takes_groups():
    model = ReidModel(backbone=PatchBackbone(), neck="bn", bn_group_size=2)
    features, _ = model.apply(init(model), IMAGES, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(features.embeddings[:2].mean(0), np.zeros(5), atol=1e-6)


def test_embeddings_are_float32_for_a_bfloat16_backbone():
    model = ReidModel(backbone=PatchBackbone(dtype=jnp.bfloat16), num_stripes=2)
    features = model.apply(init(model), IMAGES, train=False)
    assert features.embeddings.dtype == features.stripes.dtype == jnp.float32


def test_a_token_is_the_embedding_where_it_is_asked_for():
    backbone = TokenBackbone(dtype=jnp.bfloat16)
    model = ReidModel(backbone=backbone, pooling="token", num_stripes=2)
    variables = init(model)
    features = model.apply(variables, IMAGES, train=False)
    _, token = backbone.apply({"params": variables["params"]["backbone"]}, IMAGES, train=False)
    assert features.embeddings.dtype == jnp.float32 and features.stripes.shape == (4, 2, 3)
    np.testing.assert_array_equal(features.embeddings, token.astype(jnp.float32))
    average = model.clone(pooling="avg").apply(variables, IMAGES, train=False).embeddings
    np.testing.assert_allclose(average, IMAGES.mean((1, 2)), atol=0.02)


def test_a_backbone_without_a_token_is_told():
    with pytest.raises(errors.UserError, match="pooling must be 'avg' or 'gem' .* as PatchBackbone, got 'token'"):
        init(ReidModel(backbone=PatchBackbone(), pooling="token"))


@pytest.mark.parametrize("normalization", ["half", "clip"])
def test_the_backbone_sees_pixels_as_it_was_trained_with(normalization):
    pixels = np.random.default_rng(1).integers(0, 256, (4, 8, 4, 3), np.uint8)
    mean, std = reid.NORMALIZATIONS[normalization]
    model = ReidModel(backbone=TokenBackbone(), normalization=normalization)
    given = augment.normalize(pixels)
    found = model.apply(init(model), given, train=False).embeddings
    np.testing.assert_allclose(found, ((pixels / 255 - mean) / std).mean((1, 2)), atol=1e-5)
    plain = ReidModel(backbone=TokenBackbone())
    np.testing.assert_allclose(plain.apply(init(plain), given, train=False).embeddings, given.mean((1, 2)), atol=1e-6)


@pytest.mark.parametrize("backbone, got", [(FlatBackbone(), r"shape \(1, 3\)"), (TupleBackbone(), "tuple")])
def test_a_backbone_without_a_feature_map_is_told(backbone, got):
    message = rf"{type(backbone).__name__} must return a feature map \[1, h, w, C\].*{got}"
    with pytest.raises(errors.UserError, match=message):
        init(ReidModel(backbone=backbone))


@pytest.mark.parametrize(
    "images", [np.zeros((1, 8, 4, 3), np.uint8), np.zeros((1, 3, 8, 4), np.float32), np.zeros((8, 4, 3), np.float32)]
)
def test_images_must_be_normalised_nhwc(images):
    with pytest.raises(errors.UserError, match=r"images must be \[B, H, W, 3\] float"):
        ReidModel(backbone=PatchBackbone()).init(jax.random.key(0), images, train=False)


def test_stripes_must_divide_the_map():
    with pytest.raises(errors.UserError, match="height 4, got 3"):
        init(ReidModel(backbone=PatchBackbone(), num_stripes=3))


@pytest.mark.parametrize(
    "fields",
    [{"pooling": "max"}, {"normalization": "none"}, {"neck": "batch"}, {"num_stripes": -1}, {"backbone": "resnet18"}],
)
def test_fields_are_checked(fields):
    (name,) = fields
    with pytest.raises(errors.UserError, match=name):
        ReidModel(**{"backbone": PatchBackbone(), **fields})


def test_a_mirrored_model_embeds_an_image_as_its_mirror_image():
    """Outside training the mean over both; in training, and in its variables, it is the plain model."""
    plain = ReidModel(backbone=PatchBackbone(), neck="bn", num_stripes=2)
    mirrored = plain.clone(mirrored=True)
    images = jax.random.normal(jax.random.key(0), (3, 8, 4, 3))
    variables = plain.init(jax.random.key(1), images, train=False)
    assert jax.tree.structure(mirrored.init(jax.random.key(1), images, train=False)) == jax.tree.structure(variables)
    found = mirrored.apply(variables, images, train=False)
    one, other = (plain.apply(variables, each, train=False) for each in (images, images[:, :, ::-1]))
    jax.tree.map(lambda a, b, c: np.testing.assert_allclose(a, (b + c) / 2, rtol=1e-5, atol=1e-6), found, one, other)
    same = mirrored.apply(variables, images[:, :, ::-1], train=False)
    np.testing.assert_allclose(same.embeddings, found.embeddings, rtol=1e-5, atol=1e-6)
    assert float(jnp.abs(one.embeddings - other.embeddings).max()) > 1e-3
    trained, _ = mirrored.apply(variables, images, train=True, mutable=["batch_stats"])
    expected, _ = plain.apply(variables, images, train=True, mutable=["batch_stats"])
    np.testing.assert_array_equal(trained.embeddings, expected.embeddings)


def test_batch_norms_that_are_kept_leave_their_statistics_alone():
    class Backbone(nn.Module):
        @nn.compact
        def __call__(self, images, *, train):
            return BatchNorm()(images, train=train)

    images = 3 + jax.random.normal(jax.random.key(0), (4, 2, 2, 3))
    model = ReidModel(backbone=Backbone(), keep_batch_norm=True)
    variables = model.init(jax.random.key(1), images, train=False)
    trained, updated = model.apply(variables, images, train=True, mutable=["batch_stats"])
    np.testing.assert_array_equal(trained.embeddings, model.apply(variables, images, train=False).embeddings)
    jax.tree.map(np.testing.assert_array_equal, dict(updated["batch_stats"]), dict(variables["batch_stats"]))
    learning, _ = model.clone(keep_batch_norm=False).apply(variables, images, train=True, mutable=["batch_stats"])
    assert float(jnp.abs(learning.embeddings - trained.embeddings).max()) > 1
