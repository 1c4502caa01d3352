"""PUL: progressive unsupervised learning (Fan et al., 2017).

    --config=experiments/configs/pul.py:DATASET

Person data sets have the paper's values (section IV-B), and where the paper is silent its reference code's.
`synthetic` and `coil100` start from a small network on a CPU; docs/results.md says how their values were chosen.
"""

import ml_collections
from ml_collections import config_dict

from reid_jax.runs import base_config, settings

# The paper's sources, and the number of clusters (section IV-C).
_SOURCES = {
    "market1501": "dukemtmcreid",
    "dukemtmcreid": "market1501",
    "cuhk03": "market1501",
    "cuhk03_detected": "market1501",
    "cuhk03_labelled": "market1501",
    "synthetic": "synthetic_source",
    "coil100": "synthetic_source",
}
_NUM_CLUSTERS = {"dukemtmcreid": 700, "synthetic": 64, "synthetic_video": 64, "coil100": 50}
_SMALL_EPOCHS = {"coil100": 3}  # it has 3.5 times as many images as the synthetic data sets


def get_config(dataset: str = "synthetic") -> ml_collections.ConfigDict:
    """Returns PUL's config for one data set, the target."""
    config = base_config.base_config(dataset)
    small = config.data.dataset in base_config.SMALL_DATASETS
    is_own = dataset in base_config.OWN_DATASETS
    if not small and not is_own:
        config.data.height, config.data.width = 224, 224  # sec. IV-B

    config.source = ml_collections.ConfigDict()
    # The labelled data set that the original model is trained on, or several joined by "+", where model.checkpoint
    # gives no model; empty: the original model has model.weights alone.
    config.source.dataset = _SOURCES.get(config.data.dataset, "")
    config.source.num_epochs = 40  # sec. IV-C
    config.source.dir = ""  # where the run directories of such trainings are; empty: beside the run's own

    config.cluster = ml_collections.ConfigDict()
    config.cluster.num_clusters = _NUM_CLUSTERS.get(config.data.dataset, 750)  # K (sec. IV-C)
    config.cluster.max_iterations = 300  # of k-means (sec. IV-B)
    config.cluster.num_init = 1  # k-means++ seedings, of which the best counts
    config.cluster.normalize = False  # "l2 normalization in clustering yields inferior results" (sec. IV-B)

    config.selection = ml_collections.ConfigDict()
    # lambda, the cosine similarity to the centre that a sample must exceed: sec. IV-C; embeddings of the small network
    # lie closer together.
    config.selection.threshold = 0.95 if small else 0.85
    # "own": its own cluster's centre (eq. 2); "any": any cluster's (reference code); "none": all samples (Table III).
    config.selection.compared = "own"
    config.selection.num_labelled_ids = 0  # L, identities whose labels are known: 25, 50 in Table IV

    config.head = ml_collections.ConfigDict()
    config.head.dropout = 0.5  # before the classifier (sec. IV-B)

    is_quick = small or dataset == "folder"  # a CPU is to do it
    config.train.num_iterations = 8 if is_quick else 25  # at most (sec. IV-D)
    # Of each iteration's fine-tuning (sec. IV-B).
    config.train.num_epochs = _SMALL_EPOCHS.get(config.data.dataset, 5) if is_quick else 20
    config.train.batch_size = 16  # sec. IV-B
    config.train.num_frames = base_config.num_frames(config.data.dataset)  # drawn from each tracklet; 1 for images
    config.train.optimizer = "sgd"  # "sgd" | "adam"
    config.train.learning_rate = 0.01 if small else 0.001  # sec. IV-B
    config.train.momentum = 0.9  # sec. IV-B
    config.train.weight_decay = 0.0  # the paper names none

    config.augment = ml_collections.ConfigDict()
    config.augment.preset = "person"  # what is on the images: "person" | "rigid" (vehicles, goods) | "shapes"
    config.augment.flip_probability = 0.0  # reference code
    config.augment.max_degrees = 20.0  # greatest rotation either way (sec. IV-B)
    # 45 of 224 pixels (sec. IV-B); None: by the width that is found out.
    config.augment.max_shift = config_dict.placeholder(float) if is_own else settings.max_shift(config.data.width)
    config.augment.erasing_probability = 0.0

    config.stop = ml_collections.ConfigDict()
    # "label_free": when the number selected is saturated (sec. III-B); "never": all iterations, as in the paper's
    # figures; "metric": when mAP falls; "auto": label_free where no accuracy can be measured.
    config.stop.when = "label_free"
    config.stop.signal = "selected"  # of label_free: "selected", the share of samples, or "agreement"
    config.stop.patience = 3 if small else 5  # iterations
    # The share selected is saturated when it moved less in them; shares of few images vary more.
    config.stop.min_rise = 0.05 if small else 0.02
    if dataset in base_config.OWN_DATASETS:
        settings.leave_open(config)
    return config
