"""What config.model.weights may name, and what is said of it."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import published
import pytest
from ml_collections import ConfigDict
from safetensors import numpy as safetensors

from reid_jax import errors
from reid_jax.models import backbones
from reid_jax.runs import base_config, start
from reid_jax.weights import store


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """A folder of weights that has "tiny", trained on people, and one architecture more."""
    monkeypatch.setenv("REID_JAX_WEIGHTS", str(tmp_path / "weights"))
    published.add_architecture(monkeypatch)
    store.add(published.make_state(0.5), published.make_got("tiny", normalization="half", people_labels=True))


def model_config(**fields):
    model = base_config.base_config("folder").model
    model.update(fields)
    return model


def test_what_is_a_name_and_what_a_file(tmp_path, monkeypatch):
    assert start.weights_name("mobilenet_v2") == "mobilenet_v2" and start.weights_name("tiny-1.5") == "tiny-1.5"
    for file in ("", "weights/resnet50.npz", "resnet50.pth", "a.safetensors", "here/there"):
        assert start.weights_name(file) is None
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain").write_bytes(b"")  # a file that is there
    assert start.weights_name("plain") is None


def test_a_name_decides_the_network():
    model = start.with_architecture(model_config(weights="tiny", backbone="resnet50"))
    assert (model.backbone, model.normalization, model.pooling) == (published.ARCHITECTURE, "half", "avg")
    # Of the catalogue where it has not been got: what it would be.
    clip = start.with_architecture(model_config(weights="vit_b16_clip", pooling="gem"))
    assert (clip.backbone, clip.normalization, clip.pooling) == ("vit_b16_clip", "clip", "gem")


@pytest.mark.parametrize("fields", [{"weights": "w.npz"}, {"weights": ""}, {"weights": "tiny", "checkpoint": "runs/x"}])
def test_a_file_or_a_checkpoint_decides_nothing(fields):
    model = start.with_architecture(model_config(backbone="osnet_x1_0", **fields))
    assert (model.backbone, model.normalization, model.pooling) == ("osnet_x1_0", "imagenet", "token")


def test_pooling_that_is_left_open():
    found = {name: start.pooling_of(model_config(backbone=name)) for name in ("resnet50", "vit_s16", "own:Backbone")}
    assert found == {"resnet50": "avg", "vit_s16": "token", "own:Backbone": "avg"}
    assert start.pooling_of(model_config(backbone="vit_s16", pooling="gem")) == "gem"


def test_a_backbone_that_is_given_must_be_the_weights():
    start.check_backbone(model_config(weights="tiny", backbone="resnet50"), given=["model.weights"])
    start.check_backbone(model_config(weights="tiny", backbone=published.ARCHITECTURE), given=["model.backbone"])
    start.check_backbone(model_config(weights="", backbone="resnet50"), given=["model.backbone"])
    with pytest.raises(errors.UserError) as error:
        start.check_backbone(model_config(weights="tiny", backbone="resnet50"), given={"model.backbone"})
    assert str(error.value) == ("model.backbone must be 'resnet_tiny', that of tiny, or not be given, got 'resnet50'")
    with pytest.raises(
        errors.UserError, match="model.normalization must be '.*', that of tiny, or not be given, got 'clip'"
    ):
        start.check_backbone(model_config(weights="tiny", normalization="clip"), given={"model.normalization"})


def test_a_run_that_is_started_from_decides_the_normalization(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model": {"normalization": "clip"}, "data": {"dataset": "shop"}}))
    best = tmp_path / "checkpoints" / "best"
    best.mkdir(parents=True)
    for checkpoint in (tmp_path, best):
        assert start.with_architecture(model_config(checkpoint=str(checkpoint))).normalization == "clip"
    (tmp_path / "config.json").write_text(
        json.dumps({"model": {}, "data": {"dataset": "shop"}})
    )  # an earlier version's
    assert start.with_architecture(model_config(checkpoint=str(best))).normalization == "imagenet"


def test_a_damaged_file_of_weights_does_not_hinder_what_is_said_of_a_run():
    store.path_of("tiny").write_bytes(b"no weights")
    assert start.describe_weights(model_config(weights="tiny")).endswith("whose training is not known here")
    noted = ConfigDict({"model": {"weights": "tiny", "checkpoint": ""}, "learned_from": "what it was then"})
    assert start.describe_run(noted, "hct") == "what it was then"


def test_weights_that_are_there(tmp_path):
    (tmp_path / "own.npz").write_bytes(b"")
    for weights in ("", "tiny", str(tmp_path / "own.npz")):
        start.check_weights(weights)


@pytest.mark.parametrize(
    "weights,message",
    [
        (
            "none.npz",
            r"^model.weights: no file 'none.npz'; give the name of published weights instead, such as mobilenet_v2",
        ),
        ("resnet50", "^model.weights: the weights resnet50 are not on this machine yet; .* reid weights get resnet50$"),
        ("mobilenet_v", "^model.weights: there are no published weights 'mobilenet_v'; did you mean 'mobilenet_v2'"),
        ("no name!", "^model.weights: name must be up to 100 letters"),
    ],
)
def test_weights_that_are_not(weights, message):
    with pytest.raises(errors.UserError, match=message):
        start.check_weights(weights)


def test_a_name_of_nothing_has_no_architecture():
    with pytest.raises(errors.UserError, match="^model.weights: there are no published weights 'tini'"):
        start.with_architecture(model_config(weights="tini"))


@pytest.fixture
def network():
    """(backbone, variables of a model of it, zeros)."""
    backbone = backbones.make(published.ARCHITECTURE)
    shapes = jax.eval_shape(lambda key: backbone.init(key, jnp.zeros((1, 64, 32, 3)), train=False), jax.random.key(0))
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    return backbone, {kind: {"backbone": tree, "neck": np.zeros(3)} for kind, tree in zeros.items()}


def test_a_name_and_its_file_load_the_same(network, tmp_path):
    backbone, variables = network
    file = tmp_path / "published.safetensors"
    file.write_bytes(safetensors.save({name: np.asarray(array) for name, array in published.make_state(0.5).items()}))
    for weights in ("tiny", str(file)):
        loaded = start.load_weights(weights, variables, backbone)
        assert {float(np.unique(leaf).item()) for leaf in jax.tree.leaves(loaded["params"]["backbone"])} == {0.5}
        np.testing.assert_array_equal(loaded["params"]["neck"], 0)  # what they do not have stays


def test_weights_of_another_backbone(network, tmp_path):
    file = tmp_path / "other.safetensors"
    file.write_bytes(safetensors.save({"fc9.weight": np.zeros((2, 2), np.float32)}))
    with pytest.raises(errors.UserError, match="^model.weights: .*other.safetensors: "):
        start.load_weights(str(file), network[1], network[0])
    with pytest.raises(errors.UserError, match="there are no weights 'resnet50'"):
        start.load_weights("resnet50", network[1], network[0])


def test_what_is_said_of_weights():
    assert start.describe_weights(model_config(weights="")) == "random weights: no labels of people"
    assert start.describe_weights(model_config(weights="tiny")) == (
        "tiny, trained on noise (labels: none); LABELS OF PEOPLE USED"
    )
    # The catalogue's, where a run is looked at on a machine that does not have them.
    assert start.describe_weights(model_config(weights="osnet_x1_0_msmt17")).endswith("LABELS OF PEOPLE USED")
    assert start.describe_weights(model_config(weights="mobilenet_v2")) == (
        "mobilenet_v2, trained on ImageNet-1k (labels: 1,000 classes of ImageNet); no labels of people"
    )
    for unknown in ("weights/x.npz", "imported"):
        assert start.describe_weights(model_config(weights=unknown)) == (
            f"the weights {unknown}, whose training is not known here"
        )


@pytest.mark.parametrize(
    "method,fields,said",
    [
        ("hct", {}, "shop by hct, no labels of people used in training; from random weights: no labels of people"),
        ("", {}, "shop by an unknown method, no labels of people used in training; from random"),
        ("supervised triplet", {}, "shop by supervised triplet, LABELS OF PEOPLE USED: those of shop; from random"),
        ("pul", {"source": {"dataset": "market1501"}}, "shop by pul, LABELS OF PEOPLE USED: those of market1501; from"),
        ("pul", {"source": {"dataset": ""}}, "shop by pul, no labels of people used in training; from"),
        (
            "pul",
            {"selection": {"num_labelled_ids": 9}},
            "shop by pul, LABELS OF PEOPLE USED: those of 9 people in shop; from",
        ),
        (
            "hct",
            {"model": model_config(checkpoint="runs/a")},
            "shop by hct, no labels of people used in training; from the run runs/a, whose training is not known here",
        ),
    ],
)
def test_what_is_said_of_a_run_alone(method, fields, said):
    config = ConfigDict({"data": {"dataset": "shop"}, "model": model_config(weights="")} | fields)
    assert said in start.describe_run(config, method)


def test_labels_that_an_earlier_run_used_are_said(tmp_path):
    def write(name, method, dataset, **fields):
        config = {"method": method, "data": {"dataset": dataset}, "model": model_config(**fields).to_dict()}
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "config.json").write_text(json.dumps(config))
        return str(tmp_path / name)

    first = write("first", "supervised triplet", "market1501", weights="mobilenet_v2")
    second = write("second", "hct", "office", weights="", checkpoint=first)
    (tmp_path / "second" / "checkpoints" / "best").mkdir(parents=True)
    best = f"{second}/checkpoints/best"
    config = ConfigDict({"data": {"dataset": "shop"}, "model": model_config(weights="", checkpoint=best)})
    assert start.describe_run(config, "buc") == (
        f"shop by buc, no labels of people used in training; from the run {best}: office by hct, no labels of people used in "
        f"training; from the run {first}: market1501 by supervised triplet, LABELS OF PEOPLE USED: those of market1501; from "
        "mobilenet_v2, trained on ImageNet-1k (labels: 1,000 classes of ImageNet); no labels of people"
    )
    write("first", "hct", "office", weights="", checkpoint=first)  # a run from itself ends, too
    assert start.describe_run(config, "buc").endswith("from random weights: no labels of people")
