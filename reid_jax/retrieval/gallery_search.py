"""The exact k nearest of a gallery that is too large to hold: read once, block by block, the best so far kept.

With re-ranking the gallery is held, and the distances of a block of queries at a time.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from reid_jax import distances

# A sum of four such numbers, which a squared distance is at most, is still a finite float32.
_LARGEST_SQUARE = np.finfo(np.float32).max / 4


class Ranking(NamedTuple):
    """The k nearest gallery rows of every query, the nearest first.

    Attributes:
        distances: [Q, K] float32, ascending; inf where the gallery has fewer than k rows.
        indices: [Q, K] int64 into the whole gallery, of equal distances the lower first; -1 where the gallery has
            fewer than k rows.
    """

    distances: np.ndarray
    indices: np.ndarray


class _Best(NamedTuple):
    """The k best of the blocks so far: distances [Q, K], and as numbers of 32 bits in which block and row they are."""

    distances: jax.Array
    blocks: jax.Array
    rows: jax.Array


def search_gallery(
    query: jax.Array | np.ndarray,
    gallery_blocks: jax.Array | np.ndarray | Iterable[np.ndarray],
    *,
    k: int,
    metric: str = "cosine",
    block_size: int = 1024,
    progress: Callable[[int], None] | None = None,
) -> Ranking:
    """Finds the k gallery rows nearest to every query, exactly, with only a block of the gallery in memory.

    The distances are those of `distances.nearest_neighbors`. Distances that are equal after rounding are ordered by
    index, which for metric "euclidean" may be another order than that of their squares.

    Args:
        query: [Q, D] float, finite.
        gallery_blocks: arrays [B, D] float, finite, of any sizes, one after the other, such as a generator that reads
            a file; each is done with before the next is asked for. Or the gallery [G, D] as one array, of which
            slices are read: a memory-mapped one need not fit into memory.
        k: how many; the gallery may have fewer. Static.
        metric: "cosine", "euclidean" or "sqeuclidean", as in `distances.pairwise_distances`. Static.
        block_size: rows that are compared at a time, whatever sizes they come in. On a CPU larger ones are slower,
            since a block no longer stays in the cache; an accelerator may need larger ones. Static.
        progress: called after each block with the number of gallery rows done.

    Returns:
        A Ranking, in NumPy arrays.

    Raises:
        ValueError: shapes do not fit, the gallery has no rows, an option is out of its range, or a row is not finite
            or so large that its squared distances may not be.
    """
    _check_options(query.shape, k, metric, block_size)
    prepared_query = distances.prepare(query, metric=metric)
    _check_squares("query", prepared_query[1], first_row=0)
    shape = (len(query), k)
    best = _Best(jnp.full(shape, jnp.inf, jnp.float32), jnp.zeros(shape, jnp.int32), jnp.full(shape, -1, jnp.int32))
    size = rows_done = 0
    arrays = [gallery_blocks] if hasattr(gallery_blocks, "shape") else gallery_blocks
    for number, rows in enumerate(_cut(arrays, block_size, query.shape[1])):
        count = len(rows)
        size = size or count  # only a gallery of a single block has a first one that is smaller than block_size
        if count < size:
            rows = np.concatenate([rows, np.zeros((size - count, rows.shape[1]), rows.dtype)])
        merged = _merge(best, prepared_query, rows, count, number, metric=metric)
        # Rows may be read in place: only when they have been may whoever gives them write the next ones there.
        best, squares = jax.block_until_ready(merged)
        _check_squares("gallery_blocks", squares, first_row=rows_done)
        rows_done += count
        if progress is not None:
            progress(rows_done)
    if not rows_done:
        raise ValueError("gallery_blocks must have at least 1 row, got 0")
    indices = np.asarray(best.blocks, np.int64) * size + np.asarray(best.rows)
    return Ranking(np.array(best.distances), indices)  # a copy, which the caller may write to


def _check_options(query_shape: tuple[int, ...], k: int, metric: str, block_size: int) -> None:
    if len(query_shape) != 2:
        raise ValueError(f"query must be [Q, D], got shape {query_shape}")
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if metric not in distances.METRICS:
        raise ValueError(f"metric must be one of {distances.METRICS}, got {metric!r}")
    if block_size < 1:
        raise ValueError(f"block_size must be at least 1, got {block_size}")


def _check_squares(name: str, squares: jax.Array, *, first_row: int) -> None:
    """Refuses rows by their squared norms, in which whatever is not finite shows: a nan would be ranked silently."""
    squares = np.asarray(squares)
    refused = np.flatnonzero(~(squares <= _LARGEST_SQUARE))
    if len(refused):
        raise ValueError(
            f"{name} must be finite, with squared norms of at most {_LARGEST_SQUARE:.1e}, got one of "
            f"{squares[refused[0]]} in row {first_row + refused[0]}"
        )


def _cut(arrays: Iterable[np.ndarray], size: int, dim: int) -> Iterator[np.ndarray]:
    """Yields the rows of all arrays in blocks of `size`, the last one smaller: slices where one array has them all."""
    pieces, count = [], 0
    for array in arrays:
        if np.ndim(array) != 2 or np.shape(array)[1] != dim:
            raise ValueError(f"gallery_blocks must be [B, D] with D = {dim}, as query has, got shape {np.shape(array)}")
        if isinstance(array, jax.Array):
            array = np.asarray(array)  # slicing on the device would compile
        start = 0
        while start < len(array):
            piece = np.asarray(array[start : start + size - count])
            start += len(piece)
            if len(piece) == size:
                yield piece
                continue
            pieces.append(piece.copy())  # the next array may come in the same memory
            count += len(piece)
            if count == size:
                yield np.concatenate(pieces)
                pieces, count = [], 0
    if pieces:
        yield np.concatenate(pieces)


@partial(jax.jit, static_argnames="metric")
def _merge(best: _Best, prepared_query, rows, count, number, *, metric: str) -> tuple[_Best, jax.Array]:
    """Returns the best of those so far and of block `number`, `count` rows [B, D] before padding; and squares [B]."""
    prepared_rows = distances.prepare(rows, metric=metric)
    row_distances = distances.prepared_distances(prepared_query, prepared_rows, metric=metric)
    row_distances = jnp.where(jnp.arange(len(rows)) < count, row_distances, jnp.inf)
    # Of equal ones top_k takes the first: those so far stand before the block's, as their indices are lower, and the
    # empty places among them before the padding. With blocks that stay in the cache this one top_k costs little beside
    # the product; leaving out what cannot be among the best first made nothing faster.
    k = best.rows.shape[1]
    negated, places = jax.lax.top_k(-jnp.concatenate([best.distances, row_distances], axis=1), k)
    is_new = places >= k
    kept = jnp.minimum(places, k - 1)
    blocks = jnp.where(is_new, number, jnp.take_along_axis(best.blocks, kept, axis=1))
    block_rows = jnp.where(is_new, places - k, jnp.take_along_axis(best.rows, kept, axis=1))
    return _Best(-negated, blocks, block_rows), prepared_rows[1]


def search_reranked(
    query: jax.Array | np.ndarray,
    gallery: jax.Array | np.ndarray,
    *,
    k: int,
    rerank: distances.Reranking,
    metric: str = "cosine",
    block_size: int = 256,
    progress: Callable[[int], None] | None = None,
) -> Ranking:
    """Finds the k gallery rows nearest to every query by `distances.reranked_distances`.

    Those distances are none between two rows alone: they depend on the whole gallery and on the other queries. They
    order one query's matches, and say nothing when compared with those of another search.

    Args:
        query: [Q, D] float, finite.
        gallery: [G, D] float, finite.
        k: how many; the gallery may have fewer.
        rerank: how.
        metric: as in `distances.reranked_distances`.
        block_size: queries at a time, whose distances to the whole gallery are held.
        progress: called after each block with the number of queries done.

    Returns:
        A Ranking, of re-ranked distances, 0..1, in NumPy arrays.

    Raises:
        ValueError: as in `distances.reranked_distances`; or k is less than 1, or the gallery has no rows.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if not len(gallery):
        raise ValueError("gallery must have at least 1 row, got 0")
    found = Ranking(np.full((len(query), k), np.inf, np.float32), np.full((len(query), k), -1, np.int64))
    most = min(k, len(gallery))
    blocks = distances.reranked_distances(query, gallery, **rerank._asdict(), metric=metric, block_size=block_size)
    for start, block in blocks:
        stop = start + len(block)
        negated, indices = jax.lax.top_k(-block, most)  # of equal distances the lower index is first
        found.distances[start:stop, :most], found.indices[start:stop, :most] = -negated, indices
        if progress is not None:
            progress(stop)
    return found


def search(
    queries: np.ndarray, gallery: np.ndarray, *, top: int = 10, rerank: distances.Reranking | None = None
) -> Ranking:
    """Ranks a gallery for every query by the cosine of their embeddings.

    Args:
        queries: [Q, D] float.
        gallery: [G, D] float; without re-ranking, a memory-mapped array need not fit into memory.
        top: how many of the nearest; at most G are returned.
        rerank: ranks anew by whom queries and gallery rows have in common among their nearest, as `search_reranked`
            does; such as `reid_jax.distances.Reranking()`. None: by the cosine alone.

    Returns:
        (distances [Q, k] float32 in ascending order, 1 - cosine, or re-ranked ones; indices [Q, k] into the gallery),
        k = min(top, G).

    Raises:
        ValueError: shapes do not fit, the gallery is empty, top is less than 1, a row is not finite, or a number of
            rerank is out of its range.
    """
    if not len(gallery):
        raise ValueError("gallery must have at least one row, got none")
    if top < 1:
        raise ValueError(f"top must be at least 1, got {top}")
    k = min(top, len(gallery))
    if rerank is not None:
        return search_reranked(queries, gallery, k=k, rerank=rerank)
    return search_gallery(queries, gallery, k=k)
