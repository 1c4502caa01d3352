r"""HCD: online pseudo labels by hierarchical cluster dynamics (Zheng et al., ICCV 2021), section 4.

python experiments/cluster_dynamics.py                           # synthetic pedestrians, CPU, minutes
python experiments/cluster_dynamics.py --config=experiments/configs/cluster_dynamics.py:market1501 \
        --config.source.dataset=dukemtmcreid                         # adaptive; without a source unsupervised
"""

import pathlib
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from reid_jax.cli import command_line
from reid_jax.label_metrics import level_metrics
from reid_jax.pictures import hierarchy_picture
from reid_jax.runs import online
from reid_jax.runs.opening import open_session


def run_cluster_dynamics(config: ConfigDict, workdir: str) -> dict[str, Any]:
    """Runs HCD, from the run directory's last checkpoint if there is one, and returns the result."""
    session = open_session(
        config,
        workdir,
        method="cluster_dynamics",
        check=online.check,
        objective=online.contrastive,  # eq. (1); `online.bank_step`: section 4.2, for every batch
        joins_source=True,
    )
    run, config, samples = session.run, session.config, session.data.samples
    state = session.start(lambda state: online.initial_memory(session, state))  # section 4.1

    while not run.is_over():
        if config.memory.refresh and run.iteration > 1 and run.epoch == 0:
            state = online.refresh_features(session, state)
        for epoch in range(run.epoch, config.train.num_epochs):
            labels = online.sampling_labels(config, state.memory.bank)
            batches = online.draw_batches(config, session.data, labels, iteration=run.iteration, epoch=epoch)
            state = session.train_epochs(state, [batches], {"indices": np.arange(len(samples))})
        labels = online.level_labels(state)
        run.save_pseudo_labels(labels)
        metrics = session.measure_labels(level_metrics, labels)
        state = session.end_iteration(state, metrics)
    hierarchy_picture.draw_hierarchy(  # Fig. 6
        pathlib.Path(workdir, "hierarchy.png"),
        session.dataset.images["train"],
        session.dataset.samples["train"],
        online.level_labels(state).T,
        session.dataset.train_ids,
    )
    return session.finish()


if __name__ == "__main__":
    command_line.run("cluster_dynamics", run_cluster_dynamics, variant_fields=("source.dataset",))
