"""Merge steps: clusters united step by step, by average, single, complete or centroid linkage."""

from reid_jax.linkage.cluster_distances import LINKAGES
from reid_jax.linkage.merge_steps import agglomerate

__all__ = ["LINKAGES", "agglomerate"]
