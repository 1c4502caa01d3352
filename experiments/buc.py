"""BUC: bottom-up clustering with a repelled loss over a lookup table (Lin et al., AAAI 2019), Algorithm 1.

    python experiments/buc.py                                        # synthetic pedestrians, CPU, minutes
    python experiments/buc.py --config=experiments/configs/buc.py:market1501 --workdir=runs/buc_market1501
"""

import functools
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments import command_line, config_checks, lookup_training, reporting, run_directory, setup_run
from reid_jax import cluster_quality, dissimilarity, linkage, losses, sharding, types


def merge(
    embedded: types.Features, pseudo_labels: np.ndarray, options: ConfigDict, num_merges: int, **terms: Any
) -> tuple[np.ndarray, float]:
    """Unites the m pairs of clusters that are least dissimilar (eq. 4, 6).

    Args:
        embedded: of N samples, L2-normalised.
        pseudo_labels: [N] int32, the clusters so far.
        options: config.cluster.
        num_merges: m.
        **terms: of `dissimilarity.dissimilarities`.

    Returns:
        (pseudo labels [N] int32, their silhouette).
    """
    distances = dissimilarity.dissimilarities(embedded, **terms)
    pseudo_labels = linkage.agglomerate(
        distances,
        num_merges=num_merges,
        num_steps=1,
        linkage=options.linkage,
        size_penalty=options.size_penalty,
        embeddings=embedded.embeddings if options.linkage == "centroid" else None,
        initial_labels=pseudo_labels,
    )
    return pseudo_labels, cluster_quality.silhouette(np.asarray(distances), pseudo_labels)


def check(config: ConfigDict, num_samples: int) -> int:
    """Checks the fields that the data's size bounds and returns m, the unions per stage.

    Raises:
        UserError: no unions, or no clusters left; terms that a centroid does not have.
    """
    num_merges = int(config.cluster.merge_percent * num_samples)
    num_stages = config.train.num_iterations
    if num_merges < 1 or num_samples - (num_stages - 1) * num_merges < 2:
        raise types.UserError(
            f"cluster.merge_percent = {config.cluster.merge_percent} and train.num_iterations = {num_stages} leave "
            f"{num_samples} - {num_stages - 1} x {num_merges} = {num_samples - (num_stages - 1) * num_merges} clusters "
            f"of {num_samples} samples; at least 2 and one union a stage are needed"
        )
    terms = config.dissimilarity
    has_terms = terms.part_weight or terms.camera_penalty or terms.metric != "euclidean"
    if config.cluster.linkage == "centroid" and has_terms:
        raise types.UserError(
            "cluster.linkage = 'centroid' compares mean embeddings by their Euclidean distance: "
            "dissimilarity.part_weight and camera_penalty must be 0 and metric 'euclidean'"
        )
    return num_merges


def run_buc(config: ConfigDict, workdir: str) -> dict[str, Any]:
    """Runs Algorithm 1, or the rest of it where the run directory holds a part, and returns the result."""
    config_checks.check_config(config)
    mesh = sharding.make_mesh(config.num_devices)
    dataset = setup_run.load_dataset(config.data)
    samples = dataset.samples["train"]
    lookup_training.check(config, len(samples), mesh)
    num_merges = check(config, len(samples))
    setup_run.check_distance_matrix(len(samples))
    terms = lookup_training.dissimilarity_options(config.dissimilarity, samples)

    def repelled_loss(embeddings, targets, table):
        return losses.repelled(
            embeddings,
            targets["labels"],
            table.rows,
            temperature=config.loss.temperature,
            num_classes=table.num_classes,
        )

    trunk = lookup_training.make_trunk(config, repelled_loss, mesh)
    setup_run.check_start(config, trunk.model, resuming=run_directory.has_checkpoint(workdir))
    run = run_directory.RunDirectory(workdir, config, dataset)
    dataset = setup_run.with_images(dataset, config.data)
    evaluate = functools.partial(
        setup_run.evaluate_model, config.evaluation, trunk.embed_step, dataset=dataset, mesh=mesh
    )
    state = run.restore(lookup_training.initial_state(config, trunk, dataset, mesh, resuming=run.is_resuming()))
    run.measure_initial(state, evaluate)

    while not run.is_over():
        if run.epoch == 0:  # else the run was interrupted while training, and this stage's labels are kept
            pseudo_labels, facts = np.arange(len(samples), dtype=np.int32), {}
            if run.iteration > 1:
                with run.phase("embed"):
                    embedded = lookup_training.embed(config, trunk, state, dataset, mesh)
                with run.phase("cluster"):
                    pseudo_labels, facts["silhouette"] = merge(
                        embedded, run.previous_pseudo_labels(), config.cluster, num_merges, **terms
                    )
            run.save_pseudo_labels(pseudo_labels, **facts)
            state = lookup_training.restarted(state, trunk, mesh, num_classes=int(pseudo_labels.max()) + 1)
        pseudo_labels, facts = run.load_pseudo_labels()
        targets = {"labels": pseudo_labels}
        state = lookup_training.train_epochs(config, trunk, run, state, dataset, targets, mesh)
        with run.phase("evaluate"):
            scores = evaluate(state.variables)
        quality = reporting.label_quality(pseudo_labels, run.previous_pseudo_labels(), dataset.train_ids)
        run.end_iteration(state, quality | facts | {"loss": float(np.mean(run.losses))} | scores)
    return run.finish("buc", mesh)


if __name__ == "__main__":
    command_line.run("buc", run_buc)
