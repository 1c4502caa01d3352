"""How good pseudo labels are: against true identities, against the last iteration's, and on their own.

Everything here runs on the host, exactly, on the sparse contingency table of two labelings, so that 100,000
images cost milliseconds. Images with a negative label on either side are left out.
"""

from typing import NamedTuple

import numpy as np
from scipy import special


class PairCounts(NamedTuple):
    """Pairs of different images, as HCT's Fig. 3 names them.

    Attributes:
        true_positives: same pseudo label, same identity.
        false_positives: same pseudo label, different identities.
        false_negatives: different pseudo labels, same identity.
    """

    true_positives: int
    false_positives: int
    false_negatives: int


def bcubed(pseudo_labels: np.ndarray, pids: np.ndarray) -> tuple[float, float, float]:
    """BCubed precision, recall and F score of a clustering (Amigo et al. 2009; cluster dynamics, sec. 6.2).

    An image's precision is the part of its cluster that has its identity, itself included; its recall the part
    of its identity that is in its cluster. Both are averaged over images; F is their harmonic mean.

    Args:
        pseudo_labels: [N] integer.
        pids: [N] integer, true identities.

    Returns:
        (precision, recall, f_score), each 0..1; nan if no image has both labels.

    Raises:
        ValueError: the shapes differ or are not [N].
    """
    cells, cluster_sizes, identity_sizes = _contingency(pseudo_labels, pids)
    total = cells.sum()
    if not total:
        return (float("nan"),) * 3
    precision = float((cells**2 / cluster_sizes).sum() / total)
    recall = float((cells**2 / identity_sizes).sum() / total)
    return precision, recall, 2 * precision * recall / (precision + recall)


def pair_counts(pseudo_labels: np.ndarray, pids: np.ndarray) -> PairCounts:
    """Counts the pairs of images that the pseudo labels unite or part rightly and wrongly.

    Args:
        pseudo_labels: [N] integer.
        pids: [N] integer, true identities.

    Raises:
        ValueError: the shapes differ or are not [N].
    """
    cells, clusters, identities = _contingency(pseudo_labels, pids, totals="each")
    together = int(_pairs(cells))
    return PairCounts(together, int(_pairs(clusters)) - together, int(_pairs(identities)) - together)


def adjusted_rand_index(labels_a: np.ndarray, labels_b: np.ndarray) -> float:
    """Adjusted Rand index of two labelings: 1 equal, about 0 by chance (Hubert and Arabie 1985).

    Args:
        labels_a: [N] integer.
        labels_b: [N] integer.

    Raises:
        ValueError: the shapes differ or are not [N].
    """
    cells, sizes_a, sizes_b = _contingency(labels_a, labels_b, totals="each")
    all_pairs = _pairs(cells.sum())
    together, pairs_a, pairs_b = _pairs(cells), _pairs(sizes_a), _pairs(sizes_b)
    expected = pairs_a * pairs_b / all_pairs if all_pairs else 0.0
    largest = (pairs_a + pairs_b) / 2
    # Both all alone or both all together: the index is 0 / 0, and the labelings are equal.
    return 1.0 if largest == expected else float((together - expected) / (largest - expected))


def normalized_mutual_information(labels_a: np.ndarray, labels_b: np.ndarray) -> float:
    """Mutual information of two labelings over the mean of their entropies, 0..1.

    Args:
        labels_a: [N] integer.
        labels_b: [N] integer.

    Raises:
        ValueError: the shapes differ or are not [N].
    """
    cells, sizes_a, sizes_b = _contingency(labels_a, labels_b, totals="each")
    joint, a, b = _entropy(cells), _entropy(sizes_a), _entropy(sizes_b)
    return 1.0 if a + b == 0 else float(max(0.0, 2 * (a + b - joint) / (a + b)))


def adjusted_mutual_information(labels_a: np.ndarray, labels_b: np.ndarray) -> float:
    """How far one of two labelings tells the other: 1 wholly, about 0 as by chance (Vinh et al., JMLR 2010).

    Mutual information and the lesser of the two entropies, both less what labels of the same sizes have in common by
    chance. The lesser, so that clusters that each lie inside one camera have 1 however many they are.

    Args:
        labels_a: [N] integer.
        labels_b: [N] integer.

    Returns:
        At most 1; 0 where either labeling has only one cluster or only single images, which tell nothing.

    Raises:
        ValueError: the shapes differ or are not [N].
    """
    cells, sizes_a, sizes_b = _contingency(labels_a, labels_b, totals="each")
    if any(len(sizes) < 2 or sizes.max() == 1 for sizes in (sizes_a, sizes_b)):
        return 0.0
    joint, a, b = _entropy(cells), _entropy(sizes_a), _entropy(sizes_b)
    expected = _expected_information(sizes_a, sizes_b)
    return min(1.0, float((a + b - joint - expected) / (min(a, b) - expected)))  # rounding may take it beyond 1


def _expected_information(sizes_a: np.ndarray, sizes_b: np.ndarray) -> float:
    """Mean mutual information of all pairs of labelings with these sizes (Vinh et al., eq. (24a))."""
    total, expected = int(sizes_a.sum()), 0.0
    logs = special.gammaln(np.arange(total + 1) + 1)  # of factorials
    uniques_a, uniques_b = (np.unique(sizes.astype(np.int64), return_counts=True) for sizes in (sizes_a, sizes_b))
    # What is expected of two clusters depends on their sizes alone, of which there are few.
    for a, count_a in zip(*uniques_a):
        for b, count_b in zip(*uniques_b):
            common = np.arange(max(1, a + b - total), min(a, b) + 1)
            # The hypergeometric distribution of how many images they have in common.
            ways = logs[a] + logs[b] + logs[total - a] + logs[total - b] - logs[total]
            ways = ways - logs[common] - logs[a - common] - logs[b - common] - logs[total - a - b + common]
            terms = np.exp(ways) * common / total * np.log(total * common / (a * b))
            expected += count_a * count_b * terms.sum()
    return float(expected)


def silhouette(distances: np.ndarray, pseudo_labels: np.ndarray, *, block_size: int = 1024) -> float:
    """Mean silhouette: how much nearer images are to their own cluster than to the next; no identities needed.

    For an image, a is its mean distance to the others of its cluster and b the least mean distance to another
    cluster; its silhouette is (b - a) / max(a, b), and 0 if it is alone (Rousseeuw 1987).

    Args:
        distances: [N, N] float, symmetric.
        pseudo_labels: [N] integer; negative: not used.
        block_size: rows at a time; bounds the memory at block_size x N.

    Returns:
        -1..1; nan with fewer than two clusters.

    Raises:
        ValueError: distances is not [N, N].
    """
    pseudo_labels = np.asarray(pseudo_labels)
    if distances.shape != (len(pseudo_labels),) * 2:
        raise ValueError(f"distances must be [N, N] for N = {len(pseudo_labels)} labels, got {distances.shape}")
    order = np.argsort(pseudo_labels, kind="stable")
    order = order[pseudo_labels[order] >= 0]
    _, starts, own, counts = np.unique(pseudo_labels[order], return_index=True, return_inverse=True, return_counts=True)
    if len(counts) < 2:
        return float("nan")
    scores = []
    for block in range(0, len(order), block_size):
        rows = order[block : block + block_size]
        clusters = own[block : block + block_size, None]
        sums = np.add.reduceat(np.asarray(distances[rows])[:, order], starts, axis=1, dtype=np.float64)
        own_counts = counts[clusters]
        within = np.take_along_axis(sums, clusters, axis=1) / np.maximum(own_counts - 1, 1)
        means = sums / counts
        np.put_along_axis(means, clusters, np.inf, axis=1)
        nearest = means.min(axis=1, keepdims=True)
        larger = np.maximum(np.maximum(within, nearest), np.finfo(np.float64).tiny)
        scores.append(np.where(own_counts > 1, (nearest - within) / larger, 0.0)[:, 0])
    return float(np.concatenate(scores).mean())


def _contingency(labels_a, labels_b, *, totals: str = "cell") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts of the pairs (a, b) that occur, and the sizes of a and b: per such pair, or (totals="each") once each."""
    labels_a, labels_b = np.asarray(labels_a), np.asarray(labels_b)
    if labels_a.ndim != 1 or labels_a.shape != labels_b.shape:
        raise ValueError(f"the two labelings must both be [N], got shapes {labels_a.shape} and {labels_b.shape}")
    used = (labels_a >= 0) & (labels_b >= 0)
    _, a, sizes_a = np.unique(labels_a[used], return_inverse=True, return_counts=True)
    values_b, b, sizes_b = np.unique(labels_b[used], return_inverse=True, return_counts=True)
    codes, cells = np.unique(a.astype(np.int64) * len(values_b) + b, return_counts=True)
    # Floats: the number of pairs of 100,000 images squared does not fit 64 bits.
    cells, sizes_a, sizes_b = (sizes.astype(np.float64) for sizes in (cells, sizes_a, sizes_b))
    if totals == "each" or not len(values_b):
        return cells, sizes_a, sizes_b
    return cells, sizes_a[codes // len(values_b)], sizes_b[codes % len(values_b)]


def _pairs(counts: np.ndarray) -> float:
    return float(np.sum(counts * (counts - 1) / 2))


def _entropy(counts: np.ndarray) -> float:
    shares = counts / counts.sum()
    return float(-(shares * np.log(shares)).sum())
