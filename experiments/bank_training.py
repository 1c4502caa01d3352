"""What HCD and its DBSCAN baselines share: source and target in one data set, its features, batches of both."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from experiments import run_directory, setup_run
from experiments.setup_run import Dataset
from reid_jax import density_clusters, features, k_reciprocal, losses, memory, optimizers, sampling, sharding, train, types
from reid_jax.data.batches import device_batches
from reid_jax.models import pooling


class Domains(NamedTuple):
    """The training samples: those of the labelled source, if there is one, then those of the target.

    Attributes:
        joined: the data set of both train splits; the target's own where there is no source.
        num_source: N_s; 0 without a source.
    """

    joined: Dataset
    num_source: int

    @property
    def num_target(self) -> int:
        """N_t."""
        return len(self.joined.samples["train"]) - self.num_source

    @property
    def source_labels(self) -> np.ndarray:
        """[N_s] int64: a source sample's class, called after its first sample."""
        return memory.named_after_first(self.joined.train_ids[: self.num_source])

    def with_source(self, target_labels: jax.Array) -> jax.Array:
        """Returns the classes of all samples [N_s + N_t], by the target's labels [N_t], 0..N_t-1."""
        return jnp.concatenate([jnp.asarray(self.source_labels, jnp.int32), self.num_source + target_labels])


def load_domains(config: ConfigDict, target: Dataset) -> Domains:
    """Joins config.source.dataset, if any, and the target, without their images.

    Raises:
        UserError: a source that is not there, is the target, or has samples without an identity.
    """
    if not config.source.dataset:
        return Domains(target, 0)
    if config.data.dataset in config.source.dataset.split("+"):
        raise types.UserError(
            f"source.dataset must not name data.dataset, the target, {config.data.dataset!r}, got {config.source.dataset!r}"
        )
    data = config.data.copy_and_resolve_references()
    try:
        data.dataset = config.source.dataset
        source = setup_run.load_dataset(data, splits=("train",))
        if (source.train_ids < 0).any():
            names = source.samples["train"].names[np.flatnonzero(source.train_ids < 0)[0]]
            raise types.UserError(f"every train sample must have a known identity, {names} has none")
        data.dataset = f"{config.source.dataset}+{config.data.dataset}"
        joined = setup_run.load_dataset(data, splits=("train",))
    except types.UserError as error:
        raise types.UserError(f"source.dataset = {config.source.dataset!r}: {error}") from error
    return Domains(joined, len(source.samples["train"]))


def check(config: ConfigDict, domains: Domains, mesh: Mesh) -> int:
    """Checks what the data's size and the devices bound, and returns the samples per step.

    Raises:
        UserError: a batch does not fit.
    """
    batch_size = config.train.num_ids * config.train.num_instances
    if batch_size > domains.num_target:
        raise types.UserError(
            f"train.num_ids x train.num_instances must be at most the {domains.num_target} training samples, got "
            f"{config.train.num_ids} x {config.train.num_instances}; lower train.num_ids"
        )
    if config.stop.signal != "agreement":
        raise types.UserError(f"stop.signal must be 'agreement', got {config.stop.signal!r}, which is not computed")
    total = 2 * batch_size if domains.num_source else batch_size
    sharding.check_batch_size(mesh, total)
    sharding.check_batch_size(mesh, config.evaluation.batch_size)
    return total


def check_clustering(config: ConfigDict, domains: Domains) -> None:
    """Checks config.cluster, DBSCAN's, against the data's size.

    Raises:
        UserError: it asks for more neighbours than there are.
    """
    try:
        k_reciprocal.check_sizes(domains.num_target, k1=config.cluster.k1, k2=config.cluster.k2)
    except ValueError as error:
        raise types.UserError(f"cluster.{error}") from error


def make_optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """Builds the optimizer with its schedule."""
    schedule = optimizers.step_schedule(
        config.train.learning_rate, drop_every=config.train.drop_every, factor=config.train.drop_factor
    )
    return optimizers.make_optimizer(
        config.train.optimizer,
        schedule,
        momentum=config.train.momentum,
        weight_decay=config.train.weight_decay,
        rate_factors=setup_run.rate_factors(config.model),
    )


def no_features(
    config: ConfigDict, embed_step: features.EmbedStep, state: train.TrainState, domains: Domains
) -> np.ndarray:
    """Returns zeros of the shape that `embed` gives, where only that matters."""
    images = jax.ShapeDtypeStruct((config.evaluation.batch_size, *domains.joined.images["train"].shape), jnp.uint8)
    dim = jax.eval_shape(embed_step, state.variables, images).embeddings.shape[1]
    return np.zeros((len(domains.joined.samples["train"]), dim), np.float32)


def embed(
    config: ConfigDict, embed_step: features.EmbedStep, state: train.TrainState, domains: Domains, mesh: Mesh
) -> np.ndarray:
    """Returns all training samples' features [N_s + N_t, D], L2-normalised."""
    embedded = features.embed_samples(
        embed_step,
        state.variables,
        domains.joined.images["train"],
        domains.joined.samples["train"],
        mesh,
        batch_size=config.evaluation.batch_size,
    )
    return features.l2_normalized(embedded.embeddings)


def normalized(outputs: types.Features, num_frames: int) -> jax.Array:
    """Returns a batch's embeddings [B, D], of norm 1."""
    embeddings = pooling.frame_mean(outputs.embeddings, num_frames)
    # Not x / max(|x|, eps): its gradient at 0 is not finite.
    return embeddings * jax.lax.rsqrt(jnp.sum(jnp.square(embeddings), axis=1, keepdims=True) + 1e-12)


def contrastive_loss(
    bank: jax.Array, labels: jax.Array, embeddings: jax.Array, indices: jax.Array, temperature: float
) -> jax.Array:
    """Computes the loss of a batch against the mean features of all classes (HCD eq. 1).

    Args:
        bank: [N, D], all samples' features.
        labels: [N], all samples' classes, 0..N-1.
        embeddings: [B, D], of the batch.
        indices: [B], which samples those are.
        temperature: tau.
    """
    means, counts = memory.class_means(bank, labels)
    return losses.unified_contrastive(
        embeddings, labels[indices], means, temperature=temperature, in_use=counts > 0
    )


def dense_clusters(config: ConfigDict, rows: np.ndarray) -> np.ndarray:
    """Clusters the target's features [N_t, D] by DBSCAN and returns labels [N_t]: -1 for samples in no cluster.

    Raises:
        UserError: nothing lies densely enough, or all of it does: there would be nothing to learn.
    """
    pseudo_labels = density_clusters.jaccard_dbscan(rows, **config.cluster)
    if pseudo_labels.max() < 0:
        raise types.UserError(
            f"cluster.eps = {config.cluster.eps} and cluster.min_samples = {config.cluster.min_samples} give no "
            f"cluster of {len(rows)} samples; give a greater eps or fewer samples"
        )
    if pseudo_labels.min() == pseudo_labels.max():
        raise types.UserError(
            f"cluster.eps = {config.cluster.eps} and cluster.k1 = {config.cluster.k1} give a single cluster of all "
            f"{len(rows)} samples; give a smaller eps or k1"
        )
    return pseudo_labels


def draw_batches(
    config: ConfigDict, domains: Domains, pseudo_labels: np.ndarray, iteration: int, epoch: int
) -> np.ndarray:
    """Draws an epoch's batches: samples of the source by identity, then as many of the target by pseudo label.

    Args:
        config: the run's.
        domains: the data.
        pseudo_labels: [N_t] integer; negative: not drawn.
        iteration: the loop's.
        epoch: of that iteration.

    Returns:
        [steps, B] indices of the joined samples.
    """
    draw = functools.partial(
        sampling.grouped_batches,
        batch_size=config.train.num_ids * config.train.num_instances,
        num_instances=config.train.num_instances,
        num_steps=config.train.num_steps,
    )
    rng = np.random.default_rng([config.seed, iteration, epoch])
    target = domains.num_source + draw(rng, pseudo_labels)
    return np.concatenate([draw(rng, domains.source_labels), target], axis=1) if domains.num_source else target


def train_epochs(
    config: ConfigDict,
    train_step: train.TrainStep,
    run: run_directory.RunDirectory,
    state: train.TrainState,
    domains: Domains,
    labels_of: Callable[[train.TrainState], np.ndarray],
    mesh: Mesh,
) -> train.TrainState:
    """Trains for the rest of an iteration's epochs and returns the state after them.

    Args:
        config: the run's.
        train_step: its targets are the indices of a batch's samples.
        run: where the loop is; told of every epoch.
        state: the state before.
        domains: the data.
        labels_of: the target's labels [N_t] that an epoch's batches are drawn by, as they are at its beginning.
        mesh: the devices.
    """
    images, samples = domains.joined.images["train"], domains.joined.samples["train"]
    train_key = jax.random.fold_in(jax.random.key(config.seed), 1)
    while run.epoch < config.train.num_epochs:
        index_batches = draw_batches(config, domains, labels_of(state), run.iteration, run.epoch)
        frames = setup_run.draw_epoch_frames(config, samples, [index_batches], run.iteration, first_epoch=run.epoch)
        with run.phase("train"):
            state, losses_of_steps = train.train_epoch(
                train_step,
                state,
                train_key,
                device_batches(images, frames, mesh),
                index_batches,
                mesh,
                description=run.place(),
            )
        run.end_epoch(state, float(losses_of_steps.mean()), num_epochs=config.train.num_epochs)
    return state
