"""Re-ranking: distances of queries to a gallery that also count whom both are near to, block after block.

Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017.
"""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from reid_jax.distances import k_reciprocal
from reid_jax.distances.blocks import is_self, some_rows
from reid_jax.distances.pairwise import METRICS, prepare, prepared_distances
from reid_jax.progress import ProgressBar

# Rows and columns whose distances are computed and searched at a time: as many as stay in a CPU's cache. Whole rows of
# 100,000 columns take twice the time.
_TILE = (256, 1024)
# The differences of two such rows have squares whose sum is still a finite float32.
_LARGEST_SQUARE = np.finfo(np.float32).max / 4


class Reranking(NamedTuple):
    """How a ranking is made anew; the defaults are the paper's.

    Attributes:
        k1: how many nearest others can be k-reciprocal, 1..Q+G-1.
        k2: over how many nearest, the row itself being one, the encodings are averaged, 1..k1+1; 1: they are not.
        original_weight: the original distance's part in the sum, 0..1; the Jaccard distance has the rest (lambda).
    """

    k1: int = 20
    k2: int = 6
    original_weight: float = 0.3

    def within(self, num_rows: int) -> "Reranking":
        """Returns it with the largest k1 and k2 up to its own that so few rows, Q + G >= 2, allow."""
        k1 = min(self.k1, num_rows - 1)
        return self._replace(k1=k1, k2=min(self.k2, k1 + 1))


def reranked_distances(
    query: np.ndarray | jax.Array,
    gallery: np.ndarray | jax.Array,
    *,
    k1: int = 20,
    k2: int = 6,
    original_weight: float = 0.3,
    metric: str = "cosine",
    block_size: int = 512,
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (1 - w) * Jaccard distance + w * original distance (eq. (12)) in blocks of queries, w = original_weight.

    Neighbours are looked for among queries and gallery together, N = Q + G rows, so that a query's distances also
    depend on the other queries; a row that is in both is there twice. All N x N distances are computed for it, but only
    a block of them is held at a time, and the neighbourhoods, which are sparse.

    Where the paper leaves it open, the published code (python-version/re_ranking_ranklist.py) decides:
      - The original distance is the squared Euclidean one, divided by the largest of its query to any of the N rows.
      - The weights of a neighbourhood's members (eq. (7)) are exp(-d), d being divided in the same way, by the largest
        of the row whose neighbourhood it is. `k_reciprocal.jaccard_from_neighbors` does not divide.
      - A member's half-sized neighbourhood is added where more than two thirds of it are in common, not just as many.
    That code takes whatever distances it is given; here they are of L2-normalised rows unless `metric` says otherwise.

    Args:
        query: [Q, D] float.
        gallery: [G, D] float.
        k1: this and the next two as in `Reranking`.
        k2: over how many.
        original_weight: 0..1; 1 leaves the ranking as it is.
        metric: "cosine": rows are L2-normalised; "euclidean" or "sqeuclidean", which are the same here: they are not.
        block_size: queries at a time at most.

    Yields:
        The first query's index and the distances [B, G] float32 in 0..1.

    Raises:
        ValueError: shapes do not fit, an option is out of its range, or a row is not finite or so large that its squared
            distances may not be.
    """
    _check_arguments(query, gallery, original_weight, metric, block_size)
    num_queries, num_rows = len(query), len(query) + len(gallery)
    k_reciprocal.check_sizes(num_rows, k1=k1, k2=k2)
    rows = _prepared_rows(query, gallery, metric)
    neighbors, farthest = _neighbors(rows, k1)
    # Rows that are all the same have no distance to divide by.
    scales = np.where(farthest > 0, farthest, 1)
    encodings = k_reciprocal.encodings_from_neighbors(np.asarray(rows[0]), neighbors, k1=k1, k2=k2, scales=scales)
    query_encodings, gallery_encodings = encodings[:num_queries], encodings[num_queries:].tocsc()
    del encodings, neighbors
    size = max(1, min(block_size, num_queries))
    for start in range(0, num_queries, size):
        # The last block begins early where the rows do not divide, so that one shape is compiled.
        first, stop = min(start, num_queries - size), min(start + size, num_queries)
        original = np.asarray(_to_gallery(rows, first, size=size, num_queries=num_queries))[start - first :]
        original = np.minimum(original / scales[start:stop, None], 1)  # rounding may take the largest beyond 1
        jaccard = k_reciprocal.distances_between(query_encodings[start:stop], gallery_encodings)
        jaccard *= 1 - original_weight
        original *= original_weight
        jaccard += original
        yield start, jaccard


def _check_arguments(query, gallery, original_weight, metric, block_size) -> None:
    if np.ndim(query) != 2:
        raise ValueError(f"query must be [Q, D], got shape {np.shape(query)}")
    if np.ndim(gallery) != 2 or gallery.shape[1] != query.shape[1]:
        raise ValueError(
            f"gallery must be [G, D] with D = {query.shape[1]}, as query has, got shape {np.shape(gallery)}"
        )
    if not 0 <= original_weight <= 1:
        raise ValueError(f"original_weight must be in 0..1, got {original_weight}")
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {METRICS}, got {metric!r}")
    if block_size < 1:
        raise ValueError(f"block_size must be at least 1, got {block_size}")


def _prepared_rows(query, gallery, metric: str) -> tuple[jax.Array, jax.Array]:
    """Returns all rows [N, D], L2-normalised where the metric is the cosine, and their squared norms [N]."""
    rows, squares = prepare(jnp.concatenate([jnp.asarray(query), jnp.asarray(gallery)]), metric=metric)
    # By the squared norms, in which whatever is not finite shows: a nan would be ranked silently.
    refused = np.flatnonzero(~(np.asarray(squares) <= _LARGEST_SQUARE))
    if len(refused):
        row = refused[0]
        name, place = ("query", row) if row < len(query) else ("gallery", row - len(query))
        raise ValueError(
            f"{name} must be finite, with squared norms of at most {_LARGEST_SQUARE:.1e}, got one of {squares[row]} in "
            f"row {place}"
        )
    return rows, jnp.sum(jnp.square(rows), axis=1)


class _Found(NamedTuple):
    """Of some rows so far: the nearest others' squared distances and indices [B, K], and the largest distance [B]."""

    sq_distances: jax.Array
    indices: jax.Array
    farthest: jax.Array


def _neighbors(rows: tuple[jax.Array, jax.Array], k1: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns every row itself and its k1 nearest others [N, k1 + 1] int32, and its largest squared distance [N]."""
    num_rows = len(rows[0])
    size, width = (min(each, num_rows) for each in _TILE)
    neighbors, farthest = np.empty((num_rows, k1 + 1), np.int32), np.empty(num_rows, np.float32)
    neighbors[:, 0] = np.arange(num_rows)
    with ProgressBar(num_rows, "neighbours", unit="rows") as bar:
        for start in range(0, num_rows, size):
            # The last block begins early where the rows do not divide, so that one shape is compiled.
            first = min(start, num_rows - size)
            block = slice(first, first + size)
            found = _block_neighbors(rows, first, size=size, width=width, k=k1)
            neighbors[block, 1:], farthest[block] = found.indices, found.farthest
            bar.update(first + size - start)
    return neighbors, farthest


@partial(jax.jit, static_argnames=("size", "width", "k"))
def _block_neighbors(rows, start, *, size, width, k) -> _Found:
    own, num_rows = some_rows(rows, start, size), len(rows[0])

    def step(index, found):
        first = jnp.minimum(index * width, num_rows - width)
        columns = first + jnp.arange(width)
        sq_distances = prepared_distances(own, some_rows(rows, first, width), metric="sqeuclidean")
        farthest = jnp.maximum(found.farthest, sq_distances.max(axis=1))
        # Not a row itself, nor what the tile before had already, where the last one begins early.
        left_out = is_self(start - first, sq_distances.shape) | (columns < index * width)
        candidates = jnp.concatenate([found.sq_distances, jnp.where(left_out, jnp.inf, sq_distances)], axis=1)
        negated, places = jax.lax.top_k(-candidates, k)  # of equal distances the lower index is first
        indices = jnp.concatenate([found.indices, jnp.broadcast_to(columns, sq_distances.shape)], axis=1)
        return _Found(-negated, jnp.take_along_axis(indices, places, axis=1), farthest)

    nothing = _Found(jnp.full((size, k), jnp.inf), jnp.zeros((size, k), jnp.int32), jnp.zeros(size))
    return jax.lax.fori_loop(0, -(-num_rows // width), step, nothing)


@partial(jax.jit, static_argnames=("size", "num_queries"))
def _to_gallery(rows, start, *, size, num_queries):
    gallery = jax.tree.map(lambda array: array[num_queries:], rows)
    return prepared_distances(some_rows(rows, start, size), gallery, metric="sqeuclidean")
