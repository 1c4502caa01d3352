"""Merge steps: clusters united step by step, by average, single, complete or centroid linkage."""

from reid_jax import lazy
from reid_jax.linkage.cluster_distances import LINKAGES
from reid_jax.linkage.merge_steps import agglomerate

__all__ = ["LINKAGES", "agglomerate"]

__getattr__, __dir__ = lazy.attributes(__name__, loaded=__all__)
