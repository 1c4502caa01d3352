"""The fields that every method's config has, by data set: data, model, training, evaluation, run."""

import ml_collections

from reid_jax import postprocess

# Person crops with ImageNet weights: the papers' setting. "folder": crops of your own, from a pretrained start that a
# CPU can train.
PERSON_DATASETS = (
    "market1501",
    "dukemtmcreid",
    "cuhk03",
    "cuhk03_detected",
    "cuhk03_labelled",
    "msmt17",
    "folder",
)
# One sample is a tracklet of frames.
VIDEO_DATASETS = ("mars", "dukemtmc_videoreid", "synthetic_video")
# Trained from random weights on a CPU within minutes. "folder_small": crops of your own, to try the tools on.
SMALL_DATASETS = ("synthetic", "coil100", "synthetic_video", "folder_small")
CIFAR10 = "cifar10"  # images of 10 classes (BUC sec. 4.6)
DATASETS = tuple(dict.fromkeys((*SMALL_DATASETS, *PERSON_DATASETS, *VIDEO_DATASETS, CIFAR10)))
# Crops of your own: what depends on them is found out (`settings.py`) unless it is given.
OWN_DATASETS = ("folder", "folder_small")
FOLDER_WEIGHTS = "mobilenet_v2"  # of "folder"
# What augment.preset sets of the other fields. Mirror images of people are likely; a part that is erased tells rigid
# things apart, such as vehicles; of shapes, mirror images are other shapes.
PRESETS = {
    "person": {},
    "rigid": {"erasing_probability": 0.0},
    "shapes": {"flip_probability": 0.0, "erasing_probability": 0.0},
}
_SIZES = dict.fromkeys(SMALL_DATASETS, (128, 64)) | {"coil100": (64, 64), CIFAR10: (32, 32)}


def base_config(dataset: str) -> ml_collections.ConfigDict:
    """Returns the shared fields for one data set.

    Raises:
        ValueError: no config for that data set.
    """
    if dataset not in DATASETS:
        raise ValueError(
            f"no config for data set {dataset!r}; choose one of {', '.join(DATASETS)}; a data set of your own takes "
            f"folder's or folder_small's, with data.dataset={dataset}"
        )
    config = ml_collections.ConfigDict()
    config.seed = 0  # fixes the whole run: weights, sampling, augmentation
    config.num_devices = 0  # devices the batch is split over; 0 = all. The result does not depend on it
    config.data = _data_config(dataset)
    config.model = _model_config(dataset)
    config.embedding = ml_collections.ConfigDict()
    # What is done with embeddings before they are clustered, remembered and ranked, fitted to the training images without
    # labels, anew after every iteration: "none" | "center" | "camera_center" | "pca_whiten" | "camera_whiten"; "auto":
    # whitening for published weights, else centring, per camera where these are known.
    config.embedding.postprocess = "none"
    config.embedding.shrinkage = postprocess.SHRINKAGE  # of whitening: see reid_jax.postprocess.fit
    config.train = _train_config()
    config.evaluation = ml_collections.ConfigDict()
    config.evaluation.batch_size = 256  # images embedded at a time, on all devices together
    config.evaluation.metric = "cosine"  # HCT sec. 4.2; "euclidean" | "sqeuclidean" | "cosine"
    config.evaluation.ap_method = "step"  # "trapezoid": old scikit-learn's, as BUC's code uses
    # Before training, what needs none is measured: colours, and the start with label-free post-processing.
    config.evaluation.baselines = True
    # After every iteration, of so many training samples it is measured without labels whether the model knows an
    # augmented copy again (`recognition` in metrics.jsonl); 0: not.
    config.evaluation.num_probes = 1000
    config.checkpoint = ml_collections.ConfigDict()
    config.checkpoint.every_minutes = 10.0  # inside an iteration; there is one after every iteration anyway
    return config


def num_frames(dataset: str) -> int:
    """Frames drawn from each training tracklet: 16 in BUC's code, fewer of the short synthetic ones; 1 for images."""
    if dataset not in VIDEO_DATASETS:
        return 1
    return 2 if dataset in SMALL_DATASETS else 16


def _data_config(dataset: str) -> ml_collections.ConfigDict:
    data = ml_collections.ConfigDict()
    data.dataset = dataset  # the prepared data set's name (data_prep/prepare.py --name)
    data.dir = "data"  # where data_prep/prepare.py put it (--data_dir)
    height, width = _SIZES.get(dataset, (256, 128))
    data.height, data.width = (0, 0) if dataset in OWN_DATASETS else (height, width)  # pixels; 0: see num_pixels
    data.num_pixels = height * width  # about, where height or width is 0 and found out from the crops' median shape
    # A rough guess of how many images there are of each identity, from which fields follow that are left open (None);
    # 0: estimated without labels where one is open.
    data.images_per_identity = 0.0
    data.tracklets = dataset in VIDEO_DATASETS  # a sample is a tracklet of frames, not an image
    data.max_frames = 900  # of longer tracklets so many are used, evenly spaced (BUC's code)
    data.cache_dir = ""  # decoded images; empty: the folder cache in data.dir
    data.cache_gib = 16.0  # a split that needs more than this decoded is streamed from its files instead
    data.num_workers = -1  # processes that decode; -1: one per core for large splits, none for small ones
    return data


def _train_config() -> ml_collections.ConfigDict:
    """What no paper of the five has: each method's config adds its own fields."""
    train = ml_collections.ConfigDict()
    # Labels, ranking and what is kept are of a moving average of the model, which keeps this much of itself at a step;
    # 0: of the model as the last step left it.
    train.average_decay = 0.0
    # The first steps of an optimizer, over which the rate rises from 0; BUC, SSL and PUL begin a new one in each iteration.
    train.warmup_steps = 0
    train.layer_decay = 1.0  # the rate of a backbone's stage, against that of the stage after it
    return train


def _model_config(dataset: str) -> ml_collections.ConfigDict:
    small, cifar, own = dataset in SMALL_DATASETS, dataset == CIFAR10, dataset == "folder"
    model = ml_collections.ConfigDict()
    # One of `reid weights list`'s architectures, such as "resnet50" or "mobilenet_v2", or "module:Class". Weights that
    # are given by their name decide it.
    model.backbone = FOLDER_WEIGHTS if own else "resnet18" if small or cifar else "resnet50"
    model.width = 16 if small else 64  # of ResNets: channels of the first stage; 64 as published
    # Of ResNets and MobileNetV2. 1 keeps the last feature map of small images large enough for CPUs; the papers are
    # silent, 2 as published.
    model.last_stride = 1 if small else 2
    model.stem = (
        "cifar" if cifar else "imagenet"
    )  # of ResNets; "cifar": 3x3 convolution without pooling, for tiny images
    model.frozen_stages = 0  # 2: the stem and the first two stages stay as the weights have them
    model.pooling = "auto"  # "avg" | "gem" | "token", a transformer's own; "auto": as the backbone's publication
    model.normalization = "imagenet"  # of the pixels: "imagenet" | "half" | "clip"; weights given by name decide it
    model.neck = "none"  # "bn": a batch norm of the pooled feature, which centres it (Luo et al. 2019)
    # Outside training, features are the mean of those of an image and of its mirror image: twice the time for them.
    model.mirrored = False
    # Whether the backbone's batch norms keep the statistics of the weights, in training as well: those of a few hundred
    # images are worse, and the first steps would lose what the weights know. From random weights there are none to keep.
    model.keep_batch_norm = own
    model.bn_group_size = 0  # images per batch-norm group; 0 = the whole batch. 16 imitates 4 cards at batch 64
    model.dtype = "float32"  # of the activations: "float32" | "bfloat16"; everything else stays float32
    # A name of `reid weights list`, a file of torch's or of data_prep/port_resnet.py, or empty: random.
    model.weights = FOLDER_WEIGHTS if own else "" if small or cifar else f"weights/{model.backbone}.npz"
    model.checkpoint = ""  # a run directory to start from, in place of weights
    return model
