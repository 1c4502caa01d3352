"""Where pseudo labels and true identities differ: which samples, which clusters, which identities.

Everything runs on the host, exactly, by sorting: no N x N array, no Python loop over samples. In this module a sample
with a negative pseudo label, which no cluster took, is a cluster of its own.
"""

import enum
from typing import NamedTuple

import numpy as np

from reid_jax import identities


class Outcome(enum.IntEnum):
    """What became of a sample; HCT's Fig. 3 speaks of pairs of samples, here each sample has one outcome.

    A cluster belongs to the identity that is most frequent in it; of the clusters that belong to an identity, its main
    one has most of its samples.
    """

    UNKNOWN = identities.UNKNOWN  # its identity is not known
    LEFT_OUT = -2  # it was not trained on, as what PUL does not select; no sample's by `sample_outcomes`
    TRUE_POSITIVE = 0  # in its identity's main cluster
    FALSE_POSITIVE = 1  # in a cluster that belongs to another identity
    FALSE_NEGATIVE = 2  # in a cluster that belongs to its identity and is not the main one


class Mixture(NamedTuple):
    """Samples that pseudo labels and true identities group differently.

    Attributes:
        label: the pseudo label of the cluster that holds several identities, or the identity in several clusters.
        groups: the indices of its samples by identity, or by cluster; ascending within a group. Larger groups come
            first, of equally large ones that of the lower identity or pseudo label, those no cluster took last.
        num_wrong_pairs: pairs of its samples in different groups: wrongly united, or wrongly parted.
    """

    label: int
    groups: list[np.ndarray]
    num_wrong_pairs: int


def sample_outcomes(pseudo_labels: np.ndarray, true_ids: np.ndarray) -> np.ndarray:
    """Says of every sample what became of it (`Outcome`).

    Samples of unknown identity do not count for whose a cluster is. Of equally frequent identities the lowest has the
    cluster; of equally large clusters of an identity that of the lowest pseudo label is the main one, before samples
    that no cluster took, and of those the first.

    Args:
        pseudo_labels: [N] integer; negative: no cluster took it.
        true_ids: [N] integer; negative: not known.

    Returns:
        [N] int8, values of `Outcome`.

    Raises:
        ValueError: an argument of another shape or type.
    """
    pseudo_labels, true_ids = _checked(pseudo_labels, true_ids)
    known = np.flatnonzero(true_ids >= 0)
    clusters = _cluster_numbers(pseudo_labels)[known]
    ids, identities = np.unique(true_ids[known], return_inverse=True)
    # A cell is the samples of one identity in one cluster; cells are sorted by cluster, then by identity.
    codes, cells, counts = np.unique(clusters * len(ids) + identities, return_inverse=True, return_counts=True)
    cell_clusters, cell_identities = np.divmod(codes, max(1, len(ids)))
    owning = _largest_of_each(cell_clusters, counts)
    main = owning[_largest_of_each(cell_identities[owning], counts[owning])]
    cell_outcomes = np.full(len(codes), Outcome.FALSE_POSITIVE, np.int8)
    cell_outcomes[owning] = Outcome.FALSE_NEGATIVE
    cell_outcomes[main] = Outcome.TRUE_POSITIVE
    outcomes = np.full(len(true_ids), Outcome.UNKNOWN, np.int8)
    outcomes[known] = cell_outcomes[cells]
    return outcomes


def largest_wrong_merges(pseudo_labels: np.ndarray, true_ids: np.ndarray, *, most: int) -> list[Mixture]:
    """Finds the clusters that hold several identities, those with most wrongly united pairs first.

    Samples of unknown identity are left out. Of clusters with as many such pairs the lowest pseudo label comes first.

    Args:
        pseudo_labels: [N] integer; negative: no cluster took it.
        true_ids: [N] integer; negative: not known.
        most: so many clusters at most.

    Returns:
        The clusters, their samples grouped by identity.

    Raises:
        ValueError: an argument of another shape or type, or most less than 1.
    """
    pseudo_labels, true_ids = _checked(pseudo_labels, true_ids)
    return _mixtures(pseudo_labels, _cluster_numbers(pseudo_labels), true_ids, np.flatnonzero(true_ids >= 0), most)


def largest_wrong_splits(pseudo_labels: np.ndarray, true_ids: np.ndarray, *, most: int) -> list[Mixture]:
    """Finds the identities that are spread over several clusters, those with most wrongly parted pairs first.

    Of identities with as many such pairs the lowest comes first.

    Args:
        pseudo_labels: [N] integer; negative: no cluster took it.
        true_ids: [N] integer; negative: not known, left out.
        most: so many identities at most.

    Returns:
        The identities, their samples grouped by cluster.

    Raises:
        ValueError: an argument of another shape or type, or most less than 1.
    """
    pseudo_labels, true_ids = _checked(pseudo_labels, true_ids)
    return _mixtures(true_ids, true_ids, _cluster_numbers(pseudo_labels), np.flatnonzero(true_ids >= 0), most)


def cluster_sizes(pseudo_labels: np.ndarray) -> np.ndarray:
    """Returns how many samples each cluster has, the largest first.

    Args:
        pseudo_labels: [N] integer; each negative one is a cluster of 1. Of identities give the known ones only.

    Returns:
        [C] int64, descending.

    Raises:
        ValueError: pseudo_labels is of another shape or type.
    """
    pseudo_labels = np.asarray(pseudo_labels)
    _check_integers("pseudo_labels", pseudo_labels)
    return np.sort(np.unique(_cluster_numbers(pseudo_labels), return_counts=True)[1])[::-1]


def _cluster_numbers(pseudo_labels: np.ndarray) -> np.ndarray:
    """Numbers clusters by their labels, from 0; samples that no cluster took follow, each with its own: [N] int64."""
    outside = pseudo_labels < 0
    labels, inside = np.unique(pseudo_labels[~outside], return_inverse=True)
    numbers = np.empty(len(pseudo_labels), np.int64)
    numbers[~outside] = inside
    numbers[outside] = len(labels) + np.arange(np.count_nonzero(outside))
    return numbers


def _largest_of_each(groups: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Indices of the largest of counts [M] in each of groups [M], of equal ones the first."""
    order = np.lexsort((-counts, groups))
    return order[_starts(groups[order])]


def _starts(values: np.ndarray) -> np.ndarray:
    """Where runs of equal values begin."""
    return np.flatnonzero(np.concatenate([np.ones(min(1, len(values)), bool), values[1:] != values[:-1]]))


def _mixtures(labels: np.ndarray, outer: np.ndarray, inner: np.ndarray, used: np.ndarray, most: int) -> list[Mixture]:
    """The groups by `outer` that are of several groups by `inner`, [N] each; labels [N] are constant within outer."""
    if most < 1:
        raise ValueError(f"most must be at least 1, got {most}")
    order = used[np.lexsort((inner[used], outer[used]))]
    # As many wrong pairs: by label, in whose order the groups by `outer` are.
    starts = _starts(outer[order])
    sizes = np.diff(starts, append=len(order))
    changes = np.union1d(starts, _starts(inner[order]))
    right = np.zeros(len(starts), np.int64)
    np.add.at(right, np.searchsorted(starts, changes, side="right") - 1, _pairs(np.diff(changes, append=len(order))))
    wrong = _pairs(sizes) - right
    mixtures = []
    for group in np.argsort(-wrong, kind="stable")[:most]:
        if not wrong[group]:
            break
        samples = order[starts[group] : starts[group] + sizes[group]]
        parts = np.split(samples, _starts(inner[samples])[1:])
        parts.sort(key=len, reverse=True)  # which keeps the order of equally long ones
        mixtures.append(Mixture(int(labels[samples[0]]), parts, int(wrong[group])))
    return mixtures


def _pairs(counts: np.ndarray) -> np.ndarray:
    return counts * (counts - 1) // 2


def _checked(pseudo_labels: np.ndarray, true_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    pseudo_labels, true_ids = np.asarray(pseudo_labels), np.asarray(true_ids)
    _check_integers("pseudo_labels", pseudo_labels)
    _check_integers("true_ids", true_ids)
    if pseudo_labels.shape != true_ids.shape:
        raise ValueError(
            f"true_ids must be [{len(pseudo_labels)}] as pseudo_labels, got shape {true_ids.shape} of {true_ids.dtype}"
        )
    return pseudo_labels, true_ids


def _check_integers(name: str, values: np.ndarray) -> None:
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise ValueError(f"{name} must be [N] integers, got shape {values.shape} of {values.dtype}")
