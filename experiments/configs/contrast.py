"""The recommended method: contrast with clusters and cameras, by an average of the model.

    --config=experiments/configs/contrast.py:DATASET

Values for person data sets, of which none was at hand, are those of Cluster Contrast's, CAP's and ICE's code. Those of the
others were chosen on one seed of each.
"""

import ml_collections

from reid_jax.experiments.configs import bank
from reid_jax.runs import base_config, settings


def get_config(dataset: str = "synthetic") -> ml_collections.ConfigDict:
    """Returns the method's config for one data set."""
    config = base_config.base_config(dataset)
    bank.add_training(config)
    small = config.data.dataset in base_config.SMALL_DATASETS

    config.model.mirrored = True
    config.embedding.postprocess = "auto"
    own = dataset == "folder"
    config.train.average_decay = 0.995 if small or own else 0.999  # ICE, of 16,000 steps
    config.train.warmup_steps = 50 if small else 10 if own else 1000
    if small:
        config.train.num_iterations, config.train.drop_every = 24, 800
    if own:  # a few hundred images
        config.model.neck = "none"  # embeddings are whitened
        config.model.last_stride = 2  # as the weights were trained
        config.train.learning_rate = 2e-4

    config.memory = ml_collections.ConfigDict()
    config.memory.rule = "each"  # how a batch moves a vector: "each" | "hardest" | "mean" (Cluster Contrast)
    config.memory.cluster_momentum = 0.1  # of a cluster's vector, the old one's share (Cluster Contrast's code)
    config.memory.camera_momentum = 0.2  # of what a camera saw of a cluster (CAP)

    config.loss.camera_weight = 0.5  # of the term across cameras (CAP, ICE); 0: none
    config.loss.intra_camera_weight = 0.0  # of the term inside each camera, 1 in CAP; 0: none
    config.loss.camera_temperature = 0.07  # CAP, O2CAP
    config.loss.num_negatives = 50  # the vectors of other clusters that are most similar (CAP, O2CAP)
    config.loss.support_weight = 0.0  # of ISE's support samples, 1: as much as of the samples themselves; 0: none
    config.loss.consistency_weight = 0.0  # of a batch's samples against their support samples; 0.1 in ISE
    config.loss.support_steps = 28_000 if not (small or own) else 1200  # until they are moved furthest (ISE's run)

    config.cluster = bank.cluster_fields()
    config.cluster.eps_gap = 0.0  # SpCL: 0.02; 0: all clusters count as reliable
    if not small:
        config.cluster.k1 = 30  # SpCL's and Cluster Contrast's code
    if dataset in base_config.OWN_DATASETS:
        settings.leave_open(config)
    return config
