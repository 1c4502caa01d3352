"""DBSCAN labels once per iteration: SpCL's unified memory (Ge et al. 2020), or Cluster Contrast's (Dai et al. 2021).

    --config=experiments/configs/dbscan.py:DATASET

What HCD compares its online labels with (Table 2), under the same training.
"""

import ml_collections

from reid_jax.experiments.configs import bank
from reid_jax.runs import base_config, settings


def get_config(dataset: str = "synthetic") -> ml_collections.ConfigDict:
    """Returns the baselines' config for one data set, the target."""
    config = base_config.base_config(dataset)
    bank.add_fields(config)
    # "unified": the last feature of every sample, outliers are classes of their own (SpCL); "cluster": one vector per cluster, outliers are left out (Cluster Contrast).
    config.memory.kind = "unified"
    config.memory.rule = "each"  # of "cluster": how a batch moves a vector, "each" | "hardest" | "mean"
    config.memory.cluster_momentum = 0.1  # the old vector's share, of "cluster" (its reference code)
    config.cluster = bank.cluster_fields()
    # Clusters count as reliable that are the same with eps - eps_gap and eps + eps_gap; 0: all do. None: SpCL's 0.02 with
    # "unified", 0 with "cluster".
    config.cluster.eps_gap = ml_collections.config_dict.placeholder(float)
    if config.data.dataset not in base_config.SMALL_DATASETS:
        config.cluster.k1 = 30  # SpCL's and Cluster Contrast's code; 20 is HCD's
    if dataset in base_config.OWN_DATASETS:
        settings.leave_open(config)
    return config
