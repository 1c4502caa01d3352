import jax
import jax.numpy as jnp
import pytest

from reid_jax import errors
from reid_jax.models import backbones, color_histogram, mobilenet, osnet, reid, resnet, vit
from reid_jax.weights import catalog


def test_every_architecture_is_made_with_the_fields_that_it_names():
    given = {"width": 8, "last_stride": 1, "stem": "cifar"}
    for name, architecture in backbones.ARCHITECTURES.items():
        fields = {field: given[field] for field in architecture.fields}
        made = backbones.make(name, frozen_stages=0, bn_group_size=4, dtype=jnp.bfloat16, **fields)
        assert all(getattr(made, field) == value for field, value in fields.items())
        assert (made.bn_group_size, made.dtype) == (4, jnp.bfloat16)
        assert architecture.pooling in reid.POOLINGS


def test_names_are_those_of_the_networks():
    kinds = {"resnet50_ibn_a": resnet.ResNet, "mobilenet_v2": mobilenet.MobileNetV2, "osnet_x0_25": osnet.OSNet}
    kinds |= {"vit_s14_reg": vit.VisionTransformer, "color_histogram": color_histogram.ColorHistogram}
    for name, kind in kinds.items():
        assert type(backbones.make(name)) is kind
    sizes = {name: (backbones.make(name).patch_size, backbones.make(name).dim) for name in ("vit_s16", "vit_b14")}
    assert sizes == {"vit_s16": (16, 384), "vit_b14": (14, 768)}


def test_the_sizes_of_images_that_it_takes():
    assert [backbones.natural_size(name) for name in ("resnet18", "vit_s16", "vit_s14")] == [(224, 224)] * 3
    for name, architecture in backbones.ARCHITECTURES.items():
        assert architecture.size_multiple == getattr(backbones.make(name), "patch_size", 1)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "osnet_x0_25", "vit_s14", "color_histogram"])
def test_its_pooling_is_one_that_it_has(name):
    architecture = backbones.find(name)
    model = reid.ReidModel(backbones.make(name), pooling=architecture.pooling)
    image = jax.ShapeDtypeStruct((1, *backbones.natural_size(name), 3), jnp.float32)
    features, variables = jax.eval_shape(
        lambda key, image: model.init_with_output(key, image, train=False), jax.random.key(0), image
    )
    assert features.embeddings.shape[0] == 1
    assert bool(jax.tree.leaves(variables)) == architecture.has_weights


def test_all_published_weights_are_of_a_known_architecture():
    assert {entry.architecture for entry in catalog.CATALOG.values()} <= backbones.ARCHITECTURES.keys()


def test_an_unknown_architecture_and_a_wrong_field():
    for function in (backbones.find, backbones.make, backbones.natural_size):
        with pytest.raises(
            errors.UserError, match="architecture must be one of resnet18, .*color_histogram, got 'vgg'"
        ):
            function("vgg")
    with pytest.raises(errors.UserError, match="last_stride must be 1 or 2, got 3"):
        backbones.make("mobilenet_v2", last_stride=3)
