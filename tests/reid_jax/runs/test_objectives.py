import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from reid_jax import losses
from reid_jax.embeddings import Features
from reid_jax.experiments.configs import combine, hct, supervised
from reid_jax.models import backbones
from reid_jax.runs import base_config, models, objectives

LABELS = jnp.repeat(jnp.arange(3), 2)


@pytest.mark.parametrize("method", [hct, supervised, combine])
@pytest.mark.parametrize("normalize", [False, True])
def test_triplets_are_of_normalised_embeddings_where_that_is_asked_for(method, normalize, rng):
    config = method.get_config("synthetic")
    config.loss.normalize = normalize
    embeddings = 5 * rng.normal(size=(6, 4)).astype(np.float32)
    expected = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True) if normalize else embeddings
    found = objectives.triplet(config).loss(Features(jnp.asarray(embeddings)), {"labels": LABELS}, ())
    assert float(found) == pytest.approx(float(losses.batch_hard_triplet(expected, LABELS)), rel=1e-5)
    # The length of an embedding counts only where they are not normalised.
    again = objectives.triplet(config).loss(Features(jnp.asarray(3 * embeddings)), {"labels": LABELS}, ())
    assert (float(again) == pytest.approx(float(found), rel=1e-5)) == normalize


def test_normalised_triplets_have_a_finite_gradient_at_zero():
    config = hct.get_config("synthetic")
    config.loss.normalize = True

    def loss(embeddings):
        return objectives.triplet(config).loss(Features(embeddings), {"labels": LABELS}, ())

    embeddings = jnp.zeros((6, 4)).at[1].set(1.0)
    assert np.isfinite(jax.grad(loss)(embeddings)).all()


@pytest.mark.parametrize(
    "architecture",
    ["resnet18", "mobilenet_v2", "osnet_x1_0", "osnet_ain_x1_0", "vit_s16", "vit_s14_reg", "vit_b16_clip"],
)
def test_every_stage_has_a_rate_of_its_own(architecture):
    """A factor for each stage, of parameters that there are: 0.5 times that of the stage after it."""
    config = base_config.base_config("folder")
    config.model.update(backbone=architecture, weights="")
    backbone = models.build_backbone(config.model)
    size = backbones.natural_size(architecture)
    shapes = jax.eval_shape(functools.partial(backbone.init, train=False), jax.random.key(0), jnp.zeros((1, *size, 3)))[
        "params"
    ]
    names = traverse_util.flatten_dict(shapes, sep="/")
    factors = objectives._stage_factors(config.model, last=0.25, layer_decay=0.5)
    assert set(factors.values()) == {0.25 * 0.5**stage for stage in range(backbone.num_stages)}
    for prefix in factors:
        assert any(f"backbone/{name}".startswith(prefix) for name in names), prefix
