"""The fields that every method's config has, by data set: data, model, evaluation, run."""

import ml_collections

# Person crops with ImageNet weights: the papers' setting.
PERSON_DATASETS = (
    "market1501",
    "dukemtmcreid",
    "cuhk03",
    "cuhk03_detected",
    "cuhk03_labelled",
    "msmt17",
    "folder",
)
# Trained from random weights on a CPU within minutes.
SMALL_DATASETS = ("synthetic", "coil100")
DATASETS = SMALL_DATASETS + PERSON_DATASETS


def base_config(dataset: str) -> ml_collections.ConfigDict:
    """Returns the shared fields for one data set.

    Raises:
        ValueError: no config for that data set.
    """
    if dataset not in DATASETS:
        raise ValueError(f"no config for data set {dataset!r}; choose one of {', '.join(DATASETS)}")
    config = ml_collections.ConfigDict()
    config.seed = 0  # fixes the whole run: weights, sampling, augmentation
    config.num_devices = 0  # devices the batch is split over; 0 = all. The result does not depend on it
    config.data = _data_config(dataset)
    config.model = _model_config(dataset)
    config.evaluation = ml_collections.ConfigDict()
    config.evaluation.batch_size = 256  # images embedded at a time, on all devices together
    config.evaluation.metric = "cosine"  # HCT sec. 4.2; "euclidean" | "sqeuclidean" | "cosine"
    config.evaluation.ap_method = "step"  # "trapezoid": old scikit-learn's, as BUC's code uses
    config.checkpoint = ml_collections.ConfigDict()
    config.checkpoint.every_minutes = 10.0  # inside an iteration; there is one after every iteration anyway
    return config


def _data_config(dataset: str) -> ml_collections.ConfigDict:
    data = ml_collections.ConfigDict()
    data.dataset = dataset  # the prepared data set's name (data_prep/prepare.py --name)
    data.dir = "data"  # where data_prep/prepare.py put it (--data_dir)
    data.height, data.width = {"synthetic": (128, 64), "coil100": (64, 64)}.get(dataset, (256, 128))  # pixels
    data.cache_dir = ""  # decoded images; empty: the folder cache in data.dir
    data.cache_gib = 16.0  # a split that needs more than this decoded is streamed from its files instead
    data.num_workers = -1  # processes that decode; -1: one per core for large splits, none for small ones
    return data


def _model_config(dataset: str) -> ml_collections.ConfigDict:
    small = dataset in SMALL_DATASETS
    model = ml_collections.ConfigDict()
    model.backbone = "resnet18" if small else "resnet50"  # "resnet18" | "resnet34" | "resnet50" | "module:Class"
    model.width = 16 if small else 64  # channels of the first stage; 64 as published
    # 1 keeps the last feature map of small images large enough for CPUs; the papers are silent, 2 as published.
    model.last_stride = 1 if small else 2
    model.pooling = "avg"  # "avg" | "gem"
    model.bn_group_size = 0  # images per batch-norm group; 0 = the whole batch. 16 imitates 4 cards at batch 64
    model.dtype = "float32"  # of the activations: "float32" | "bfloat16"; everything else stays float32
    model.weights = "" if small else f"weights/{model.backbone}.npz"  # data_prep/port_resnet.py; empty: random
    model.checkpoint = ""  # a run directory to start from, in place of weights
    return model
