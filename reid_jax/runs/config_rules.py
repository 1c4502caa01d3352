"""The rules that a config's fields keep whatever the data: checked together, before any work starts."""

import difflib
import math
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from reid_jax import distances, errors, evaluate, selection
from reid_jax.cluster_dynamics import choices
from reid_jax.linkage import cluster_distances
from reid_jax.models import reid, resnet
from reid_jax.runs import logs


class Rule(NamedTuple):
    """What a field must be, in words and as a test of its value."""

    text: str
    is_kept: Callable[[Any], bool]


def _one_of(*choices: str) -> Rule:
    return Rule(f"one of {', '.join(choices)}", lambda value: value in choices)


def _at_least(least: float) -> Rule:
    return Rule(f"at least {least}", lambda value: value >= least)


def _above(bound: float) -> Rule:
    return Rule(f"greater than {bound}", lambda value: value > bound)


def _within(least: float, greatest: float) -> Rule:
    return Rule(f"in {least}..{greatest}", lambda value: least <= value <= greatest)


def _from_up_to(least: float, bound: float) -> Rule:
    return Rule(f"at least {least} and less than {bound}", lambda value: least <= value < bound)


def _range(greatest: float = math.inf) -> Rule:
    limit = "" if greatest == math.inf else f", at most {greatest}"
    return Rule(
        f"two numbers (least, greatest) greater than 0, in order{limit}",
        lambda value: (
            len(value) == 2
            and all(math.isfinite(number) for number in value)
            and 0 < value[0] <= value[1] <= greatest
        ),
    )


_MOST_STEPS = 2**31 - 2  # a step's number is an int32
_FINITE = Rule("a finite number", lambda value: not isinstance(value, float) or math.isfinite(value))
_RULES = {
    "seed": _at_least(0),
    "num_devices": _at_least(0),
    "data.height": _at_least(1),
    "data.width": _at_least(1),
    "data.max_frames": _at_least(1),
    "data.cache_gib": _at_least(0),
    "data.num_workers": _at_least(-1),
    "model.width": _at_least(1),
    "model.last_stride": Rule("1 or 2", lambda value: value in (1, 2)),
    "model.stem": _one_of(*resnet.STEMS),
    "model.pooling": _one_of(*reid.POOLINGS),
    "model.neck": _one_of(*reid.NECKS),
    "model.dtype": _one_of("float32", "bfloat16"),
    "model.frozen_stages": _at_least(0),
    "model.bn_group_size": _at_least(0),
    "head.dim": _at_least(0),
    "head.dropout": _from_up_to(0, 1),
    "memory.momentum": _within(0, 1),
    "memory.kind": _one_of("unified", "cluster"),
    "memory.cluster_momentum": _within(0, 1),
    "dynamics.num_neighbors": _at_least(1),
    "dynamics.k": _at_least(1),
    "dynamics.alpha_merge": _from_up_to(0, 1),
    "dynamics.alpha_split": _from_up_to(0, 1),
    "dynamics.threshold": _at_least(0),
    "dynamics.min_similarity": Rule("in -1..1, or None", lambda value: value is None or -1 <= value <= 1),
    "dynamics.num_similar": _at_least(0),
    "dynamics.weights": _one_of(*choices.WEIGHTS),
    "dynamics.self_loop": _at_least(0),
    "dynamics.placement": _one_of(*choices.PLACEMENTS),
    "dynamics.connected_by": _one_of(*choices.CONNECTIONS),
    "dynamics.min_split_size": _at_least(1),
    "dynamics.anchors": _one_of(*choices.ANCHORS),
    "dynamics.max_anchors": _at_least(2),
    "dynamics.peak_similarity": Rule(
        "two numbers (low, high), the lower first",
        lambda value: (
            len(value) == 2 and all(isinstance(number, int | float) for number in value) and value[0] < value[1]
        ),
    ),
    "dynamics.max_units": _at_least(2),
    "dynamics.criterion": _one_of(*choices.CRITERIA),
    "source.num_epochs": _at_least(1),
    "selection.threshold": _within(0, 1),
    "selection.compared": _one_of(*selection.COMPARED),
    "selection.num_labelled_ids": _at_least(0),
    "cluster.num_clusters": _at_least(1),
    "cluster.max_iterations": _at_least(1),
    "cluster.num_init": _at_least(1),
    "cluster.eps": Rule("greater than 0 and less than 1", lambda value: 0 < value < 1),
    "cluster.min_samples": _at_least(1),
    "cluster.k1": _at_least(1),
    "cluster.k2": _at_least(1),
    "cluster.metric": _one_of(*distances.METRICS),
    "cluster.linkage": _one_of(*cluster_distances.LINKAGES),
    "cluster.merge_percent": Rule("greater than 0 and less than 1", lambda value: 0 < value < 1),
    "cluster.num_steps": _at_least(1),
    "cluster.size_penalty": _at_least(0),
    "labels.method": _one_of("hct", "buc", "dbscan", "kmeans", "cluster_dynamics"),
    "labels.init": _one_of("singletons", "dbscan"),
    "labels.num_levels": _at_least(1),
    "labels.interval": _within(0, _MOST_STEPS),
    "labels.warmup_steps": _within(0, _MOST_STEPS),
    "dissimilarity.metric": _one_of(*distances.METRICS),
    "dissimilarity.part_weight": _within(0, 1),
    "dissimilarity.num_reliable": _at_least(1),
    "dissimilarity.num_parts": _at_least(1),
    "dissimilarity.camera_penalty": _at_least(0),
    "train.loss": _one_of("triplet", "classifier"),
    "train.num_iterations": _at_least(1),
    "train.num_epochs": _at_least(1),
    "train.num_steps": _at_least(1),
    "train.first_epochs": _at_least(1),
    "train.drop_epoch": _at_least(0),
    "train.drop_every": _at_least(0),
    "train.drop_factor": _above(0),
    "train.batch_size": _at_least(2),
    "train.num_ids": _at_least(2),
    "train.num_instances": _at_least(1),
    "train.num_frames": _at_least(1),
    "train.optimizer": _one_of("sgd", "adam"),
    "train.learning_rate": _above(0),
    "train.later_learning_rate": _above(0),
    "train.backbone_rate_factor": _at_least(0),
    "train.momentum": _from_up_to(0, 1),
    "train.weight_decay": _at_least(0),
    "loss.kind": _one_of("triplet", "classifier", "repelled", "unified", "cluster"),
    "loss.margin": _at_least(0),
    "loss.reduction": _one_of("mean", "sum"),
    "loss.temperature": _above(0),
    "loss.own_weight": _within(0, 1),
    "loss.label_smoothing": _within(0, 1),
    "augment.flip_probability": _within(0, 1),
    "augment.padding": _at_least(0),
    "augment.max_degrees": _at_least(0),
    "augment.max_shift": _at_least(0),
    "augment.sized_crop_area": _range(1),
    "augment.sized_crop_aspect": _range(),
    "augment.erasing_probability": _within(0, 1),
    "stop.when": _one_of("never", "metric", "label_free", "auto"),
    "stop.signal": _one_of("agreement", "silhouette", "selected"),
    "stop.patience": _at_least(1),
    "stop.min_rise": _at_least(0),
    "checkpoint.every_minutes": _at_least(0),
    "evaluation.batch_size": _at_least(1),
    "evaluation.metric": _one_of(*distances.METRICS),
    "evaluation.ap_method": _one_of(*evaluate.AP_METHODS),
}


def check_config(config: ConfigDict) -> None:
    """Checks every field of a config, or of some sections of one.

    Raises:
        UserError: a field breaks its rule; names it, the rule and the value.
    """
    for name, value in flat_fields(config.to_dict()).items():
        rules = [_FINITE, _RULES[name]] if name in _RULES else [_FINITE]
        for rule in rules:
            if not _is_kept(rule, value):
                raise errors.UserError(f"{name} must be {rule.text}, got {value!r}")
    if "stop" in config and config.stop.signal == "selected" and "selection" not in config:
        raise errors.UserError("stop.signal must be 'agreement' or 'silhouette' where nothing is selected, got 'selected'")
    if "train" in config and config.train.num_frames > 1 and not config.data.tracklets:
        raise errors.UserError(
            "train.num_frames must be 1 where samples are images (data.tracklets = false), got "
            f"{config.train.num_frames}"
        )


def _is_kept(rule: Rule, value: Any) -> bool:
    try:
        return rule.is_kept(value)
    except TypeError:  # a value of another type, as a config file of one's own may have
        return False


def flat_fields(config: Any) -> dict[str, Any]:
    """Returns a nested config's values by their dotted names."""
    return {name.replace("/", "."): value for name, value in logs.flatten(config).items()}


def check_field(field: str, fields: Collection[str]) -> None:
    """Checks that a dotted name is among a config's fields.

    Raises:
        UserError: it is not; names the nearest one that is.
    """
    if field not in fields:
        (nearest,) = difflib.get_close_matches(field, fields, n=1, cutoff=0)
        raise errors.UserError(f"the config has no field {field!r}; did you mean {nearest!r}?")
