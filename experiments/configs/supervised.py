"""Supervised baselines: true identities in place of pseudo labels (HCT Table 1, "Baseline"; an ID classifier).

    --config=experiments/configs/supervised.py:DATASET

The papers name the baseline's loss but not its schedule: the rates and lengths here are this project's.
"""

import ml_collections

from reid_jax.runs import base_config


def get_config(dataset: str = "synthetic") -> ml_collections.ConfigDict:
    """Returns the supervised baselines' config for one data set."""
    config = base_config.base_config(dataset)
    small = config.data.dataset in base_config.SMALL_DATASETS

    config.train.loss = "triplet"  # "triplet": batch-hard on PK batches; "classifier": cross-entropy over identities
    config.train.num_iterations = 4 if small else 6  # evaluations, evenly spaced over the training
    # Between two evaluations; an epoch shows every identity once ("triplet") or every image once ("classifier").
    config.train.num_epochs = 20 if small else 50
    config.train.num_ids = 16  # P: identities per batch
    config.train.num_instances = 4  # K: images per identity; "classifier" draws P x K images at random
    config.train.num_frames = base_config.num_frames(config.data.dataset)  # drawn from each tracklet; 1 for images
    config.train.optimizer = "sgd"  # "sgd" | "adam"
    config.train.learning_rate = 0.01
    config.train.drop_every = 60 if small else 200  # epochs after which the rate falls by drop_factor; 0: never
    config.train.drop_factor = 0.1
    config.train.momentum = 0.9
    config.train.weight_decay = 5e-4

    config.head = ml_collections.ConfigDict()
    config.head.dropout = 0.0  # before the classifier

    config.loss = ml_collections.ConfigDict()
    config.loss.margin = 0.5  # of the triplet loss
    config.loss.soft_margin = False  # softplus in place of the hinge
    config.loss.reduction = "mean"  # of the triplet loss: "mean" | "sum"
    config.loss.normalize = False  # L2-normalise embeddings before the triplet loss
    config.loss.label_smoothing = 0.0  # of the classifier, 0..1

    config.augment = ml_collections.ConfigDict()
    config.augment.preset = "person"  # what is on the images: "person" | "rigid" (vehicles, goods) | "shapes"
    config.augment.flip_probability = 0.5
    config.augment.padding = 5 if small else 10  # pixels added on each side before cropping
    config.augment.erasing_probability = 0.5
    return config
