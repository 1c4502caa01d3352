"""Distances between embeddings, nearest neighbours, the k-reciprocal Jaccard distance, re-ranking, dissimilarities."""

from reid_jax import lazy
from reid_jax.distances.blocks import by_row_blocks, by_symmetric_blocks, is_self, some_rows
from reid_jax.distances.neighbors import jaccard_distances, nearest_neighbors
from reid_jax.distances.pairwise import (
    METRICS,
    distance_blocks,
    pairwise_distances,
    prepare,
    prepared_distances,
)
from reid_jax.distances.reranking import Reranking, reranked_distances

__all__ = [
    "METRICS",
    "Reranking",
    "by_row_blocks",
    "by_symmetric_blocks",
    "distance_blocks",
    "is_self",
    "jaccard_distances",
    "nearest_neighbors",
    "pairwise_distances",
    "prepare",
    "prepared_distances",
    "reranked_distances",
    "some_rows",
]

__getattr__, __dir__ = lazy.attributes(__name__, loaded=__all__)
