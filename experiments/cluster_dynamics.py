"""HCD: online pseudo labels by hierarchical cluster dynamics (Zheng et al., ICCV 2021), section 4.

    python experiments/cluster_dynamics.py                           # synthetic pedestrians, CPU, minutes
    python experiments/cluster_dynamics.py --config=experiments/configs/cluster_dynamics.py:market1501 \
        --config.source.dataset=dukemtmcreid                         # adaptive; without a source unsupervised
"""

import functools
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from experiments import bank_training, command_line, config_checks, reporting, run_directory, setup_run
from experiments.bank_training import Domains
from reid_jax import augment, cluster_dynamics, cluster_quality, dynamics_options, features, hierarchy_picture, memory
from reid_jax import sharding, train, types
from reid_jax.cluster_dynamics import LabelBank


class Memory(NamedTuple):
    """What the loss remembers.

    Attributes:
        features: [N_s + N_t, D] float32, the feature bank.
        bank: the target's labels, at every level.
        step: scalar int32, train steps so far.
    """

    features: jax.Array
    bank: LabelBank
    step: jax.Array


def check(config: ConfigDict, domains: Domains) -> None:
    """Checks the dynamics' options against the data's size.

    Raises:
        UserError: an option is out of its range.
    """
    try:
        dynamics_options.check_options(dynamics_options.Options(**config.dynamics), domains.num_target)
    except ValueError as error:
        raise types.UserError(f"dynamics.{error}") from error


def initial_memory(config: ConfigDict, domains: Domains, rows: np.ndarray, *, resuming: bool) -> Memory:
    """Returns the memory before the first step: features of the initial model, labels by config.labels.init.

    Args:
        config: the run's.
        domains: the data.
        rows: [N_s + N_t, D], the features.
        resuming: a checkpoint will replace it: only its shapes matter.
    """
    num_levels, own = config.labels.num_levels, rows[domains.num_source :]
    if config.labels.init == "singletons" or resuming:
        bank = cluster_dynamics.init_label_bank(len(own), num_levels=num_levels)  # section 4.1
    else:  # the reference code
        clusters = bank_training.dense_clusters(config, own)
        bank = cluster_dynamics.label_bank_from(clusters, num_levels=num_levels)
    return Memory(jnp.asarray(rows), bank, jnp.int32(0))


def refreshed(
    config: ConfigDict,
    embed_step: features.EmbedStep,
    state: train.TrainState,
    domains: Domains,
    run: run_directory.RunDirectory,
    mesh: Mesh,
) -> train.TrainState:
    """Returns the state with all features of the bank embedded anew; the labels stay."""
    with run.phase("embed"):
        rows = bank_training.embed(config, embed_step, state, domains, mesh)
    rows = sharding.put_replicated(mesh, jnp.asarray(rows))
    return state._replace(memory=state.memory._replace(features=rows))


def level_labels(bank: LabelBank) -> np.ndarray:
    """Returns the pseudo labels [N_t, H] int32, at each level 0..C-1 without gaps.

    Raises:
        RuntimeError: the bank does not have the cluster preserve property (section 4.1), which updates keep.
    """
    if not cluster_dynamics.preserves_clusters(bank):
        raise RuntimeError("the label bank has items of one cluster that are of different clusters at the level above")
    levels = [np.unique(labels, return_inverse=True)[1] for labels in np.asarray(bank.labels)]
    return np.stack(levels, axis=1).astype(np.int32)


def top_labels(state: train.TrainState) -> np.ndarray:
    """Returns the top level's labels [N_t], 0..N_t-1 with gaps."""
    return np.asarray(state.memory.bank.labels[-1])


def label_quality(pseudo_labels: np.ndarray, previous: np.ndarray | None, true_ids: np.ndarray) -> dict[str, Any]:
    """Judges the top level's labels, and every level's by BCubed and the number of clusters (Fig. 5)."""
    quality = reporting.label_quality(pseudo_labels[:, -1], None if previous is None else previous[:, -1], true_ids)
    for level, labels in enumerate(pseudo_labels.T, start=1):
        quality[f"level{level}_num_clusters"] = int(labels.max()) + 1
        if (true_ids >= 0).any():
            names = (f"level{level}_bcubed_{name}" for name in ("precision", "recall", "f"))
            quality |= zip(names, cluster_quality.bcubed(labels, true_ids))
    return quality


def run_cluster_dynamics(config: ConfigDict, workdir: str) -> dict[str, Any]:
    """Runs HCD, or the rest of it where the run directory holds a part, and returns the result."""
    config_checks.check_config(config)
    mesh = sharding.make_mesh(config.num_devices)
    dataset = setup_run.load_dataset(config.data)
    domains = bank_training.load_domains(config, dataset)
    batch_size = bank_training.check(config, domains, mesh)
    check(config, domains)
    if config.labels.init == "dbscan":
        bank_training.check_clustering(config, domains)
    model = setup_run.build_model(config.model)
    setup_run.check_training(model, config.data, batch_size=batch_size * config.train.num_frames)
    setup_run.check_start(config, model, resuming=run_directory.has_checkpoint(workdir))
    run = run_directory.RunDirectory(workdir, config, dataset)
    dataset = setup_run.with_images(dataset, config.data)
    domains = domains._replace(joined=setup_run.with_images(domains.joined, config.data))

    num_source, num_frames = domains.num_source, config.train.num_frames
    optimizer = bank_training.make_optimizer(config)
    dynamics_key = jax.random.fold_in(jax.random.key(config.seed), 2)

    def with_features(bank: Memory, outputs, indices) -> Memory:
        """Section 5.1: the bank's features move towards the batch's."""
        embeddings = bank_training.normalized(outputs, num_frames)
        rows = memory.update_lookup_table(bank.features, embeddings, indices, momentum=config.memory.momentum)
        return bank._replace(features=rows, step=bank.step + 1)

    def with_labels(bank: Memory, outputs, indices) -> Memory:
        """Section 4.2, by the features as they are after this batch."""
        moved = with_features(bank, outputs, indices).features[num_source:]

        def updated():
            return cluster_dynamics.update_label_bank(
                bank.bank,
                moved,
                indices[-config.train.num_ids * config.train.num_instances :] - num_source,  # after the source's
                key=jax.random.fold_in(dynamics_key, bank.step),
                **config.dynamics,
            )

        is_due = (bank.step >= config.labels.warmup_steps) & (bank.step % (config.labels.interval + 1) == 0)
        return bank._replace(bank=jax.lax.cond(is_due, updated, lambda: bank.bank))

    def contrastive(outputs, indices, bank: Memory):
        """Equation (1), by the batch's new labels and the features before it."""
        embeddings = bank_training.normalized(outputs, num_frames)
        labels = domains.with_source(bank.bank.labels[-1])
        return bank_training.contrastive_loss(bank.features, labels, embeddings, indices, config.loss.temperature)

    train_step = train.make_train_step(
        model,
        contrastive,
        optimizer,
        functools.partial(augment.augment, **config.augment),
        mesh,
        prepare_memory=with_labels,
        update_memory=with_features,
    )
    embed_step = features.make_embed_step(model, mesh)
    evaluate = functools.partial(setup_run.evaluate_model, config.evaluation, embed_step, dataset=dataset, mesh=mesh)
    variables = setup_run.initial_variables(
        config, model, dataset.images["train"], batch_size=batch_size, resuming=run.is_resuming()
    )
    state = train.init_train_state(variables, optimizer, mesh)
    with run.phase("embed"):
        if run.is_resuming():
            rows = bank_training.no_features(config, embed_step, state, domains)
        else:
            rows = bank_training.embed(config, embed_step, state, domains, mesh)
    with run.phase("cluster"):
        initial = initial_memory(config, domains, rows, resuming=run.is_resuming())
    state = run.restore(state._replace(memory=sharding.put_replicated(mesh, initial)))
    run.measure_initial(state, evaluate)

    while not run.is_over():
        if config.memory.refresh and run.iteration > 1 and run.epoch == 0:
            state = refreshed(config, embed_step, state, domains, run, mesh)
        # Every step: embed the batch, move its features in the bank, update its labels, descend the loss.
        state = bank_training.train_epochs(config, train_step, run, state, domains, top_labels, mesh)
        pseudo_labels = level_labels(state.memory.bank)
        run.save_pseudo_labels(pseudo_labels)
        with run.phase("evaluate"):
            scores = evaluate(state.variables)
        quality = label_quality(pseudo_labels, run.previous_pseudo_labels(), dataset.train_ids)
        run.end_iteration(state, quality | {"loss": float(np.mean(run.losses))} | scores)
    hierarchy_picture.draw_hierarchy(  # Fig. 6
        pathlib.Path(workdir, "hierarchy.png"),
        dataset.images["train"],
        dataset.samples["train"],
        level_labels(state.memory.bank).T,
        dataset.train_ids,
    )
    return run.finish("cluster_dynamics", mesh)


if __name__ == "__main__":
    command_line.run("cluster_dynamics", run_cluster_dynamics, variant_fields=("source.dataset",))
