"""The fields that the methods with a feature bank have in common: HCD, its DBSCAN baselines, and contrast."""

import ml_collections

from reid_jax.runs import base_config


def add_fields(config: ml_collections.ConfigDict) -> None:
    """Adds source, memory, train, loss, augment and stop, and the model's neck."""
    config.source = ml_collections.ConfigDict()
    # A labelled data set that is learned together with the target ("adaptive"), or several joined by "+"; empty:
    # unsupervised.
    config.source.dataset = ""
    add_training(config)
    config.memory = ml_collections.ConfigDict()
    config.memory.momentum = 0.2  # the old feature's share (HCD sec. 5.1, SpCL)


def add_training(config: ml_collections.ConfigDict) -> None:
    """Adds train, loss, augment and stop, and the model's neck."""
    small = config.data.dataset in base_config.SMALL_DATASETS
    config.model.neck = "bn"  # the embeddings are those after it (reference code)
    if not small:
        config.model.last_stride = 1  # reference code

    # The loss is of post-processed embeddings, too, which that of no other method is.
    config.embedding.postprocess = "auto" if config.data.dataset in base_config.OWN_DATASETS else "none"

    is_own = config.data.dataset == "folder"  # a CPU is to do it
    # Evaluations; 60 of 4 x 100 steps are the paper's 24,000.
    config.train.num_iterations = 16 if small else 8 if is_own else 60
    # Epochs of an iteration: batches are drawn by the labels at an epoch's beginning; a checkpoint may follow each.
    config.train.num_epochs = 1 if small or is_own else 4
    config.train.num_steps = 50 if small else 100  # of each epoch
    config.train.num_ids = 16  # P: clusters per batch, fewer images than P x K where clusters are small
    config.train.num_instances = 4  # K: images per cluster in a batch, at most; as many of the source again
    # Each batch-norm group (model.bn_group_size) is of one camera (camera-based batch norm, Zhuang et al. 2020).
    config.train.camera_groups = False
    config.train.num_frames = base_config.num_frames(config.data.dataset)  # drawn from each tracklet; 1 for images
    config.train.optimizer = "adam"  # sec. 5.1; "sgd" | "adam"
    config.train.learning_rate = 1e-3 if small else 3.5e-4  # sec. 5.1
    config.train.drop_every = 0 if small else 8000  # steps after which the rate is multiplied by 0.1
    config.train.drop_factor = 0.1
    config.train.momentum = 0.9  # of sgd
    config.train.weight_decay = 5e-4  # added to the gradient, as torch's Adam does

    config.loss = ml_collections.ConfigDict()
    config.loss.temperature = 0.05  # tau of eq. (1)

    config.augment = ml_collections.ConfigDict()
    config.augment.preset = "person"  # what is on the images: "person" | "rigid" (vehicles, goods) | "shapes"
    config.augment.flip_probability = 0.5
    config.augment.padding = 5 if small else 10  # pixels added on each side before cropping
    config.augment.erasing_probability = 0.5  # with the mean pixel

    config.stop = ml_collections.ConfigDict()
    # "never": all iterations; "label_free": when the signal no longer rises; "auto": label_free where no accuracy can be measured, never otherwise.
    config.stop.when = "auto"
    # Of label_free: "last", all iterations unless the model collapses; "agreement", the adjusted Rand index.
    config.stop.signal = "last"
    config.stop.patience = 5  # iterations without a rise
    config.stop.min_rise = 0.005  # of the signal


def cluster_fields() -> ml_collections.ConfigDict:
    """Returns the fields of DBSCAN on the k-reciprocal Jaccard distance."""
    cluster = ml_collections.ConfigDict()
    cluster.eps = 0.6  # greatest Jaccard distance of neighbours
    cluster.min_samples = 4  # neighbours of a core sample, itself included; others are left alone
    cluster.k1 = 20  # k-reciprocal nearest neighbours
    cluster.k2 = 6  # neighbours averaged over
    return cluster
