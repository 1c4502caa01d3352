"""The distances between clusters while clusters unite: what `merge_steps.py` asks of a matrix.

Two kinds offer the same three methods, `nearest`, `distances_among` and `merge`: one for a matrix in host memory,
one for a matrix on an accelerator. On a CPU, XLA's scatters and any copy of a large matrix cost more than the whole
clustering takes; on an accelerator these are cheap, and moving the matrix to the host is not.
"""

import jax
import numpy as np

from reid_jax.linkage.device import DeviceCentroids, DeviceClusters
from reid_jax.linkage.host import HostCentroids, HostClusters

LINKAGES = ("average", "centroid", "complete", "single")


def is_on_host(array: np.ndarray | jax.Array) -> bool:
    """Whether NumPy can read the array where it is."""
    return not isinstance(array, jax.Array) or all(device.platform == "cpu" for device in array.devices())


def cluster_distances(
    distances: np.ndarray | jax.Array,
    *,
    linkage: str,
    size_penalty: float,
    embeddings: np.ndarray | jax.Array | None = None,
) -> HostClusters | DeviceClusters:
    """Returns the clusters of N single samples, in the memory that the distances are in.

    Args:
        distances: [N, N] float.
        linkage: one of LINKAGES, as in `linkage.agglomerate`; so are the others.
        size_penalty: lambda.
        embeddings: [N, D] float, for "centroid".
    """
    on_host = is_on_host(distances)
    if linkage == "centroid":
        return (HostCentroids if on_host else DeviceCentroids)(distances, size_penalty, embeddings)
    return (HostClusters if on_host else DeviceClusters)(distances, linkage, size_penalty)
