"""The rules that a config's fields keep whatever the data: checked together, before any work starts."""

import difflib
import math
from collections.abc import Collection
from typing import Any

from ml_collections import ConfigDict

from reid_jax import distances, errors, evaluate, memory, postprocess, rules, selection
from reid_jax.cluster_dynamics import choices
from reid_jax.linkage import cluster_distances
from reid_jax.models import reid, resnet
from reid_jax.rules import Rule
from reid_jax.runs import base_config, logs

_MOST_STEPS = 2**31 - 2  # a step's number is an int32
_FINITE = Rule("a finite number", lambda value: not isinstance(value, float) or math.isfinite(value))
_RULES = {
    "seed": rules.at_least(0),
    "num_devices": rules.at_least(0),
    "data.height": rules.at_least(0),
    "data.width": rules.at_least(0),
    "data.num_pixels": rules.at_least(1),
    "data.images_per_identity": Rule("0 or greater than 1", lambda value: value == 0 or value > 1),
    "data.max_frames": rules.at_least(1),
    "data.cache_gib": rules.at_least(0),
    "data.num_workers": rules.at_least(-1),
    "model.width": rules.at_least(1),
    "model.last_stride": Rule("1 or 2", lambda value: value in (1, 2)),
    "model.stem": rules.one_of(*resnet.STEMS),
    "model.pooling": rules.one_of("auto", *reid.POOLINGS),
    "model.normalization": rules.one_of(*reid.NORMALIZATIONS),
    "model.neck": rules.one_of(*reid.NECKS),
    "model.dtype": rules.one_of("float32", "bfloat16"),
    "model.frozen_stages": rules.at_least(0),
    "model.bn_group_size": rules.at_least(0),
    "embedding.postprocess": rules.one_of("auto", *postprocess.KINDS),
    "embedding.shrinkage": rules.at_least(0),
    "head.dim": rules.at_least(0),
    "head.dropout": rules.from_up_to(0, 1),
    "memory.momentum": rules.within(0, 1),
    "memory.kind": rules.one_of("unified", "cluster"),
    "memory.rule": rules.one_of(*memory.MEMORY_RULES),
    "memory.cluster_momentum": rules.within(0, 1),
    "memory.camera_momentum": rules.within(0, 1),
    "source.num_epochs": rules.at_least(1),
    "selection.threshold": rules.within(0, 1),
    "selection.compared": rules.one_of(*selection.COMPARED),
    "selection.num_labelled_ids": rules.at_least(0),
    "cluster.num_clusters": rules.at_least(1),
    "cluster.max_iterations": rules.at_least(1),
    "cluster.num_init": rules.at_least(1),
    "cluster.eps": Rule("greater than 0 and less than 1", lambda value: 0 < value < 1),
    "cluster.eps_gap": Rule("at least 0 and less than 1, or None", lambda value: value is None or 0 <= value < 1),
    "cluster.min_samples": rules.at_least(1),
    "cluster.k1": rules.at_least(1),
    "cluster.k2": rules.at_least(1),
    "cluster.metric": rules.one_of(*distances.METRICS),
    "cluster.linkage": rules.one_of(*cluster_distances.LINKAGES),
    "cluster.merge_percent": Rule("greater than 0 and less than 1", lambda value: 0 < value < 1),
    "cluster.num_steps": rules.at_least(1),
    "cluster.size_penalty": rules.at_least(0),
    "labels.method": rules.one_of("hct", "buc", "dbscan", "kmeans", "cluster_dynamics"),
    "labels.init": rules.one_of("singletons", "dbscan"),
    "labels.num_levels": rules.at_least(1),
    "labels.interval": rules.within(0, _MOST_STEPS),
    "labels.warmup_steps": rules.within(0, _MOST_STEPS),
    "labels.similar_steps": rules.within(0, _MOST_STEPS),
    "labels.first_similar": rules.above(0),
    "dissimilarity.metric": rules.one_of(*distances.METRICS),
    "dissimilarity.part_weight": rules.within(0, 1),
    "dissimilarity.num_reliable": rules.at_least(1),
    "dissimilarity.num_parts": rules.at_least(1),
    "dissimilarity.camera_penalty": rules.at_least(0),
    "train.loss": rules.one_of("triplet", "classifier"),
    "train.num_iterations": rules.at_least(1),
    "train.num_epochs": rules.at_least(1),
    "train.num_steps": rules.at_least(1),
    "train.first_epochs": rules.at_least(1),
    "train.drop_epoch": rules.at_least(0),
    "train.drop_every": rules.at_least(0),
    "train.drop_factor": rules.above(0),
    "train.batch_size": rules.at_least(2),
    "train.num_ids": rules.at_least(2),
    "train.num_instances": rules.at_least(1),
    "train.sampling_level": rules.at_least(0),
    "train.num_frames": rules.at_least(1),
    "train.optimizer": rules.one_of("sgd", "adam"),
    "train.learning_rate": rules.above(0),
    "train.later_learning_rate": rules.above(0),
    "train.backbone_rate_factor": rules.at_least(0),
    "train.average_decay": rules.from_up_to(0, 1),
    "train.warmup_steps": rules.within(0, _MOST_STEPS),
    "train.layer_decay": Rule("greater than 0 and at most 1", lambda value: 0 < value <= 1),
    "train.momentum": rules.from_up_to(0, 1),
    "train.weight_decay": rules.at_least(0),
    "loss.levels": rules.one_of("top", "all"),
    "loss.kind": rules.one_of("triplet", "classifier", "repelled", "unified", "cluster"),
    "loss.margin": rules.at_least(0),
    "loss.reduction": rules.one_of("mean", "sum"),
    "loss.temperature": rules.above(0),
    "loss.camera_weight": rules.at_least(0),
    "loss.intra_camera_weight": rules.at_least(0),
    "loss.consistency_weight": rules.at_least(0),
    "loss.camera_temperature": rules.above(0),
    "loss.num_negatives": rules.at_least(1),
    "loss.support_steps": rules.at_least(1),
    "loss.support_weight": rules.at_least(0),
    "loss.own_weight": rules.within(0, 1),
    "loss.label_smoothing": rules.within(0, 1),
    "augment.preset": rules.one_of(*base_config.PRESETS),
    "augment.flip_probability": rules.within(0, 1),
    "augment.padding": rules.at_least(0),
    "augment.max_degrees": rules.at_least(0),
    "augment.max_shift": rules.at_least(0),
    "augment.sized_crop_area": rules.positive_range(1),
    "augment.sized_crop_aspect": rules.positive_range(),
    "augment.erasing_probability": rules.within(0, 1),
    "stop.when": rules.one_of("never", "metric", "label_free", "auto"),
    "stop.signal": rules.one_of("last", "agreement", "silhouette", "selected"),
    "stop.patience": rules.at_least(1),
    "stop.min_rise": rules.at_least(0),
    "checkpoint.every_minutes": rules.at_least(0),
    "evaluation.batch_size": rules.at_least(1),
    "evaluation.num_probes": rules.at_least(0),
    "evaluation.metric": rules.one_of(*distances.METRICS),
    "evaluation.ap_method": rules.one_of(*evaluate.AP_METHODS),
} | {f"dynamics.{name}": rule for name, rule in choices.RULES.items()}


def check_config(config: ConfigDict, *, may_be_open: Collection[str] = ()) -> None:
    """Checks every field of a config, or of some sections of one.

    Args:
        config: the config.
        may_be_open: dotted names of fields that may be None, since they will be chosen by the data.

    Raises:
        UserError: a field breaks its rule; names it, the rule and the value.
    """
    for name, value in flat_fields(config.to_dict()).items():
        if value is None and name in may_be_open:
            continue
        for rule in (_FINITE, _RULES.get(name, _FINITE)):
            if not rules.is_kept(rule, value):
                raise errors.UserError(f"{name} must be {rule.text}, got {value!r}")
    if "stop" in config and config.stop.signal == "selected" and "selection" not in config:
        raise errors.UserError(
            "stop.signal must be 'last', 'agreement' or 'silhouette' where nothing is selected, got 'selected'"
        )
    if "train" in config and config.train.num_frames > 1 and not config.data.tracklets:
        raise errors.UserError(
            "train.num_frames must be 1 where samples are images (data.tracklets = false), got "
            f"{config.train.num_frames}"
        )


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
