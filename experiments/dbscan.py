"""The offline baselines of HCD: DBSCAN labels per iteration, with SpCL's or Cluster Contrast's memory.

    python experiments/dbscan.py                                     # synthetic pedestrians, CPU, minutes
    python experiments/dbscan.py --config=experiments/configs/dbscan.py:market1501 --config.memory.kind=cluster
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from experiments import bank_training, command_line, config_checks, reporting, run_directory, setup_run
from experiments.bank_training import Domains
from reid_jax import augment, features, losses, memory, sharding, train


class Memory(NamedTuple):
    """What the loss remembers.

    Attributes:
        rows: [N, D] float32: the last feature of every sample, or in the rows that classes are called after, one
            vector per class.
        labels: [N] int32, the class of every sample, 0..N-1; -1: none.
    """

    rows: jax.Array
    labels: jax.Array


def classes(config: ConfigDict, domains: Domains, pseudo_labels: np.ndarray) -> np.ndarray:
    """Returns the class of all samples [N_s + N_t], called after its first sample; -1 where it has none."""
    target = domains.num_source + memory.named_after_first(pseudo_labels)
    if config.memory.kind == "cluster":
        target[pseudo_labels < 0] = -1
    return np.concatenate([domains.source_labels, target])


def at_beginning(
    state: train.TrainState, config: ConfigDict, rows: np.ndarray, labels: np.ndarray, mesh: Mesh
) -> train.TrainState:
    """Returns the state with an iteration's labels [N], and the features [N, D] or, with "cluster", class means."""
    if config.memory.kind == "cluster":
        means, _ = memory.class_means(jnp.asarray(rows), jnp.asarray(labels))
        rows = features.l2_normalized(np.asarray(means))
    started = Memory(jnp.asarray(rows), jnp.asarray(labels, jnp.int32))
    return state._replace(memory=sharding.put_replicated(mesh, started))


def alone(pseudo_labels: np.ndarray) -> np.ndarray:
    """Returns labels [N_t] int32, 0..C-1, in which every outlier is a cluster of its own."""
    outliers = pseudo_labels.max() + 1 + np.arange(len(pseudo_labels))
    return np.unique(np.where(pseudo_labels < 0, outliers, pseudo_labels), return_inverse=True)[1].astype(np.int32)


def run_dbscan(config: ConfigDict, workdir: str) -> dict[str, Any]:
    """Runs a baseline, or the rest of it where the run directory holds a part, and returns the result."""
    config_checks.check_config(config)
    mesh = sharding.make_mesh(config.num_devices)
    dataset = setup_run.load_dataset(config.data)
    domains = bank_training.load_domains(config, dataset)
    batch_size = bank_training.check(config, domains, mesh)
    bank_training.check_clustering(config, domains)
    model = setup_run.build_model(config.model)
    setup_run.check_training(model, config.data, batch_size=batch_size * config.train.num_frames)
    setup_run.check_start(config, model, resuming=run_directory.has_checkpoint(workdir))
    run = run_directory.RunDirectory(workdir, config, dataset)
    dataset = setup_run.with_images(dataset, config.data)
    domains = domains._replace(joined=setup_run.with_images(domains.joined, config.data))
    optimizer = bank_training.make_optimizer(config)
    is_unified = config.memory.kind == "unified"

    def moved(bank: Memory, outputs, indices) -> Memory:
        embeddings = bank_training.normalized(outputs, config.train.num_frames)
        places, momentum = bank.labels[indices], config.memory.cluster_momentum
        if is_unified:
            places, momentum = indices, config.memory.momentum
        return bank._replace(rows=memory.update_lookup_table(bank.rows, embeddings, places, momentum=momentum))

    def contrastive(outputs, indices, bank: Memory):
        embeddings = bank_training.normalized(outputs, config.train.num_frames)
        if is_unified:
            return bank_training.contrastive_loss(*bank, embeddings, indices, config.loss.temperature)
        in_use = jax.ops.segment_sum(jnp.ones_like(bank.labels), bank.labels, num_segments=len(bank.labels)) > 0
        return losses.unified_contrastive(
            embeddings, bank.labels[indices], bank.rows, temperature=config.loss.temperature, in_use=in_use
        )

    train_step = train.make_train_step(
        model,
        contrastive,
        optimizer,
        functools.partial(augment.augment, **config.augment),
        mesh,
        update_memory=moved,
    )
    embed_step = features.make_embed_step(model, mesh)
    evaluate = functools.partial(setup_run.evaluate_model, config.evaluation, embed_step, dataset=dataset, mesh=mesh)
    variables = setup_run.initial_variables(
        config, model, dataset.images["train"], batch_size=batch_size, resuming=run.is_resuming()
    )
    state = train.init_train_state(variables, optimizer, mesh)
    nothing = bank_training.no_features(config, embed_step, state, domains)
    state = run.restore(at_beginning(state, config, nothing, np.zeros(len(nothing), int), mesh))
    run.measure_initial(state, evaluate)

    def target_classes(state: train.TrainState) -> np.ndarray:
        return np.asarray(state.memory.labels[domains.num_source :])

    while not run.is_over():
        if run.epoch == 0:  # else the run was interrupted while training, and the checkpoint has its memory
            with run.phase("embed"):
                rows = bank_training.embed(config, embed_step, state, domains, mesh)
            with run.phase("cluster"):
                pseudo_labels = bank_training.dense_clusters(config, rows[domains.num_source :])
            run.save_pseudo_labels(pseudo_labels, outliers=float((pseudo_labels < 0).mean()))
            state = at_beginning(state, config, rows, classes(config, domains, pseudo_labels), mesh)
        state = bank_training.train_epochs(config, train_step, run, state, domains, target_classes, mesh)
        pseudo_labels, facts = run.load_pseudo_labels()
        previous = run.previous_pseudo_labels()
        with run.phase("evaluate"):
            scores = evaluate(state.variables)
        quality = reporting.label_quality(
            alone(pseudo_labels), None if previous is None else alone(previous), dataset.train_ids
        )
        run.end_iteration(state, quality | facts | {"loss": float(np.mean(run.losses))} | scores)
    return run.finish("dbscan", mesh)


if __name__ == "__main__":
    command_line.run("dbscan", run_dbscan, variant_fields=("memory.kind", "source.dataset"))
