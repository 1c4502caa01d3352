"""PUL: progressive unsupervised learning, clustering and fine-tuning (Fan et al., 2017), Algorithm 1.

python experiments/pul.py                                        # second synthetic world -> the first, CPU
python experiments/pul.py --config=experiments/configs/pul.py:market1501 --workdir=runs/pul_market1501
"""

import functools
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from reid_jax import errors, pseudo_labels, sampling, source_model
from reid_jax.cli import command_line
from reid_jax.label_metrics import selected_metrics
from reid_jax.runs import checkpoints, compatibility, models, objectives
from reid_jax.runs.dataset import TrainingData
from reid_jax.runs.objectives import Objective
from reid_jax.runs.opening import open_session
from reid_jax.runs.session import CLASSIFIER_STREAM, LABEL_STREAM, Session


def known_classes(config: ConfigDict, train_ids: np.ndarray) -> np.ndarray:
    """Draws the identities whose labels are known, L = selection.num_labelled_ids of them.

    Returns:
        [N] int64: 0..L-1 for their samples, -1 for the others.

    Raises:
        UserError: there are fewer than L identities.
    """
    identities = np.unique(train_ids[train_ids >= 0])
    num_labelled = config.selection.num_labelled_ids
    if num_labelled > len(identities):
        raise errors.UserError(
            f"selection.num_labelled_ids must be at most the {len(identities)} known identities, got {num_labelled}"
        )
    # The tag keeps it apart from the draws of batches, [seed, iteration, epoch], and frames.
    chosen = np.random.default_rng([config.seed, 0, 0, 2]).permutation(identities)[:num_labelled]
    classes = np.full(len(train_ids), -1)
    for number, identity in enumerate(chosen):
        classes[train_ids == identity] = number
    return classes


def count_clusters(config: ConfigDict, known: np.ndarray) -> int:
    """Checks what the data's size bounds and returns K, the clusters of the samples without labels.

    Raises:
        UserError: more clusters than samples, or a batch may not fill.
    """
    num_unknown, num_clusters = int((known < 0).sum()), config.cluster.num_clusters
    if num_unknown and num_clusters > num_unknown:
        raise errors.UserError(
            f"cluster.num_clusters must be at most the {num_unknown} samples without labels, got {num_clusters}"
        )
    # With all labels known there is nothing to cluster: supervised training.
    num_clusters = num_clusters if num_unknown else 0
    num_known, num_always_selected = len(known) - num_unknown, num_clusters
    if config.selection.compared == "none":
        num_always_selected = num_unknown
    if config.train.batch_size > num_known + num_always_selected:
        raise errors.UserError(
            f"train.batch_size must be at most {num_known + num_always_selected}, got {config.train.batch_size}: of "
            f"cluster.num_clusters = {num_clusters} clusters {num_always_selected} samples are sure to be selected, and {num_known} "
            "samples are labelled"
        )
    if config.stop.signal == "silhouette":
        raise errors.UserError(
            "stop.signal must be 'selected', 'agreement' or 'last', got 'silhouette', which PUL does not compute"
        )
    return num_clusters


def make_objective(config: ConfigDict, data: TrainingData) -> Objective:
    """Returns the classifier over clusters and known identities."""
    num_clusters = count_clusters(config, known_classes(config, data.target.train_ids))
    return objectives.classifier(config, num_classes=num_clusters + config.selection.num_labelled_ids)


def cluster_and_select(
    key: jax.Array, embeddings: np.ndarray, known: np.ndarray, config: ConfigDict, mesh: jax.sharding.Mesh
) -> tuple[np.ndarray, dict[str, float]]:
    """Clusters the samples without labels and keeps the reliable ones (lines 4 to 16).

    Returns:
        (pseudo labels [N] int64: 0..K-1 a reliable sample's cluster, K..K+L-1 a known class, -1 not selected;
        what to log).
    """
    num_clusters = count_clusters(config, known)
    labels = np.where(known >= 0, num_clusters + known, -1)
    unknown = np.flatnonzero(known < 0)
    metrics = {}
    if len(unknown):
        labels[unknown], metrics = pseudo_labels.reliable_kmeans_labels(
            key,
            embeddings[unknown],
            num_clusters=num_clusters,
            max_iterations=config.cluster.max_iterations,
            num_init=config.cluster.num_init,
            normalize=config.cluster.normalize,
            threshold=config.selection.threshold,
            compared=config.selection.compared,
            mesh=mesh,
        )
    num_selected = int((labels >= 0).sum())
    if num_selected < config.train.batch_size:
        raise errors.UserError(
            f"only {num_selected} samples were selected, fewer than train.batch_size = {config.train.batch_size}: many "
            "embeddings are identical, so some clusters are empty"
        )
    return labels, metrics | {"selected": float((labels >= 0).mean())}


def check_start(config: ConfigDict, objective: Objective, *, is_finished: bool) -> None:
    """Checks that there is an original model to start from, or a source to train it on.

    Needed even when resuming, since every iteration starts from it; a finished run only shows its result.

    Raises:
        UserError: there is neither.
    """
    if source_model.needs_source(config) and not is_finished:
        source_model.check_source(source_model.source_config(config), config.data.dataset)
    else:
        models.check_start(config, objective.model, resuming=is_finished)


def load_original(session: Session, workdir: str, *, is_finished: bool) -> dict[str, Any]:
    """Returns the variables of the original model, which is trained on the source first where there is none yet.

    A run that is finished only shows its result: it needs no more than their shapes.
    """
    config = session.config
    start = config if is_finished else source_model.with_source_model(config, workdir)
    original = session.initial_variables(start, resuming=is_finished)
    if start.model.checkpoint and not is_finished:
        session.run.pin(original_model=checkpoints.digest({"backbone": original["params"]["backbone"]}))
    return original


def run_pul(config: ConfigDict, workdir: str) -> dict[str, Any]:
    """Runs Algorithm 1, from the run directory's last checkpoint if there is one, and returns the result."""
    is_finished = compatibility.is_finished(workdir, config)
    check_original = functools.partial(check_start, is_finished=is_finished)
    session = open_session(config, workdir, method="pul", objective=make_objective, check_start=check_original)
    run, config = session.run, session.config
    known = known_classes(config, session.dataset.train_ids)
    original = load_original(session, workdir, is_finished=is_finished)
    state = session.start(variables=original)
    if is_finished and not run.is_over():
        # The last checkpoint is damaged, and the original model was not loaded.
        raise errors.UserError(f"workdir: the last checkpoint in {str(workdir)!r} is damaged; start again to go on")

    while not run.is_over():  # Algorithm 1, line 1
        if run.epoch == 0:  # else resumed inside an iteration, whose labels are kept
            embeddings = session.embed(state).embeddings  # line 3
            with run.phase("cluster"):
                key = jax.random.fold_in(session.key(LABEL_STREAM), run.iteration)
                labels, metrics = cluster_and_select(key, embeddings, known, config, session.mesh)  # lines 4 to 16
            run.save_pseudo_labels(labels, **metrics)
            key = jax.random.fold_in(session.key(CLASSIFIER_STREAM), run.iteration)
            # Line 2, after the others, none of which needs w.
            state = objectives.restart_classifier(state, original, key, session.optimizer, session.mesh)
        labels, metrics = run.load_pseudo_labels()
        epochs = session.draw_epochs(
            lambda rng: sampling.shuffled_batches(rng, labels, batch_size=config.train.batch_size)
        )
        state = session.train_epochs(state, epochs, {"labels": labels})  # line 17: from the original model
        metrics = session.measure_labels(selected_metrics, labels) | metrics
        state = session.end_iteration(state, metrics)
    return session.finish()


if __name__ == "__main__":
    command_line.run("pul", run_pul)
