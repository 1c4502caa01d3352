"""Any labels with any loss: HCT's, BUC's, DBSCAN's, k-means' or HCD's with every loss that makes sense with them.

    python experiments/combine.py --config.labels.method=hct --config.loss.kind=cluster
    python experiments/combine.py --config=combine:market1501 --config.labels.method=dbscan --config.loss.kind=triplet

Labels of cluster_dynamics change with every step, so only losses without per-class weights can use them: triplet and
unified. The papers' own pairs are the scripts hct, buc, pul, cluster_dynamics and dbscan.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from reid_jax import errors, memory, pseudo_labels, sampling
from reid_jax.cli import command_line
from reid_jax.embeddings import Features, l2_normalize
from reid_jax.experiments import buc, hct
from reid_jax.label_metrics import clustered_metrics, level_metrics, selected_metrics
from reid_jax.pseudo_labels import PseudoLabels
from reid_jax.runs import objectives, online
from reid_jax.runs.dataset import TrainingData
from reid_jax.runs.objectives import Objective
from reid_jax.runs.opening import open_session
from reid_jax.runs.session import CLASSIFIER_STREAM, LABEL_STREAM, Session
from reid_jax.training.train_step import TrainState

_ONLINE = "cluster_dynamics"
# What a labeller computes of its labels that tells when to stop.
_SIGNALS = {
    "hct": ("agreement", "silhouette"),
    "buc": ("agreement", "silhouette"),
    "kmeans": ("agreement", "selected"),
    "dbscan": ("agreement",),
    _ONLINE: ("agreement",),
}


def check(config: ConfigDict, data: TrainingData) -> None:
    """Checks that the labels and the loss make sense together, and the labeller's fields against the data's size.

    Raises:
        UserError: they do not.
    """
    num_samples, labeller, loss = len(data.samples), config.labels.method, config.loss.kind
    if labeller == _ONLINE and loss not in ("triplet", "unified"):
        raise errors.UserError(
            f"loss.kind must be triplet or unified with labels.method = {_ONLINE!r}, whose classes change at every step, "
            f"got {loss!r}"
        )
    if config.train.camera_groups and labeller != _ONLINE:
        raise errors.UserError(
            f"train.camera_groups must be false with labels.method = {labeller!r}, whose batches are drawn otherwise, got true"
        )
    online.check_batch(config, data, signals=_SIGNALS[labeller])
    if labeller == "hct":
        hct.merges_per_step(config, num_samples)
    elif labeller == "buc":
        buc.merges_per_stage(config, num_samples)
    elif labeller == "dbscan":
        online.check_dbscan(config, data)
    elif labeller == "kmeans" and not config.train.num_ids <= config.cluster.num_clusters <= num_samples:
        raise errors.UserError(
            f"cluster.num_clusters must be in train.num_ids = {config.train.num_ids}..{num_samples}, the number of "
            f"samples, got {config.cluster.num_clusters}"
        )
    elif labeller == _ONLINE:
        online.check(config, data)


def make_objective(config: ConfigDict, data: TrainingData) -> Objective:
    """Returns the objective of config.loss.kind."""
    if config.labels.method == _ONLINE:
        return (online.triplet if config.loss.kind == "triplet" else online.contrastive)(config, data)
    match config.loss.kind:
        case "classifier":  # as many classes as there can be
            return objectives.classifier(config, num_classes=len(data.samples))
        case "triplet":
            return objectives.triplet(config)
        case "repelled":
            return objectives.repelled(config)
        case "unified":
            return objectives.unified_memory(config)
        case _:
            return objectives.cluster_memory(config)


def find_labels(session: Session, features: np.ndarray) -> PseudoLabels:
    """Clusters the embeddings [N, D] of an iteration as config.labels.method says."""
    config, run, cluster = session.config, session.run, session.config.cluster
    match config.labels.method:
        case "hct":
            return pseudo_labels.merge_step_labels(
                features,
                num_merges=hct.merges_per_step(config, len(features)),
                num_steps=cluster.num_steps,
                linkage_name=cluster.linkage,
                metric=cluster.metric,
                normalize=cluster.normalize,
            )
        case "buc" if run.iteration == 1:
            return PseudoLabels(np.arange(len(features), dtype=np.int32), {})
        case "buc":
            return pseudo_labels.bottom_up_labels(
                l2_normalize(Features(features)),
                run.previous_pseudo_labels(),
                num_merges=buc.merges_per_stage(config, len(features)),
                linkage_name=cluster.linkage,
                size_penalty=cluster.size_penalty,
            )
        case "kmeans":
            labels, metrics = pseudo_labels.reliable_kmeans_labels(
                jax.random.fold_in(session.key(LABEL_STREAM), run.iteration),
                features,
                num_clusters=cluster.num_clusters,
                max_iterations=cluster.max_iterations,
                num_init=cluster.num_init,
                normalize=cluster.normalize,
                threshold=config.selection.threshold,
                compared=config.selection.compared,
                mesh=session.mesh,
            )
            return PseudoLabels(labels, metrics | {"selected": float((labels >= 0).mean())})
        case _:
            options = {name: cluster[name] for name in ("eps", "eps_gap", "min_samples", "k1", "k2")}
            least = run.first_metric("least_independence")
            return pseudo_labels.reliable_dbscan_labels(l2_normalize(features), **options, least_independence=least)


def initial_memory(session: Session, state: TrainState) -> Any:
    """Returns what the loss remembers before the first iteration, which replaces most of it: the shapes matter."""
    config, num_samples = session.config, len(session.data.samples)
    if config.labels.method == _ONLINE:
        return online.initial_memory(session, state)
    match config.loss.kind:
        case "classifier":
            return jnp.int32(num_samples)
        case "triplet":
            return ()
        case "repelled":
            return objectives.empty_table(state, num_samples)
        case kind:
            zeros = session.embedding_zeros(state)
            return memory.init_class_memory(zeros, np.zeros(num_samples, int), per_cluster=kind == "cluster")


def start_iteration(session: Session, state: TrainState, features: np.ndarray, labels: np.ndarray) -> TrainState:
    """Returns the state with what the loss starts an iteration's labels [N] with."""
    num_classes, mesh, optimizer = int(labels.max()) + 1, session.mesh, session.optimizer
    match session.config.loss.kind:
        case "triplet":
            return state
        case "classifier":
            key = jax.random.fold_in(session.key(CLASSIFIER_STREAM), session.run.iteration)
            state = objectives.restart_classifier(state, state.variables, key, optimizer, mesh)
            return session.with_memory(state, jnp.int32(num_classes))
        case "repelled":
            return objectives.restart_stage(state, optimizer, mesh, num_classes=num_classes)
        case kind:
            classes = memory.first_index_labels(labels)
            if kind == "cluster":  # outliers are left out; with "unified" each is a class of its own
                classes = np.where(labels < 0, -1, classes)
            rows = l2_normalize(features)
            return session.with_memory(state, memory.init_class_memory(rows, classes, per_cluster=kind == "cluster"))


def draw_epochs(session: Session, labels: np.ndarray) -> list[np.ndarray]:
    """Draws the batches of P x K samples of the epochs to come, as the loss wants them."""
    train, kind = session.config.train, session.config.loss.kind
    size = train.num_ids * train.num_instances
    if kind == "triplet":
        return session.draw_epochs(
            lambda rng: sampling.pk_batches(rng, labels, num_ids=train.num_ids, num_instances=train.num_instances)
        )
    if kind in ("classifier", "repelled"):
        return session.draw_epochs(lambda rng: sampling.shuffled_batches(rng, labels, batch_size=size))
    if kind == "unified":
        labels = memory.first_index_labels(labels)
    return session.draw_epochs(
        lambda rng: sampling.grouped_batches(
            rng, labels, batch_size=size, num_instances=train.num_instances, num_steps=train.num_steps
        )
    )


def check_labels(config: ConfigDict, labels: np.ndarray) -> None:
    """Checks that the labels [N] fill a batch.

    Raises:
        UserError: there are too few clusters, or too few samples in them.
    """
    num_clusters, num_labelled = int(labels.max()) + 1, int((labels >= 0).sum())
    size = config.train.num_ids * config.train.num_instances
    if num_clusters < config.train.num_ids or num_labelled < size:
        raise errors.UserError(
            f"labels.method = {config.labels.method!r} gives {num_clusters} clusters of {num_labelled} samples; at least "
            f"train.num_ids = {config.train.num_ids} and {size} are needed: lower train.num_ids"
            + (" or selection.threshold" if config.labels.method == "kmeans" else "")
        )


def run_offline(session: Session, state: TrainState) -> None:
    """Alternates between labelling all samples and training on the labels."""
    config, run = session.config, session.run
    while not run.is_over():
        if run.epoch == 0:  # else resumed inside an iteration, whose labels are kept
            features = session.embed(state).embeddings
            with run.phase("cluster"):
                labels, metrics = find_labels(session, features)
            check_labels(config, labels)
            run.save_pseudo_labels(labels, **metrics)
            state = start_iteration(session, state, features, labels)
        labels, metrics = run.load_pseudo_labels()
        targets = {"labels": labels, "indices": np.arange(len(labels))}
        state = session.train_epochs(state, draw_epochs(session, labels), targets)
        measure = selected_metrics if config.labels.method == "kmeans" else clustered_metrics
        metrics = session.measure_labels(measure, labels) | metrics
        state = session.end_iteration(state, metrics)


def run_online(session: Session, state: TrainState) -> None:
    """Trains on labels that every step updates (HCD)."""
    config, run = session.config, session.run
    while not run.is_over():
        if config.memory.refresh and run.iteration > 1 and run.epoch == 0:
            state = online.refresh_features(session, state)
        for epoch in range(run.epoch, config.train.num_epochs):
            labels = online.sampling_labels(config, state.memory.bank)
            batches = online.draw_batches(config, session.data, labels, iteration=run.iteration, epoch=epoch)
            state = session.train_epochs(state, [batches], {"indices": np.arange(len(session.data.samples))})
        labels = online.level_labels(state)
        run.save_pseudo_labels(labels)
        metrics = session.measure_labels(level_metrics, labels)
        state = session.end_iteration(state, metrics)


def run_combine(config: ConfigDict, workdir: str) -> dict[str, Any]:
    """Runs the combination, from the run directory's last checkpoint if there is one, and returns the result."""
    session = open_session(
        config,
        workdir,
        method="combine",
        check=check,
        objective=make_objective,
        holds_distance_matrix=config.labels.method in ("hct", "buc"),
    )
    state = session.start(lambda state: initial_memory(session, state))
    (run_online if config.labels.method == _ONLINE else run_offline)(session, state)
    return session.finish()


if __name__ == "__main__":
    command_line.run("combine", run_combine, variant_fields=("labels.method", "loss.kind"))
