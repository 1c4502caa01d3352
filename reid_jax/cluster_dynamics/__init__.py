"""The hierarchical label bank: online pseudo labels by splitting and merging clusters (HCD, section 4)."""

from reid_jax import lazy
from reid_jax.cluster_dynamics.bank import (
    LabelBank,
    init_label_bank,
    label_bank_from,
    preserves_clusters,
    update_label_bank,
)
from reid_jax.cluster_dynamics.choices import Options, check_options

__all__ = [
    "LabelBank",
    "Options",
    "check_options",
    "init_label_bank",
    "label_bank_from",
    "preserves_clusters",
    "update_label_bank",
]

__getattr__, __dir__ = lazy.attributes(__name__, loaded=__all__)
