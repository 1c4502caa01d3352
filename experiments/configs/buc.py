"""BUC: bottom-up clustering (Lin et al., AAAI 2019).

    --config=experiments/configs/buc.py:DATASET

Person data sets have the paper's values (section 4.2), and where the paper is silent its reference code's.
`synthetic`, `synthetic_video` and `coil100` start from random weights on a CPU; docs/results.md says how theirs were
chosen.
"""

import ml_collections
from ml_collections import config_dict

from reid_jax.experiments.configs import lookup
from reid_jax.runs import base_config, settings


def get_config(dataset: str = "synthetic") -> ml_collections.ConfigDict:
    """Returns BUC's config for one data set."""
    config = base_config.base_config(dataset)
    lookup.add_training(config)
    is_small = config.data.dataset in base_config.SMALL_DATASETS
    is_video = config.data.dataset in base_config.VIDEO_DATASETS

    config.train.num_iterations = 10 if is_small else 20  # stages at most: 1 and then one per merge
    # Of stage 0, every sample a class of its own (sec. 4.2).
    config.train.first_epochs = 8 if dataset == "folder" else 20 if not is_small else 30 if is_video else 10

    config.cluster = ml_collections.ConfigDict()
    config.cluster.merge_percent = 0.1 if is_small else 0.05  # mp: a stage unites int(mp * N) pairs (sec. 4.2)
    # Table 3: "single" (minimum), "complete" (maximum), "centroid"; or "average".
    config.cluster.linkage = "single"
    config.cluster.size_penalty = 0.003  # lambda of the diversity regularisation (eq. 6, Fig. 3a)

    config.dissimilarity = ml_collections.ConfigDict()
    # d of eq. (4), of L2-normalised embeddings; "sqeuclidean" is what the reference code adds lambda to.
    config.dissimilarity.metric = "euclidean"
    config.dissimilarity.part_weight = 0.0  # lambda_p of SSL's part term (SSL Table 3: 0.5)
    # Horizontal stripes; they divide the feature map's height, 4 for square images.
    config.dissimilarity.num_parts = 4 if config.data.dataset in ("coil100", base_config.CIFAR10) else 8
    if dataset in base_config.OWN_DATASETS:  # None: by the size that is found out
        config.dissimilarity.num_parts = config_dict.placeholder(int)
    config.dissimilarity.camera_penalty = 0.0  # lambda_c of SSL's cross-camera term (SSL Table 3: 0.02)

    config.stop = ml_collections.ConfigDict()
    # "metric": when mAP falls (sec. 3.2), as "label_free" where no accuracy can be measured; "label_free": when the
    # signal no longer rises; "never": all stages.
    config.stop.when = "metric"
    # Of label_free: "last", all stages unless the model collapses; "silhouette" | "agreement", which merging keeps high.
    config.stop.signal = "last"
    config.stop.patience = 1 if not is_small else 4  # stages without a rise
    config.stop.min_rise = 0.005  # of the signal
    if dataset in base_config.OWN_DATASETS:
        settings.leave_open(config, stages=True)
    return config
