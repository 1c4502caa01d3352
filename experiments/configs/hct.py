"""HCT: hierarchical clustering with hard-batch triplet loss (Zeng et al., CVPR 2020).

    --config=experiments/configs/hct.py:DATASET

Person data sets have the paper's values (section 4.2). `synthetic` and `coil100` start from random weights on a
CPU, where the paper's rate would learn nothing in minutes; docs/results.md says how theirs were chosen.
"""

import ml_collections

from reid_jax.runs import base_config, settings


def get_config(dataset: str = "synthetic") -> ml_collections.ConfigDict:
    """Returns HCT's config for one data set."""
    config = base_config.base_config(dataset)
    small = config.data.dataset in base_config.SMALL_DATASETS

    config.cluster = ml_collections.ConfigDict()
    config.cluster.merge_percent = 0.07  # mp: each step unites int(mp * N) pairs of clusters (Table 4)
    config.cluster.num_steps = 13  # s: merge steps per iteration (Table 3)
    config.cluster.linkage = "average"  # eq. (1); "average" | "single" | "complete" | "centroid"
    config.cluster.metric = "euclidean"  # sec. 3.2; "euclidean" | "sqeuclidean" | "cosine"
    config.cluster.normalize = False  # L2-normalise embeddings before the distances; the paper does not say so

    # Cluster-and-train rounds (sec. 4.2).
    config.train.num_iterations = {"synthetic": 16, "coil100": 12, "folder": 8}.get(config.data.dataset, 20)
    # Per iteration; an epoch shows every cluster once (Table 3). Crops of your own are trained on by a CPU.
    config.train.num_epochs = 8 if small else 4 if config.data.dataset == "folder" else 60
    config.train.num_ids = 16  # P: clusters per batch
    config.train.num_instances = 4  # K: images per cluster in a batch
    config.train.num_frames = base_config.num_frames(config.data.dataset)  # drawn from each tracklet; 1 for images
    config.train.optimizer = "sgd"  # "sgd" | "adam"
    config.train.learning_rate = 0.01 if small else 6e-5
    config.train.momentum = 0.9
    config.train.weight_decay = 5e-4

    config.loss = ml_collections.ConfigDict()
    config.loss.margin = 0.5  # eq. (2), in units of the embedding distance
    config.loss.soft_margin = False  # softplus in place of the hinge
    config.loss.reduction = "mean"  # "sum" is eq. (2) to the letter
    config.loss.normalize = False  # L2-normalise embeddings before the loss; the paper does not say so

    config.augment = ml_collections.ConfigDict()
    config.augment.preset = "person"  # what is on the images: "person" | "rigid" (vehicles, goods) | "shapes"
    config.augment.flip_probability = 0.5
    config.augment.padding = 5 if small else 10  # pixels added on each side before cropping
    config.augment.erasing_probability = 0.5

    config.stop = ml_collections.ConfigDict()
    # "never": all iterations, as the paper; "label_free": when the signal no longer rises; "auto": label_free where no
    # accuracy can be measured, never otherwise.
    config.stop.when = "auto"
    # Of label_free: "last", all iterations unless the model collapses; "agreement" (adjusted Rand index) | "silhouette".
    config.stop.signal = "last"
    config.stop.patience = 3  # iterations without a rise, or collapsed
    config.stop.min_rise = 0.005  # of the signal
    if dataset in base_config.OWN_DATASETS:
        settings.leave_open(config)
    return config
