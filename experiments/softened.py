"""SSL: unsupervised re-identification by softened similarity learning (Lin et al., CVPR 2020).

python experiments/softened.py                                       # synthetic pedestrians, CPU, minutes
python experiments/softened.py --config=experiments/configs/softened.py:market1501 --workdir=runs/ssl_market1501
"""

from typing import Any

import numpy as np
from ml_collections import ConfigDict

from reid_jax import errors
from reid_jax.cli import command_line
from reid_jax.distances import dissimilarity
from reid_jax.embeddings import l2_normalize
from reid_jax.label_metrics import reliable_metrics
from reid_jax.runs import objectives, stages
from reid_jax.runs.dataset import TrainingData
from reid_jax.runs.opening import open_session


def check(config: ConfigDict, data: TrainingData) -> None:
    """Checks the fields that softened similarity has alone.

    Raises:
        UserError: more reliable samples than there are others, or a signal that needs clusters.
    """
    stages.check_batch(config, data)
    k, num_samples = config.dissimilarity.num_reliable, len(data.samples)
    if not 1 <= k < num_samples:
        raise errors.UserError(
            f"dissimilarity.num_reliable must be in 1..{num_samples - 1}, the number of other samples, got {k}"
        )
    if config.stop.signal not in ("agreement", "last"):
        raise errors.UserError(
            f"stop.signal must be 'agreement' or 'last' where nothing is clustered, got {config.stop.signal!r}"
        )
    stages.check_cameras(config, data)


def run_softened(config: ConfigDict, workdir: str) -> dict[str, Any]:
    """Runs the method of Figure 2, from the run directory's last checkpoint if there is one, and returns the result."""
    session = open_session(
        config, workdir, method="softened", check=check, objective=lambda config, data: objectives.softened(config)
    )
    run, config, samples = session.run, session.config, session.data.samples
    k = config.dissimilarity.num_reliable
    own = np.arange(len(samples))  # every image is a class of its own
    state = stages.start(session)

    while not run.is_over():
        if run.epoch == 0:  # else resumed inside an iteration, whose labels are kept
            if run.iteration == 1:
                # The baseline's hard labels (eq. 2): with the own class as every reliable one, eq. (4) is eq. (2).
                reliable = np.repeat(own.astype(np.int32)[:, None], k, axis=1)
            else:
                embedded = l2_normalize(session.embed(state))
                with run.phase("select"):  # the k nearest by eq. (7)
                    terms = stages.dissimilarity_terms(config.dissimilarity, samples)
                    reliable = np.asarray(dissimilarity.most_similar(embedded, k=k, **terms))
            run.save_pseudo_labels(reliable)
            num_classes = len(samples) if config.memory.reset else None
            state = objectives.restart_stage(state, session.optimizer, session.mesh, num_classes=num_classes)
        reliable, _ = run.load_pseudo_labels()
        state = stages.train_stage(session, state, {"labels": own, "reliable": reliable})  # eq. (3), (4)
        metrics = {"agreement": None}
        if run.iteration > 1:
            previous = run.previous_pseudo_labels() if run.iteration > 2 else None
            metrics = reliable_metrics(reliable, previous, session.dataset.train_ids, samples.camids)
        state = session.end_iteration(state, metrics)
    return session.finish()


if __name__ == "__main__":
    command_line.run("softened", run_softened)
