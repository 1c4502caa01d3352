"""The recommended method: contrast with clusters and cameras, by an average of the model, from a good start.

python experiments/contrast.py                                   # synthetic pedestrians, CPU, minutes
reid train contrast --config=contrast:folder --config.data.dataset=shop --workdir=runs/shop

Cluster Contrast's loss on DBSCAN labels of post-processed embeddings, with a vector for what each camera saw of a cluster
(CAP, O2CAP) and a moving average of the weights as the labeller. What it is made of is in docs/methods.md.
"""

from typing import Any

import numpy as np
from ml_collections import ConfigDict

from reid_jax.cli import command_line
from reid_jax.label_metrics import clustered_metrics
from reid_jax.pseudo_labels import reliable_dbscan_labels
from reid_jax.runs import online, proxies
from reid_jax.runs.dataset import TrainingData
from reid_jax.runs.opening import open_session
from reid_jax.runs.session import Session
from reid_jax.training.train_step import TrainState


def check(config: ConfigDict, data: TrainingData) -> None:
    """Checks the fields that the data's size bounds."""
    online.check_batch(config, data)
    online.check_dbscan(config, data)


def start_proxies(session: Session, state: TrainState, features: np.ndarray, labels: np.ndarray) -> TrainState:
    """Returns the state with the vectors that an iteration's labels [N] start with; negative labels have none."""
    with_cameras = proxies.tells_cameras_apart(session.config, session.data)
    camids = session.data.camids
    memory = proxies.init_proxies(features, labels, camids, step=int(state.step), with_cameras=with_cameras)
    return session.with_memory(state, memory)


def start(session: Session) -> TrainState:
    """Returns the state to go on from, whose vectors the first iteration replaces: only their shapes count."""

    def empty(state: TrainState) -> proxies.ProxyMemory:
        zeros = session.embedding_zeros(state)
        return start_proxies(session, state, zeros, np.zeros(len(zeros), int)).memory

    return session.start(empty)


def run_contrast(config: ConfigDict, workdir: str) -> dict[str, Any]:
    """Runs the method, from the run directory's last checkpoint if there is one, and returns the result."""
    session = open_session(config, workdir, method="contrast", check=check, objective=proxies.contrastive)
    run, config, data = session.run, session.config, session.data
    state = start(session)

    while not run.is_over():
        if run.epoch == 0:  # else the run was interrupted while training, and the checkpoint has its memory
            features = online.embed(session, state)
            with run.phase("cluster"):
                least = run.first_metric("least_independence")
                labels, metrics = reliable_dbscan_labels(features, **config.cluster, least_independence=least)
            run.save_pseudo_labels(labels, **metrics)
            state = start_proxies(session, state, features, labels)
        labels, metrics = run.load_pseudo_labels()
        for epoch in range(run.epoch, config.train.num_epochs):
            batches = online.draw_batches(config, data, labels, iteration=run.iteration, epoch=epoch)
            state = session.train_epochs(state, [batches], {"indices": np.arange(len(data.samples))})
        metrics = session.measure_labels(clustered_metrics, labels) | metrics
        state = session.end_iteration(state, metrics)
    return session.finish()


if __name__ == "__main__":
    command_line.run("contrast", run_contrast)
