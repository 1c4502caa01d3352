"""SSL: unsupervised re-identification by softened similarity learning (Lin et al., CVPR 2020).

    python experiments/softened.py                                       # synthetic pedestrians, CPU, minutes
    python experiments/softened.py --config=experiments/configs/softened.py:market1501 --workdir=runs/ssl_market1501
"""

import functools
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments import command_line, config_checks, lookup_training, reporting, run_directory, setup_run
from reid_jax import dissimilarity, losses, sharding, types


def check(config: ConfigDict, num_samples: int) -> None:
    """Checks the fields that softened similarity has alone.

    Raises:
        UserError: more reliable samples than there are others, or a signal that needs clusters.
    """
    k = config.dissimilarity.num_reliable
    if not 1 <= k < num_samples:
        raise types.UserError(
            f"dissimilarity.num_reliable must be in 1..{num_samples - 1}, the number of other samples, got {k}"
        )
    if config.stop.signal != "agreement":
        raise types.UserError(f"stop.signal must be 'agreement' where nothing is clustered, got {config.stop.signal!r}")


def run_softened(config: ConfigDict, workdir: str) -> dict[str, Any]:
    """Runs the method of Figure 2, or the rest of it where the run directory holds a part; returns the result."""
    config_checks.check_config(config)
    mesh = sharding.make_mesh(config.num_devices)
    dataset = setup_run.load_dataset(config.data)
    samples = dataset.samples["train"]
    lookup_training.check(config, len(samples), mesh)
    check(config, len(samples))
    terms = lookup_training.dissimilarity_options(config.dissimilarity, samples)
    num_reliable = config.dissimilarity.num_reliable

    def softened_loss(embeddings, targets, table):
        return losses.softened(
            embeddings,
            targets["labels"],
            targets["reliable"],
            table.rows,
            own_weight=config.loss.own_weight,
            temperature=config.loss.temperature,
        )

    trunk = lookup_training.make_trunk(config, softened_loss, mesh)
    setup_run.check_start(config, trunk.model, resuming=run_directory.has_checkpoint(workdir))
    run = run_directory.RunDirectory(workdir, config, dataset)
    dataset = setup_run.with_images(dataset, config.data)
    evaluate = functools.partial(
        setup_run.evaluate_model, config.evaluation, trunk.embed_step, dataset=dataset, mesh=mesh
    )
    state = run.restore(lookup_training.initial_state(config, trunk, dataset, mesh, resuming=run.is_resuming()))
    run.measure_initial(state, evaluate)

    while not run.is_over():
        if run.epoch == 0:  # else the run was interrupted while training, and this iteration's labels are kept
            if run.iteration == 1:
                # The baseline's hard labels: with the own class as every reliable one, eq. (4) is eq. (2).
                reliable = np.repeat(np.arange(len(samples), dtype=np.int32)[:, None], num_reliable, axis=1)
            else:
                with run.phase("embed"):
                    embedded = lookup_training.embed(config, trunk, state, dataset, mesh)
                with run.phase("select"):
                    reliable = np.asarray(dissimilarity.most_similar(embedded, k=num_reliable, **terms))
            run.save_pseudo_labels(reliable)
            num_classes = len(samples) if config.memory.reset else None
            state = lookup_training.restarted(state, trunk, mesh, num_classes=num_classes)
        reliable, _ = run.load_pseudo_labels()
        targets = {"labels": np.arange(len(samples)), "reliable": reliable}
        state = lookup_training.train_epochs(config, trunk, run, state, dataset, targets, mesh)
        with run.phase("evaluate"):
            scores = evaluate(state.variables)
        quality = {"agreement": None}
        if run.iteration > 1:
            before = run.previous_pseudo_labels() if run.iteration > 2 else None
            quality = reporting.reliable_quality(reliable, before, dataset.train_ids, samples.camids)
        run.end_iteration(state, quality | {"loss": float(np.mean(run.losses))} | scores)
    return run.finish("softened", mesh)


if __name__ == "__main__":
    command_line.run("softened", run_softened)
