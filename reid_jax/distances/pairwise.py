"""Distances between embeddings from one matrix product, by blocks of rows where there are many."""

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp

from reid_jax.distances.blocks import by_row_blocks, is_self, some_rows

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
    check_arguments(x, y, metric, block_size)
    return _pairwise_distances(x, y, metric=metric, block_size=block_size)


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
    check_arguments(x, y, metric, block_size)
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
    return proper_distances(raw_distances(prepared_x, prepared_y, metric), metric)


def check_arguments(x, y, metric: str, block_size: int | None) -> None:
    """Checks what all distances take: x [N, D], y [M, D] or None, the metric, the block's size.

    Raises:
        ValueError: shapes do not fit, or an option is out of its range.
    """
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


@partial(jax.jit, static_argnames=("size", "metric"))
def _distance_block(prepared_x, prepared_y, start, *, size, metric):
    return prepared_distances(some_rows(prepared_x, start, size), prepared_y, metric=metric)


def raw_distances(prepared_x, prepared_y, metric):
    """Returns [N, M] in the order of the distances: squared ones, or 1 - cos; rounding may leave them below 0."""
    (x, squares_x), (y, squares_y) = prepared_x, prepared_y
    # The default precision would be TF32 on GPUs: three digits.
    products = jnp.matmul(x, y.T, precision=jax.lax.Precision.HIGHEST)
    return 1 - products if metric == "cosine" else squares_x[:, None] + squares_y - 2 * products


def proper_distances(raw, metric):
    """Returns the distances that `raw_distances` stand for."""
    raw = jnp.maximum(raw, 0)
    return jnp.sqrt(raw) if metric == "euclidean" else raw
