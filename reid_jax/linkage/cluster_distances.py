"""The distances between clusters while clusters unite: what `linkage.py` asks of a matrix.

Two kinds offer the same three methods, `nearest`, `distances_among` and `merge`: one for a matrix in host memory,
one for a matrix on an accelerator. On a CPU, XLA's scatters and any copy of a large matrix cost more than the whole
clustering takes; on an accelerator these are cheap, and moving the matrix to the host is not.

Clusters are known by their first sample, their root. United clusters come as `united` [N]: for every root the root
of its component, for what is no root itself.
"""

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from reid_jax import distances as sample_distances

LINKAGES = ("average", "centroid", "complete", "single")
_BLOCK_ROWS = 32  # rows of 10,000 to 100,000 samples that fit a core's cache


def is_on_host(array: np.ndarray | jax.Array) -> bool:
    """Whether NumPy can read the array where it is."""
    return not isinstance(array, jax.Array) or all(device.platform == "cpu" for device in array.devices())


def cluster_distances(distances, *, linkage: str, size_penalty: float, embeddings=None):
    """Returns the clusters of N single samples, in the memory that the distances are in.

    Args:
        distances: [N, N] float.
        linkage: one of LINKAGES, as in `linkage.agglomerate`; so are the others.
        size_penalty: lambda.
        embeddings: [N, D] float, for "centroid".
    """
    if linkage == "centroid":
        kind = HostCentroids if is_on_host(distances) else DeviceCentroids
        return kind(distances, linkage, size_penalty, embeddings)
    return (HostClusters if is_on_host(distances) else DeviceClusters)(distances, linkage, size_penalty)


class HostClusters:
    """Clusters of a matrix in host memory, which is only read.

    A sample that is alone is a row of the given matrix, right at the columns of samples that are alone too. Only a
    cluster of two or more, here called large, has a row of combined distances of its own, right at every root's
    column; so the pair of a sample that is alone and a large cluster stands in the latter's row only.
    """

    def __init__(self, distances: np.ndarray, linkage: str, size_penalty: float):
        num_items = len(distances)
        self.distances, self.linkage, self.size_penalty = np.asarray(distances), linkage, size_penalty
        self.counts = np.ones(num_items, np.float32)
        self.alone = np.ones(num_items, bool)
        # Pages that are never written are never there: this takes as many rows as there are large clusters at a time.
        self.rows = np.empty((num_items, num_items), np.float32)
        self.row_of = np.full(num_items, -1)
        # The nearest sample alone to every sample alone: stays right until that one unites.
        self.nearest_alone = np.full(num_items, -1)
        self.distance_alone = np.full(num_items, np.inf, np.float32)

    def nearest(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the nearest other root of every root [N], the lower of equal ones, else -1; and its distance [N]."""
        self._update_alone()
        nearest, distance = self.nearest_alone.copy(), self.distance_alone.copy()
        for roots in _blocks(np.flatnonzero(self.row_of >= 0)):
            block = self._rows_of(roots)
            nearest[roots] = block.argmin(axis=1)
            distance[roots] = block[np.arange(len(roots)), nearest[roots]]
            least = block.min(axis=0)
            columns = np.flatnonzero(self.alone & (least <= distance))
            candidates = roots[block[:, columns].argmin(axis=0)]
            closer = (least[columns] < distance[columns]) | (candidates < nearest[columns])
            nearest[columns[closer]], distance[columns[closer]] = candidates[closer], least[columns[closer]]
        return np.where(np.isfinite(distance), nearest, -1), distance

    def distances_among(self, roots: np.ndarray) -> np.ndarray:
        """Returns the distances [R, R] among ascending roots; the diagonal means nothing."""
        among = np.empty((len(roots), len(roots)), np.float32)
        for places in _blocks(np.flatnonzero(self.alone[roots])):
            # Whole rows first: picking single entries from rows far apart is slower.
            among[places] = self.distances[roots[places]].take(roots, axis=1)
            among[places] += np.float32(2 * self.size_penalty)
        for places in _blocks(np.flatnonzero(~self.alone[roots])):
            rows = self._rows_of(roots[places]).take(roots, axis=1)
            among[places], among[:, places] = rows, rows.T
        return among

    def merge(self, united: np.ndarray) -> None:
        """Unites clusters; united [N] as the module says."""
        taking_part = np.isin(united, united[united != np.arange(len(united))])
        # The samples alone first, with one another: then only rows of combined distances are left to unite.
        joining = np.flatnonzero(taking_part & self.alone)
        self._add_rows(joining, _first_with_same(united, joining))
        large = np.where(taking_part & (self.row_of >= 0), united, np.arange(len(united)))
        for targets, sources in _halvings(large):
            for target, source in zip(self.row_of[targets], self.row_of[sources]):
                self._combine(self.rows[target], self.rows[source], out=self.rows[target])
            self.counts[targets] += self.counts[sources]
        self.row_of[large != np.arange(len(united))] = -1
        self._combine_columns(large)

    def _add_rows(self, joining: np.ndarray, heads: np.ndarray) -> None:
        """Gives the samples in `joining`, until now alone, one row of combined distances per head."""
        old, new = np.flatnonzero(self.row_of >= 0), np.unique(heads[joining])
        self.row_of[new] = self._free_rows(len(new))
        for sample in joining:
            row = self.rows[self.row_of[heads[sample]]]
            if sample == heads[sample]:
                row[:] = self.distances[sample]
            else:
                self._combine(row, self.distances[sample], out=row)
        self._combine_columns(heads)
        # The given matrix knows nothing of older large clusters; their own rows do, with columns already combined.
        self._mirror(new, old)
        self.counts[new] = np.bincount(heads[joining], minlength=len(heads))[new]
        self.alone[joining] = False

    def _combine(self, a: np.ndarray, b: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        combine = {"average": np.add, "complete": np.maximum, "single": np.minimum}[self.linkage]
        return combine(a, b, out=out, casting="same_kind")

    def _combine_columns(self, united: np.ndarray) -> None:
        levels = list(_halvings(united))
        # In blocks of whatever rows there are, used or not, because they lie next to each other.
        num_rows = self.row_of.max() + 1
        for start in range(0, num_rows, _BLOCK_ROWS):
            block = self.rows[start : min(start + _BLOCK_ROWS, num_rows)]
            for targets, sources in levels:
                block[:, targets] = self._combine(block[:, targets], block[:, sources])

    def _mirror(self, roots: np.ndarray, others: np.ndarray) -> None:
        """Writes the distances of `roots` to `others`, all large, from the others' rows into their own."""
        columns = self.rows[: self.row_of.max() + 1].take(roots, axis=1)[self.row_of[others]]
        for row, values in zip(self.row_of[roots], columns.T.copy()):
            self.rows[row][others] = values

    def _free_rows(self, count: int) -> np.ndarray:
        used = self.row_of[self.row_of >= 0]
        return np.setdiff1d(np.arange(len(used) + count), used)[:count]

    def _update_alone(self) -> None:
        """Searches again where the nearest sample alone is alone no more."""
        self.distance_alone[~self.alone] = np.inf
        stale = self.alone & ~((self.nearest_alone >= 0) & self.alone[self.nearest_alone])
        hidden = np.where(self.alone, np.float32(0), np.float32(np.inf))
        for roots in _blocks(np.flatnonzero(stale)):
            block = self.distances[roots].astype(np.float32, copy=False)
            block += hidden
            each = np.arange(len(roots))
            block[each, roots] = np.inf
            self.nearest_alone[roots] = nearest = block.argmin(axis=1)
            self.distance_alone[roots] = block[each, nearest] + np.float32(2 * self.size_penalty)

    def _rows_of(self, roots: np.ndarray) -> np.ndarray:
        """Returns large clusters' distances [R, N] to every root; infinite to themselves and what is no root."""
        block = self.rows[self.row_of[roots]]
        counts = self.counts[roots, None]
        if self.linkage == "average":
            block /= counts * self.counts
        if self.size_penalty:
            block += np.float32(self.size_penalty) * (counts + self.counts)
        block += np.where(self.alone | (self.row_of >= 0), np.float32(0), np.float32(np.inf))
        block[np.arange(len(roots)), roots] = np.inf
        return block


class HostCentroids(HostClusters):
    """Clusters in host memory whose distance is that of their mean embeddings; only changed rows are computed."""

    def __init__(self, distances: np.ndarray, linkage: str, size_penalty: float, embeddings: np.ndarray):
        super().__init__(distances, linkage, size_penalty)
        self.totals = np.array(embeddings, np.float32)

    def merge(self, united: np.ndarray) -> None:
        """Unites clusters; united [N] as the module says."""
        for targets, sources in _halvings(united):
            self.totals[targets] += self.totals[sources]
            self.counts[targets] += self.counts[sources]
        moved = united != np.arange(len(united))
        changed = np.unique(united[moved])
        self.alone[moved] = self.alone[changed] = False
        self.row_of[moved] = self.row_of[changed] = -1
        old = np.flatnonzero(self.row_of >= 0)
        self.row_of[changed] = self._free_rows(len(changed))
        centroids = self.totals / self.counts[:, None]
        squares = np.square(centroids).sum(axis=1)
        for roots in _blocks(changed, size=512):
            sq_distances = squares[roots, None] + squares - 2 * (centroids[roots] @ centroids.T)
            self.rows[self.row_of[roots]] = np.sqrt(np.maximum(sq_distances, 0))
        self._mirror(old, changed)


class DeviceClusters:
    """Clusters of a matrix on an accelerator: a copy [N, N], worked on in place, with masks for what is no root."""

    def __init__(self, distances: jax.Array, linkage: str, size_penalty: float):
        self.combined = jnp.array(distances, jnp.float32, copy=True)
        self.linkage, self.size_penalty = linkage, size_penalty
        self.counts = jnp.ones(len(distances), jnp.float32)
        self.live = np.ones(len(distances), bool)

    def nearest(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the nearest other root of every root [N], the lower of equal ones, else -1; and its distance [N]."""
        found = _nearest(self.combined, self.counts, self.live, self.size_penalty, linkage=self.linkage)
        nearest, distance = (np.asarray(array) for array in found)
        return np.where(np.isfinite(distance), nearest, -1), distance

    def distances_among(self, roots: np.ndarray) -> np.ndarray:
        """Returns the distances [R, R] among ascending roots; the diagonal means nothing."""
        padded = _padded(roots, fill=0)
        among = _among(self.combined, self.counts, self.size_penalty, padded, linkage=self.linkage)
        return np.asarray(among)[: len(roots), : len(roots)]

    def merge(self, united: np.ndarray) -> None:
        """Unites clusters; united [N] as the module says."""
        for pairs in _halvings(united):
            targets, sources = (_padded(roots, fill=len(united)) for roots in pairs)
            self.combined = _combine(self.combined, targets, sources, linkage=self.linkage)
            self.counts = self.counts.at[targets].add(self.counts[sources], mode="drop")
        self.live &= united == np.arange(len(united))


class DeviceCentroids(DeviceClusters):
    """Clusters on an accelerator whose distance is that of their mean embeddings, all computed at every merge."""

    def __init__(self, distances: jax.Array, linkage: str, size_penalty: float, embeddings: jax.Array):
        super().__init__(distances, linkage, size_penalty)
        self.totals = jnp.asarray(embeddings, jnp.float32)

    def merge(self, united: np.ndarray) -> None:
        """Unites clusters; united [N] as the module says."""
        for pairs in _halvings(united):
            targets, sources = (_padded(roots, fill=len(united)) for roots in pairs)
            self.totals = self.totals.at[targets].add(self.totals[sources], mode="drop")
            self.counts = self.counts.at[targets].add(self.counts[sources], mode="drop")
        moved = united != np.arange(len(united))
        self.live &= ~moved
        if moved.any():
            self.combined = sample_distances.pairwise_distances(self.totals / self.counts[:, None])


def _first_with_same(values: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Returns [N]: for the ascending items the first of them with the same value, for the others themselves."""
    first = np.arange(len(values))
    _, places, inverse = np.unique(values[items], return_index=True, return_inverse=True)
    first[items] = items[places[inverse]]
    return first


def _halvings(united: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (targets, sources): combined level after level, they leave every component's total at its root.

    Within a level no target occurs twice, so that plain indexing combines them all, in an order that never varies.
    """
    sources = np.flatnonzero(united != np.arange(len(united)))
    items = np.concatenate([np.unique(united[sources]), sources])
    items = items[np.lexsort((items, united[items]))]
    starts = np.flatnonzero(united[items] == items)
    positions = np.arange(len(items)) - np.repeat(starts, np.diff(starts, append=len(items)))
    stride = 1
    while stride <= positions.max(initial=0):
        chosen = np.flatnonzero(positions % (2 * stride) == stride)
        yield items[chosen - stride], items[chosen]
        stride *= 2


def _blocks(items: np.ndarray, size: int = _BLOCK_ROWS) -> Iterator[np.ndarray]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _padded(items: np.ndarray, *, fill: int) -> np.ndarray:
    """Fills up to a power of two, so that few shapes are compiled whatever the number of clusters."""
    return np.pad(items, (0, (1 << (len(items) - 1).bit_length()) - len(items)), constant_values=fill)


def _selection(combined, counts, other_counts, size_penalty, linkage):
    """Turns combined distances [R, C] into those that pairs are chosen by; counts [R, 1], other_counts [C]."""
    if linkage == "average":
        combined = combined / (counts * other_counts)
    return combined + size_penalty * (counts + other_counts)


@partial(jax.jit, static_argnames="linkage")
def _nearest(combined, counts, live, size_penalty, *, linkage):
    items = jnp.arange(len(counts))
    allowed = live[:, None] & live & (items[:, None] != items)
    selection = jnp.where(allowed, _selection(combined, counts[:, None], counts, size_penalty, linkage), jnp.inf)
    return jnp.argmin(selection, axis=1), jnp.min(selection, axis=1)


@partial(jax.jit, static_argnames="linkage")
def _among(combined, counts, size_penalty, roots, *, linkage):
    block = combined[roots[:, None], roots]
    return _selection(block, counts[roots, None], counts[roots], size_penalty, linkage)


@partial(jax.jit, donate_argnums=0, static_argnames="linkage")
def _combine(combined, targets, sources, *, linkage):
    method = {"average": "add", "complete": "max", "single": "min"}[linkage]
    combined = getattr(combined.at[targets], method)(combined[sources], mode="drop")
    return getattr(combined.at[:, targets], method)(combined[:, sources], mode="drop")
