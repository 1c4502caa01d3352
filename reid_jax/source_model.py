"""The model that transfer starts from: an ID classifier trained on labelled sources by experiments/supervised.py."""

import hashlib
import json
import pathlib
import time

from ml_collections import ConfigDict

from reid_jax import errors
from reid_jax.experiments import supervised
from reid_jax.experiments.configs import supervised as supervised_config
from reid_jax.runs import compatibility, config_rules, models
from reid_jax.runs import dataset as dataset_lib
from reid_jax.runs.dataset import TrainingData

_WAIT_SECONDS = 5.0
_MOST_EVALUATIONS = 4  # of the source's own test images while it is trained


def trains_source(config: ConfigDict) -> bool:
    """Whether a method's config has a source to train the original model on, not one to learn besides the target."""
    return "source" in config and "num_epochs" in config.source


def source_config(config: ConfigDict) -> ConfigDict:
    """Returns the config of the training on config.source, with the target's model, image size and optimizer."""
    source = supervised_config.get_config("folder").unlock()
    for section in ("model", "augment", "head"):
        source[section] = config[section]
    source.seed, source.num_devices = config.seed, config.num_devices
    # Nothing of it follows from the target's number of images per identity.
    source.data.update(config.data.to_dict() | {"dataset": config.source.dataset, "images_per_identity": 0.0})
    source.evaluation.batch_size = config.evaluation.batch_size
    source.checkpoint.every_minutes = config.checkpoint.every_minutes
    num_epochs = config.source.num_epochs
    num_evaluations = max(number for number in range(1, _MOST_EVALUATIONS + 1) if num_epochs % number == 0)
    source.train.update(
        loss="classifier",
        num_iterations=num_evaluations,
        num_epochs=num_epochs // num_evaluations,
        # Batches of the classifier are drawn at random: only the product counts.
        num_ids=config.train.batch_size,
        num_instances=1,
        num_frames=config.train.num_frames,
        optimizer=config.train.optimizer,
        learning_rate=config.train.learning_rate,
        drop_every=0,
        momentum=config.train.momentum,
        weight_decay=config.train.weight_decay,
    )
    return source.lock()


def source_workdir(source: ConfigDict, folder: str | pathlib.Path) -> pathlib.Path:
    """Returns the run directory, in a folder for all, of one data set, seed and way of training."""
    computed = {
        name: value
        for name, value in config_rules.flat_fields(source.to_dict()).items()
        if name not in compatibility.FINISHED_FREE_FIELDS and value != compatibility.NEUTRAL.get(name)
    }
    digest = hashlib.sha256(json.dumps(computed, sort_keys=True).encode()).hexdigest()[:8]
    return pathlib.Path(folder, f"source_{source.data.dataset}_{source.seed}_{digest}")


def check_source(source: ConfigDict, target: str) -> None:
    """Checks, before any work, that an original model can be trained; says if it learns from the target's labels.

    Args:
        source: from `source_config`.
        target: the data set that is adapted to.

    Raises:
        UserError: a source is not there or has no labels, or there are no weights to start from.
    """
    names = source.data.dataset.split("+")
    with errors.prefixed(f"source.dataset = {source.data.dataset!r}: "):
        dataset = dataset_lib.load_dataset(source.data, splits=("train",))
        for name in names:
            part = source.data.copy_and_resolve_references()
            part.dataset = name
            if not (dataset_lib.load_dataset(part, splits=("train",)).train_ids >= 0).any():
                raise errors.UserError(f"{name!r} has no known train identities")
        supervised.check(source, TrainingData(dataset, dataset))
        models.check_start(source, models.build_model(source.model), resuming=False)
    if target in names:
        print(f"the source has {target}, the target, too: its labels are used", flush=True)


def train_source(config: ConfigDict, folder: str | pathlib.Path) -> pathlib.Path:
    """Trains the original model on config.source, unless that has been done there already.

    Args:
        config: a method's, with the sections source and head.
        folder: holds the run directories of all sources.

    Returns:
        The checkpoint of the model after its last epoch.

    Raises:
        UserError: it cannot be trained.
    """
    source = source_config(config)
    workdir = source_workdir(source, folder)
    print(f"original model: ID classifier on {config.source.dataset}, {workdir}", flush=True)
    is_waiting = False
    while compatibility.finished_result(workdir, source) is None:
        try:
            supervised.run_supervised(source, str(workdir))
        except errors.BusyError:
            if not is_waiting:
                print(f"another process trains it; waiting for {workdir}", flush=True)
            is_waiting = True
            time.sleep(_WAIT_SECONDS)
    return workdir / "checkpoints" / "last"


def with_source_model(config: ConfigDict, workdir: str) -> ConfigDict:
    """Returns a run's config with the source's model as model.checkpoint; itself where it has one, or no source."""
    if not needs_source(config):
        return config
    started = config.copy_and_resolve_references()
    started.model.checkpoint = str(train_source(config, config.source.dir or pathlib.Path(workdir).parent))
    return started


def needs_source(config: ConfigDict) -> bool:
    """Whether a run starts from a model that is trained on config.source."""
    return bool(config.source.dataset) and not config.model.checkpoint
