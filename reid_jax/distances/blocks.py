"""Large results computed block after block, so that only one block's intermediate results are held."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def by_row_blocks(function: Callable[[Any, int], Any], num_rows: int, block_size: int | None) -> Any:
    """Computes rows of a result block after block, in place: only one block's intermediate results are held.

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


def some_rows(arrays: Any, start: jax.Array | int, size: int) -> Any:
    """Returns rows start..start + size - 1 of every array [N, ...] of a pytree."""
    return jax.tree.map(lambda array: jax.lax.dynamic_slice_in_dim(array, start, size), arrays)


def is_self(start: jax.Array | int, shape: tuple[int, int]) -> jax.Array:
    """Returns [B, N] bool: where rows start..start + B - 1 of an N x N matrix meet the diagonal."""
    return start + jnp.arange(shape[0])[:, None] == jnp.arange(shape[1])
