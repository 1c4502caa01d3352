"""Labels -> the index batches of one epoch, on the host, from a NumPy generator."""

import numpy as np

from reid_jax.data.samples import Samples


def pk_batches(rng: np.random.Generator, pseudo_labels: np.ndarray, *, num_ids: int, num_instances: int) -> np.ndarray:
    """Draws an epoch of PK batches: every cluster once in random order, P clusters a batch, K images each.

    A cluster's K images are drawn without replacement, or with replacement where it has fewer than K. Clusters
    that do not fill a last batch of P are left out of this epoch, so that every batch has the same shape.
    (Hermans et al. 2017, section 2; HCT, section 3.3.)

    Args:
        rng: the generator to draw from.
        pseudo_labels: [N] integer; negative: not used.
        num_ids: P, clusters per batch.
        num_instances: K, images per cluster.

    Returns:
        [steps, P * K] int64 indices, the K images of a cluster next to each other; steps = C // P.

    Raises:
        ValueError: P or K is less than 1, or there are fewer than P clusters.
    """
    pseudo_labels = np.asarray(pseudo_labels)
    if pseudo_labels.ndim != 1:
        raise ValueError(f"pseudo_labels must be [N], got shape {pseudo_labels.shape}")
    if num_ids < 1 or num_instances < 1:
        raise ValueError(f"num_ids and num_instances must be at least 1, got {num_ids} and {num_instances}")
    # A random order within each label makes the first K of a cluster a draw without replacement.
    order = np.lexsort((rng.random(len(pseudo_labels)), pseudo_labels))
    order = order[pseudo_labels[order] >= 0]
    labels, starts, counts = np.unique(pseudo_labels[order], return_index=True, return_counts=True)
    if len(labels) < num_ids:
        raise ValueError(f"num_ids must be at most the number of clusters, {len(labels)}, got {num_ids}")
    draws = rng.integers(0, counts[:, None], (len(labels), num_instances))
    within = np.where(counts[:, None] < num_instances, draws, np.arange(num_instances))
    instances = order[starts[:, None] + within]
    steps = len(labels) // num_ids
    chosen = rng.permutation(len(labels))[: steps * num_ids]
    return instances[chosen].reshape(steps, num_ids * num_instances)


def grouped_batches(
    rng: np.random.Generator, pseudo_labels: np.ndarray, *, batch_size: int, num_instances: int, num_steps: int
) -> np.ndarray:
    """Draws batches of up to K images of each cluster, without repeating those of clusters that have fewer.

    All clusters in random order, then again, cut into batches: with clusters of K images or more a batch is one of
    `pk_batches`; where every image is its own cluster, of all images once. (As the sampler of SpCL's code, but for its
    repeats and its preference of other cameras.)

    Args:
        rng: the generator to draw from.
        pseudo_labels: [N] integer; negative: not used.
        batch_size: B.
        num_instances: K.
        num_steps: how many batches; the clusters are gone through as often as they need.

    Returns:
        [num_steps, B] int64 indices; a cluster's images next to each other, though a batch's end may part them.

    Raises:
        ValueError: a number is less than 1, or there are no labelled images.
    """
    pseudo_labels = np.asarray(pseudo_labels)
    if min(batch_size, num_instances, num_steps) < 1:
        raise ValueError(
            f"batch_size, num_instances and num_steps must be at least 1, got {batch_size}, {num_instances}, {num_steps}"
        )
    used = np.flatnonzero(pseudo_labels >= 0)
    if not len(used):
        raise ValueError("pseudo_labels must have a label that is not negative")
    groups = np.unique(pseudo_labels[used], return_inverse=True)[1]
    passes, drawn = [], 0
    while drawn < num_steps * batch_size:
        # A random order within each cluster makes its first K a draw without replacement.
        order = np.lexsort((rng.random(len(used)), groups))
        starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
        within = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
        chosen = order[within < num_instances]
        place = rng.permutation(len(starts))[groups[chosen]]
        passes.append(used[chosen[np.argsort(place, kind="stable")]])
        drawn += len(chosen)
    return np.concatenate(passes)[: num_steps * batch_size].reshape(num_steps, batch_size)


def camera_batches(
    rng: np.random.Generator,
    pseudo_labels: np.ndarray,
    camids: np.ndarray,
    *,
    batch_size: int,
    group_size: int,
    num_instances: int,
    num_steps: int,
) -> np.ndarray:
    """Draws batches of groups of one camera each, so that batch norm over groups is batch norm by camera.

    (Zhuang et al., ECCV 2020, "Camera-based batch normalization", whose code splits batches by camera; here each group has
    as many images.) The groups' cameras are drawn by how many labelled images there are of each, a group's images as
    `grouped_batches` draws them of that camera alone.

    Args:
        rng: the generator to draw from.
        pseudo_labels: [N] integer; negative: not used.
        camids: [N] integer; a negative one is a camera like any other.
        batch_size: B, a multiple of group_size.
        group_size: images of one camera.
        num_instances: K, of a cluster in a group, at most.
        num_steps: how many batches.

    Returns:
        [num_steps, B] int64 indices.

    Raises:
        ValueError: a number is less than 1, group_size does not divide batch_size, or there are no labelled images.
    """
    if group_size < 1 or batch_size % group_size:
        raise ValueError(f"group_size must divide the batch of {batch_size}, got {group_size}")
    pseudo_labels, camids = np.asarray(pseudo_labels), np.asarray(camids)
    cameras, counts = np.unique(camids[pseudo_labels >= 0], return_counts=True)
    if not len(cameras):
        raise ValueError("pseudo_labels must have a label that is not negative")
    drawn = rng.choice(len(cameras), num_steps * (batch_size // group_size), p=counts / counts.sum())
    groups = np.empty((len(drawn), group_size), np.int64)
    for place, camera in enumerate(cameras):
        is_own = drawn == place
        if is_own.any():
            own = np.where(camids == camera, pseudo_labels, -1)
            groups[is_own] = grouped_batches(
                rng, own, batch_size=group_size, num_instances=num_instances, num_steps=int(is_own.sum())
            )
    return groups.reshape(num_steps, batch_size)


def shuffled_batches(rng: np.random.Generator, pseudo_labels: np.ndarray, *, batch_size: int) -> np.ndarray:
    """Draws an epoch of batches: every labelled image once in random order.

    Args:
        rng: the generator to draw from.
        pseudo_labels: [N] integer; negative: not used.
        batch_size: B; images that do not fill a last batch are left out of this epoch.

    Returns:
        [steps, B] int64 indices; steps = labelled images // B.

    Raises:
        ValueError: fewer labelled images than one batch.
    """
    used = np.flatnonzero(np.asarray(pseudo_labels) >= 0)
    if not 1 <= batch_size <= len(used):
        raise ValueError(f"batch_size must be in 1..{len(used)}, the number of labelled images, got {batch_size}")
    steps = len(used) // batch_size
    return rng.permutation(used)[: steps * batch_size].reshape(steps, batch_size)


def sequential_batches(num_items: int, *, batch_size: int) -> np.ndarray:
    """Returns [steps, B] int64: 0..N-1 in order, the last batch filled up with repeats of its last item."""
    steps = -(-num_items // batch_size)
    return np.minimum(np.arange(steps * batch_size), num_items - 1).reshape(steps, batch_size)


def draw_frames(
    rng: np.random.Generator, samples: Samples, index_batches: np.ndarray, *, num_frames: int
) -> np.ndarray:
    """Draws T frames of every sample in the batches, in their order in the sample.

    A sample's frames are drawn without replacement, or with replacement where it has fewer than T.

    Args:
        rng: the generator to draw from; nothing is drawn where every sample has one frame and T is 1.
        samples: S samples.
        index_batches: [steps, B] integer, indices of samples.
        num_frames: T, at least 1.

    Returns:
        [steps, B * T] int64 indices of images, the T frames of a sample next to each other.

    Raises:
        ValueError: T is less than 1.
    """
    if num_frames < 1:
        raise ValueError(f"num_frames must be at least 1, got {num_frames}")
    chosen = index_batches.reshape(-1)
    starts, counts = samples.starts[chosen], samples.counts[chosen]
    if num_frames == 1 and samples.counts.max() == 1:
        places = np.zeros((len(chosen), 1), np.int64)
    else:
        places = rng.integers(0, counts[:, None], (len(chosen), num_frames))
        for count in np.unique(counts[counts >= num_frames]):
            long = counts == count
            shuffled = rng.permuted(np.tile(np.arange(count), (long.sum(), 1)), axis=1)
            places[long] = shuffled[:, :num_frames]
        places.sort(axis=1)
    return samples.frames[starts[:, None] + places].reshape(len(index_batches), -1)
