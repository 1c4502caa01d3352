"""A run directory: what a loop has to remember, so that a run killed at any moment goes on as if nothing happened.

    config.json          the config; the same command again must have the same
    metrics.jsonl        one JSON object per iteration; iteration 0 is the initial model (direct transfer)
    pseudo_labels/       one .npz per iteration
    baselines.json       scores of what needs no training, where accuracy can be measured
    checkpoints/         last (to resume from) and best (to use)
    tensorboard/
    result.json          written at the end
    hierarchy.png        HCD's: one identity's clusters at every level, at the end

The truth is in the last checkpoint; the other files are rebuilt from it when a run resumes.
"""

import contextlib
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from reid_jax import errors, label_warnings
from reid_jax.runs import checkpoints, compatibility, logs, results, stopping
from reid_jax.runs.dataset import Dataset
from reid_jax.training.train_step import TrainState

_BASELINES = "baselines.json"


class RunDirectory:
    """The files of one run and the loop's position in it.

    Args:
        workdir: created if it is not there.
        config: the run's config.
        dataset: what it runs on.
        method: its name.

    Attributes:
        iteration: the iteration to work on, from 1.
        epoch: the epoch of that iteration to work on, from 0; above 0 in a run that resumes inside an iteration.
        losses: mean loss of each epoch of that iteration so far.
        history: the records of finished iterations; the first is the initial model's.

    Raises:
        UserError: the folder holds a run of another config or on other data, checkpoints without a config, or another
            process is working in it.
    """

    def __init__(self, workdir: str | pathlib.Path, config: ConfigDict, dataset: Dataset, *, method: str):
        self._workdir, self._config, self._dataset = pathlib.Path(workdir), config, dataset
        # BUC's labels begin with every sample alone: that most are is no sign there.
        self._starts_alone = "buc" in (method, config.get("labels", {}).get("method"))
        (self._workdir / "pseudo_labels").mkdir(parents=True, exist_ok=True)
        self._lock = logs.lock_workdir(self._workdir)
        self._checkpoints = checkpoints.Checkpoints(self._workdir)
        self._record = compatibility.config_record(config, dataset, method)
        if self.is_resuming():  # before its first checkpoint a run has nothing that another config could spoil
            compatibility.check_same_run(self._workdir, self._record)
        self._log: logs.MetricsLog | None = None
        self._saved_at = time.monotonic()
        self._seconds: dict[str, float] = {}
        self.iteration, self.epoch = 1, 0
        self.losses: list[float] = []
        self.history: list[dict[str, Any]] = []

    def is_resuming(self) -> bool:
        """Whether `restore` will return a checkpoint's state, whatever it is given."""
        return self._checkpoints.has_last()

    def pin(self, **values: Any) -> None:
        """Notes, before `restore`, what else the run depends on, such as a digest of the model that it starts from.

        Args:
            **values: JSON values, kept in config.json.

        Raises:
            UserError: the run has begun with another value.
        """
        if self.is_resuming():
            before = logs.read_json(self._workdir / "config.json")
            for name, value in values.items():
                if before.get(name) not in (None, value):
                    raise errors.UserError(
                        f"workdir: {str(self._workdir)!r} holds a run with another {name.replace('_', ' ')}; choose "
                        "another --workdir"
                    )
        self._record |= values

    def restore(self, initial: TrainState) -> TrainState:
        """Returns the state to go on from: the last checkpoint's, or the initial one."""
        restored = self._checkpoints.restore_last(initial)
        if restored is not None:
            initial, position = restored
            self.iteration, self.epoch = position["iteration"], position["epoch"]
            self.losses, self.history, self._seconds = position["losses"], position["history"], position["seconds"]
        if restored is None or not self.is_over():
            # The old result first: it must never lie beside another config.
            (self._workdir / "result.json").unlink(missing_ok=True)
            logs.write_json(self._workdir / "config.json", self._record)
            if restored is not None:
                print(f"resuming {self._workdir}: {self.place()}", flush=True)
        self._log = logs.MetricsLog(self._workdir, self.history)
        return initial

    def measure_initial(
        self,
        state: TrainState,
        evaluate: Callable[[], dict[str, float]],
        measure_baselines: Callable[[], dict[str, dict[str, float]]] | None = None,
    ) -> None:
        """Records the scores of the initial model, direct transfer, and the baselines, unless an earlier start did."""
        if self.history:
            return
        if measure_baselines is not None and self._dataset.has_queries:
            logs.write_json(self._workdir / _BASELINES, measure_baselines())
        self.end_iteration(state, evaluate())

    def is_over(self) -> bool:
        """Whether the last iteration is done, or config.stop ends the run here."""
        if self.iteration > self._config.train.num_iterations:
            return True
        stop = self._config.get("stop")
        return stop is not None and stopping.stops_now(self.history, stop, has_scores=self._dataset.has_queries)

    def place(self) -> str:
        """Where the loop is, for people."""
        return f"iteration {self.iteration}/{self._config.train.num_iterations}, epoch {self.epoch + 1}"

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Adds the seconds spent inside to this iteration's phase `name`."""
        start = time.monotonic()
        yield
        self._seconds[name] = self._seconds.get(name, 0.0) + time.monotonic() - start

    def save_pseudo_labels(self, pseudo_labels: np.ndarray, **metrics: float) -> None:
        """Keeps this iteration's pseudo labels and what to log with them.

        Args:
            pseudo_labels: [N], or [N, k] where a sample has several.
            **metrics: finite numbers.
        """
        path = self._pseudo_labels_path(self.iteration)
        logs.write_arrays(path, pseudo_labels=pseudo_labels, paths=self._dataset.samples["train"].names, **metrics)

    def load_pseudo_labels(self) -> tuple[np.ndarray, dict[str, float]]:
        """Returns this iteration's (pseudo labels, what is logged with them)."""
        with np.load(self._pseudo_labels_path(self.iteration), allow_pickle=False) as arrays:
            metrics = {name: float(arrays[name]) for name in arrays if arrays[name].ndim == 0}
            return arrays["pseudo_labels"], metrics

    def first_metric(self, name: str) -> float | None:
        """Returns what was logged with the first iteration's pseudo labels; None in that iteration, or if it was not."""
        if self.iteration == 1:
            return None
        with np.load(self._pseudo_labels_path(1), allow_pickle=False) as arrays:
            return float(arrays[name]) if name in arrays else None

    def previous_pseudo_labels(self) -> np.ndarray | None:
        """Returns the last iteration's pseudo labels; None in the first."""
        if self.iteration == 1:
            return None
        with np.load(self._pseudo_labels_path(self.iteration - 1), allow_pickle=False) as arrays:
            return arrays["pseudo_labels"]

    def _pseudo_labels_path(self, iteration: int) -> pathlib.Path:
        return self._workdir / "pseudo_labels" / f"iteration_{iteration:03d}.npz"

    def end_epoch(self, state: TrainState, loss: float, *, num_epochs: int) -> None:
        """Notes that an epoch of this iteration's num_epochs is done; saves a checkpoint if the last one is old."""
        self.epoch += 1
        self.losses.append(loss)
        # Not after the last epoch: the iteration's own checkpoint follows, and has the same number of steps.
        is_last = self.epoch == num_epochs
        if not is_last and time.monotonic() - self._saved_at >= self._config.checkpoint.every_minutes * 60:
            self._save(state)

    def end_iteration(self, state: TrainState, metrics: dict[str, Any]) -> None:
        """Logs what was measured in an iteration, saves the model and moves on to the next one.

        Called before the first iteration, it records the initial model.
        """
        number = self.iteration if self.history else 0
        seconds = {name: round(value, 3) for name, value in self._seconds.items()}
        record = {"iteration": number, **metrics, "seconds": seconds}
        self.history.append(record)
        self._log.write(record)
        print(results.iteration_line(record, self._config.train.num_iterations), flush=True)
        for warning in label_warnings.new_warnings(
            self.history, num_samples=len(self._dataset.samples["train"]), starts_alone=self._starts_alone
        ):
            print(f"warning: {warning}", flush=True)
        if number:
            self.iteration, self.epoch, self.losses = self.iteration + 1, 0, []
        self._seconds = {}
        # The best first: a run killed in between comes back to this iteration and saves both again.
        if stopping.best_iteration(self.history, self._config.get("stop")) == number:
            self._checkpoints.save_best(state, {"record": record})
        self._save(state)

    def _save(self, state: TrainState) -> None:
        position = {
            "iteration": self.iteration,
            "epoch": self.epoch,
            "losses": self.losses,
            "history": self.history,
            "seconds": self._seconds,
        }
        self._checkpoints.save_last(state, position)
        self._saved_at = time.monotonic()

    def finish(self, method: str, mesh: Mesh) -> dict[str, Any]:
        """Writes result.json, prints the result and closes the files."""
        measured = self._workdir / _BASELINES
        baselines = logs.read_json(measured) if measured.is_file() else {}
        result = results.summarize(self.history, method=method, config=self._config, mesh=mesh, baselines=baselines)
        logs.write_json(self._workdir / "result.json", result)
        print(results.result_table(result))
        print(f"run directory: {self._workdir}", flush=True)
        self._log.close()
        self._checkpoints.close()
        self._lock.close()
        return result
