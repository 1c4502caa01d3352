"""From config.model to a Flax module and its start: built, traced, and given the variables that a run begins with."""

import functools
import importlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict

from reid_jax import augment, errors
from reid_jax.data.images import ImageSource
from reid_jax.models import backbones, calibration
from reid_jax.models.reid import ReidModel
from reid_jax.runs import checkpoints, start

HEADS = ("head", "classifier")  # on top of the embeddings
# Parts that a checkpoint may lack, or have for other classes: they start anew.
_OPTIONAL = (*HEADS, "neck")
_CALIBRATION_BATCHES = 16
# Of config.model, what says which network it is; the rest is about how it is trained.
NETWORK_FIELDS = ("backbone", "width", "last_stride", "stem", "pooling", "normalization", "neck", "mirrored", "dtype")


def build_model(model: ConfigDict, kind: type[ReidModel] = ReidModel, **fields: Any) -> ReidModel:
    """Builds config.model, without weights; `fields` are what `kind` has more than a ReidModel.

    A backbone of one's own is named as "module:Class": a Flax module whose `__call__(images, *, train)` returns a
    feature map [B, h, w, C].

    Raises:
        UserError: an unknown backbone or option.
    """
    return kind(
        backbone=build_backbone(model),
        pooling=start.pooling_of(model),
        normalization=model.normalization,
        neck=model.neck,
        bn_group_size=model.bn_group_size,
        mirrored=model.mirrored,
        keep_batch_norm=model.keep_batch_norm,
        **fields,
    )


def build_backbone(model: ConfigDict) -> nn.Module:
    """Builds the backbone that config.model names; see `build_model`."""
    dtypes = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
    if model.dtype not in dtypes:
        raise errors.UserError(f"model.dtype must be one of {', '.join(dtypes)}, got {model.dtype!r}")
    if ":" in model.backbone:
        return _own_backbone(model)
    if model.backbone not in backbones.ARCHITECTURES:
        known = ", ".join(backbones.ARCHITECTURES)
        raise errors.UserError(f"model.backbone must be one of {known} or 'module:Class', got {model.backbone!r}")
    fields = ("frozen_stages", "bn_group_size", *backbones.find(model.backbone).fields)
    return backbones.make(model.backbone, dtype=dtypes[model.dtype], **{name: model[name] for name in fields})


def _own_backbone(model: ConfigDict) -> nn.Module:
    module, _, name = model.backbone.partition(":")
    try:
        network = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise errors.UserError(f"model.backbone: cannot import {model.backbone!r}: {error}") from error
    # A config.json may be untrusted: nothing but a network is ever called.
    if not (isinstance(network, type) and issubclass(network, nn.Module)):
        raise errors.UserError(f"model.backbone: {model.backbone!r} is no Flax module class (flax.linen.Module)")
    if model.frozen_stages:
        raise errors.UserError(f"model.frozen_stages must be 0 for a backbone of one's own, got {model.frozen_stages}")
    try:
        return network()
    except TypeError as error:
        raise errors.UserError(
            f"model.backbone: {model.backbone!r} cannot be made without arguments: {error}"
        ) from error


def check_training(model: nn.Module, data: ConfigDict, *, batch_size: int) -> None:
    """Traces a training step's forward pass, so that what does not fit is found before any work.

    Args:
        model: from `build_model`.
        data: config.data.
        batch_size: images in a batch.

    Raises:
        UserError: from the model, e.g. stripes or batch-norm groups that do not divide; or it has no parameters.
    """

    def forward(images):
        key = jax.random.key(0)
        variables = model.init(key, images, train=False)
        result, _ = model.apply(variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": key})
        return result, variables.get("params", {})

    images = jax.ShapeDtypeStruct((batch_size, data.height, data.width, 3), jnp.float32)
    _, parameters = jax.eval_shape(forward, images)
    if not jax.tree.leaves(parameters):
        raise errors.UserError(
            f"model.backbone must be one that learns, got {type(model.backbone).__name__}, which has no weights"
        )


def check_start(config: ConfigDict, module: ReidModel, *, resuming: bool) -> None:
    """Checks what a new run starts from, before any image is decoded.

    Args:
        config: the run's.
        module: the model that is trained.
        resuming: a checkpoint will replace what the run started from.

    Raises:
        UserError: the weights or the checkpoint are missing, the checkpoint is of another model, or random weights
            would be frozen.
    """
    model = config.model
    if resuming:
        return
    if model.checkpoint:
        shape = (config.data.height, config.data.width, 3)
        checkpoints.check_variables(model.checkpoint, variable_shapes(config, module, shape), optional=_OPTIONAL)
        return
    start.check_weights(model.weights)
    if model.frozen_stages and not model.weights:
        raise errors.UserError(
            f"model.frozen_stages must be 0 where training starts from random weights, got {model.frozen_stages}"
        )


def variable_shapes(config: ConfigDict, model: ReidModel, image_shape: tuple[int, int, int]) -> dict[str, Any]:
    """Returns the shapes of a model's variables, as `model.init` gives them on a config's batches."""
    sample = jax.ShapeDtypeStruct(_init_shape(config, image_shape), jnp.float32)
    return jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), sample)


def _init_shape(config: ConfigDict, image_shape: tuple[int, int, int]) -> tuple[int, ...]:
    return ((config.model.bn_group_size or 1) * config.train.num_frames, *image_shape)


def initial_variables(
    config: ConfigDict,
    model: ReidModel,
    images: ImageSource,
    *,
    batch_size: int,
    resuming: bool = False,
) -> dict[str, Any]:
    """Returns the variables a run starts from, and says on standard output where they are from.

    Random weights get their batch-norm statistics measured on training images first: with the initial ones
    (mean 0, variance 1) the embeddings of all images would nearly coincide.

    Args:
        config: the run's.
        model: from `build_model`.
        images: what to calibrate on.
        batch_size: images at a time in calibration.
        resuming: a checkpoint will replace the variables: only their shapes matter, and they are zeros.

    Raises:
        UserError: the weights or the checkpoint are missing or of another model.
    """
    init_key, order_key = jax.random.split(jax.random.key(config.seed))
    if resuming:
        shapes = variable_shapes(config, model, images.shape)
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    sample = jnp.zeros(_init_shape(config, images.shape), jnp.float32)
    fresh = jax.jit(functools.partial(model.init, train=False))(init_key, sample)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(order_key)))
    order = np.resize(rng.permutation(len(images)), (_CALIBRATION_BATCHES, batch_size))
    inputs = (augment.normalize(batch) for batch in images.batches(order))
    if not config.model.checkpoint and not config.model.weights:
        used = min(order.size, len(images))
        print(f"starting from random weights; calibrating batch norm on {used} training images", flush=True)
        # A dropout layer comes after the last batch norm, so that its draws do not matter.
        return calibration.calibrate_batch_norm(model, fresh, inputs, rngs={"dropout": order_key})
    if config.model.checkpoint:
        print(f"starting from the checkpoint {config.model.checkpoint}", flush=True)
        # Another method's run has no such head, or one for other classes: then it starts anew.
        variables = checkpoints.restore_variables(config.model.checkpoint, fresh, optional=_OPTIONAL)
    else:
        print(f"starting from {start.describe_weights(config.model)}", flush=True)
        variables = start.load_weights(config.model.weights, fresh, model.backbone)
    embedder = build_model(config.model).clone(mirrored=False)  # what the neck sees in training
    embed = jax.jit(lambda variables, batch: embedder.apply(variables, batch, train=False).embeddings)
    return calibration.calibrate_neck(embed, variables, inputs)
