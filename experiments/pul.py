"""PUL: progressive unsupervised learning, clustering and fine-tuning (Fan et al., 2017), Algorithm 1.

    python experiments/pul.py                                        # second synthetic world -> the first, CPU
    python experiments/pul.py --config=experiments/configs/pul.py:market1501 --workdir=runs/pul_market1501
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from experiments import command_line, config_checks, reporting, run_directory, setup_run, source_model
from reid_jax import augment, checkpoints, features, kmeans, optimizers, sampling, selection, sharding, train, types
from reid_jax.data.batches import device_batches
from reid_jax.models import pooling
from reid_jax.models.id_classifier import IdClassifier


def known_classes(config: ConfigDict, train_ids: np.ndarray) -> np.ndarray:
    """Draws the identities whose labels are known, L = selection.num_labelled_ids of them.

    Returns:
        [N] int64: 0..L-1 for their samples, -1 for the others.

    Raises:
        UserError: there are fewer than L identities.
    """
    identities = np.unique(train_ids[train_ids >= 0])
    wanted = config.selection.num_labelled_ids
    if wanted > len(identities):
        raise types.UserError(
            f"selection.num_labelled_ids must be at most the {len(identities)} known identities, got {wanted}"
        )
    # The tag keeps it apart from the draws of batches, [seed, iteration, epoch], and frames.
    chosen = np.random.default_rng([config.seed, 0, 0, 2]).permutation(identities)[:wanted]
    classes = np.full(len(train_ids), -1)
    for number, identity in enumerate(chosen):
        classes[train_ids == identity] = number
    return classes


def check(config: ConfigDict, known: np.ndarray) -> int:
    """Checks what the data's size bounds and returns K, the clusters of the samples without labels.

    Raises:
        UserError: more clusters than samples, or a batch may not fill.
    """
    num_unknown, num_clusters = int((known < 0).sum()), config.cluster.num_clusters
    if num_unknown and num_clusters > num_unknown:
        raise types.UserError(
            f"cluster.num_clusters must be at most the {num_unknown} samples without labels, got {num_clusters}"
        )
    # With all labels known there is nothing to cluster: supervised training.
    num_clusters = num_clusters if num_unknown else 0
    num_known, surely = len(known) - num_unknown, num_clusters
    if config.selection.compared == "none":
        surely = num_unknown
    if config.train.batch_size > num_known + surely:
        raise types.UserError(
            f"train.batch_size must be at most {num_known + surely}, got {config.train.batch_size}: of "
            f"cluster.num_clusters = {num_clusters} clusters {surely} samples are sure to be selected, and {num_known} "
            "samples are labelled"
        )
    if config.stop.signal == "silhouette":
        raise types.UserError("stop.signal must be 'selected' or 'agreement', got 'silhouette', which is not computed")
    return num_clusters


def cluster_and_select(
    key: jax.Array, embeddings: np.ndarray, known: np.ndarray, config: ConfigDict, num_clusters: int, mesh
) -> tuple[np.ndarray, dict[str, float]]:
    """Clusters the samples without labels and keeps the reliable ones (lines 4 to 16).

    Returns:
        (pseudo labels [N] int64: 0..K-1 a reliable sample's cluster, K..K+L-1 a known class, -1 not selected;
        what to log).
    """
    pseudo_labels = np.where(known >= 0, num_clusters + known, -1)
    unknown = np.flatnonzero(known < 0)
    facts = {}
    if len(unknown):
        rows = features.l2_normalized(embeddings[unknown]) if config.cluster.normalize else embeddings[unknown]
        clusters = kmeans.kmeans(
            key,
            rows,
            num_clusters=num_clusters,
            max_iterations=config.cluster.max_iterations,
            num_init=config.cluster.num_init,
            mesh=mesh,
        )
        centers = selection.center_indices(rows, clusters.labels, clusters.centroids)
        is_reliable = selection.select_reliable(
            features.l2_normalized(embeddings[unknown]),
            clusters.labels,
            centers,
            threshold=config.selection.threshold,
            compared=config.selection.compared,
        )
        pseudo_labels[unknown] = np.where(is_reliable, clusters.labels, -1)
        facts = {"inertia": float(clusters.inertia), "kmeans_iterations": int(clusters.num_iterations)}
        if int((pseudo_labels >= 0).sum()) < config.train.batch_size:
            raise types.UserError(
                f"only {int((pseudo_labels >= 0).sum())} samples were selected, fewer than train.batch_size = "
                f"{config.train.batch_size}: so many embeddings are equal that clusters are empty"
            )
        if not bool(clusters.converged):
            print(f"k-means did not converge in cluster.max_iterations = {config.cluster.max_iterations}", flush=True)
        if config.selection.compared != "none" and bool(is_reliable.all()):
            print(f"selection.threshold = {config.selection.threshold} leaves no sample out; give a higher one", flush=True)
    return pseudo_labels, facts | {"selected": float((pseudo_labels >= 0).mean())}


def restarted(
    state: train.TrainState, original: dict[str, Any], key: jax.Array, optimizer: optax.GradientTransformation, mesh
) -> train.TrainState:
    """Returns the state at the beginning of an iteration: the original model with a fresh classifier (lines 2, 17).

    The optimizer is fresh as well; only the number of steps goes on.
    """
    kernel = original["params"]["classifier"]["kernel"]
    fresh = {"kernel": 0.001 * jax.random.normal(key, kernel.shape)}
    variables = original | {"params": original["params"] | {"classifier": fresh}}
    return train.init_train_state(variables, optimizer, mesh)._replace(step=state.step)


def label_quality(pseudo_labels: np.ndarray, previous: np.ndarray | None, true_ids: np.ndarray) -> dict[str, float]:
    """Judges the pseudo labels of the selected samples; the agreement is of those selected in both iterations."""
    used = pseudo_labels >= 0
    both = used if previous is None else used & (previous >= 0)
    quality = reporting.label_quality(pseudo_labels[used], None, true_ids[used])
    if previous is not None and both.any():
        quality["agreement"] = reporting.agreement(pseudo_labels[both], previous[both])
    return quality


def run_pul(config: ConfigDict, workdir: str) -> dict[str, Any]:
    """Runs Algorithm 1, or the rest of it where the run directory holds a part, and returns the result."""
    config_checks.check_config(config)
    mesh = sharding.make_mesh(config.num_devices)
    sharding.check_batch_size(mesh, config.train.batch_size)
    sharding.check_batch_size(mesh, config.evaluation.batch_size)
    dataset = setup_run.load_dataset(config.data)
    samples, num_frames = dataset.samples["train"], config.train.num_frames
    known = known_classes(config, dataset.train_ids)
    num_clusters = check(config, known)
    embedder = setup_run.build_model(config.model)
    num_classes = num_clusters + config.selection.num_labelled_ids
    model = setup_run.build_model(config.model, IdClassifier, num_classes=num_classes, dropout=config.head.dropout)
    setup_run.check_training(model, config.data, batch_size=config.train.batch_size * num_frames)
    # The original model is what every iteration starts from, a resumed one too, but not one that shows its result.
    is_finished = run_directory.is_finished(workdir, config)
    if source_model.needs_source(config) and not is_finished:
        source_model.check_source(source_model.source_config(config), config.data.dataset)
    else:
        setup_run.check_start(config, model, resuming=is_finished)
    run = run_directory.RunDirectory(workdir, config, dataset)
    start = config if is_finished else source_model.with_source_model(config, workdir)
    dataset = setup_run.with_images(dataset, config.data)
    images = dataset.images["train"]

    optimizer = optimizers.make_optimizer(
        config.train.optimizer,
        config.train.learning_rate,
        momentum=config.train.momentum,
        weight_decay=config.train.weight_decay,
        rate_factors=setup_run.rate_factors(config.model),
    )

    def cross_entropy(outputs, labels, memory):
        del memory
        logits = pooling.frame_mean(outputs[1], num_frames)
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))

    train_step = train.make_train_step(
        model, cross_entropy, optimizer, functools.partial(augment.augment, **config.augment), mesh
    )
    embed_step = features.make_embed_step(embedder, mesh)
    evaluate = functools.partial(setup_run.evaluate_model, config.evaluation, embed_step, dataset=dataset, mesh=mesh)
    train_key, cluster_key, classifier_key = (jax.random.fold_in(jax.random.key(config.seed), i) for i in (1, 2, 3))

    original = setup_run.initial_variables(
        start, model, images, batch_size=config.train.batch_size, resuming=is_finished
    )
    if start.model.checkpoint and not is_finished:
        run.pin(original_model=checkpoints.digest({"backbone": original["params"]["backbone"]}))
    state = run.restore(train.init_train_state(original, optimizer, mesh))
    if is_finished and not run.is_over():  # the last checkpoint is damaged, and the original model was not loaded
        raise types.UserError(f"workdir: the last checkpoint in {str(workdir)!r} is damaged; start again to go on")
    run.measure_initial(state, evaluate)

    while not run.is_over():
        if run.epoch == 0:  # else the run was interrupted while training, and this iteration's labels are kept
            with run.phase("embed"):
                embeddings = features.embed_samples(
                    embed_step, state.variables, images, samples, mesh, batch_size=config.evaluation.batch_size
                ).embeddings
            with run.phase("cluster"):
                key = jax.random.fold_in(cluster_key, run.iteration)
                pseudo_labels, facts = cluster_and_select(key, embeddings, known, config, num_clusters, mesh)
            run.save_pseudo_labels(pseudo_labels, **facts)
            key = jax.random.fold_in(classifier_key, run.iteration)
            state = restarted(state, original, key, optimizer, mesh)
        pseudo_labels, facts = run.load_pseudo_labels()
        epochs = [
            sampling.shuffled_batches(
                np.random.default_rng([config.seed, run.iteration, epoch]),
                pseudo_labels,
                batch_size=config.train.batch_size,
            )
            for epoch in range(run.epoch, config.train.num_epochs)
        ]
        frames = setup_run.draw_epoch_frames(config, samples, epochs, run.iteration, first_epoch=run.epoch)
        batches = device_batches(images, frames, mesh)
        for index_batches in epochs:
            with run.phase("train"):
                labels = pseudo_labels[index_batches]
                state, epoch_losses = train.train_epoch(
                    train_step, state, train_key, batches, labels, mesh, description=run.place()
                )
            run.end_epoch(state, float(epoch_losses.mean()), num_epochs=config.train.num_epochs)
        with run.phase("evaluate"):
            scores = evaluate(state.variables)
        quality = label_quality(pseudo_labels, run.previous_pseudo_labels(), dataset.train_ids)
        run.end_iteration(state, quality | facts | {"loss": float(np.mean(run.losses))} | scores)
    return run.finish("pul", mesh)


if __name__ == "__main__":
    command_line.run("pul", run_pul)
