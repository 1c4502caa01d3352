"""BUC: bottom-up clustering with a repelled loss over a lookup table (Lin et al., AAAI 2019), Algorithm 1.

python experiments/buc.py                                        # synthetic pedestrians, CPU, minutes
python experiments/buc.py --config=experiments/configs/buc.py:market1501 --workdir=runs/buc_market1501
"""

from typing import Any

import numpy as np
from ml_collections import ConfigDict

from reid_jax import errors, pseudo_labels
from reid_jax.cli import command_line
from reid_jax.embeddings import l2_normalize
from reid_jax.label_metrics import label_metrics
from reid_jax.runs import objectives, stages
from reid_jax.runs.dataset import TrainingData
from reid_jax.runs.opening import open_session


def merges_per_stage(config: ConfigDict, num_samples: int) -> int:
    """Returns m, the unions per stage.

    Raises:
        UserError: no unions, or no clusters left.
    """
    # Algorithm 1, line 3 rounds up; the text (m = N mp, sec. 3.2) does not, and the reference code rounds down.
    num_merges = int(config.cluster.merge_percent * num_samples)
    num_stages = config.train.num_iterations
    if num_merges < 1 or num_samples - (num_stages - 1) * num_merges < 2:
        raise errors.UserError(
            f"cluster.merge_percent = {config.cluster.merge_percent} and train.num_iterations = {num_stages} leave "
            f"{num_samples} - {num_stages - 1} x {num_merges} = {num_samples - (num_stages - 1) * num_merges} clusters "
            f"of {num_samples} samples; at least 2 and one union a stage are needed"
        )
    return num_merges


def check(config: ConfigDict, data: TrainingData) -> None:
    """Checks the fields that depend on the number of samples, and that centroid linkage has no other terms.

    Raises:
        UserError: one breaks its rule.
    """
    stages.check_batch(config, data)
    merges_per_stage(config, len(data.samples))
    terms = config.dissimilarity
    has_terms = terms.part_weight or terms.camera_penalty or terms.metric != "euclidean"
    if config.cluster.linkage == "centroid" and has_terms:
        raise errors.UserError(
            "cluster.linkage = 'centroid' compares mean embeddings by their Euclidean distance: "
            "dissimilarity.part_weight and camera_penalty must be 0 and metric 'euclidean'"
        )
    stages.check_cameras(config, data)


def run_buc(config: ConfigDict, workdir: str) -> dict[str, Any]:
    """Runs Algorithm 1, from the run directory's last checkpoint if there is one, and returns the result."""
    session = open_session(
        config,
        workdir,
        method="buc",
        check=check,
        objective=lambda config, data: objectives.repelled(config),
        holds_distance_matrix=True,
    )
    run, config, samples = session.run, session.config, session.data.samples
    cluster = config.cluster
    state = stages.start(session)

    while not run.is_over():  # Algorithm 1, line 4; stages end earlier where mAP falls (sec. 3.2)
        if run.epoch == 0:  # else the run was interrupted while training, and this stage's labels are kept
            labels, metrics = np.arange(len(samples), dtype=np.int32), {}  # lines 1, 2
            if run.iteration > 1:
                embedded = l2_normalize(session.embed(state))
                with run.phase("cluster"):
                    labels, metrics = pseudo_labels.bottom_up_labels(  # lines 6 to 8, eq. (4) to (6)
                        embedded,
                        run.previous_pseudo_labels(),
                        num_merges=merges_per_stage(config, len(samples)),  # line 3
                        linkage_name=cluster.linkage,
                        size_penalty=cluster.size_penalty,
                        **stages.dissimilarity_terms(config.dissimilarity, samples),
                    )
            run.save_pseudo_labels(labels, **metrics)
            num_classes = int(labels.max()) + 1
            state = objectives.restart_stage(state, session.optimizer, session.mesh, num_classes=num_classes)  # line 9
        labels, metrics = run.load_pseudo_labels()
        state = stages.train_stage(session, state, {"labels": labels})  # lines 5, 10
        metrics = session.measure_labels(label_metrics, labels) | metrics
        state = session.end_iteration(state, metrics)  # lines 11 to 15: evaluate, keep the best
    return session.finish()


if __name__ == "__main__":
    command_line.run("buc", run_buc)
