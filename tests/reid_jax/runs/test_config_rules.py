import math

import ml_collections
import pytest

from reid_jax import errors
from reid_jax.experiments.configs import (
    buc,
    cluster_dynamics,
    combine,
    contrast,
    dbscan,
    hct,
    pul,
    softened,
    supervised,
)
from reid_jax.runs import base_config, config_rules, settings

METHODS = (contrast, hct, supervised, buc, softened, pul, cluster_dynamics, dbscan, combine)
# Names, files and switches; a backbone is checked where it is built.
FREE = {
    *("data.dataset", "data.dir", "data.cache_dir", "data.tracklets", "model.backbone", "model.weights"),
    *(
        "model.checkpoint",
        "model.keep_batch_norm",
        "model.mirrored",
        "train.camera_groups",
        "cluster.normalize",
        "train.nesterov",
        "loss.soft_margin",
        "loss.normalize",
        "loss.singletons",
        "memory.reset",
        "augment.sized_crop",
    ),
    *("evaluation.baselines", "source.dataset", "source.dir", "dynamics.guarded", "dynamics.split", "memory.refresh"),
}


def test_every_methods_config_keeps_the_rules_and_every_rule_has_a_field():
    fields = set()
    for dataset in base_config.DATASETS:
        for method in METHODS:
            config = method.get_config(dataset)
            config_rules.check_config(config, may_be_open=settings.ALL_OPEN)
            if dataset not in base_config.OWN_DATASETS:  # nothing is open that a run would have to find out
                config_rules.check_config(config)
                assert config.data.height and config.data.width
            fields |= config_rules.flat_fields(config.to_dict()).keys()
    assert config_rules._RULES.keys() == fields - FREE


@pytest.mark.parametrize(
    "method,field,value,message",
    [
        (hct, "train.learning_rate", 0.0, "train.learning_rate must be greater than 0, got 0.0"),
        (hct, "train.learning_rate", math.nan, "train.learning_rate must be a finite number, got nan"),
        (hct, "train.momentum", 1.0, "train.momentum must be at least 0 and less than 1, got 1.0"),
        (hct, "train.weight_decay", math.inf, "train.weight_decay must be a finite number, got inf"),
        (hct, "train.optimizer", "sdg", "train.optimizer must be one of sgd, adam, got 'sdg'"),
        (hct, "data.height", -1, "data.height must be at least 0, got -1"),
        (hct, "data.images_per_identity", 1.0, "data.images_per_identity must be 0 or greater than 1, got 1.0"),
        (hct, "augment.preset", "persons", "augment.preset must be one of person, rigid, shapes, got 'persons'"),
        (hct, "model.normalization", "none", "model.normalization must be one of imagenet, half, clip, got 'none'"),
        (hct, "data.num_workers", -2, "data.num_workers must be at least -1, got -2"),
        (hct, "augment.flip_probability", 1.5, "augment.flip_probability must be in 0..1, got 1.5"),
        (hct, "augment.padding", -1, "augment.padding must be at least 0, got -1"),
        (hct, "loss.margin", -0.1, "loss.margin must be at least 0, got -0.1"),
        (cluster_dynamics, "loss.levels", "lowest", "loss.levels must be one of top, all, got 'lowest'"),
        (combine, "train.sampling_level", -1, "train.sampling_level must be at least 0, got -1"),
        (cluster_dynamics, "labels.first_similar", 0.0, "labels.first_similar must be greater than 0, got 0.0"),
        (combine, "labels.similar_steps", -1, "labels.similar_steps must be in 0..2147483646, got -1"),
        (buc, "augment.sized_crop_area", (0.5, 1.5), "augment.sized_crop_area must be two numbers (least, greatest)"),
        (buc, "augment.sized_crop_area", (0.9, 0.5), "greater than 0, in order, at most 1, got (0.9, 0.5)"),
        (buc, "augment.sized_crop_aspect", (0.0, 2.0), "augment.sized_crop_aspect must be two numbers"),
        (buc, "augment.sized_crop_aspect", (math.nan, 2.0), "augment.sized_crop_aspect must be two numbers"),
        (buc, "augment.sized_crop_aspect", ("a", "b"), "augment.sized_crop_aspect must be two numbers"),
        (buc, "augment.sized_crop_aspect", (2.0, math.inf), "augment.sized_crop_aspect must be two numbers"),
        (buc, "augment.sized_crop_aspect", (2.0,), "augment.sized_crop_aspect must be two numbers"),
        (buc, "model.last_stride", 3, "model.last_stride must be 1 or 2, got 3"),
        (buc, "model.stem", "imagnet", "model.stem must be one of imagenet, cifar, got 'imagnet'"),
        (buc, "model.dtype", "fp16", "model.dtype must be one of float32, bfloat16, got 'fp16'"),
        (buc, "num_devices", -3, "num_devices must be at least 0, got -3"),
        (buc, "cluster.merge_percent", 1.0, "cluster.merge_percent must be greater than 0 and less than 1, got 1.0"),
        (
            hct,
            "stop.signal",
            "selected",
            "stop.signal must be 'last', 'agreement' or 'silhouette' where nothing is selected",
        ),
        (hct, "cluster.num_steps", 0, "cluster.num_steps must be at least 1, got 0"),
        (
            hct,
            "train.num_frames",
            4,
            "train.num_frames must be 1 where samples are images (data.tracklets = false), got 4",
        ),
        (softened, "dissimilarity.num_reliable", 0, "dissimilarity.num_reliable must be at least 1, got 0"),
        (buc, "model.pooling", "max", "model.pooling must be one of auto, avg, gem, token, got 'max'"),
        (softened, "loss.own_weight", 1.1, "loss.own_weight must be in 0..1, got 1.1"),
        (softened, "dissimilarity.num_parts", 0, "dissimilarity.num_parts must be at least 1, got 0"),
        (supervised, "train.loss", "triplets", "train.loss must be one of triplet, classifier, got 'triplets'"),
        (supervised, "loss.label_smoothing", 2.0, "loss.label_smoothing must be in 0..1, got 2.0"),
    ],
)
def test_a_field_that_breaks_its_rule_is_named(method, field, value, message):
    config = method.get_config("synthetic")
    config.update_from_flattened_dict({field: value})
    with pytest.raises(errors.UserError) as caught:
        config_rules.check_config(config)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "method,values",
    [
        (hct, {"train.momentum": 0.0, "train.weight_decay": 0.0, "augment.flip_probability": 1.0, "loss.margin": 0.0}),
        (
            hct,
            {
                "data.cache_gib": 0.0,
                "data.num_workers": 0,
                "checkpoint.every_minutes": 0.0,
                "cluster.linkage": "centroid",
            },
        ),
        (buc, {"train.backbone_rate_factor": 0.0, "train.drop_epoch": 0, "head.dropout": 0.0, "memory.momentum": 1.0}),
        (buc, {"augment.sized_crop_area": [1.0, 1.0], "dissimilarity.part_weight": 1.0, "model.bn_group_size": 4}),
        (softened, {"loss.own_weight": 1.0, "dissimilarity.camera_penalty": 0.0, "stop.min_rise": 0.0}),
        (supervised, {"train.drop_every": 0, "loss.label_smoothing": 0.1, "train.num_instances": 1}),
    ],
)
def test_values_at_the_rules_ends_are_taken(method, values):
    config = method.get_config("synthetic")
    config.update_from_flattened_dict(values)
    config_rules.check_config(config)


def test_fields_of_own_crops_may_be_open_until_they_are_fitted():
    config = hct.get_config("folder")
    config_rules.check_config(config, may_be_open=settings.ALL_OPEN)
    with pytest.raises(errors.UserError, match="cluster.num_steps must be at least 1, got None"):
        config_rules.check_config(config)
    with config.ignore_type():
        config.train.num_epochs = None  # nothing follows from the images for it
    with pytest.raises(errors.UserError, match="train.num_epochs must be at least 1, got None"):
        config_rules.check_config(config, may_be_open=settings.ALL_OPEN)


@pytest.mark.parametrize("value", [None, "3", (1,)])
def test_a_value_of_another_type_breaks_the_rule(value):
    config = hct.get_config("synthetic").to_dict()
    config["train"]["num_epochs"] = value
    with pytest.raises(errors.UserError, match="train.num_epochs must be at least 1, got "):
        config_rules.check_config(ml_collections.ConfigDict(config))
