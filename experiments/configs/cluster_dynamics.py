"""HCD: online pseudo labels by hierarchical cluster dynamics (Zheng et al., ICCV 2021).

    --config=experiments/configs/cluster_dynamics.py:DATASET

Person data sets have the paper's values (section 5.1), and where the paper is silent its reference code's.
`synthetic` and `coil100` start from a small network on a CPU; docs/results.md says how their values were chosen.
"""

import ml_collections

from reid_jax.cluster_dynamics import choices
from reid_jax.experiments.configs import bank
from reid_jax.runs import base_config, settings


def get_config(dataset: str = "synthetic") -> ml_collections.ConfigDict:
    """Returns HCD's config for one data set, the target."""
    config = base_config.base_config(dataset)
    small = config.data.dataset in base_config.SMALL_DATASETS
    bank.add_fields(config)

    config.labels = ml_collections.ConfigDict()
    config.labels.init = "singletons"  # "singletons": every sample alone (sec. 4.1); "dbscan" (reference code)
    config.labels.num_levels = 3  # H (sec. 5.1)
    config.labels.interval = 0  # steps without a label update between two with one (Table 4)
    config.labels.warmup_steps = 0  # steps before the first label update; the reference code's with dbscan are 400
    # Steps from the first label update on, over which the similar samples of one rise from first_similar to
    # dynamics.num_similar; 0: they are those from the start.
    config.labels.similar_steps = 0
    config.labels.first_similar = 1.0

    config.train.sampling_level = 0  # the level by whose labels batches are drawn, 1..H; 0: the top one
    config.loss.levels = "top"  # whose labels eq. (1) has: "top", the last level's | "all", the mean over the levels
    # Whether clusters of one sample at a level are classes of its loss; if not, samples that are alone at the top level are
    # not drawn either, unless fewer than a batch are not alone.
    config.loss.singletons = True

    # Features of a small network's augmented images are noisy: labels are better by their mean over several views.
    config.memory.momentum = 0.8 if small else 0.2  # the old feature's share (sec. 5.1)
    # Embed all images anew, without augmentation, at an iteration's beginning.
    config.memory.refresh = small or dataset in base_config.OWN_DATASETS

    # How labels are updated: see reid_jax.dynamics_options.Options, whose defaults these are.
    config.dynamics = ml_collections.ConfigDict(choices.Options()._asdict())
    config.dynamics.min_similarity = ml_collections.config_dict.placeholder(float)  # None: by the features at hand
    if small:
        # Embeddings of a small network that has hardly learned lie close together: it takes a stricter affinity than
        # k = 30 (sec. 5.1) and the end of chance are.
        config.dynamics.k, config.dynamics.num_similar = 8, 15.0

    config.cluster = bank.cluster_fields()
    config.cluster.min_samples = 3  # reference code
    if dataset in base_config.OWN_DATASETS:
        settings.leave_open(config)
    return config
