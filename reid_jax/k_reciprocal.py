"""The Jaccard distance of k-reciprocal neighbourhoods, sparse and exact, on the host.

Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017, sections 3.2 to 3.4, without
the original distance (lambda = 0).
"""

import itertools
from collections.abc import Iterator

import numpy as np
from scipy import sparse

from reid_jax.progress import ProgressBar

_BLOCK = 2**19  # what a block of rows works on at a time: entries in common and columns


def jaccard_from_neighbors(x: np.ndarray, neighbors: np.ndarray, *, k1: int, k2: int) -> sparse.csr_array:
    """Computes the Jaccard distances of all rows of x that have a neighbourhood in common.

    A row's neighbourhood is its k-reciprocal neighbours and those that they add; a member weighs exp(-|a - b|^2), the
    sum being 1; a row then takes the mean over itself and its nearest. Two rows' distance is 1 - m / (2 - m), m being
    the sum of the lesser weights of every member.

    A pair that is not stored has distance exactly 1, not 0, so `toarray` is wrong. A dense array of the result is
    `dense = np.ones(result.shape, np.float32); coo = result.tocoo(); dense[coo.row, coo.col] = coo.data`.

    Args:
        x: [N, D] float, what the neighbours are nearest in; the weights' scale is that of L2-normalised rows.
        neighbors: [N, K] int, K > k1: every row itself, then its nearest others, the nearest first.
        k1: how many of the others can be k-reciprocal, 1..N-1; 20 in the paper.
        k2: rows of the mean, the row itself being one, 1..k1+1; 1: no mean. 6 in the paper.

    Returns:
        [N, N] float32 in 0..1, exactly symmetric, columns ascending within a row. Stored are the diagonal, whose zeros
        are explicit, and every pair with m > 0.

    Raises:
        ValueError: shapes do not fit, x is not finite, neighbors is no such ranking, or k1 or k2 is out of its range.
    """
    x, neighbors = np.asarray(x), np.asarray(neighbors)
    if x.ndim != 2:
        raise ValueError(f"x must be [N, D], got shape {x.shape}")
    check_sizes(len(x), k1=k1, k2=k2)
    _check_neighbors(neighbors, num_rows=len(x), k1=k1)
    x = x.astype(np.float32, copy=False)
    is_finite = np.isfinite(x).all(axis=1)
    if not is_finite.all():
        raise ValueError(f"x must be finite, which {(~is_finite).sum()} rows are not, the first being {is_finite.argmin()}")
    members = _expanded(_reciprocal(neighbors, k1), _reciprocal(neighbors, int(np.around(k1 / 2))))
    encodings = _encodings(x, members)
    if k2 > 1:
        encodings = (_nearest(neighbors, k2) * np.float32(1 / k2)) @ encodings  # eq. (11)
        encodings.sort_indices()
    blocks = []
    with ProgressBar(len(x), "Jaccard distances", unit="rows") as bar:
        for block in _upper_blocks(encodings):
            blocks.append(block)
            bar.update(block.shape[0])
    return _with_mirror_image(blocks)


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
    # In integers, so that exactly two thirds are not more than two thirds.
    adding.data = (3 * adding.data > 2 * half.sum(axis=1)[adding.indices]).astype(np.int32)
    adding.eliminate_zeros()
    expanded = reciprocal + adding @ half
    expanded.sort_indices()
    return expanded


def _encodings(x, members):
    """Returns V [N, N] float32: exp(-squared distance) to the members, divided by the row's sum (eq. (7))."""
    sq_distances = np.empty(members.nnz, np.float32)
    for row, (start, stop) in enumerate(zip(members.indptr[:-1], members.indptr[1:], strict=True)):
        differences = x[members.indices[start:stop]]
        differences -= x[row]
        sq_distances[start:stop] = np.einsum("nd,nd->n", differences, differences)
    weights = np.exp(-sq_distances)
    # No sum is less than 1: the row itself is a member.
    weights /= np.repeat(np.add.reduceat(weights, members.indptr[:-1]), np.diff(members.indptr))
    return sparse.csr_array((weights, members.indices, members.indptr), shape=members.shape)


def _upper_blocks(encodings) -> Iterator[sparse.csr_array]:
    """Yields the distances [B, N] of consecutive blocks of rows, those on the diagonal and right of it."""
    num_rows = encodings.shape[0]
    columns = encodings.tocsc()
    # An entry meets itself and what is below it in its column, the rest of that, so that each pair of rows meets once.
    positions = np.arange(columns.nnz, dtype=np.int32)
    positions = sparse.csc_array((positions, columns.indices, columns.indptr), shape=columns.shape).tocsr().data
    lengths = columns.indptr[encodings.indices + 1] - positions
    work = np.add.reduceat(lengths, encodings.indptr[:-1], dtype=np.int64) + np.arange(num_rows, 0, -1)
    work = np.append(0, np.cumsum(work))
    edges = np.unique(np.append(np.searchsorted(work, np.arange(0, work[-1], _BLOCK)), num_rows))
    for start, stop in itertools.pairwise(edges.tolist()):
        own = slice(encodings.indptr[start], encodings.indptr[stop])
        met = _ranges(positions[own], lengths[own])
        lesser = np.minimum(np.repeat(encodings.data[own], lengths[own]), columns.data[met])
        # Dense sums of few rows at a time, from column `start` on: sorting the pairs would take longer.
        width = num_rows - start
        firsts = np.repeat(np.arange(stop - start) * width - start, np.diff(encodings.indptr[start : stop + 1]))
        cells = np.repeat(firsts, lengths[own]) + columns.indices[met]
        sums = np.bincount(cells, weights=lesser, minlength=(stop - start) * width)
        yield _distances(sums.reshape(-1, width), num_rows)


def _distances(sums, num_rows):
    """Returns the distances [B, N] that the sums [B, W] amount to, where these are the last W columns of N."""
    cells = np.flatnonzero(sums)
    indptr = np.searchsorted(cells, np.arange(len(sums) + 1) * sums.shape[1]).astype(np.int32)
    columns = cells - np.repeat(np.arange(len(sums)) * sums.shape[1], np.diff(indptr)) + num_rows - sums.shape[1]
    sums = sums.ravel()[cells]
    distances = 1 - sums / (2 - sums)  # eq. (10), where both rows' weights sum to 1
    distances = np.maximum(distances, 0).astype(np.float32)  # rounding may take a sum beyond 1
    distances[indptr[:-1]] = 0  # the diagonal
    return sparse.csr_array((distances, columns.astype(np.int32), indptr), shape=(len(indptr) - 1, num_rows))


def _with_mirror_image(blocks):
    """Returns the symmetric matrix of `_upper_blocks`, which are given up one by one, so that few are held twice."""
    num_rows = blocks[0].shape[1]
    counts = np.concatenate([np.diff(block.indptr) for block in blocks]) - 1  # the diagonal is in both halves
    for block in blocks:
        counts += np.bincount(block.indices, minlength=num_rows)
    indptr = np.append(0, np.cumsum(counts))
    indices, data = np.empty(indptr[-1], np.int32), np.empty(indptr[-1], np.float32)
    begins, start = indptr[:-1].copy(), 0
    blocks.reverse()
    while blocks:
        block = blocks.pop()
        mirrored = block.tocsc()
        lengths = np.diff(mirrored.indptr)
        slots = _ranges(begins, lengths)
        indices[slots], data[slots] = mirrored.indices + start, mirrored.data
        begins += lengths
        # Left of these rows' diagonals all is there by now; what is right of them ends the row.
        lengths = np.diff(block.indptr)
        stop = start + len(lengths)
        slots = _ranges(indptr[start + 1 : stop + 1] - lengths, lengths)
        indices[slots], data[slots] = block.indices, block.data
        start = stop
    if indptr[-1] <= np.iinfo(np.int32).max:  # else SciPy makes 64-bit integers of the columns, too
        indptr = indptr.astype(np.int32)
    return sparse.csr_array((data, indices, indptr), shape=(num_rows, num_rows))


def _ranges(starts, lengths):
    """Returns the integers from starts[0] on, lengths[0] of them, then those from starts[1] on, and so forth."""
    ends = np.cumsum(lengths, dtype=np.int64)
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(ends[-1])
