"""SpCL's self-paced choice of the clusters to train on, on the host.

Ge et al., "Self-paced Contrastive Learning with Hybrid Memory for Domain Adaptive Object Re-ID", NeurIPS 2020, "Self-paced
Learning with Reliable Clusters"; what the paper leaves open, and where the two differ, as the authors' code has it.

A cluster is reliable if it stays what it is when the clustering's criterion is loosened (independence) or tightened
(compactness). Images that two clusters have in common are counted from the pairs of labels that occur, so that 100,000
images cost milliseconds. A sample with a negative label is a cluster of its own in every clustering.
"""

import numpy as np

from reid_jax.memory import first_index_labels


def independence(labels: np.ndarray, looser: np.ndarray) -> np.ndarray:
    """Measures how far each sample's cluster stays apart from others when clusters are looser: SpCL's R_indep.

    Args:
        labels: [N] integer, the clustering; negative: an outlier.
        looser: [N] integer, the clustering by a looser criterion.

    Returns:
        [N] float64, greater than 0, up to 1: intersection over union of the two clusters that a sample is in.

    Raises:
        ValueError: the labelings are not both [N].
    """
    return _intersection_over_union(labels, looser)


def compactness(labels: np.ndarray, tighter: np.ndarray) -> np.ndarray:
    """Measures how much of each sample's cluster stays together when clusters are tighter: SpCL's R_comp.

    Args:
        labels: [N] integer, the clustering; negative: an outlier.
        tighter: [N] integer, the clustering by a tighter criterion.

    Returns:
        [N] float64, as `independence` returns it.

    Raises:
        ValueError: the labelings are not both [N].
    """
    return _intersection_over_union(labels, tighter)


def independence_threshold(labels: np.ndarray, looser: np.ndarray, *, share: float = 0.9) -> float:
    """Chooses the independence that a cluster must have, so that about `share` of the clusters have it.

    SpCL's alpha, which is chosen in the first epoch and kept for the run. Only clusters of more than one sample count.

    Args:
        labels: [N] integer, the first clustering; negative: an outlier.
        looser: [N] integer, the clustering by a looser criterion.
        share: of the clusters, 0..1.

    Returns:
        Greater than 0, up to 1; clusters are to have at least that. To be kept in float64: some have exactly that.

    Raises:
        ValueError: the labelings are not both [N], share is out of its range, or no cluster has two samples.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must be in 0..1, got {share}")
    clusters = first_index_labels(labels)
    best = _best_of_clusters(independence(labels, looser), clusters)
    values = best[np.bincount(clusters, minlength=len(best)) > 1]
    if not len(values):
        raise ValueError("labels must have a cluster of two samples or more, but each sample is alone")
    # Reference: its index, so that with share 0.9 the cluster after the first 90 % still passes.
    last = min(len(values) - 1, int(np.round(share * len(values))))
    return float(np.sort(values)[::-1][last])


def reliable_labels(
    labels: np.ndarray, *, tighter: np.ndarray, looser: np.ndarray, least_independence: float
) -> np.ndarray:
    """Keeps the samples of independent clusters that are in their cluster's most compact part.

    As in the authors' code, a cluster is as independent as the most independent of its samples, and a sample is kept if
    none of its cluster is more compact than it; the paper has a threshold beta of compactness in place of that. What is
    not kept is a class alone, and so is a sample that no other of its cluster was kept with: -1, as an outlier.

    Args:
        labels: [N] integer, the clustering; negative: an outlier.
        tighter: [N] integer, the clustering by a tighter criterion.
        looser: [N] integer, the clustering by a looser criterion.
        least_independence: from `independence_threshold`.

    Returns:
        [N] int64: 0..C-1 in the order of `labels`, each of two samples or more; -1: a class alone.

    Raises:
        ValueError: the labelings are not all [N].
    """
    labels = np.asarray(labels)
    independent, compact = independence(labels, looser), compactness(labels, tighter)
    clusters = first_index_labels(labels)
    kept = (_best_of_clusters(independent, clusters)[clusters] >= least_independence) & (
        compact == _best_of_clusters(compact, clusters)[clusters]
    )
    kept &= (np.bincount(clusters[kept], minlength=len(labels)) > 1)[clusters]
    reliable = np.full(len(labels), -1, np.int64)
    reliable[kept] = np.unique(labels[kept], return_inverse=True)[1]
    return reliable


def _intersection_over_union(labels, others) -> np.ndarray:
    """Compares the two clusters that each sample is in, [N] float64."""
    if np.ndim(labels) != 1 or np.shape(labels) != np.shape(others):
        raise ValueError(f"the two labelings must both be [N], got shapes {np.shape(labels)} and {np.shape(others)}")
    ours, theirs = first_index_labels(labels), first_index_labels(others)
    _, pairs, counts = np.unique(ours * len(ours) + theirs, return_inverse=True, return_counts=True)
    common = counts[pairs]
    return common / (np.bincount(ours)[ours] + np.bincount(theirs)[theirs] - common)


def _best_of_clusters(values, clusters) -> np.ndarray:
    """Returns the greatest value of each cluster, [N] by its label; 0 where no sample has the label."""
    best = np.zeros(len(values))
    np.maximum.at(best, clusters, values)
    return best
