"""From the embeddings of an iteration to its pseudo labels, as each method clusters them."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from reid_jax import cluster_quality, density_clusters, distances, errors, kmeans, linkage, selection, self_paced
from reid_jax.distances import dissimilarity
from reid_jax.embeddings import Features, l2_normalize


class PseudoLabels(NamedTuple):
    """The labels of N samples.

    Attributes:
        labels: [N] integer, 0..C-1; -1: not trained on.
        metrics: what to log with them.
    """

    labels: np.ndarray
    metrics: dict[str, float]


def merge_step_labels(
    embeddings: np.ndarray,
    *,
    num_merges: int,
    num_steps: int,
    linkage_name: str = "average",
    metric: str = "euclidean",
    normalize: bool = False,
) -> PseudoLabels:
    """Clusters from one cluster per sample by merge steps (HCT Algorithm 1, lines 3 to 9).

    Args:
        embeddings: [N, D] float.
        num_merges: m, the unions of a step.
        num_steps: s.
        linkage_name: as in `linkage.agglomerate`.
        metric: one of `distances.METRICS`.
        normalize: whether the embeddings are L2-normalised first.
    """
    if normalize:
        embeddings = l2_normalize(embeddings)
    sample_distances = distances.pairwise_distances(embeddings, metric=metric)
    labels = linkage.agglomerate(
        sample_distances,
        num_merges=num_merges,
        num_steps=num_steps,
        linkage=linkage_name,
        embeddings=embeddings if linkage_name == "centroid" else None,
    )
    labels = np.asarray(labels)
    return PseudoLabels(labels, {"silhouette": cluster_quality.silhouette(np.asarray(sample_distances), labels)})


def bottom_up_labels(
    features: Features,
    previous: np.ndarray,
    *,
    num_merges: int,
    linkage_name: str = "single",
    size_penalty: float = 0.003,
    **terms: Any,
) -> PseudoLabels:
    """Unites the m pairs of clusters that are least dissimilar (BUC eq. 4 to 6; Algorithm 1, lines 6 to 8).

    Args:
        features: of N samples, L2-normalised.
        previous: [N] integer, the clusters so far.
        num_merges: m.
        linkage_name: as in `linkage.agglomerate`.
        size_penalty: lambda of the diversity regularisation.
        **terms: of `dissimilarity.dissimilarities`.
    """
    between = dissimilarity.dissimilarities(features, **terms)
    labels = linkage.agglomerate(
        between,
        num_merges=num_merges,
        num_steps=1,
        linkage=linkage_name,
        size_penalty=size_penalty,
        embeddings=features.embeddings if linkage_name == "centroid" else None,
        initial_labels=previous,
    )
    return PseudoLabels(labels, {"silhouette": cluster_quality.silhouette(np.asarray(between), labels)})


def dbscan_labels(features: np.ndarray, *, eps: float, min_samples: int, k1: int, k2: int) -> PseudoLabels:
    """Clusters by DBSCAN on the k-reciprocal Jaccard distance; outliers have the label -1.

    Args:
        features: [N, D] float, L2-normalised.
        eps: as the others, of `density_clusters.jaccard_dbscan`.
        min_samples: as there.
        k1: as there.
        k2: as there.

    Raises:
        UserError: nothing lies densely enough, or all of it does: there would be nothing to learn.
    """
    labels = density_clusters.jaccard_dbscan(features, eps=eps, min_samples=min_samples, k1=k1, k2=k2)
    _check_clusters(labels, eps=eps, min_samples=min_samples, k1=k1)
    return PseudoLabels(labels, {"outliers": float((labels < 0).mean())})


def reliable_dbscan_labels(
    features: np.ndarray,
    *,
    eps: float,
    eps_gap: float,
    min_samples: int,
    k1: int,
    k2: int,
    least_independence: float | None = None,
) -> PseudoLabels:
    """Clusters by DBSCAN and leaves out what is no cluster by a looser or a tighter criterion (SpCL).

    Args:
        features: [N, D] float, L2-normalised.
        eps: as the others, of `density_clusters.jaccard_dbscan`.
        eps_gap: what the tighter and the looser eps differ by from it, as far as they stay above eps / 2 and below
            (1 + eps) / 2; 0: all clusters are kept, as in `dbscan_labels`.
        min_samples: as there.
        k1: as there.
        k2: as there.
        least_independence: that a cluster must have, the first iteration's choice; None: this is the first.

    Returns:
        The labels; their metrics have least_independence, for the iterations after the first, and the shares of samples
        that DBSCAN leaves alone, outliers, and that are left out of its clusters, unreliable.

    Raises:
        UserError: as `dbscan_labels`, or no cluster is reliable.
    """
    if not eps_gap:
        return dbscan_labels(features, eps=eps, min_samples=min_samples, k1=k1, k2=k2)
    radii = (eps, max(eps - eps_gap, eps / 2), min(eps + eps_gap, (eps + 1) / 2))  # 0 and 1 are not reached
    labels, tighter, looser = density_clusters.jaccard_dbscans(
        features, eps=radii, min_samples=min_samples, k1=k1, k2=k2
    )
    _check_clusters(labels, eps=eps, min_samples=min_samples, k1=k1)
    if least_independence is None:
        if np.bincount(labels[labels >= 0]).max() < 2:
            raise errors.UserError(f"DBSCAN with eps = {eps} gives no cluster of two samples; give a greater eps")
        least_independence = self_paced.independence_threshold(labels, looser)
    reliable = self_paced.reliable_labels(labels, tighter=tighter, looser=looser, least_independence=least_independence)
    _check_clusters(reliable, eps=eps, min_samples=min_samples, k1=k1)
    return PseudoLabels(
        reliable,
        {
            "outliers": float((labels < 0).mean()),
            "unreliable": float(((labels >= 0) & (reliable < 0)).mean()),
            "least_independence": least_independence,
        },
    )


def _check_clusters(labels: np.ndarray, *, eps: float, min_samples: int, k1: int) -> None:
    if labels.max() < 0:
        raise errors.UserError(
            f"DBSCAN with eps = {eps} and min_samples = {min_samples} gives no cluster of {len(labels)} samples; give "
            "a greater eps or fewer min_samples"
        )
    if labels.min() == labels.max():
        raise errors.UserError(
            f"DBSCAN with eps = {eps} and k1 = {k1} gives a single cluster of all {len(labels)} samples; give a "
            "smaller eps or k1"
        )


def reliable_kmeans_labels(
    key: jax.Array,
    embeddings: np.ndarray,
    *,
    num_clusters: int,
    max_iterations: int = 300,
    num_init: int = 1,
    normalize: bool = False,
    threshold: float = 0.85,
    compared: str = "own",
    mesh: Mesh | None = None,
) -> PseudoLabels:
    """Clusters by k-means and keeps the samples near to a centre (PUL Algorithm 1, lines 4 to 16).

    Args:
        key: jax PRNG key.
        embeddings: [N, D] float, not normalised.
        num_clusters: K.
        max_iterations: of k-means, as in `kmeans.kmeans`.
        num_init: as there.
        normalize: whether k-means sees L2-normalised embeddings.
        threshold: lambda, the cosine to the centre that a sample must exceed.
        compared: which centres, as in `selection.select_reliable`; "none" keeps all samples.
        mesh: the devices that share the work.
    """
    normalized = l2_normalize(embeddings)  # line 6
    rows = normalized if normalize else embeddings
    clusters = kmeans.kmeans(  # line 4
        key, rows, num_clusters=num_clusters, max_iterations=max_iterations, num_init=num_init, mesh=mesh
    )
    centers = selection.center_indices(rows, clusters.labels, clusters.centroids)  # line 5
    is_reliable = selection.select_reliable(  # lines 7 to 16
        normalized, clusters.labels, centers, threshold=threshold, compared=compared
    )
    if not bool(clusters.converged):
        print(f"k-means did not converge in max_iterations = {max_iterations}", flush=True)
    if compared != "none" and bool(is_reliable.all()):
        print(f"threshold = {threshold} leaves no sample out; give a higher one", flush=True)
    metrics = {"inertia": float(clusters.inertia), "kmeans_iterations": int(clusters.num_iterations)}
    return PseudoLabels(np.where(is_reliable, clusters.labels, -1), metrics)
