"""The offline baselines of HCD: DBSCAN labels per iteration, with SpCL's or Cluster Contrast's memory.

python experiments/dbscan.py                                     # synthetic pedestrians, CPU, minutes
python experiments/dbscan.py --config=experiments/configs/dbscan.py:market1501 --config.memory.kind=cluster
"""

from typing import Any

import numpy as np
from ml_collections import ConfigDict

from reid_jax import memory, pseudo_labels
from reid_jax.cli import command_line
from reid_jax.label_metrics import clustered_metrics
from reid_jax.memory import ClassMemory, init_class_memory
from reid_jax.pseudo_labels import PseudoLabels
from reid_jax.runs import objectives, online
from reid_jax.runs.dataset import TrainingData
from reid_jax.runs.objectives import Objective
from reid_jax.runs.opening import open_session
from reid_jax.runs.run_directory import RunDirectory
from reid_jax.runs.session import Session
from reid_jax.training.train_step import TrainState

_SPCL_GAP = 0.02  # its code


def check(config: ConfigDict, data: TrainingData) -> None:
    """Checks the fields that the data's size bounds."""
    online.check_batch(config, data)
    online.check_dbscan(config, data)


def make_objective(config: ConfigDict, data: TrainingData) -> Objective:
    """Returns the contrastive loss over the memory that config.memory.kind names."""
    del data
    return (objectives.unified_memory if config.memory.kind == "unified" else objectives.cluster_memory)(config)


def all_classes(config: ConfigDict, data: TrainingData, labels: np.ndarray) -> np.ndarray:
    """Returns the class of all samples [N_s + N_t], the index of its first one; -1 where it has none."""
    target = data.num_source + memory.first_index_labels(labels)
    if config.memory.kind == "cluster":  # outliers are left out; with "unified" each is a class of its own
        target[labels < 0] = -1
    return np.concatenate([data.source_labels, target])


def find_labels(config: ConfigDict, run: RunDirectory, features: np.ndarray) -> PseudoLabels:
    """Clusters the target's features [N_t, D]: by DBSCAN, and with SpCL's memory by its choice of reliable clusters."""
    gap = config.cluster.eps_gap
    if gap is None:
        gap = _SPCL_GAP if config.memory.kind == "unified" else 0.0
    return pseudo_labels.reliable_dbscan_labels(
        features, **(dict(config.cluster) | {"eps_gap": gap}), least_independence=run.first_metric("least_independence")
    )


def empty_memory(session: Session, state: TrainState) -> ClassMemory:
    """Returns the memory before the first iteration, of which only the shapes count."""
    zeros = session.embedding_zeros(state)
    per_cluster = session.config.memory.kind == "cluster"
    return init_class_memory(zeros, np.zeros(len(zeros), int), per_cluster=per_cluster)


def run_dbscan(config: ConfigDict, workdir: str) -> dict[str, Any]:
    """Runs a baseline, from the run directory's last checkpoint if there is one, and returns the result."""
    session = open_session(config, workdir, method="dbscan", check=check, objective=make_objective, joins_source=True)
    run, config, data = session.run, session.config, session.data
    state = session.start(lambda state: empty_memory(session, state))

    while not run.is_over():
        if run.epoch == 0:  # else the run was interrupted while training, and the checkpoint has its memory
            features = online.embed(session, state)
            with run.phase("cluster"):
                labels, metrics = find_labels(config, run, features[data.num_source :])
            run.save_pseudo_labels(labels, **metrics)
            classes, per_cluster = all_classes(config, data, labels), config.memory.kind == "cluster"
            state = session.with_memory(state, init_class_memory(features, classes, per_cluster=per_cluster))
        for epoch in range(run.epoch, config.train.num_epochs):
            labels = np.asarray(state.memory.labels[data.num_source :])
            batches = online.draw_batches(config, data, labels, iteration=run.iteration, epoch=epoch)
            state = session.train_epochs(state, [batches], {"indices": np.arange(len(data.samples))})
        labels, metrics = run.load_pseudo_labels()
        metrics = session.measure_labels(clustered_metrics, labels) | metrics
        state = session.end_iteration(state, metrics)
    return session.finish()


if __name__ == "__main__":
    command_line.run("dbscan", run_dbscan, variant_fields=("memory.kind", "source.dataset"))
