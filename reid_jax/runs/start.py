"""What config.model.weights names: a file, or published weights by their name in the catalogue or the user's cache."""

import os
import pathlib
from collections.abc import Collection
from typing import Any

from flax import linen as nn
from ml_collections import ConfigDict

from reid_jax import errors
from reid_jax.models import backbones, pretrained
from reid_jax.runs import logs
from reid_jax.weights import catalog, store

# Of the fields of config.model that weights given by name decide, those that may not be given besides.
_DECIDED = ("backbone", "normalization")


def weights_name(weights: str) -> str | None:
    """Returns the name of published weights that config.model.weights is; None: it is a file, or empty."""
    is_path = os.sep in weights or "/" in weights or pathlib.Path(weights).suffix in store.FILE_SUFFIXES
    return None if not weights or is_path or pathlib.Path(weights).is_file() else weights


def with_architecture(model: ConfigDict) -> ConfigDict:
    """Returns config.model with what its weights decide where they are given by name: backbone and normalization.

    A run that is started from decides the normalization. Pooling that is "auto" becomes the backbone's own.

    Raises:
        UserError: there are no weights of that name, here or published.
    """
    model = model.copy_and_resolve_references()
    name = weights_name(model.weights)
    if model.checkpoint:
        earlier = _config_of(model.checkpoint)
        if earlier is not None:
            model.normalization = earlier.model.get("normalization", "imagenet")
    elif name is not None:
        with errors.prefixed("model.weights: "):
            known = store.find(name) or catalog.find(name)
        model.update(backbone=known.architecture, normalization=known.normalization)
    model.pooling = pooling_of(model)
    return model


def check_backbone(model: ConfigDict, *, given: Collection[str]) -> None:
    """Checks that a backbone and a normalization which are given are those of the weights.

    Args:
        model: config.model.
        given: dotted names of the fields that were given.

    Raises:
        UserError: one is another, or there are no weights of that name.
    """
    for field in _DECIDED:
        if f"model.{field}" in given and (decided := with_architecture(model)[field]) != model[field]:
            raise errors.UserError(
                f"model.{field} must be {decided!r}, that of {model.checkpoint or model.weights}, or not be given, got "
                f"{model[field]!r}"
            )


def pooling_of(model: ConfigDict) -> str:
    """Returns how a model's feature map is pooled, where config.model.pooling is "auto" as in the backbone's publication."""
    if model.pooling != "auto":
        return model.pooling
    known = backbones.ARCHITECTURES.get(model.backbone)
    return "avg" if known is None else known.pooling


def check_weights(weights: str) -> None:
    """Checks that config.model.weights are there.

    Raises:
        UserError: they are not; says how to get them.
    """
    name = weights_name(weights)
    if name is None:
        if weights and not pathlib.Path(weights).is_file():
            raise errors.UserError(
                f"model.weights: no file {weights!r}; give the name of published weights instead, such as "
                "mobilenet_v2 (reid weights list), or start from random weights: leave it empty"
            )
        return
    with errors.prefixed("model.weights: "):
        check_got(name)


def check_got(name: str) -> None:
    """Checks that published weights are on this machine.

    Raises:
        UserError: they are not; says how to get them.
    """
    if store.find(name) is None:
        catalog.find(name)
        raise errors.UserError(
            f"the weights {name} are not on this machine yet; get them with: reid weights get {name}"
        )


def load_weights(weights: str, variables: dict[str, Any], backbone: nn.Module) -> dict[str, Any]:
    """Returns a model's variables with the weights that config.model.weights names.

    Args:
        weights: a name, or a file: this project's .npz, or a state by torch's names.
        variables: the model's, arrays; leaves that the weights do not have are returned as they are.
        backbone: the model's.

    Raises:
        UserError: they are missing, damaged, or another backbone's.
    """
    name = weights_name(weights)
    if name is not None:
        state, _ = store.read(name)
    elif pretrained.is_own_file(weights):
        return pretrained.load_variables(weights, variables)
    else:
        state = pretrained.load_state(weights)
    with errors.prefixed(f"model.weights: {weights}: "):
        return pretrained.to_variables(state, variables, backbone)


def describe_run(config: ConfigDict, method: str) -> str:
    """Says in a line what a run's model learned from: its data, with or without labels, and what it started from.

    Args:
        config: the run's.
        method: its name; empty: not known.
    """
    if "learned_from" in config:  # what it was when the run began: weights of that name may be others by now
        return config.learned_from
    parts, seen = [_describe_training(config, method)], set()
    while (checkpoint := config.model.get("checkpoint", "")) and checkpoint not in seen:
        seen.add(checkpoint)
        earlier = _config_of(checkpoint)
        if earlier is None:
            return "; ".join((*parts, f"from the run {checkpoint}, whose training is not known here"))
        config = earlier
        parts.append(f"from the run {checkpoint}: {_describe_training(config, config.get('method', ''))}")
    return "; ".join((*parts, f"from {describe_weights(config.model)}"))


def _describe_training(config: ConfigDict, method: str) -> str:
    """Says what a run itself learned from."""
    used = []
    if method.startswith("supervised"):
        used.append(config.data.dataset)
    # A source whose labels train the model to start from (PUL) is not used where one is given.
    if "source" in config and config.source.dataset and not ("num_epochs" in config.source and config.model.checkpoint):
        used.append(config.source.dataset)
    if labelled := config.get("selection", {}).get("num_labelled_ids", 0):
        used.append(f"{labelled} people in {config.data.dataset}")
    learned = (
        f"LABELS OF PEOPLE USED: those of {' and '.join(used)}" if used else "no labels of people used in training"
    )
    return f"{config.data.dataset} by {method or 'an unknown method'}, {learned}"


def _config_of(checkpoint: str) -> ConfigDict | None:
    """The config of the run that a checkpoint belongs to, where it is there."""
    path = pathlib.Path(checkpoint).absolute()
    for folder in (path, *path.parents[1:2]):  # checkpoints/best lies two folders below it
        if path.is_dir() and (folder / "config.json").is_file():
            return ConfigDict(logs.read_json(folder / "config.json"))
    return None


def describe_weights(model: ConfigDict) -> str:
    """Says in a line what a model's weights were trained on, and whether the identities of people were used."""
    if not model.weights:
        return "random weights: no labels of people"
    name = weights_name(model.weights)
    try:
        known = None if name is None else store.find(name) or catalog.CATALOG.get(name)
    except errors.UserError:  # a damaged file, which whoever needs it tells
        known = catalog.CATALOG.get(name)
    if known is None:
        return f"the weights {model.weights}, whose training is not known here"
    people = "LABELS OF PEOPLE USED" if known.people_labels else "no labels of people"
    return f"{name}, trained on {known.trained_on} (labels: {known.labels}); {people}"
