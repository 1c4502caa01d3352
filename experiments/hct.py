"""HCT: hierarchical clustering with hard-batch triplet loss (Zeng et al., CVPR 2020), Algorithm 1.

python experiments/hct.py                                        # synthetic pedestrians, CPU, minutes
python experiments/hct.py --config=experiments/configs/hct.py:market1501 --workdir=runs/hct_market1501
"""

from typing import Any

from ml_collections import ConfigDict

from reid_jax import errors, pseudo_labels, sampling
from reid_jax.cli import command_line
from reid_jax.label_metrics import label_metrics
from reid_jax.runs import objectives
from reid_jax.runs.dataset import TrainingData
from reid_jax.runs.opening import open_session


def merges_per_step(config: ConfigDict, num_samples: int) -> int:
    """Returns m, the unions of a merge step.

    Raises:
        UserError: too many merges, or too few clusters left for a batch.
    """
    num_merges = int(config.cluster.merge_percent * num_samples)
    num_clusters = num_samples - num_merges * config.cluster.num_steps
    if num_merges < 1 or config.cluster.num_steps < 1 or num_clusters < config.train.num_ids:
        raise errors.UserError(
            f"cluster.merge_percent = {config.cluster.merge_percent} and cluster.num_steps = "
            f"{config.cluster.num_steps} leave {num_samples} - {config.cluster.num_steps} x {num_merges} = "
            f"{num_clusters} clusters of {num_samples} samples; at least train.num_ids = {config.train.num_ids} "
            "and one union a step are needed"
        )
    return num_merges


def check(config: ConfigDict, data: TrainingData) -> None:
    """Checks the fields that the data's size bounds; see `merges_per_step`."""
    merges_per_step(config, len(data.samples))


def run_hct(config: ConfigDict, workdir: str) -> dict[str, Any]:
    """Runs Algorithm 1, from the run directory's last checkpoint if there is one, and returns the result."""
    session = open_session(
        config,
        workdir,
        method="hct",
        check=check,
        objective=lambda config, data: objectives.triplet(config),
        holds_distance_matrix=True,
    )
    run, config = session.run, session.config
    cluster, train = config.cluster, config.train
    state = session.start()

    while not run.is_over():  # Algorithm 1, line 2
        if run.epoch == 0:  # else resumed inside an iteration, whose labels are kept
            embeddings = session.embed(state).embeddings  # line 4
            with run.phase("cluster"):
                labels, metrics = pseudo_labels.merge_step_labels(  # lines 3 to 9
                    embeddings,
                    num_merges=merges_per_step(config, len(embeddings)),  # line 1
                    num_steps=cluster.num_steps,
                    linkage_name=cluster.linkage,
                    metric=cluster.metric,
                    normalize=cluster.normalize,
                )
            run.save_pseudo_labels(labels, **metrics)
        labels, metrics = run.load_pseudo_labels()
        epochs = session.draw_epochs(  # line 10
            lambda rng: sampling.pk_batches(rng, labels, num_ids=train.num_ids, num_instances=train.num_instances)
        )
        state = session.train_epochs(state, epochs, {"labels": labels})  # line 11
        metrics = session.measure_labels(label_metrics, labels) | metrics
        state = session.end_iteration(state, metrics)  # lines 12 to 16: evaluate, keep the best
    return session.finish()


if __name__ == "__main__":
    command_line.run("hct", run_hct)
