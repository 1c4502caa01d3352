"""Against torchreid: the golden outputs are made by tests/support/data/make_convnet_golden.py."""

import functools

import convnet_golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reid_jax import errors
from reid_jax.models import osnet, pretrained
from reid_jax.models.reid import ReidModel

IMAGES = convnet_golden.random_images()
ARCHITECTURES = ("osnet_x1_0", "osnet_x0_25", "osnet_ain_x1_0")
load = functools.cache(convnet_golden.load)


@functools.cache
def make(architecture):
    """(model, its random variables)"""
    model = getattr(osnet, architecture)()
    return model, convnet_golden.random_variables(model)


def applied(model, variables, images, **options):
    return jax.jit(functools.partial(model.apply, **options))(variables, images)


@pytest.mark.parametrize(
    ("architecture", "dtype", "tolerance"),
    [
        ("osnet_x0_25", jnp.float32, 1e-5),
        ("osnet_ain_x1_0", jnp.float32, 1e-5),
        # A quarter of the channels or all, the code is one: here the other dtype, which keeps 8 bits.
        ("osnet_x1_0", jnp.bfloat16, 0.03),
    ],
)
def test_evaluation_equals_torchreid(architecture, dtype, tolerance):
    model, variables = make(architecture)
    feature_map, embeddings = applied(model.clone(dtype=dtype), variables, IMAGES, train=False)
    assert feature_map.dtype == embeddings.dtype == dtype
    assert feature_map.shape == (4, 4, 2, 128 if architecture == "osnet_x0_25" else 512)
    assert embeddings.shape == (4, 512)
    step = convnet_golden.CHANNEL_STEP
    convnet_golden.assert_close(feature_map[..., ::step], load(architecture)["eval/2"], tolerance)
    convnet_golden.assert_close(embeddings[..., ::step], load(architecture)["embeddings"], tolerance)


def test_training_equals_torchreid():
    model, variables = make("osnet_ain_x1_0")
    (feature_map, _), updated = applied(model, variables, IMAGES, train=True, mutable=["batch_stats"])
    golden = load("osnet_ain_x1_0")
    convnet_golden.assert_close(feature_map[..., :: convnet_golden.CHANNEL_STEP], golden["train"])
    convnet_golden.assert_statistics_close({**variables, **updated}, model, golden)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_names_and_shapes_are_torchreids(architecture):
    model, variables = make(architecture)
    reference = {name: np.zeros(shape, np.float32) for name, shape in load(architecture)["shapes"].items()}
    canonical = model.canonical_state(reference, {})
    ours = pretrained.to_state(variables, model)
    assert {name: array.shape for name, array in canonical.items()} == {name: a.shape for name, a in ours.items()}
    assert set(reference) - set(canonical) == {
        name for name in reference if name.startswith("classifier.") or name.endswith("num_batches_tracked")
    }


STAGES = {
    1: {"conv1", "conv2_0", "conv2_1"},
    2: {"conv3_0", "conv3_1"},
    3: {"conv4_0", "conv4_1"},
    4: {"conv5"},
}
POOLS = {"osnet_x1_0": {1: {"conv2_2_0"}, 2: {"conv3_2_0"}}, "osnet_ain_x1_0": {1: {"pool2_0"}, 2: {"pool3_0"}}}


@pytest.mark.parametrize("architecture", POOLS)
def test_frozen_prefixes_are_those_of_whole_stages(architecture):
    model, variables = make(architecture)
    frozen = set()
    for frozen_stages in range(5):
        frozen |= STAGES.get(frozen_stages, set()) | POOLS[architecture].get(frozen_stages, set())
        prefixes = model.clone(frozen_stages=frozen_stages).frozen_prefixes()
        assert {name for name in variables["params"] if f"{name}/".startswith(prefixes)} == frozen
        assert bool(prefixes) == bool(frozen_stages)
    assert set(variables["params"]) - frozen == {"fc_0", "fc_1"}


def test_frozen_stages_learn_nothing_and_keep_their_statistics():
    model = osnet.OSNet((4, 64, 64, 64), frozen_stages=3)
    variables = convnet_golden.random_variables(model)
    weights = np.random.default_rng(1).normal(size=(4, 512))

    @jax.jit
    def compute(params):
        def loss(params):
            (_, embeddings), updated = model.apply(
                {**variables, "params": params}, IMAGES, train=True, mutable=["batch_stats"]
            )
            return jnp.mean(embeddings * weights), updated["batch_stats"]

        return jax.grad(loss, has_aux=True)(params)

    gradients, statistics = compute(variables["params"])
    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        is_frozen = name.startswith(model.frozen_prefixes())
        assert np.isfinite(gradient).all() and gradient.any() != is_frozen, name
    for name, module in statistics.items():
        same = jax.tree.map(lambda a, b: bool((a == b).all()), module, variables["batch_stats"][name])
        assert all(jax.tree.leaves(same)) == f"{name}/".startswith(model.frozen_prefixes()), name


def test_the_token_is_the_embedding_of_a_reid_model():
    backbone, variables = make("osnet_x0_25")
    nested = {collection: {"backbone": tree} for collection, tree in variables.items()}
    images = IMAGES[:1]
    features = jax.eval_shape(
        functools.partial(ReidModel(backbone, pooling="token").apply, train=False), nested, images
    )
    assert features.embeddings.shape == (1, 512) and features.embeddings.dtype == jnp.float32


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"channels": (64, 128, 256)}, "channels must be 4 numbers"),
        ({"channels": (64, 256, 32, 512)}, "from the second on at least 64"),
        ({"frozen_stages": 5}, r"frozen_stages must be in 0\.\.4, the number of stages, got 5"),
        ({"bn_group_size": -1}, "bn_group_size must be at least 0"),
    ],
)
def test_fields_are_checked(fields, message):
    with pytest.raises(errors.UserError, match=message):
        osnet.OSNet(**fields)


def test_batch_norm_groups_must_divide_the_batch():
    model, variables = make("osnet_x0_25")
    apply = functools.partial(model.clone(bn_group_size=3).apply, train=True, mutable=["batch_stats"])
    with pytest.raises(errors.UserError, match="bn_group_size must divide the batch of 4 images"):
        jax.eval_shape(apply, variables, IMAGES)
