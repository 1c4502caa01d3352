"""A network with its variables, wherever it is: a run directory, a model folder, or published weights by their name."""

import functools
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from reid_jax import errors, postprocess
from reid_jax.inference import model_folder
from reid_jax.models import backbones
from reid_jax.postprocess import Postprocess
from reid_jax.runs import base_config, checkpoints, compatibility, config_rules, logs, models, settings, start
from reid_jax.weights import catalog, store

COLOR_HISTOGRAM = "color_histogram"  # the one model without weights
PIXELS = 256 * 128  # of images for published weights: as many as the papers' images of people have
_SHAPE = (256, 128)


class Network(NamedTuple):
    """A network to embed images with.

    Attributes:
        module: returns `Features`.
        variables: the module's.
        config: of its network and images.
        method: that trained it; empty: it was not trained here, or that is not known.
        about: what it learned from, and whether labels of people were used, in a line.
        fitted: post-processing that belongs to it, or None.
    """

    module: nn.Module
    variables: dict[str, Any]
    config: ConfigDict
    method: str
    about: str
    fitted: Postprocess | None = None


def find_model(source: str | pathlib.Path) -> pathlib.Path | None:
    """Returns the path of a model, or of the run of that name in the folder runs; None: it is published weights' name.

    Raises:
        UserError: it is neither, or names weights that have not been got or are damaged.
    """
    path = pathlib.Path(source).expanduser()
    if path.exists():
        return path
    run = pathlib.Path("runs", path)
    if run.is_dir():
        return run
    if is_published(source):
        return None
    name = str(source)
    if start.weights_name(name) and name in catalog.CATALOG:
        start.check_got(name)
    raise errors.UserError(
        f"there is no run directory, no model folder and no exported model at {name!r}, and no published weights of that "
        "name (reid weights list)"
    )


def is_published(source: str | pathlib.Path) -> bool:
    """Whether a model is named that needs no run: published weights that have been got, or the colour histogram.

    Raises:
        UserError: the weights are damaged.
    """
    name = str(source)
    if pathlib.Path(source).expanduser().exists() or pathlib.Path("runs", name).is_dir():
        return False
    return name == COLOR_HISTOGRAM or (start.weights_name(name) is not None and _is_got(name))


def _is_got(name: str) -> bool:
    return name in store.names() and store.find(name) is not None


def load_network(source: str | pathlib.Path, *, height: int = 0, width: int = 0) -> Network:
    """Loads the network of a run directory (its best model), a model folder, or published weights.

    Args:
        source: one of these, or a run's folder checkpoints/best or checkpoints/last.
        height: of its images in pixels; 0: those of its training, for published weights 256 or near it.
        width: likewise; 128 or near it.

    Raises:
        UserError: there is none, it cannot be read, or it does not take images of that size.
    """
    path = find_model(source)
    if path is None:
        return _published(str(source), height, width)
    if path.is_file():
        raise errors.UserError(
            f"{str(source)!r} is a file; what it was exported of is needed, a run directory, a model folder or a name"
        )
    if model_folder.is_model_folder(path):
        module, variables, info, config, fitted = model_folder.read_model(path)
        config.data.dataset = info.trained_on
        network = Network(module, variables, config, info.method, info.about or f"trained on {info.trained_on}", fitted)
    else:
        network = load_run(path)
    _check_size(network.config, height, width)
    return network


def _check_size(config: ConfigDict, height: int, width: int) -> None:
    own = (config.data.height, config.data.width)
    if (height or own[0], width or own[1]) != own:
        raise errors.UserError(
            f"height and width must be those of the model's images, {own[0]} and {own[1]}, or not be given, got "
            f"{height or own[0]} and {width or own[1]}"
        )


def run_config(checkpoint: str | pathlib.Path) -> ConfigDict:
    """Reads the config of the run that a checkpoint belongs to.

    Raises:
        UserError: there is no config.json in or above the folder.
    """
    for folder in (pathlib.Path(checkpoint), *pathlib.Path(checkpoint).absolute().parents[:2]):
        if (folder / "config.json").is_file():
            # Fields that came after the run have the value that changes nothing.
            config = base_config.base_config("folder").unlock()
            for name, value in compatibility.NEUTRAL.items():
                section, field = name.split(".")
                if section in config:
                    config[section][field] = value
            config.update(logs.read_json(folder / "config.json"))
            own = base_config.base_config("folder").data
            for name in ("cache_dir", "cache_gib", "num_workers"):  # of the machine that trained
                config.data[name] = own[name]
            return config
    raise errors.UserError(
        f"no model at {str(checkpoint)!r}: a run directory holds config.json, a model folder model.json"
    )


def load_run(workdir: str | pathlib.Path) -> Network:
    """Loads the model of a run.

    Args:
        workdir: a run directory (its best model), or its folder checkpoints/best or checkpoints/last.

    Raises:
        UserError: there is none, it cannot be read, or its config breaks a rule.
    """
    config = run_config(workdir)
    config_rules.check_config(ConfigDict({name: config[name] for name in ("data", "model", "embedding")}))
    model = models.build_model(config.model)
    shapes = models.variable_shapes(config, model, (config.data.height, config.data.width, 3))
    variables = checkpoints.restore_variables(workdir, shapes)
    method, kind = config.get("method", ""), config.embedding.postprocess
    fitted = None if kind == "none" else _fitted(workdir, kind)
    return Network(model, variables, config, method, start.describe_run(config, method), fitted)


def _fitted(workdir: str | pathlib.Path, kind: str) -> Postprocess:
    arrays = checkpoints.restore_fitted(workdir)
    if "mean" not in arrays:
        raise errors.UserError(
            f"the checkpoint in {str(workdir)!r} lacks the post-processing {kind} of its config.json"
        )
    return postprocess.from_arrays(kind, arrays)


def published_data() -> ConfigDict:
    """Returns config.data for published weights, whose images have no size yet and are of no data set."""
    data = base_config.base_config("folder").data
    data.dataset = ""
    return data


def digest(network: Network) -> str:
    """Returns what tells a network's embeddings from another's: of its weights, and of what was fitted to them."""
    # What tells those without weights apart.
    weights = checkpoints.digest(network.variables) if network.variables else network.config.model.backbone
    return postprocess.digest(weights, network.fitted)


def _published(name: str, height: int, width: int) -> Network:
    """Builds the network of published weights, or the colour histogram, for images of a size."""
    config = base_config.base_config("folder")
    config.data = published_data()
    if name == COLOR_HISTOGRAM:
        config.model.update(backbone=COLOR_HISTOGRAM, weights="")
        about = "colours only: nothing was learned, no labels of people"
    else:
        config.model.weights = name
        config.model = start.with_architecture(config.model)
        about = start.describe_weights(config.model)
    multiple = backbones.find(config.model.backbone).size_multiple
    config.data.height, config.data.width = (
        given or usual // multiple * multiple for given, usual in zip((height, width), _SHAPE)
    )
    model = models.build_model(config.model)
    image = jnp.zeros((1, config.data.height, config.data.width, 3))
    shapes = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), image)
    variables: dict[str, Any] = {}
    if backbones.find(config.model.backbone).has_weights:
        variables = start.load_weights(name, shapes, model.backbone)
    return Network(model, variables, config, "", about)


def auto_size(source: str | pathlib.Path, images: Any, *, height: int = 0, width: int = 0) -> tuple[int, int]:
    """Chooses the size that published weights see images at, by the images' median shape; see `settings.choose_size`.

    Args:
        source: the model; of others than published weights the size is their own: (height, width) as given.
        images: whose shapes are looked at, `records.Records` or `ImageFiles`.
        height: in pixels, where it is given; 0: to be chosen.
        width: likewise.
    """
    if not is_published(source):
        return height, width
    name = str(source)
    found = None if name == COLOR_HISTOGRAM else store.find(name)
    architecture = COLOR_HISTOGRAM if found is None else found.architecture
    return settings.choose_size(
        images, pixels=PIXELS, height=height, width=width, multiple=settings.size_multiple(architecture)
    )
