"""The fields that BUC and softened similarity share: head, lookup table, schedule, augmentation."""

import ml_collections
from ml_collections import config_dict

from reid_jax.runs import base_config, settings


def add_training(config: ml_collections.ConfigDict) -> None:
    """Adds head, memory, loss, train and augment to a config from `base_config.base_config`."""
    dataset = config.data.dataset
    is_small, is_video = dataset in base_config.SMALL_DATASETS, dataset in base_config.VIDEO_DATASETS
    # BUC's code freezes the stem, layer1 and layer2 for video; random weights must all be trained.
    config.model.frozen_stages = 2 if is_video and not is_small else 0

    config.head = ml_collections.ConfigDict()
    # Of the embeddings that are trained; 0 = the backbone's (2,048 in the reference code).
    config.head.dim = 256 if is_small else 0
    config.head.dropout = 0.2 if is_small else 0.5  # BUC sec. 4.2

    config.memory = ml_collections.ConfigDict()
    config.memory.momentum = 0.5  # share of the old row: V_y <- (V_y + v) / 2 (BUC sec. 3.2)

    config.loss = ml_collections.ConfigDict()
    config.loss.temperature = 0.1  # tau (BUC eq. 2)

    config.train.batch_size = 32 if is_small and not is_video else 16  # samples (BUC sec. 4.2)
    config.train.num_frames = base_config.num_frames(dataset)  # drawn from each tracklet; 1 for images
    config.train.num_epochs = 5 if is_video else 2  # of every iteration but the first (BUC's reference code)
    config.train.optimizer = "sgd"  # "sgd" | "adam"
    config.train.learning_rate = 0.1  # until drop_epoch
    config.train.drop_epoch = 30 if is_small else 15  # of the first iteration (BUC sec. 4.2)
    config.train.later_learning_rate = 0.05 if is_small else 0.01  # from then on
    # Of the backbone's rate (reference code). Random weights need the whole: set 1 with --config.model.weights= .
    config.train.backbone_rate_factor = 0.1 if config.model.weights else 1.0
    config.train.momentum = 0.9
    config.train.nesterov = True  # reference code
    config.train.weight_decay = 5e-4  # reference code

    config.augment = ml_collections.ConfigDict()
    config.augment.preset = "person"  # what is on the images: "person" | "rigid" (vehicles, goods) | "shapes"
    config.augment.flip_probability = 0.5
    config.augment.sized_crop = True  # reference code
    config.augment.sized_crop_area = (0.64, 1.0)  # part of the image's area
    # Height / width of the crop; None: by the size that is found out.
    is_own = dataset in base_config.OWN_DATASETS
    aspect = None if is_own else settings.sized_crop_aspect(config.data.height, config.data.width)
    config.augment.sized_crop_aspect = aspect or config_dict.placeholder(tuple)
    config.augment.padding = 0  # pixels added on each side before cropping
    config.augment.erasing_probability = 0.5 if is_small else 0.0
