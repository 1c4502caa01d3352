"""A run's config made whole before it starts: what the weights' name decides, and what is open, by the images."""

import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from reid_jax import errors, features, image_count
from reid_jax.models import backbones
from reid_jax.models.reid import ReidModel
from reid_jax.runs import (
    base_config,
    checkpoints,
    compatibility,
    config_rules,
    embedding,
    logs,
    models,
    settings,
    start,
)
from reid_jax.runs import dataset as dataset_lib
from reid_jax.runs.dataset import Dataset

_MOST_PARTS = 8  # stripes, where they are not given: as in SSL
# What the configs train from random weights.
_FROM_RANDOM = {*base_config.SMALL_DATASETS, base_config.CIFAR10} - {*base_config.OWN_DATASETS}


def fit_config(config: ConfigDict, dataset: Dataset, workdir: str | pathlib.Path, mesh: Mesh) -> ConfigDict:
    """Returns a config without open fields, and says on standard output what was chosen.

    Args:
        config: the run's as it was asked for; stays as it is.
        dataset: the target, without images.
        workdir: the run directory: where it has a checkpoint, what was chosen is in its config.json, and holds.
        mesh: the devices.

    Raises:
        UserError: the weights are not known, or where the embeddings of the start are looked at, not there.
    """
    path = pathlib.Path(workdir, "config.json")
    is_resuming = compatibility.has_checkpoint(workdir) and path.is_file()
    earlier = config_rules.flat_fields(logs.read_json(path)) if is_resuming else {}
    config = settings.with_earlier(config, earlier)
    is_random = not config.model.weights and not config.model.checkpoint
    if is_random and not is_resuming and config.data.dataset not in _FROM_RANDOM:
        print(
            "from random weights, to try the tools on: photographs need a pretrained start, --config=METHOD:folder "
            "(reid weights get mobilenet_v2)",
            flush=True,
        )
    if earlier.get("model.weights") != config.model.weights:
        config.model = start.with_architecture(config.model)
    config.model.pooling = start.pooling_of(config.model)
    fit_size(config, dataset)
    if config.embedding.postprocess == embedding.AUTO:
        config.embedding.postprocess = embedding.choose(config, dataset)
        print(f"embeddings are post-processed by {config.embedding.postprocess} (embedding.postprocess)", flush=True)
    _choose_counts(config, dataset, mesh)
    return config


def fit_size(config: ConfigDict, dataset: Dataset) -> None:
    """Sets the size of images and what follows from it, where they are open, in place.

    Args:
        config: a run's, with the backbone that it will have.
        dataset: the target, without images.

    Raises:
        UserError: a size that is given is none that the backbone takes.
    """
    _choose_size(config, dataset)
    known = backbones.ARCHITECTURES.get(config.model.backbone)
    for side in ("height", "width"):
        if known is not None and config.data[side] % known.size_multiple:
            raise errors.UserError(
                f"data.{side} must be a multiple of {known.size_multiple} for the backbone {config.model.backbone}, got "
                f"{config.data[side]}"
            )
    _choose_by_size(config)


def _choose_size(config: ConfigDict, dataset: Dataset) -> None:
    data = config.data
    if data.height and data.width:
        return
    data.height, data.width = settings.choose_size(
        dataset.records["train"],
        pixels=data.num_pixels,
        height=data.height,
        width=data.width,
        multiple=settings.size_multiple(config.model.backbone),
    )
    print(
        f"images are resized to {data.height} x {data.width} (height x width), after their median shape "
        "(--config.data.height and width)",
        flush=True,
    )


def _choose_counts(config: ConfigDict, dataset: Dataset, mesh: Mesh) -> None:
    if not settings.open_fields(config):
        return
    data, source = config.data, "as given"
    if not data.images_per_identity:
        rows = _start_embeddings(config, dataset, mesh)
        data.images_per_identity = round(image_count.estimate_images_per_identity(rows), 1)
        source = "estimated without labels; where you know better: --config.data.images_per_identity=N"
    chosen = settings.choose(
        config, images_per_identity=data.images_per_identity, num_samples=len(dataset.samples["train"])
    )
    values = ", ".join(f"{name} = {value}" for name, value in chosen.items())
    print(f"about {data.images_per_identity:g} images per identity ({source}): {values}", flush=True)
    for name, value in chosen.items():
        section, field = name.split(".")
        config[section][field] = value


def _start_embeddings(config: ConfigDict, dataset: Dataset, mesh: Mesh) -> np.ndarray:
    """Embeds the training samples by what the run starts from; by colour where that is random."""
    model = config.model.copy_and_resolve_references()
    # Parts that the start may lack.
    model.update(neck="none", pooling="avg" if model.pooling == "gem" else model.pooling)
    is_random = not model.weights and not model.checkpoint
    if is_random:
        model.update(backbone="color_histogram", pooling="token", normalization="imagenet", frozen_stages=0)
    network = models.build_model(model)
    variables = {} if is_random else _load(model, network, (config.data.height, config.data.width))
    return features.embed_samples(
        features.make_embed_step(network, mesh),
        variables,
        dataset_lib.with_images(dataset, config.data).images["train"],  # decoded only where there is what to embed with
        dataset.samples["train"],
        mesh,
        batch_size=config.evaluation.batch_size,
        description="looking at the images",
    ).embeddings


def _load(model: ConfigDict, network: ReidModel, size: tuple[int, int]) -> dict[str, Any]:
    """Loads the start's variables for images of a size."""
    image = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    shapes = jax.eval_shape(functools.partial(network.init, train=False), jax.random.key(0), image)
    if model.checkpoint:
        return checkpoints.restore_variables(model.checkpoint, shapes)
    start.check_weights(model.weights)
    return start.load_weights(model.weights, shapes, network.backbone)


def _choose_by_size(config: ConfigDict) -> None:
    """Sets what is open and follows from the images' size."""
    if config.get("dissimilarity", {}).get("num_parts", 0) is None:
        config.dissimilarity.num_parts = _num_parts(config)
    height, width = config.data.height, config.data.width
    if config.augment.get("max_shift", 0.0) is None:
        config.augment.max_shift = settings.max_shift(width)
    if config.augment.get("sized_crop_aspect", ()) is None:
        config.augment.sized_crop_aspect = settings.sized_crop_aspect(height, width)


def _num_parts(config: ConfigDict) -> int:
    """The most stripes up to `_MOST_PARTS` that divide the height of the backbone's map."""
    backbone = models.build_backbone(config.model)
    image = jax.ShapeDtypeStruct((1, config.data.height, config.data.width, 3), jnp.float32)
    variables = jax.eval_shape(functools.partial(backbone.init, train=False), jax.random.key(0), image)
    result = jax.eval_shape(functools.partial(backbone.apply, train=False), variables, image)
    rows = (result[0] if isinstance(result, tuple) else result).shape[1]
    return max(parts for parts in range(1, _MOST_PARTS + 1) if rows % parts == 0)
