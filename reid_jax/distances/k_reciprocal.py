"""The Jaccard distance of k-reciprocal neighbourhoods, sparse and exact, on the host.

Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017, sections 3.2 to 3.4, without
the original distance, which `reranking.py` adds.
"""

import array
import itertools
from collections.abc import Iterator

import numpy as np
from scipy import sparse

from reid_jax.progress import ProgressBar

_BLOCK = 2**18  # what a block of rows works on at a time: entries in common and columns


def jaccard_from_neighbors(x: np.ndarray, neighbors: np.ndarray, *, k1: int, k2: int) -> sparse.csr_array:
    """Computes the Jaccard distances of all rows of x that have a neighbourhood in common.

    A row is encoded as the weights, which sum to 1, of the members of its neighbourhood: its k-reciprocal neighbours
    and those that they add, each with a weight in proportion to exp(-|a - b|^2). It then gets the mean of the encodings
    of itself and its nearest. The distance of two rows is 1 - m / (2 - m), m being the sum of the lesser weights.

    A pair that is not stored has distance exactly 1, not 0, so `toarray` does not do. For a dense array:
    `dense = np.ones(result.shape, np.float32); coo = result.tocoo(); dense[coo.row, coo.col] = coo.data`.

    Args:
        x: [N, D] float, what the neighbours are nearest in; the weights' scale is that of L2-normalised rows.
        neighbors: [N, K] int, K > k1: every row itself, then its nearest others, the nearest first.
        k1: how many of the others can be k-reciprocal, 1..N-1; 20 in the paper.
        k2: rows that a mean is of, the row itself being one, 1..k1+1; 1: no mean. 6 in the paper.

    Returns:
        [N, N] float32 in 0..1, exactly symmetric, columns ascending within a row. Stored are the diagonal, whose zeros
        are explicit, and every pair with m > 0.

    Raises:
        ValueError: shapes do not fit, x is not finite, neighbors is no such ranking, or k1 or k2 is out of its range.
    """
    return _jaccard(encodings_from_neighbors(x, neighbors, k1=k1, k2=k2))


def encodings_from_neighbors(
    x: np.ndarray, neighbors: np.ndarray, *, k1: int, k2: int, scales: np.ndarray | None = None
) -> sparse.csr_array:
    """Encodes every row of x as the weights of its neighbourhood's members, as `jaccard_from_neighbors` describes.

    Args:
        x: [N, D] float; this and the next three as in `jaccard_from_neighbors`.
        neighbors: [N, K] int.
        k1: 1..N-1.
        k2: 1..k1+1.
        scales: [N] float > 0, by which the squared distances from each row are divided before they become weights; None:
            they are not.

    Returns:
        [N, N] float32, >= 0, every row's sum 1, columns ascending within a row.

    Raises:
        ValueError: as in `jaccard_from_neighbors`; or scales are not [N] and finite numbers above 0.
    """
    x, neighbors = np.asarray(x), np.asarray(neighbors)
    if x.ndim != 2:
        raise ValueError(f"x must be [N, D], got shape {x.shape}")
    check_sizes(len(x), k1=k1, k2=k2)
    _check_neighbors(neighbors, num_rows=len(x), k1=k1)
    x = x.astype(np.float32, copy=False)
    is_finite = np.isfinite(x).all(axis=1)
    if not is_finite.all():
        row = is_finite.argmin()
        raise ValueError(f"x must be finite, got {x[row, ~np.isfinite(x[row])][0]} in row {row}")
    if scales is not None:
        _check_scales(scales, num_rows=len(x))
    members = _expanded(_reciprocal(neighbors, k1), _reciprocal(neighbors, int(np.around(k1 / 2))))
    encodings = _encodings(x, members, scales)
    if k2 > 1:
        encodings = (_nearest(neighbors, k2) * np.float32(1 / k2)) @ encodings  # eq. (11)
    # Members are then added up in the same order for (i, j) and (j, i): symmetric to the last bit.
    encodings.sort_indices()
    return encodings


def distances_between(encodings: sparse.csr_array, others: sparse.csc_array) -> np.ndarray:
    """Computes the Jaccard distances of some encoded rows to others, all of them.

    Args:
        encodings: [B, N] float32, rows of `encodings_from_neighbors`.
        others: [M, N] float32, such rows, by columns.

    Returns:
        [B, M] float32 in 0..1.
    """
    result = np.empty((encodings.shape[0], others.shape[0]), np.float32)
    for start, stop, sums in _sums_in_common(encodings, others):
        result[start:stop] = _from_sums(sums).reshape(stop - start, -1)
    return result


def check_sizes(num_rows: int, *, k1: int, k2: int) -> None:
    """Raises ValueError where k1 or k2 is out of its range for N rows."""
    if not 1 <= k1 <= num_rows - 1:
        raise ValueError(f"k1 must be in 1..{num_rows - 1}, the number of other rows, got {k1}")
    if not 1 <= k2 <= k1 + 1:
        raise ValueError(f"k2 must be in 1..{k1 + 1}, k1 + 1, got {k2}")


def _check_neighbors(neighbors, *, num_rows, k1):
    if neighbors.ndim != 2 or len(neighbors) != num_rows or neighbors.shape[1] <= k1:
        raise ValueError(f"neighbors must be [N, K] with N = {num_rows} and K > k1 = {k1}, got shape {neighbors.shape}")
    if not np.issubdtype(neighbors.dtype, np.integer):
        raise ValueError(f"neighbors must be integers, got {neighbors.dtype}")
    if neighbors.min() < 0 or neighbors.max() >= num_rows:
        raise ValueError(f"neighbors must be in 0..{num_rows - 1}, got {neighbors.min()}..{neighbors.max()}")
    is_self = neighbors[:, 0] == np.arange(num_rows)
    if not is_self.all():
        row = is_self.argmin()
        raise ValueError(f"neighbors must have every row itself first, got {neighbors[row, 0]} first in row {row}")
    ordered = np.sort(neighbors, axis=1)
    repeats = (ordered[:, 1:] == ordered[:, :-1]).any(axis=1)
    if repeats.any():
        row = repeats.argmax()
        raise ValueError(f"neighbors must not repeat within a row, got {neighbors[row].tolist()} in row {row}")


def _check_scales(scales, *, num_rows):
    if np.shape(scales) != (num_rows,):
        raise ValueError(f"scales must be [N] with N = {num_rows}, got shape {np.shape(scales)}")
    is_right = (scales > 0) & (scales < np.inf)
    if not is_right.all():
        row = is_right.argmin()
        raise ValueError(f"scales must be finite and above 0, got {scales[row]} for row {row}")


def _nearest(neighbors, count):
    """Returns [N, N] with ones at the first `count` of every row's ranking."""
    indices = neighbors[:, :count].astype(np.int32).ravel()
    indptr = np.arange(0, len(indices) + 1, count, dtype=np.int32)
    return sparse.csr_array((np.ones(len(indices), np.int32), indices, indptr), shape=(len(neighbors),) * 2)


def _reciprocal(neighbors, k):
    """Returns [N, N] with ones where each of two rows is among the other's k nearest (eq. (3)), or is itself."""
    nearest = _nearest(neighbors, k + 1)
    return nearest.multiply(nearest.T).tocsr()


def _expanded(reciprocal, half):
    """Returns [N, N] that is not 0 at R*, R and the half-sized R of its members that lie in it mostly (eq. (4))."""
    adding = reciprocal.multiply(reciprocal @ half.T).tocsr()  # how much of each member's half-sized R is in R
    # Reference: eq. (4) asks for two thirds at least, the published code for more. In integers, where that is exact.
    adding.data = (3 * adding.data > 2 * half.sum(axis=1)[adding.indices]).astype(np.int32)
    adding.eliminate_zeros()
    return reciprocal + adding @ half


def _encodings(x, members, scales):
    """Returns V [N, N] float32: exp(-squared distance / scale) to the members, divided by the row's sum (eq. (7))."""
    sq_distances = np.empty(members.nnz, np.float32)
    for row, (start, stop) in enumerate(zip(members.indptr[:-1], members.indptr[1:], strict=True)):
        differences = x[members.indices[start:stop]]
        differences -= x[row]
        sq_distances[start:stop] = np.einsum("nd,nd->n", differences, differences)
    if scales is not None:
        sq_distances /= np.repeat(scales, np.diff(members.indptr)).astype(np.float32)
    weights = np.exp(-sq_distances)
    # No sum is less than 1: the row itself is a member.
    weights /= np.repeat(np.add.reduceat(weights, members.indptr[:-1]), np.diff(members.indptr))
    return sparse.csr_array((weights, members.indices, members.indptr), shape=members.shape)


def _jaccard(encodings):
    """Returns the distances [N, N] of rows that are encoded as non-negative weights whose sum is 1."""
    num_rows = encodings.shape[0]
    # These grow where they are, so that nothing is held twice.
    columns, distances = array.array("i"), array.array("f")
    counts = [np.zeros(1, np.int64)]
    with ProgressBar(num_rows, "Jaccard distances", unit="rows") as bar:
        for block_counts, block_columns, block_distances in _distance_blocks(encodings):
            counts.append(block_counts)
            columns.frombytes(block_columns.tobytes())
            distances.frombytes(block_distances.tobytes())
            bar.update(len(block_counts))
    indptr = np.cumsum(np.concatenate(counts))
    if indptr[-1] <= np.iinfo(np.int32).max:  # else SciPy makes the columns 64-bit integers as well
        indptr = indptr.astype(np.int32)
    return sparse.csr_array((np.asarray(distances), np.asarray(columns), indptr), shape=(num_rows, num_rows))


def _distance_blocks(encodings) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields for one block of rows after another how many pairs each row has [B], their columns and distances."""
    num_rows = encodings.shape[0]
    for start, stop, sums in _sums_in_common(encodings, encodings.tocsc()):
        first_cells = np.arange(stop - start) * num_rows
        sums[first_cells + np.arange(start, stop)] = 1  # the diagonal; rounding left it near 1
        cells = np.flatnonzero(sums)
        counts = np.diff(np.searchsorted(cells, np.append(first_cells, len(sums))))
        columns = (cells - np.repeat(first_cells, counts)).astype(np.int32)
        yield counts, columns, _from_sums(sums[cells])


def _sums_in_common(encodings, others) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yields for blocks of rows start..stop - 1 the sums [B * M] of the lesser weights with others [M, N], by columns.

    The sums are dense, and so computed for few rows at a time: sorting the pairs would take longer.
    """
    num_others = others.shape[0]
    # By how many of the others each entry's member is shared.
    shared = np.diff(others.indptr)[encodings.indices]
    work = np.add.reduceat(shared, encodings.indptr[:-1], dtype=np.int64) + num_others
    work = np.append(0, np.cumsum(work))
    edges = np.unique(np.append(np.searchsorted(work, np.arange(0, work[-1], _BLOCK)), encodings.shape[0]))
    for start, stop in itertools.pairwise(edges.tolist()):
        own = slice(encodings.indptr[start], encodings.indptr[stop])
        places = _ranges(others.indptr[encodings.indices[own]], shared[own])
        lesser = np.minimum(np.repeat(encodings.data[own], shared[own]), others.data[places])
        cells = np.repeat(np.arange(stop - start) * num_others, np.diff(encodings.indptr[start : stop + 1]))
        cells = np.repeat(cells, shared[own]) + others.indices[places]
        yield start, stop, np.bincount(cells, weights=lesser, minlength=(stop - start) * num_others)


def _from_sums(sums):
    """Returns the distances float32 that sums of lesser weights stand for (eq. (10), where a row's weights sum to 1)."""
    return np.maximum(1 - sums / (2 - sums), 0).astype(np.float32)  # rounding may take a sum beyond 1


def _ranges(starts, lengths):
    """Returns the integers from starts[0] on, lengths[0] of them, then those from starts[1] on, and so forth."""
    ends = np.cumsum(lengths, dtype=np.int64)
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(ends[-1])
