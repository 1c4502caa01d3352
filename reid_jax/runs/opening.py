"""Opens a run's session: everything is checked before any work, then data, model and run directory are opened.

A method passes in its checks and its objective.
"""

import functools
from collections.abc import Callable

import optax
from ml_collections import ConfigDict

from reid_jax import augment, errors, features, sharding
from reid_jax.runs import compatibility, config_rules, embedding, fitting, memory_limits, models, settings
from reid_jax.runs.dataset import TrainingData, load_training_data
from reid_jax.runs.objectives import Objective, make_optimizer
from reid_jax.runs.run_directory import RunDirectory
from reid_jax.runs.session import Session, step_size
from reid_jax.training.train_step import make_train_step


def open_session(
    config: ConfigDict,
    workdir: str,
    *,
    method: str,
    objective: Callable[[ConfigDict, TrainingData], Objective],
    check: Callable[[ConfigDict, TrainingData], None] | None = None,
    check_start: Callable[[ConfigDict, Objective], None] | None = None,
    optimizer: Callable[[ConfigDict, TrainingData], optax.GradientTransformation] | None = None,
    joins_source: bool = False,
    holds_distance_matrix: bool = False,
) -> Session:
    """Checks all that can be checked before any work, then opens the data, the model and the run directory.

    Args:
        config: the run's; fields may be open (`settings.py`), the session's config has none.
        workdir: its run directory.
        method: its name, in result.json.
        objective: (config, data) -> what is trained.
        check: (config, data): raises where a field of the method's own does not fit the data.
        check_start: (config, objective): raises if what a new run starts from is missing; None: as
            `models.check_start`.
        optimizer: (config, data) -> the optimizer; None: `objectives.make_optimizer`.
        joins_source: config.source.dataset is learned from together with the target.
        holds_distance_matrix: the method works on N x N distances.

    Raises:
        UserError: the config, the data, the start or the run directory breaks a rule.
    """
    config_rules.check_config(config, may_be_open=settings.ALL_OPEN)
    mesh = sharding.make_mesh(config.num_devices)
    sharding.check_batch_size(mesh, config.evaluation.batch_size)
    data = load_training_data(config, joins_source=joins_source)
    if holds_distance_matrix:
        memory_limits.check_distance_matrix(len(data.samples))
    config = fitting.fit_config(config, data.target, workdir, mesh)
    config_rules.check_config(config)
    batch_size = step_size(config, data)
    sharding.check_batch_size(mesh, batch_size)
    embedding.check(config, data)
    if check is not None:
        check(config, data)
    trained = objective(config, data)
    _check_shapes(config, trained, batch_size * config.train.num_frames)
    if check_start is not None:
        check_start(config, trained)
    else:
        models.check_start(config, trained.model, resuming=compatibility.has_checkpoint(workdir))
    run = RunDirectory(workdir, config, data.target, method=method)
    data = data.with_images(config.data)
    chosen_optimizer = make_optimizer(config) if optimizer is None else optimizer(config, data)
    augmented = functools.partial(
        augment.augment, **{name: value for name, value in config.augment.items() if name != "preset"}
    )
    train_step = make_train_step(
        trained.model,
        trained.loss,
        chosen_optimizer,
        augmented,
        mesh,
        prepare_memory=trained.prepare_memory,
        update_memory=trained.update_memory,
        average_decay=config.train.average_decay,
    )
    embed_step = features.make_embed_step(trained.embedder, mesh)
    probe_step = features.embed_copies(trained.embedder, augmented, mesh)
    label_embedder = trained.label_embedder
    label_embed_step = embed_step if label_embedder is None else features.make_embed_step(label_embedder, mesh)
    return Session(
        config,
        method,
        mesh,
        data,
        trained,
        chosen_optimizer,
        train_step,
        embed_step,
        probe_step,
        label_embed_step,
        run,
    )


def _check_shapes(config: ConfigDict, objective: Objective, num_images: int) -> None:
    models.check_training(objective.model, config.data, batch_size=num_images)
    if objective.label_embedder is not None:
        with errors.prefixed(f"dissimilarity.num_parts = {objective.label_embedder.num_stripes}: "):
            models.check_training(objective.label_embedder, config.data, batch_size=num_images)
