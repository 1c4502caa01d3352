"""Any labels with any loss.

    --config=experiments/configs/combine.py:DATASET

The fields of labellers and losses that are not chosen have no effect. Person data sets have the papers' values.
"""

import ml_collections

from reid_jax import cluster_dynamics
from reid_jax.experiments.configs import bank, hct
from reid_jax.runs import base_config, settings


def get_config(dataset: str = "synthetic") -> ml_collections.ConfigDict:
    """Returns the config for one data set."""
    config = base_config.base_config(dataset)
    small = config.data.dataset in base_config.SMALL_DATASETS
    bank.add_fields(config)

    config.labels = ml_collections.ConfigDict()
    # Where pseudo labels come from: "hct" | "buc" | "dbscan" | "kmeans" once per iteration, "cluster_dynamics" every step.
    config.labels.method = "dbscan"
    config.labels.init = "singletons"  # of cluster_dynamics, as the five below: see configs/cluster_dynamics.py
    config.labels.num_levels = 3
    config.labels.interval = 0
    config.labels.warmup_steps = 0
    config.labels.similar_steps = 0
    config.labels.first_similar = 1.0
    config.train.sampling_level = 0  # of cluster_dynamics: of which level batches are drawn; 0: the top one

    # What is trained on them: "triplet" | "classifier" | "repelled" | "unified" | "cluster" memory.
    config.loss.kind = "triplet"
    config.loss.margin = 0.5  # of triplet (HCT eq. 2)
    config.loss.soft_margin = False  # of triplet: softplus in place of the hinge
    config.loss.reduction = "mean"  # of triplet: "mean" | "sum"
    config.loss.normalize = False  # of triplet: of L2-normalised embeddings
    config.loss.levels = "top"  # of unified with cluster_dynamics: "top" | "all"
    config.loss.singletons = True  # of cluster_dynamics: clusters of one are drawn, and are classes of unified

    config.cluster = hct.get_config(dataset).cluster  # of hct; linkage and merge_percent of buc, too
    config.cluster.size_penalty = 0.003  # of buc: lambda (BUC eq. 6)
    config.cluster.update(bank.cluster_fields())  # of dbscan
    config.cluster.eps_gap = 0.0  # of dbscan; SpCL: 0.02
    config.cluster.num_clusters = 64 if small else 750  # of kmeans: K (PUL sec. IV-C)
    config.cluster.max_iterations = 300  # of kmeans
    config.cluster.num_init = 1  # of kmeans

    config.selection = ml_collections.ConfigDict()  # of kmeans
    config.selection.threshold = 0.95 if small else 0.85  # lambda, the cosine to the centre (PUL eq. 2)
    config.selection.compared = "none"  # "own" | "any" | "none": all samples, as the other labellers

    config.head = ml_collections.ConfigDict()
    config.head.dim = 256 if small else 0  # of repelled: the embeddings that are trained; 0: the backbone's
    config.head.dropout = 0.2 if small else 0.5  # of repelled and classifier

    config.memory.momentum = 0.5  # the old row's share: 0.5 of repelled (BUC), 0.2 of unified (SpCL) and HCD
    config.memory.cluster_momentum = 0.1  # of cluster: the old vector's share
    # Of cluster_dynamics: embed all images anew at an iteration's beginning.
    config.memory.refresh = small or dataset in base_config.OWN_DATASETS

    config.dynamics = ml_collections.ConfigDict(cluster_dynamics.Options()._asdict())  # of cluster_dynamics
    config.dynamics.min_similarity = ml_collections.config_dict.placeholder(float)
    if small:
        config.dynamics.k, config.dynamics.num_similar = 8, 15.0
    if dataset in base_config.OWN_DATASETS:
        settings.leave_open(config)
    return config
