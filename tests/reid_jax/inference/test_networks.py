"""Networks by the name of published weights, from a run directory and from a model folder."""

import functools
import json

import jax
import numpy as np
import published
import pytest
import tiny_runs
from PIL import Image

import reid_jax
from reid_jax import augment, errors, postprocess
from reid_jax.data.image_files import ImageFiles
from reid_jax.embeddings import l2_normalize
from reid_jax.inference import model_folder, networks
from reid_jax.models import backbones
from reid_jax.weights import store


@pytest.fixture(autouse=True)
def weights(tmp_path, monkeypatch, own_backbone):
    """A folder of weights that has "tiny", and "patch" of a transformer with patches of 14 pixels."""
    monkeypatch.setenv("REID_JAX_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.chdir(tmp_path)
    published.add_architecture(monkeypatch)
    published.add_random("tiny")
    published.add_random("patch", architecture=published.TRANSFORMER, normalization="half", people_labels=True)


@pytest.fixture(scope="module")
def workdir(prepared, tmp_path_factory):
    return tiny_runs.write_run(tmp_path_factory.mktemp("runs") / "shop", prepared)


@pytest.fixture
def images(rng):
    coarse = rng.integers(0, 256, (3, 8, 4, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(each).resize((64, 128), Image.BICUBIC)) for each in coarse])


def test_a_name_embeds_as_its_weights_do(images):
    model = reid_jax.load_model("tiny", height=128, width=64)
    assert (model.source, model.height, model.width, model.fitted) == ("tiny", 128, 64, None)
    assert model.about == "tiny, trained on noise (labels: none); no labels of people"
    backbone = backbones.make(published.ARCHITECTURE)
    variables = {kind: tree["backbone"] for kind, tree in model.variables.items()}
    feature_map = jax.jit(functools.partial(backbone.apply, train=False))(variables, augment.normalize(images))
    np.testing.assert_allclose(model.embed(images), l2_normalize(np.mean(feature_map, axis=(1, 2))), atol=1e-6)
    # The arrays are those of the file.
    state, _ = store.read("tiny")
    np.testing.assert_array_equal(variables["params"]["conv1"]["kernel"], state["conv1.weight"].transpose(2, 3, 1, 0))


def test_a_transformer_takes_its_own_pixels_and_gives_its_token(images):
    network = networks.load_network("patch")
    assert (network.config.data.height, network.config.data.width) == (252, 126)
    assert (network.module.pooling, network.module.normalization) == ("token", "half")
    assert network.about.endswith("LABELS OF PEOPLE USED") and network.method == ""
    model = reid_jax.load_model("patch", height=126, width=56)
    pixels = np.asarray(Image.fromarray(images[0]).resize((56, 126), Image.BILINEAR))[None]
    variables = {"params": model.variables["params"]["backbone"]}
    _, token = backbones.make(published.TRANSFORMER).apply(variables, pixels / np.float32(127.5) - 1, train=False)
    np.testing.assert_allclose(model.embed(images[:1]), l2_normalize(np.asarray(token)), atol=1e-5)


def test_colours_need_no_weights(images):
    network = networks.load_network("color_histogram")
    assert network.variables == {} and network.about == "colours only: nothing was learned, no labels of people"
    model = reid_jax.load_model("color_histogram")
    assert (model.height, model.width) == (256, 128)
    embeddings = model.embed(np.stack([np.full((9, 9, 3), 255, np.uint8), np.zeros((9, 9, 3), np.uint8)]))
    assert embeddings.shape == (2, 6 * 8 * 4 * 4) and embeddings[0] @ embeddings[1] == 0


def test_digests_tell_networks_apart():
    every = [networks.load_network(name) for name in ("tiny", "patch", "color_histogram")]
    fitted = postprocess.fit("center", [np.eye(64)])
    digests = [networks.digest(each) for each in (*every, every[0]._replace(fitted=fitted))]
    assert len(set(digests)) == 4
    # The same weights have the same one, whatever their name and the images' size.
    published.add_random("again")
    assert networks.digest(networks.load_network("again", height=64, width=32)) == digests[0]
    published.add_random("again", seed=1)
    assert networks.digest(networks.load_network("again")) != digests[0]


def test_which_model_is_meant(workdir, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "shop").symlink_to(workdir)
    assert str(networks.find_model("shop")) == "runs/shop" and networks.find_model(workdir) == workdir
    assert networks.find_model("tiny") is networks.find_model("color_histogram") is None
    assert networks.is_published("tiny") and not networks.is_published("shop") and not networks.is_published("x y/")
    # What lies there goes before a name.
    (tmp_path / "tiny").mkdir()
    assert str(networks.find_model("tiny")) == "tiny" and not networks.is_published("tiny")


@pytest.mark.parametrize(
    "source,message",
    [
        (
            "mobilenet_v2",
            "^the weights mobilenet_v2 are not on this machine yet; get them with: reid weights get mobilenet",
        ),
        ("nothing", "^there is no run directory, no model folder and no exported model at 'nothing', and no published"),
        ("runs/nothing", "^there is no run directory, .* at 'runs/nothing'"),
        ("", "^there is no run directory|^no model at"),
    ],
)
def test_what_is_nowhere(source, message):
    for function in (networks.load_network, reid_jax.load_model):
        with pytest.raises(errors.UserError, match=message):
            function(source)


def test_damaged_weights():
    path = store.path_of("tiny")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(errors.UserError, match="tiny.safetensors is damaged"):
        networks.load_network("tiny")


def test_sizes_that_a_patch_does_not_divide():
    with pytest.raises(errors.UserError, match="images must have a height and a width that are multiples of 14"):
        networks.load_network("patch", height=100)
    with pytest.raises(errors.UserError, match="images must be at least 6 pixels high"):
        networks.load_network("color_histogram", height=5)


def test_runs_and_folders_have_a_size_of_their_own(workdir, tmp_path):
    network = networks.load_network(workdir)
    assert (network.method, network.config.data.dataset) == ("hct", "tiny") and network.fitted is None
    assert (
        network.about == "tiny by hct, no labels of people used in training; from random weights: no labels of people"
    )
    model_folder.write_model(tmp_path / "m", network.variables, network.config, dim=16, method="hct")
    folder = networks.load_network(tmp_path / "m")
    assert folder.about == "trained on tiny" and folder.config.data.dataset == "tiny"
    assert networks.digest(folder) == networks.digest(network)
    for source in (workdir, tmp_path / "m", workdir / "checkpoints" / "best"):
        assert networks.load_network(source, height=24, width=12).config.data.height == 24
        with pytest.raises(errors.UserError) as error:
            networks.load_network(source, width=64)
        assert str(error.value) == (
            "height and width must be those of the model's images, 24 and 12, or not be given, got 24 and 64"
        )


def test_what_is_no_model(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        errors.UserError, match="no model at 'empty': a run directory holds config.json, a model folder"
    ):
        networks.load_network("empty")
    (tmp_path / "model.zip").write_bytes(b"")
    with pytest.raises(errors.UserError, match="'model.zip' is a file; what it was exported of is needed"):
        networks.load_network("model.zip")


def test_a_config_of_before_has_the_fields_that_came_since(workdir, tmp_path):
    record = json.loads((workdir / "config.json").read_text())
    record["data"] |= {"cache_dir": "/elsewhere", "cache_gib": 1.0, "num_workers": 3}
    del record["model"]["normalization"], record["data"]["images_per_identity"], record["evaluation"]["baselines"]
    del record["embedding"]  # which a run of one's own crops has by default, and this one had not
    (tmp_path / "config.json").write_text(json.dumps(record))
    config = networks.run_config(tmp_path)
    assert config.model.normalization == "imagenet" and config.method == "hct"
    assert config.embedding.postprocess == "none"
    # How a machine works is its own.
    assert (config.data.cache_dir, config.data.cache_gib, config.data.num_workers) == ("", 16.0, -1)


def test_sizes_by_the_images_shape(workdir, tmp_path):
    (tmp_path / "crops").mkdir()
    for place, size in enumerate([(90, 60), (90, 60), (20, 90)]):
        Image.new("RGB", size).save(tmp_path / "crops" / f"{place}.png")
    files = ImageFiles(tmp_path / "crops", np.array(["0.png", "1.png", "2.png"]))
    # Two thirds as high as wide, of 32,768 pixels: 147.8 x 221.7.
    assert networks.auto_size("tiny", files) == networks.auto_size("color_histogram", files) == (160, 224)
    assert networks.auto_size("patch", files) == (154, 224)
    assert networks.auto_size("tiny", files, height=64) == (64, 96)
    # Of all others it is their own.
    assert networks.auto_size(workdir, files) == (0, 0) and networks.auto_size(workdir, files, height=7) == (7, 0)
