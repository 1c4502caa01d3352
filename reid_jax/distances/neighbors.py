"""Nearest neighbours, and the k-reciprocal Jaccard distance between them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse

from reid_jax.distances import k_reciprocal
from reid_jax.distances.blocks import by_row_blocks, is_self, some_rows
from reid_jax.distances.pairwise import check_arguments, prepare, proper_distances, raw_distances


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
    check_arguments(x, y, metric, block_size)
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
    check_arguments(x, None, "euclidean", None)
    k_reciprocal.check_sizes(len(x), k1=k1, k2=k2)
    normalized, _ = prepare(x, metric="cosine")
    _, others = nearest_neighbors(normalized, k=k1, metric="sqeuclidean")
    neighbors = np.column_stack([np.arange(len(x)), others])
    return k_reciprocal.jaccard_from_neighbors(normalized, neighbors, k1=k1, k2=k2)


@partial(jax.jit, static_argnames=("k", "metric", "block_size"))
def _nearest_neighbors(x, y, *, k, metric, block_size):
    prepared_x = prepare(x, metric=metric)
    prepared_y = prepared_x if y is None else prepare(y, metric=metric)

    def block_neighbors(start, size):
        raw = raw_distances(some_rows(prepared_x, start, size), prepared_y, metric)
        if y is None:
            raw = jnp.where(is_self(start, raw.shape), jnp.inf, raw)
        negated, indices = jax.lax.top_k(-raw, k)
        return proper_distances(-negated, metric), indices

    return by_row_blocks(block_neighbors, len(x), block_size)
