"""Distances between embeddings and nearest neighbours, from one matrix product, by blocks of rows where large."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse

from reid_jax import k_reciprocal

METRICS = ("cosine", "euclidean", "sqeuclidean")


def pairwise_distances(
    x: jax.Array, y: jax.Array | None = None, *, metric: str = "euclidean", block_size: int | None = None
) -> jax.Array:
    """Computes the distance of every row of x to every row of y.

    |a - b|^2 is computed as |a|^2 + |b|^2 - 2 a.b in float32, which for neighbours much nearer to each other than
    to the origin keeps fewer digits than the difference would.

    Args:
        x: [N, D] float.
        y: [M, D] float; None: x itself, and the diagonal is exactly 0.
        metric: "euclidean"; "sqeuclidean", its square; or "cosine", 1 - cos, 1 where a row is all zeros. Static.
        block_size: rows of x at a time, which bounds what is needed beside the result; None: all. Static.

    Returns:
        [N, M] float32, >= 0.

    Raises:
        ValueError: shapes do not fit, or an option is out of its range.
    """
    _check_arguments(x, y, metric, block_size)
    return _pairwise_distances(x, y, metric=metric, block_size=block_size)


def nearest_neighbors(
    x: jax.Array, y: jax.Array | None = None, *, k: int, metric: str = "euclidean", block_size: int | None = None
) -> tuple[jax.Array, jax.Array]:
    """Finds the k rows of y nearest to every row of x, without ever holding all N x M distances.

    Args:
        x: [N, D] float.
        y: [M, D] float; None: x itself, and a row is not its own neighbour.
        k: how many, 1..M (1..N-1 without y). Static.
        metric: as in `pairwise_distances`. Static.
        block_size: rows of x at a time; the distances of one block are held. None: 1,024. Static.

    Returns:
        Distances [N, k] float32 in ascending order and indices [N, k] int32 into y; of equal ones the lower first.

    Raises:
        ValueError: shapes do not fit, or an option is out of its range.
    """
    _check_arguments(x, y, metric, block_size)
    most = len(x) - 1 if y is None else len(y)
    if not 1 <= k <= most:
        raise ValueError(f"k must be in 1..{most}, the number of possible neighbours, got {k}")
    return _nearest_neighbors(x, y, k=k, metric=metric, block_size=block_size or 1024)


def jaccard_distances(x: jax.Array, *, k1: int = 20, k2: int = 6) -> sparse.csr_array:
    """Computes the k-reciprocal Jaccard distances of L2-normalised rows (Zhong et al., CVPR 2017, with lambda = 0).

    Args:
        x: [N, D] float, L2-normalised here.
        k1: how many nearest others can be k-reciprocal, 1..N-1.
        k2: over how many nearest, the row itself being one, the encodings are averaged, 1..k1+1; 1: they are not.

    Returns:
        [N, N] float32 on the host; a pair that is not stored has distance 1, as `k_reciprocal.jaccard_from_neighbors`
        says.

    Raises:
        ValueError: x is not [N, D] or not finite, or an option is out of its range.
    """
    _check_arguments(x, None, "euclidean", None)
    k_reciprocal.check_sizes(len(x), k1=k1, k2=k2)
    normalized, _ = prepare(x, metric="cosine")
    _, others = nearest_neighbors(normalized, k=k1, metric="sqeuclidean")
    neighbors = np.column_stack([np.arange(len(x)), others])
    return k_reciprocal.jaccard_from_neighbors(normalized, neighbors, k1=k1, k2=k2)


def distance_blocks(
    x: jax.Array, y: jax.Array, *, metric: str = "euclidean", block_size: int = 512
) -> Iterator[tuple[int, jax.Array]]:
    """Yields the distances of x to y in blocks of rows, for a caller that needs no more than one block at a time.

    The next block is being computed while the caller works on one.

    Args:
        x: [N, D] float.
        y: [M, D] float.
        metric: as in `pairwise_distances`.
        block_size: rows of x at a time.

    Yields:
        The first row's index and the distances [B, M] float32; the last block may have fewer rows.

    Raises:
        ValueError: shapes do not fit, or an option is out of its range.
    """
    _check_arguments(x, y, metric, block_size)
    num_rows = len(x)
    size = max(1, min(block_size, num_rows))
    prepared = [prepare(array, metric=metric) for array in (x, y)]
    starts = range(0, num_rows, size)
    # The last block begins early where the rows do not divide, so that one shape is compiled.
    blocks = (_distance_block(*prepared, min(start, num_rows - size), size=size, metric=metric) for start in starts)
    ahead = next(blocks, None)
    for start in starts:
        block, ahead = ahead, next(blocks, None)
        yield start, block if start + size <= num_rows else block[start + size - num_rows :]


def by_row_blocks(function: Callable[[Any, int], Any], num_rows: int, block_size: int | None) -> Any:
    """Computes rows of a result block after block, written in place, so that only one block's workings are held.

    Args:
        function: (start, size) -> pytree of arrays [size, ...], rows start..start + size - 1; traced once.
        num_rows: N.
        block_size: rows at a time at most; None: all at once. Static.

    Returns:
        The pytree of arrays [N, ...].
    """
    if block_size is None or block_size >= num_rows:
        return function(0, num_rows)
    num_blocks = -(-num_rows // block_size)
    block_size = -(-num_rows // num_blocks)  # evenly, so that few rows are computed twice

    def step(index, results):
        # The last block begins early where the rows do not divide: some are computed twice, the shape stays.
        start = jnp.minimum(index * block_size, num_rows - block_size)
        update = partial(jax.lax.dynamic_update_slice_in_dim, start_index=start, axis=0)
        return jax.tree.map(update, results, function(start, block_size))

    block = jax.eval_shape(lambda: function(0, block_size))
    results = jax.tree.map(lambda part: jnp.zeros((num_rows, *part.shape[1:]), part.dtype), block)
    return jax.lax.fori_loop(0, num_blocks, step, results)


def by_symmetric_blocks(function: Callable[[Any, Any, int], jax.Array], num_rows: int, block_size: int) -> jax.Array:
    """Computes a symmetric matrix tile after tile, each together with its mirror image: half the work.

    Args:
        function: (row, column, size) -> [size, size], the tile that begins there; traced once.
        num_rows: N.
        block_size: rows and columns of a tile. Static.

    Returns:
        [N, N].
    """
    if block_size >= num_rows:
        return function(0, 0, num_rows)
    # The last tiles begin early where the rows do not divide, so that one shape is computed.
    starts = np.minimum(np.arange(0, num_rows, block_size), num_rows - block_size)
    rows, columns = (jnp.asarray(starts[each]) for each in np.triu_indices(len(starts)))

    def step(index, result):
        row, column = rows[index], columns[index]
        tile = function(row, column, block_size)
        result = jax.lax.dynamic_update_slice(result, tile.T, (column, row))
        return jax.lax.dynamic_update_slice(result, tile, (row, column))

    tile = jax.eval_shape(lambda: function(0, 0, block_size))
    return jax.lax.fori_loop(0, len(rows), step, jnp.zeros((num_rows, num_rows), tile.dtype))


@partial(jax.jit, static_argnames="metric")
def prepare(x: jax.Array, *, metric: str) -> tuple[jax.Array, jax.Array]:
    """Computes once what the distances of x [N, D] to any others need: rows [N, D] and their squared norms [N]."""
    x = jnp.asarray(x, jnp.float32)
    squares = jnp.sum(jnp.square(x), axis=1)
    if metric == "cosine":
        x = x * jax.lax.rsqrt(jnp.maximum(squares, jnp.finfo(jnp.float32).tiny))[:, None]
    return x, squares


def prepared_distances(prepared_x, prepared_y, *, metric: str) -> jax.Array:
    """Computes the distances [N, M] between what `prepare` made of two arrays with the same metric."""
    return _proper(_raw_distances(prepared_x, prepared_y, metric), metric)


def some_rows(arrays: Any, start: jax.Array | int, size: int) -> Any:
    """Returns rows start..start + size - 1 of every array [N, ...] of a pytree."""
    return jax.tree.map(lambda array: jax.lax.dynamic_slice_in_dim(array, start, size), arrays)


def is_self(start: jax.Array | int, shape: tuple[int, int]) -> jax.Array:
    """Returns [B, N] bool: where rows start..start + B - 1 of an N x N matrix meet the diagonal."""
    return start + jnp.arange(shape[0])[:, None] == jnp.arange(shape[1])


def _check_arguments(x, y, metric, block_size) -> None:
    if x.ndim != 2:
        raise ValueError(f"x must be [N, D], got shape {x.shape}")
    if y is not None and (y.ndim != 2 or y.shape[1] != x.shape[1]):
        raise ValueError(f"y must be [M, D] with D = {x.shape[1]}, as x has, got shape {y.shape}")
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {METRICS}, got {metric!r}")
    if block_size is not None and block_size < 1:
        raise ValueError(f"block_size must be at least 1, got {block_size}")


@partial(jax.jit, static_argnames=("metric", "block_size"))
def _pairwise_distances(x, y, *, metric, block_size):
    prepared_x = prepare(x, metric=metric)
    prepared_y = prepared_x if y is None else prepare(y, metric=metric)

    def block_distances(start, size):
        distances = prepared_distances(some_rows(prepared_x, start, size), prepared_y, metric=metric)
        return jnp.where(is_self(start, distances.shape), 0.0, distances) if y is None else distances

    return by_row_blocks(block_distances, len(x), block_size)


@partial(jax.jit, static_argnames=("k", "metric", "block_size"))
def _nearest_neighbors(x, y, *, k, metric, block_size):
    prepared_x = prepare(x, metric=metric)
    prepared_y = prepared_x if y is None else prepare(y, metric=metric)

    def block_neighbors(start, size):
        raw = _raw_distances(some_rows(prepared_x, start, size), prepared_y, metric)
        if y is None:
            raw = jnp.where(is_self(start, raw.shape), jnp.inf, raw)
        negated, indices = jax.lax.top_k(-raw, k)
        return _proper(-negated, metric), indices

    return by_row_blocks(block_neighbors, len(x), block_size)


@partial(jax.jit, static_argnames=("size", "metric"))
def _distance_block(prepared_x, prepared_y, start, *, size, metric):
    return prepared_distances(some_rows(prepared_x, start, size), prepared_y, metric=metric)


def _raw_distances(prepared_x, prepared_y, metric):
    """Returns [N, M] in the order of the distances: squared ones, or 1 - cos; rounding may leave them below 0."""
    (x, squares_x), (y, squares_y) = prepared_x, prepared_y
    # The default precision would be TF32 on GPUs: three digits.
    products = jnp.matmul(x, y.T, precision=jax.lax.Precision.HIGHEST)
    return 1 - products if metric == "cosine" else squares_x[:, None] + squares_y - 2 * products


def _proper(raw, metric):
    raw = jnp.maximum(raw, 0)
    return jnp.sqrt(raw) if metric == "euclidean" else raw
