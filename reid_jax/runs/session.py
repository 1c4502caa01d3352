"""A run's session: everything that a method's loop works with. The train state is explicit: functions take it and return it."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from reid_jax import features, postprocess, sampling, sharding
from reid_jax.data.batches import device_batches
from reid_jax.embeddings import Features
from reid_jax.postprocess import Postprocess
from reid_jax.runs import baselines, embedding, models, probes
from reid_jax.runs.dataset import Dataset, TrainingData
from reid_jax.runs.evaluation import evaluate_model
from reid_jax.runs.objectives import Objective
from reid_jax.runs.run_directory import RunDirectory
from reid_jax.training import optimizers
from reid_jax.training.epochs import train_epoch
from reid_jax.training.train_step import PyTree, TrainState, TrainStep, init_train_state

# Folded into the seed's key, one number for each purpose: training steps, labels, a new classifier, copies of images.
_TRAIN_STREAM, LABEL_STREAM, CLASSIFIER_STREAM, _PROBE_STREAM = 1, 2, 3, 4


@dataclasses.dataclass(frozen=True)
class Session:
    """What a loop works with; only `run`, its position and its files, and `embedded` change.

    Attributes:
        config: the run's.
        method: its name.
        mesh: the devices.
        data: what is trained and evaluated on.
        objective: the model and its loss.
        optimizer: its state is in the train state.
        train_step: compiled once for the run.
        embed_step: for evaluation.
        probe_step: embeds augmented copies of images.
        label_embed_step: for labels; the same one unless the objective has another embedder for them.
        run: the run directory and the loop's position in it.
        embedded: the training samples' features, as the network gives them, of the last state that was asked for.
    """

    config: ConfigDict
    method: str
    mesh: Mesh
    data: TrainingData
    objective: Objective
    optimizer: optax.GradientTransformation
    train_step: TrainStep
    embed_step: features.EmbedStep
    probe_step: Callable[[dict[str, Any], jax.Array, jax.Array], Features]
    label_embed_step: features.EmbedStep
    run: RunDirectory
    embedded: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def dataset(self) -> Dataset:
        """The target."""
        return self.data.target

    def key(self, stream: int) -> jax.Array:
        """Returns the run's PRNG key for one purpose."""
        return jax.random.fold_in(jax.random.key(self.config.seed), stream)

    def initial_variables(self, config: ConfigDict | None = None, *, resuming: bool | None = None) -> dict[str, Any]:
        """Returns the model's variables before the first step; see `models.initial_variables`.

        Args:
            config: whose model.weights or model.checkpoint are taken; None: the run's.
            resuming: only shapes matter; None: where the run directory has a checkpoint.
        """
        # A model that averages frames itself takes whole samples.
        images_per_sample = getattr(self.objective.model, "num_frames", 1)
        return models.initial_variables(
            config or self.config,
            self.objective.model,
            self.dataset.images["train"],
            batch_size=step_size(self.config, self.data) * images_per_sample,
            resuming=self.run.is_resuming() if resuming is None else resuming,
        )

    def start(
        self,
        init_memory: Callable[[TrainState], PyTree] | None = None,
        *,
        variables: dict[str, Any] | None = None,
    ) -> TrainState:
        """Returns the state to go on from, the last checkpoint's or the initial one, which is evaluated first.

        Args:
            init_memory: (state) -> what the loss remembers before the first step; None: nothing.
            variables: of the initial model; None: `initial_variables`.
        """
        variables = self.initial_variables() if variables is None else variables
        averaged = self.config.train.average_decay > 0
        state = init_train_state(variables, self.optimizer, self.mesh, averaged=averaged)
        state = self._like_checkpoint(state) if self.run.is_resuming() else self.fit_postprocess(state)
        if init_memory is not None:
            state = self.with_memory(state, init_memory(state))
        state = self.run.restore(state)
        self.run.measure_initial(
            state,
            lambda: self.measure_recognition(state) | self.evaluate(state),
            functools.partial(self.measure_baselines, state) if self.config.evaluation.baselines else None,
        )
        return state

    def with_memory(self, state: TrainState, memory: PyTree) -> TrainState:
        """Returns the state with another memory, copied to every device."""
        return state._replace(memory=sharding.put_replicated(self.mesh, memory))

    def embed(self, state: TrainState) -> Features:
        """Embeds the training samples without augmentation: NumPy arrays [N, ...].

        They are as the network gives them or, where config.embedding says so, post-processed and L2-normalised.
        """
        raw = self._embed(state)
        fitted = self._fitted(state)
        return raw if fitted is None else embedding.processed(self.config.embedding, raw, fitted, self.data)

    def _embed(self, state: TrainState) -> Features:
        """Embeds the training samples as the network does, once for a state."""
        leaf = jax.tree.leaves(state.variables)[0]
        if self.embedded.get("of") is not leaf:
            with self.run.phase("embed"):
                found = features.embed_samples(
                    self.label_embed_step,
                    state.variables,
                    self.data.images,
                    self.data.samples,
                    self.mesh,
                    batch_size=self.config.evaluation.batch_size,
                )
            self.embedded.update(of=leaf, features=found)
        return self.embedded["features"]

    def fit_postprocess(self, state: TrainState) -> TrainState:
        """Returns the state with config.embedding's post-processing fitted to what its model makes of the target."""
        options = self.config.embedding
        if options.postprocess == "none":
            return state
        rows = self._embed(state).embeddings
        if state.fitted and not embedding.can_fit(options, rows, self.data):
            return state  # a model that has collapsed: its recognition says so
        return self._with_fitted(state, embedding.fit(options, rows, self.data))

    def _with_fitted(self, state: TrainState, fitted: Postprocess) -> TrainState:
        return state._replace(fitted=sharding.put_replicated(self.mesh, postprocess.arrays(fitted)))

    def _fitted(self, state: TrainState) -> Postprocess | None:
        return embedding.fitted_of(self.config.embedding, state.fitted)

    def _like_checkpoint(self, state: TrainState) -> TrainState:
        """Returns the state with post-processing of the shapes that a checkpoint has, which will replace it."""
        options = self.config.embedding
        if options.postprocess == "none":
            return state
        return self._with_fitted(state, embedding.zeros(options, self.embedding_zeros(state).shape[1], self.data))

    def embedding_zeros(self, state: TrainState) -> np.ndarray:
        """Returns zeros of the shape [N, D] of the training samples' embeddings, where only that matters."""
        shape = (self.config.evaluation.batch_size, *self.data.images.shape)
        embedded = jax.eval_shape(self.embed_step, state.variables, jax.ShapeDtypeStruct(shape, np.uint8))
        return np.zeros((len(self.data.samples), embedded.embeddings.shape[1]), np.float32)

    def evaluate(self, state: TrainState) -> dict[str, float]:
        """Ranks the gallery for every query; see `evaluation.evaluate_model`."""
        with self.run.phase("evaluate"):
            return evaluate_model(
                self.config.evaluation,
                self.embed_step,
                state.variables,
                dataset=self.dataset,
                mesh=self.mesh,
                fitted=self._fitted(state),
            )

    def measure_recognition(self, state: TrainState) -> dict[str, float]:
        """Measures without labels how good the model is; see `probes.measure_recognition`."""
        if not self.config.evaluation.num_probes:
            return {}
        rows = self.embed(state).embeddings
        with self.run.phase("recognize"):
            return probes.measure_recognition(
                functools.partial(self.probe_step, state.variables),
                self.key(_PROBE_STREAM),
                rows,
                options=self.config.evaluation,
                images_per_identity=self.config.data.images_per_identity,
                data=self.data,
                fitted=self._fitted(state),
                mesh=self.mesh,
            )

    def measure_baselines(self, state: TrainState) -> dict[str, dict[str, float]]:
        """Measures what needs no training; see `baselines.measure_baselines`."""
        with self.run.phase("baselines"):
            return baselines.measure_baselines(
                self.config, self.dataset, self.mesh, embed_step=self.embed_step, variables=state.variables
            )

    def draw_epochs(
        self, draw: Callable[[np.random.Generator], np.ndarray], *, num_epochs: int | None = None
    ) -> list[np.ndarray]:
        """Draws the index batches [steps, B] of each of this iteration's epochs that are still to come.

        Args:
            draw: (a generator of the epoch's own) -> the epoch's batches of training samples.
            num_epochs: of the iteration; None: train.num_epochs.
        """
        seed, iteration = self.config.seed, self.run.iteration
        return [
            draw(np.random.default_rng([seed, iteration, epoch]))
            for epoch in range(self.run.epoch, num_epochs or self.config.train.num_epochs)
        ]

    def train_epochs(
        self,
        state: TrainState,
        epochs: Sequence[np.ndarray],
        targets: dict[str, np.ndarray],
        *,
        num_epochs: int | None = None,
        learning_rate: Callable[[int], float] | None = None,
    ) -> TrainState:
        """Trains for some of an iteration's epochs and returns the state after them.

        Args:
            state: the current state; its buffers are donated, so it must not be used afterwards.
            epochs: the batches of each, [steps, B] indices of training samples, from `run.epoch` on.
            targets: of every training sample, [N, ...] each.
            num_epochs: of the whole iteration; None: train.num_epochs.
            learning_rate: (epoch) -> the rate, of an optimizer whose rate is set; None: the optimizer's own.
        """
        run, config = self.run, self.config
        if state.fitted:
            targets = targets | {"camids": self.data.camids}
        frames = [self._draw_frames(batches, epoch) for epoch, batches in enumerate(epochs, start=run.epoch)]
        # One iterator over all epochs, so that prefetching does not stop between them.
        images = device_batches(self.data.images, np.concatenate(frames), self.mesh)
        for index_batches in epochs:
            if learning_rate is not None:
                opt_state = optimizers.with_learning_rate(state.opt_state, learning_rate(run.epoch))
                state = state._replace(opt_state=sharding.put_replicated(self.mesh, opt_state))
            with run.phase("train"):
                state, step_losses = train_epoch(
                    self.train_step,
                    state,
                    self.key(_TRAIN_STREAM),
                    images,
                    {name: rows[index_batches] for name, rows in targets.items()},
                    self.mesh,
                    description=run.place(),
                )
            run.end_epoch(state, float(step_losses.mean()), num_epochs=num_epochs or config.train.num_epochs)
        return state

    def _draw_frames(self, index_batches: np.ndarray, epoch: int) -> np.ndarray:
        """Draws an epoch's images [steps, B * T]: the samples' own, or train.num_frames of each tracklet.

        An epoch's draws are its own, wherever a run resumes.
        """
        rng = np.random.default_rng([self.config.seed, self.run.iteration, epoch, 1])
        return sampling.draw_frames(rng, self.data.samples, index_batches, num_frames=self.config.train.num_frames)

    def measure_labels(self, measure: Callable[..., dict[str, Any]], labels: np.ndarray) -> dict[str, Any]:
        """Measures this iteration's labels by a function of `label_metrics`, with what is known of the samples."""
        samples = self.dataset.samples["train"]
        return measure(labels, self.run.previous_pseudo_labels(), self.dataset.train_ids, camids=samples.camids)

    def end_iteration(self, state: TrainState, label_metrics: dict[str, Any]) -> TrainState:
        """Evaluates the model, logs the iteration, keeps the best model, and saves where the run is.

        Returns:
            The state to go on from: its post-processing, where there is any, is fitted to what its model has become.
        """
        state = self.fit_postprocess(state)
        scores = self.measure_recognition(state) | self.evaluate(state)
        loss = {"loss": float(np.mean(self.run.losses))}
        self.run.end_iteration(state, label_metrics | loss | scores)
        return state

    def finish(self) -> dict[str, Any]:
        """Writes and prints the result, and returns it."""
        return self.run.finish(self.method, self.mesh)


def step_size(config: ConfigDict, data: TrainingData) -> int:
    """Returns the samples of a train step: B, or P x K; twice as many where a source is learned from besides."""
    train = config.train
    size = train.batch_size if "batch_size" in train else train.num_ids * train.num_instances
    return 2 * size if data.num_source else size
