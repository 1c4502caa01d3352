"""Clusters of a matrix in host memory, which is only read, and the distances between them while they unite.

Two kinds of clusters, in two places:

- A singleton, a sample that is alone, is a row of the given matrix, right at the columns of other singletons.
- A merged cluster, of two samples or more, has a row of combined distances of its own, right at every root's column.

So the pair of a singleton and a merged cluster stands in the latter's row only. Most clusters are singletons for most
of the steps, and nothing has to be written for them.
"""

from collections.abc import Iterator

import numpy as np

from reid_jax.linkage.unions import halvings, united_among

_BLOCK_ROWS = 32  # rows of 10,000 to 100,000 samples that fit a core's cache
# The row of a union from the rows of two clusters; an average is a sum until it is looked at.
_COMBINE = {"average": np.add, "complete": np.maximum, "single": np.minimum}


class HostClusters:
    """Clusters whose distances are combined from those of their samples: "average", "complete" or "single".

    Attributes:
        distances: [N, N] float, as given.
        counts: [N] float32, the samples of every root's cluster.
        is_singleton: [N] bool.
        singletons: the nearest singletons.
        merged: the rows of the merged clusters.
    """

    def __init__(self, distances: np.ndarray, linkage: str, size_penalty: float):
        num_items = len(distances)
        self.distances, self.linkage, self.size_penalty = np.asarray(distances), linkage, size_penalty
        self.counts = np.ones(num_items, np.float32)
        self.is_singleton = np.ones(num_items, bool)
        self.singletons = NearestSingletons(self.distances)
        self.merged = MergedRows(num_items)

    def nearest(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the nearest other root of every root [N], the lower of equal ones, else -1; and its distance [N]."""
        self.singletons.update(self.is_singleton)
        nearest = self.singletons.nearest.copy()
        distance = self.singletons.distance + np.float32(2 * self.size_penalty)
        for roots in _blocks(self.merged.roots):
            rows = self._distances_of(roots)
            nearest[roots] = rows.argmin(axis=1)
            distance[roots] = rows[np.arange(len(roots)), nearest[roots]]
            self._offer_to_singletons(roots, rows, nearest, distance)
        return np.where(np.isfinite(distance), nearest, -1), distance

    def distances_among(self, roots: np.ndarray) -> np.ndarray:
        """Returns the distances [R, R] among ascending roots; the diagonal means nothing."""
        among = np.empty((len(roots), len(roots)), np.float32)
        for places in _blocks(np.flatnonzero(self.is_singleton[roots])):
            # Whole rows first: picking single entries from rows far apart is slower.
            among[places] = self.distances[roots[places]].take(roots, axis=1)
            among[places] += np.float32(2 * self.size_penalty)
        # Merged clusters last: they overwrite what the given matrix says of them.
        for places in _blocks(np.flatnonzero(~self.is_singleton[roots])):
            rows = self._distances_of(roots[places]).take(roots, axis=1)
            among[places], among[:, places] = rows, rows.T
        return among

    def merge(self, united: np.ndarray) -> None:
        """Unites clusters; united [N] as `unions.py` says."""
        takes_part = np.isin(united, united[united != np.arange(len(united))])
        # Singletons first, with one another: then only merged clusters are left to unite.
        self._merge_singletons(united, np.flatnonzero(takes_part & self.is_singleton))
        self._merge_rows(united_among(united, np.flatnonzero(takes_part & self.merged.has_row)))

    def _offer_to_singletons(self, roots, rows, nearest, distance) -> None:
        """Updates nearest and distance of the singletons to which one of the merged roots [R] is nearer.

        A singleton's own row does not know merged clusters; their rows [R, N] do.
        """
        least = rows.min(axis=0)
        columns = np.flatnonzero(self.is_singleton & (least <= distance))
        candidates = roots[rows[:, columns].argmin(axis=0)]
        closer = (least[columns] < distance[columns]) | (candidates < nearest[columns])
        nearest[columns[closer]], distance[columns[closer]] = candidates[closer], least[columns[closer]]

    def _merge_singletons(self, united: np.ndarray, samples: np.ndarray) -> None:
        """Gives every component's singletons, together, one row, at the first of them.

        That is so for a component's only singleton, too: it is about to unite with merged clusters.
        """
        firsts = united_among(united, samples)
        old, new = self.merged.roots, np.unique(firsts[samples])
        self.merged.add(new)
        for sample in samples:
            row = self.merged.row(firsts[sample])
            if sample == firsts[sample]:
                row[:] = self.distances[sample]
            else:
                _COMBINE[self.linkage](row, self.distances[sample], out=row)
        self.merged.combine_columns(firsts, _COMBINE[self.linkage])
        # The given matrix knows nothing of older merged clusters; their own rows do, with columns already combined.
        self.merged.copy_across(old, new)
        self.counts[new] = np.bincount(firsts[samples], minlength=len(firsts))[new]
        self.is_singleton[samples] = False

    def _merge_rows(self, united: np.ndarray) -> None:
        """Unites merged clusters."""
        for targets, sources in halvings(united):
            self.merged.combine_rows(targets, sources, _COMBINE[self.linkage])
            self.counts[targets] += self.counts[sources]
        self.merged.remove(np.flatnonzero(united != np.arange(len(united))))
        self.merged.combine_columns(united, _COMBINE[self.linkage])

    def _distances_of(self, roots: np.ndarray) -> np.ndarray:
        """Returns merged clusters' distances [R, N] to every root; infinite to themselves and what is no root."""
        rows = self.merged.copy_of(roots)
        counts = self.counts[roots, None]
        if self.linkage == "average":
            rows /= counts * self.counts  # HCT eq. (1)
        if self.size_penalty:
            rows += np.float32(self.size_penalty) * (counts + self.counts)  # BUC eq. (5), (6)
        rows += np.where(self.is_singleton | self.merged.has_row, np.float32(0), np.float32(np.inf))
        rows[np.arange(len(roots)), roots] = np.inf
        return rows


class HostCentroids(HostClusters):
    """Clusters whose distance is that of their mean embeddings; only changed rows are computed.

    Attributes:
        totals: [N, D] float32, the summed embeddings of every root's cluster.
    """

    def __init__(self, distances: np.ndarray, size_penalty: float, embeddings: np.ndarray):
        super().__init__(distances, "centroid", size_penalty)
        self.totals = np.array(embeddings, np.float32)

    def merge(self, united: np.ndarray) -> None:
        """Unites clusters; united [N] as `unions.py` says."""
        for targets, sources in halvings(united):
            self.totals[targets] += self.totals[sources]
            self.counts[targets] += self.counts[sources]
        absorbed = np.flatnonzero(united != np.arange(len(united)))
        changed = np.unique(united[absorbed])
        self.is_singleton[absorbed] = self.is_singleton[changed] = False
        self.merged.remove(absorbed)
        self.merged.remove(changed)
        unchanged = self.merged.roots
        self.merged.add(changed)
        self._write_rows(changed)
        self.merged.copy_across(changed, unchanged)

    def _write_rows(self, changed: np.ndarray) -> None:
        """Computes merged clusters' distances to every root."""
        centroids = self.totals / self.counts[:, None]
        squares = np.square(centroids).sum(axis=1)
        for roots in _blocks(changed, size=512):
            sq_distances = squares[roots, None] + squares - 2 * (centroids[roots] @ centroids.T)
            self.merged.write(roots, np.sqrt(np.maximum(sq_distances, 0)))


class NearestSingletons:
    """The nearest other singleton of every singleton, searched again only where that one has united.

    Attributes:
        nearest: [N] int, the lower of equally near ones; -1 before the first search. Only right for singletons.
        distance: [N] float32, without any size penalty; infinite for what is no singleton, or the only one.
    """

    def __init__(self, distances: np.ndarray):
        self._distances = distances
        self.nearest = np.full(len(distances), -1)
        self.distance = np.full(len(distances), np.inf, np.float32)

    def update(self, is_singleton: np.ndarray) -> None:
        """Searches where it has to; is_singleton [N] bool, True nowhere that it was False before."""
        self.distance[~is_singleton] = np.inf
        stays = (self.nearest >= 0) & is_singleton[self.nearest]
        no_singleton = np.where(is_singleton, np.float32(0), np.float32(np.inf))
        for samples in _blocks(np.flatnonzero(is_singleton & ~stays)):
            rows = self._distances[samples].astype(np.float32, copy=False)
            rows += no_singleton
            each = np.arange(len(samples))
            rows[each, samples] = np.inf
            self.nearest[samples] = nearest = rows.argmin(axis=1)
            self.distance[samples] = rows[each, nearest]


class MergedRows:
    """One row [N] of combined distances for every merged cluster, by its root."""

    def __init__(self, num_items: int):
        # Pages that are never written are never there: only as many rows take memory as are in use at a time.
        self._rows = np.empty((num_items, num_items), np.float32)
        self._row_of = np.full(num_items, -1)  # by root; -1: none

    @property
    def has_row(self) -> np.ndarray:
        """Which samples are roots of merged clusters, [N] bool."""
        return self._row_of >= 0

    @property
    def roots(self) -> np.ndarray:
        """The merged clusters, [R] int, ascending."""
        return np.flatnonzero(self.has_row)

    def add(self, roots: np.ndarray) -> None:
        """Gives roots without a row the lowest rows that are free; what these hold is still to be written."""
        used = self._row_of[self.has_row]
        self._row_of[roots] = np.setdiff1d(np.arange(len(used) + len(roots)), used)[: len(roots)]

    def remove(self, roots: np.ndarray) -> None:
        """Frees the rows of those roots that have one."""
        self._row_of[roots] = -1

    def row(self, root: int) -> np.ndarray:
        """Returns a cluster's row [N] itself, to be written to."""
        return self._rows[self._row_of[root]]

    def copy_of(self, roots: np.ndarray) -> np.ndarray:
        """Returns a copy of clusters' rows, [R, N]."""
        return self._rows[self._row_of[roots]]

    def write(self, roots: np.ndarray, values: np.ndarray) -> None:
        """Writes clusters' whole rows, [R, N]."""
        self._rows[self._row_of[roots]] = values

    def combine_rows(self, targets: np.ndarray, sources: np.ndarray, combine: np.ufunc) -> None:
        """Combines the sources' rows into the targets', pair by pair."""
        for target, source in zip(targets, sources):
            row = self.row(target)
            combine(row, self.row(source), out=row)

    def combine_columns(self, united: np.ndarray, combine: np.ufunc) -> None:
        """Combines the columns of united clusters in all rows; united [N] as `unions.py` says."""
        levels = list(halvings(united))
        # In blocks of whatever rows there are, used or not, because they lie next to each other.
        num_rows = self._row_of.max() + 1
        for start in range(0, num_rows, _BLOCK_ROWS):
            block = self._rows[start : min(start + _BLOCK_ROWS, num_rows)]
            for targets, sources in levels:
                block[:, targets] = combine(block[:, targets], block[:, sources])

    def copy_across(self, sources: np.ndarray, targets: np.ndarray) -> None:
        """Writes the distances between two sets of clusters from the rows of `sources` into those of `targets`."""
        columns = self._rows[: self._row_of.max() + 1].take(targets, axis=1)[self._row_of[sources]]
        for row, values in zip(self._row_of[targets], columns.T.copy()):
            self._rows[row][sources] = values


def _blocks(items: np.ndarray, size: int = _BLOCK_ROWS) -> Iterator[np.ndarray]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
