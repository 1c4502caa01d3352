"""Training against vectors that stand for clusters, and for what each camera saw of them: memory and objective.

What Cluster Contrast (Dai et al. 2021), CAP (Wang et al. 2021) and ISE (Zhang et al. 2022) add up to: see docs/methods.md.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from reid_jax import identities, losses, memory, proxy_losses
from reid_jax.embeddings import Features
from reid_jax.memory import ClassMemory, init_class_memory
from reid_jax.runs.dataset import TrainingData
from reid_jax.runs.models import build_model
from reid_jax.runs.objectives import Objective, Targets, batch_embeddings


class ProxyMemory(NamedTuple):
    """What the loss remembers.

    Attributes:
        clusters: a vector per cluster.
        cameras: a vector per cluster and camera; (): cameras are not told apart.
        step: scalar int32, train steps so far.
    """

    clusters: ClassMemory
    cameras: ClassMemory | tuple
    step: jax.Array


def init_proxies(
    features: np.ndarray, labels: np.ndarray, camids: np.ndarray, *, step: int, with_cameras: bool
) -> ProxyMemory:
    """Returns the memory at the beginning of an iteration: mean features, of norm 1.

    Args:
        features: [N, D] float, L2-normalised.
        labels: [N] integer; negative: of no cluster.
        camids: [N] integer; samples of unknown cameras, negative, have no vector of their camera.
        step: train steps so far.
        with_cameras: whether there are vectors per camera.
    """
    classes = np.where(labels < 0, -1, memory.first_index_labels(labels))
    clusters = init_class_memory(features, classes, per_cluster=True)
    if not with_cameras:
        return ProxyMemory(clusters, (), jnp.int32(step))
    places = np.unique(camids, return_inverse=True)[1]
    of_none = (labels < 0) | (camids < 0)
    pairs = np.where(of_none, -1, memory.first_index_labels(np.where(of_none, -1, classes * len(labels) + places)))
    return ProxyMemory(clusters, init_class_memory(features, pairs, per_cluster=True), jnp.int32(step))


def tells_cameras_apart(config: ConfigDict, data: TrainingData) -> bool:
    """Whether the loss has a term of cameras: one is asked for, and two or more are known."""
    camids, options = data.camids, config.loss
    asked_for = options.camera_weight > 0 or options.intra_camera_weight > 0
    return asked_for and len(np.unique(camids[camids > identities.UNKNOWN])) > 1


def cluster_loss(options: ConfigDict, embeddings: jax.Array, labels: jax.Array, proxies: ProxyMemory) -> jax.Array:
    """Tells a batch's clusters from all others, and where options (config.loss) ask for it, its support samples (ISE).

    Args:
        options: config.loss.
        embeddings: [B, D] float, of norm 1.
        labels: [B] integer, the clusters.
        proxies: the memory.
    """
    rows, in_use = proxies.clusters.rows, _in_use(proxies.clusters)
    terms = {"temperature": options.temperature, "in_use": in_use}
    total = losses.unified_contrastive(embeddings, labels, rows, **terms)
    if options.support_weight:
        step = jnp.minimum(proxies.step, options.support_steps)
        strength = proxy_losses.support_strength(step, options.support_steps)
        supports = proxy_losses.implicit_support(embeddings, labels, rows, in_use=in_use, strength=strength)
        total += options.support_weight * losses.unified_contrastive(supports, labels, rows, **terms)
        total += options.consistency_weight * proxy_losses.support_consistency(embeddings, supports, labels)
    return total


def camera_loss(
    options: ConfigDict,
    embeddings: jax.Array,
    indices: jax.Array,
    proxies: ProxyMemory,
    *,
    cameras: jax.Array,
    is_known: jax.Array,
) -> jax.Array:
    """Draws a batch to what other cameras saw of its clusters (as PPLR), and tells clusters of one camera apart (CAP).

    Args:
        options: config.loss.
        embeddings: [B, D] float, of norm 1.
        indices: [B] integer, which samples those are.
        proxies: the memory, with cameras.
        cameras: [N] integer, all samples' cameras, and so those of the rows, which are named after their first sample.
        is_known: [N] bool, whether a camera is known.
    """
    table, in_use = proxies.cameras.rows, _in_use(proxies.cameras)
    total = options.camera_weight * proxy_losses.camera_proxies(
        embeddings,
        jnp.where(is_known[indices], proxies.clusters.labels[indices], -1),
        table,
        proxies.clusters.labels,
        in_use=in_use,
        temperature=options.camera_temperature,
        num_negatives=options.num_negatives,
        own_cameras=cameras[indices],
        row_cameras=cameras,
    )
    if options.intra_camera_weight:
        own = proxies.cameras.labels[indices]
        terms = {"in_use": in_use, "temperature": options.camera_temperature}
        intra = proxy_losses.intra_camera(embeddings, cameras[indices], own, table, cameras, **terms)
        total += options.intra_camera_weight * intra
    return total


def contrastive(config: ConfigDict, data: TrainingData) -> Objective:
    """Returns the objective: clusters told apart, drawn together across cameras, and kept apart from the nearest others."""
    model, options = build_model(config.model), config.loss
    cameras = jnp.asarray(np.unique(data.camids, return_inverse=True)[1], jnp.int32)
    is_known = jnp.asarray(data.camids > identities.UNKNOWN)
    with_cameras = tells_cameras_apart(config, data)

    def loss(outputs: Features, targets: Targets, proxies: ProxyMemory) -> jax.Array:
        embeddings, indices = batch_embeddings(outputs, targets, config.train.num_frames), targets["indices"]
        total = cluster_loss(options, embeddings, proxies.clusters.labels[indices], proxies)
        if with_cameras:
            total += camera_loss(options, embeddings, indices, proxies, cameras=cameras, is_known=is_known)
        return total

    def update(proxies: ProxyMemory, outputs: Features, targets: Targets) -> ProxyMemory:
        embeddings, indices = batch_embeddings(outputs, targets, config.train.num_frames), targets["indices"]

        def moved(classes: ClassMemory, momentum: float) -> ClassMemory:
            labels = classes.labels[indices]
            rows = memory.update_class_vectors(
                classes.rows, embeddings, labels, momentum=momentum, rule=config.memory.rule
            )
            return classes._replace(rows=rows)

        seen = moved(proxies.cameras, config.memory.camera_momentum) if with_cameras else ()
        return ProxyMemory(moved(proxies.clusters, config.memory.cluster_momentum), seen, proxies.step + 1)

    return Objective(model, model, loss, update_memory=update)


def _in_use(classes: ClassMemory) -> jax.Array:
    """[N] bool: the rows that stand for a class."""
    num_rows = len(classes.labels)
    return jax.ops.segment_sum(jnp.ones(num_rows, jnp.int32), classes.labels, num_segments=num_rows) > 0
