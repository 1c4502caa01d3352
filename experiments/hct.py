"""HCT: hierarchical clustering with hard-batch triplet loss (Zeng et al., CVPR 2020), Algorithm 1.

    python experiments/hct.py                                        # synthetic pedestrians, CPU, minutes
    python experiments/hct.py --config=experiments/configs/hct.py:market1501 --workdir=runs/hct_market1501
"""

import functools
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import command_line, config_checks, reporting, run_directory, setup_run
from reid_jax import (
    augment,
    cluster_quality,
    distances,
    features,
    linkage,
    losses,
    optimizers,
    sampling,
    sharding,
    train,
    types,
)
from reid_jax.data.batches import device_batches
from reid_jax.models import pooling


def cluster(embeddings: np.ndarray, options: ConfigDict, num_merges: int) -> tuple[np.ndarray, float]:
    """Clusters embeddings [N, D] from one cluster per sample by `num_steps` merge steps.

    Returns:
        (pseudo labels [N] int32, their silhouette).
    """
    if options.normalize:
        embeddings = features.l2_normalized(embeddings)
    sample_distances = distances.pairwise_distances(embeddings, metric=options.metric)
    pseudo_labels = np.asarray(
        linkage.agglomerate(
            sample_distances,
            num_merges=num_merges,
            num_steps=options.num_steps,
            linkage=options.linkage,
            embeddings=embeddings if options.linkage == "centroid" else None,
        )
    )
    return pseudo_labels, cluster_quality.silhouette(np.asarray(sample_distances), pseudo_labels)


def check(config: ConfigDict, num_samples: int) -> int:
    """Checks the fields that the data's size bounds and returns m, the unions per merge step.

    Raises:
        UserError: too many merges, or too few clusters left for a batch.
    """
    num_merges = int(config.cluster.merge_percent * num_samples)
    num_clusters = num_samples - num_merges * config.cluster.num_steps
    if num_merges < 1 or config.cluster.num_steps < 1 or num_clusters < config.train.num_ids:
        raise types.UserError(
            f"cluster.merge_percent = {config.cluster.merge_percent} and cluster.num_steps = "
            f"{config.cluster.num_steps} leave {num_samples} - {config.cluster.num_steps} x {num_merges} = "
            f"{num_clusters} clusters of {num_samples} samples; at least train.num_ids = {config.train.num_ids} "
            "and one union a step are needed"
        )
    return num_merges


def pk_epochs(config: ConfigDict, run: run_directory.RunDirectory, pseudo_labels: np.ndarray) -> list[np.ndarray]:
    """Draws the index batches [steps, P * K] of each of this iteration's epochs that are still to come."""
    return [
        sampling.pk_batches(
            np.random.default_rng([config.seed, run.iteration, epoch]),
            pseudo_labels,
            num_ids=config.train.num_ids,
            num_instances=config.train.num_instances,
        )
        for epoch in range(run.epoch, config.train.num_epochs)
    ]


def run_hct(config: ConfigDict, workdir: str) -> dict[str, Any]:
    """Runs Algorithm 1, or the rest of it where the run directory holds a part, and returns the result."""
    config_checks.check_config(config)
    mesh = sharding.make_mesh(config.num_devices)
    batch_size = config.train.num_ids * config.train.num_instances
    sharding.check_batch_size(mesh, batch_size)
    sharding.check_batch_size(mesh, config.evaluation.batch_size)
    dataset = setup_run.load_dataset(config.data)
    samples, num_frames = dataset.samples["train"], config.train.num_frames
    num_merges = check(config, len(samples))
    setup_run.check_distance_matrix(len(samples))
    model = setup_run.build_model(config.model)
    setup_run.check_training(model, config.data, batch_size=batch_size * num_frames)
    setup_run.check_start(config, model, resuming=run_directory.has_checkpoint(workdir))
    run = run_directory.RunDirectory(workdir, config, dataset)
    dataset = setup_run.with_images(dataset, config.data)
    images = dataset.images["train"]

    optimizer = optimizers.make_optimizer(
        config.train.optimizer,
        config.train.learning_rate,
        momentum=config.train.momentum,
        weight_decay=config.train.weight_decay,
        rate_factors=setup_run.rate_factors(config.model),
    )

    def triplet_loss(outputs, labels, memory):
        del memory
        return losses.batch_hard_triplet(pooling.frame_mean(outputs.embeddings, num_frames), labels, **config.loss)

    train_step = train.make_train_step(
        model,
        triplet_loss,
        optimizer,
        functools.partial(augment.augment, **config.augment),
        mesh,
    )
    embed_step = features.make_embed_step(model, mesh)
    evaluate = functools.partial(setup_run.evaluate_model, config.evaluation, embed_step, dataset=dataset, mesh=mesh)
    train_key = jax.random.fold_in(jax.random.key(config.seed), 1)

    variables = setup_run.initial_variables(
        config, model, images, batch_size=batch_size, resuming=run.is_resuming()
    )
    state = run.restore(train.init_train_state(variables, optimizer, mesh))
    run.measure_initial(state, evaluate)

    while not run.is_over():
        if run.epoch == 0:  # else the run was interrupted while training, and this iteration's labels are kept
            with run.phase("embed"):
                embeddings = features.embed_samples(
                    embed_step, state.variables, images, samples, mesh, batch_size=config.evaluation.batch_size
                ).embeddings
            with run.phase("cluster"):
                pseudo_labels, silhouette = cluster(embeddings, config.cluster, num_merges)
            run.save_pseudo_labels(pseudo_labels, silhouette=silhouette)
        pseudo_labels, facts = run.load_pseudo_labels()
        epochs = pk_epochs(config, run, pseudo_labels)
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
        quality = reporting.label_quality(pseudo_labels, run.previous_pseudo_labels(), dataset.train_ids)
        run.end_iteration(state, quality | facts | {"loss": float(np.mean(run.losses))} | scores)
    return run.finish("hct", mesh)


if __name__ == "__main__":
    command_line.run("hct", run_hct)
