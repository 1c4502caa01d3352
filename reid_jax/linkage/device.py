"""Clusters of a matrix on an accelerator, and the distances between them while they unite."""

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from reid_jax import distances as sample_distances
from reid_jax.linkage.unions import halvings


class DeviceClusters:
    """Clusters of a matrix on an accelerator: a copy [N, N], worked on in place, with masks for what is no root."""

    def __init__(self, distances: jax.Array, linkage: str, size_penalty: float):
        self.combined = jnp.array(distances, jnp.float32, copy=True)
        self.linkage, self.size_penalty = linkage, size_penalty
        self.counts = jnp.ones(len(distances), jnp.float32)
        self.is_root = np.ones(len(distances), bool)

    def nearest(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the nearest other root of every root [N], the lower of equal ones, else -1; and its distance [N]."""
        neighbors = _nearest(self.combined, self.counts, self.is_root, self.size_penalty, linkage=self.linkage)
        nearest, distance = (np.asarray(array) for array in neighbors)
        return np.where(np.isfinite(distance), nearest, -1), distance

    def distances_among(self, roots: np.ndarray) -> np.ndarray:
        """Returns the distances [R, R] among ascending roots; the diagonal means nothing."""
        padded = _padded(roots, fill=0)
        among = _among(self.combined, self.counts, self.size_penalty, padded, linkage=self.linkage)
        return np.asarray(among)[: len(roots), : len(roots)]

    def merge(self, united: np.ndarray) -> None:
        """Unites clusters; united [N] as `unions.py` says."""
        for targets, sources in _padded_halvings(united):
            self.combined = _combine(self.combined, targets, sources, linkage=self.linkage)
            self.counts = self.counts.at[targets].add(self.counts[sources], mode="drop")
        self.is_root &= united == np.arange(len(united))


class DeviceCentroids(DeviceClusters):
    """Clusters on an accelerator whose distance is that of their mean embeddings, all computed at every merge."""

    def __init__(self, distances: jax.Array, size_penalty: float, embeddings: jax.Array):
        super().__init__(distances, "centroid", size_penalty)
        self.totals = jnp.asarray(embeddings, jnp.float32)

    def merge(self, united: np.ndarray) -> None:
        """Unites clusters; united [N] as `unions.py` says."""
        for targets, sources in _padded_halvings(united):
            self.totals = self.totals.at[targets].add(self.totals[sources], mode="drop")
            self.counts = self.counts.at[targets].add(self.counts[sources], mode="drop")
        absorbed = united != np.arange(len(united))
        self.is_root &= ~absorbed
        if absorbed.any():
            self.combined = sample_distances.pairwise_distances(self.totals / self.counts[:, None])


def _padded_halvings(united: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields `halvings`, filled up with targets N, which are out of range and dropped."""
    for targets, sources in halvings(united):
        yield _padded(targets, fill=len(united)), _padded(sources, fill=len(united))


def _padded(items: np.ndarray, *, fill: int) -> np.ndarray:
    """Fills up to a power of two, so that few shapes are compiled whatever the number of clusters."""
    return np.pad(items, (0, (1 << (len(items) - 1).bit_length()) - len(items)), constant_values=fill)


def _selection(combined, counts, other_counts, size_penalty, linkage):
    """Turns combined distances [R, C] into those that pairs are chosen by; counts [R, 1], other_counts [C]."""
    if linkage == "average":
        combined = combined / (counts * other_counts)  # HCT eq. (1)
    return combined + size_penalty * (counts + other_counts)  # BUC eq. (5), (6)


@partial(jax.jit, static_argnames="linkage")
def _nearest(combined, counts, is_root, size_penalty, *, linkage):
    items = jnp.arange(len(counts))
    allowed = is_root[:, None] & is_root & (items[:, None] != items)
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
