"""What is logged of pseudo labels: how many there are, how they changed, and how right they are."""

from typing import Any

import numpy as np

from reid_jax import cluster_quality


def label_metrics(
    pseudo_labels: np.ndarray,
    previous: np.ndarray | None,
    true_ids: np.ndarray,
    *,
    camids: np.ndarray | None = None,
) -> dict[str, Any]:
    """Measures pseudo labels.

    Args:
        pseudo_labels: [N] integer, 0..C-1.
        previous: [N] integer, the last iteration's, or None.
        true_ids: [N] int64, -1 where not known; scores against them are left out if none is known.
        camids: [N] int64, -1 where not known; camera_nmi is left out if fewer than two are known.

    Returns:
        num_clusters, samples that are alone included; num_groups, num_alone, largest_cluster and camera_nmi, as
        `cluster_sizes` and `camera_dependence` say; agreement (`agreement` with the last iteration), and BCubed, NMI,
        ARI and pair counts.
    """
    metrics: dict[str, Any] = {"num_clusters": int(pseudo_labels.max()) + 1, "agreement": None}
    metrics |= cluster_sizes(pseudo_labels)
    dependence = None if camids is None else camera_dependence(pseudo_labels, camids)
    if dependence is not None:
        metrics["camera_nmi"] = dependence
    if previous is not None:
        metrics["agreement"] = agreement(pseudo_labels, previous)
    if (true_ids >= 0).any():
        precision, recall, f_score = cluster_quality.bcubed(pseudo_labels, true_ids)
        metrics |= {"bcubed_precision": precision, "bcubed_recall": recall, "bcubed_f": f_score}
        metrics["nmi"] = cluster_quality.normalized_mutual_information(pseudo_labels, true_ids)
        metrics["ari"] = cluster_quality.adjusted_rand_index(pseudo_labels, true_ids)
        metrics |= cluster_quality.pair_counts(pseudo_labels, true_ids)._asdict()
    return metrics


def cluster_sizes(pseudo_labels: np.ndarray) -> dict[str, int]:
    """Counts what labels [N], 0..C-1, make of the samples.

    Returns:
        num_groups, clusters of two samples or more; num_alone, samples that share their cluster with none; and
        largest_cluster, the samples of the largest.
    """
    sizes = np.bincount(pseudo_labels)
    return {
        "num_groups": int((sizes > 1).sum()),
        "num_alone": int((sizes == 1).sum()),
        "largest_cluster": int(sizes.max()),
    }


def camera_dependence(pseudo_labels: np.ndarray, camids: np.ndarray) -> float | None:
    """How far the clusters of labels [N] follow the cameras [N]: about 0 not at all, 1 if each is of one camera.

    Plain NMI of many small clusters is high by chance, and of single-camera clusters low, since they have far more
    entropy than the cameras: hence `cluster_quality.adjusted_mutual_information`. Right labels have more than 0 where
    people were seen by some cameras only, up to 0.64 by 2 of 15 (docs/measured_runs.md, "Clusters and cameras").

    Returns:
        It, of the samples with a known camera that share their cluster with another such; None if these are of fewer
        than two cameras.
    """
    known = camids >= 0
    labels, camids = pseudo_labels[known], camids[known]
    shared = np.bincount(labels)[labels] > 1
    if len(np.unique(camids[shared])) < 2:
        return None
    return cluster_quality.adjusted_mutual_information(labels[shared], camids[shared])


def agreement(pseudo_labels: np.ndarray, previous: np.ndarray) -> float:
    """How well labels [N] agree with the last iteration's: the adjusted Rand index."""
    return cluster_quality.adjusted_rand_index(pseudo_labels, previous)


def singleton_labels(pseudo_labels: np.ndarray) -> np.ndarray:
    """Returns labels [N] int32, 0..C-1, in which every sample of a negative label is a cluster of its own."""
    own = pseudo_labels.max() + 1 + np.arange(len(pseudo_labels))
    return np.unique(np.where(pseudo_labels < 0, own, pseudo_labels), return_inverse=True)[1].astype(np.int32)


def clustered_metrics(
    pseudo_labels: np.ndarray,
    previous: np.ndarray | None,
    true_ids: np.ndarray,
    *,
    camids: np.ndarray | None = None,
) -> dict[str, Any]:
    """Measures labels [N] of which the negative ones are outliers, each counted as a cluster of its own, and alone."""
    previous = None if previous is None else singleton_labels(previous)
    return label_metrics(singleton_labels(pseudo_labels), previous, true_ids, camids=camids)


def selected_metrics(
    pseudo_labels: np.ndarray,
    previous: np.ndarray | None,
    true_ids: np.ndarray,
    *,
    camids: np.ndarray | None = None,
) -> dict[str, Any]:
    """Measures the labels [N] of selected samples, the ones not negative (PUL); the others count nowhere.

    The agreement is of those that were selected in both iterations.
    """
    used = pseudo_labels >= 0
    both = used if previous is None else used & (previous >= 0)
    metrics = label_metrics(pseudo_labels[used], None, true_ids[used], camids=None if camids is None else camids[used])
    if previous is not None and both.any():
        metrics["agreement"] = agreement(pseudo_labels[both], previous[both])
    return metrics


def level_metrics(
    pseudo_labels: np.ndarray,
    previous: np.ndarray | None,
    true_ids: np.ndarray,
    *,
    camids: np.ndarray | None = None,
) -> dict[str, Any]:
    """Measures the top level of labels [N, H], and every level by BCubed and the number of clusters (HCD Fig. 5)."""
    previous = None if previous is None else previous[:, -1]
    metrics = label_metrics(pseudo_labels[:, -1], previous, true_ids, camids=camids)
    for level, labels in enumerate(pseudo_labels.T, start=1):
        metrics[f"level{level}_num_clusters"] = int(labels.max()) + 1
        if (true_ids >= 0).any():
            names = (f"level{level}_bcubed_{name}" for name in ("precision", "recall", "f"))
            metrics |= zip(names, cluster_quality.bcubed(labels, true_ids))
    return metrics


def reliable_metrics(
    reliable: np.ndarray, previous: np.ndarray | None, true_ids: np.ndarray, camids: np.ndarray
) -> dict[str, Any]:
    """Measures the reliable samples of softened similarity learning.

    Args:
        reliable: [N, k] integer, each sample's k reliable ones.
        previous: [N, k], the last iteration's, or None.
        true_ids: [N] int64, -1 where not known; the precision is left out if none is known.
        camids: [N] int64, -1 where not known; so is the share across cameras.

    Returns:
        agreement (mean share of the reliable samples that were reliable before), reliable_precision (same identity)
        and reliable_cross_camera (another camera).
    """
    metrics: dict[str, Any] = {"agreement": None}
    if previous is not None:
        metrics["agreement"] = float((reliable[:, :, None] == previous[:, None, :]).any(axis=2).mean())
    for name, values, differs in (("precision", true_ids, False), ("cross_camera", camids, True)):
        known = (values[:, None] >= 0) & (values[reliable] >= 0)
        if known.any():
            metrics[f"reliable_{name}"] = float(((values[:, None] == values[reliable]) != differs)[known].mean())
    return metrics
