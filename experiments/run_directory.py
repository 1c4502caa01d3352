"""A run directory: what a loop has to remember, so that a run killed at any moment goes on as if nothing happened.

    config.json          the config; the same command again must have the same
    metrics.jsonl        one JSON object per iteration; iteration 0 is the initial model (direct transfer)
    pseudo_labels/       one .npz per iteration
    checkpoints/         last (to resume from) and best (to use)
    tensorboard/
    result.json          written at the end
    hierarchy.png        HCD's: one identity's clusters at every level, at the end

The truth is in the last checkpoint; the other files are rebuilt from it when a run resumes.
"""

import contextlib
import json
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from experiments import config_checks, reporting, setup_run
from experiments.setup_run import Dataset
from reid_jax import checkpoints, logs, types
from reid_jax.train import TrainState

# Fields that change where and how long a run works but nothing of what it computes.
FREE_FIELDS = (
    "num_devices",
    "source.dir",
    "data.dir",
    "data.cache_dir",
    "data.cache_gib",
    "data.num_workers",
    "checkpoint.every_minutes",
    "train.num_iterations",
)
# Of those a run that is finished must have had the last: that is how long it was.
FINISHED_FREE_FIELDS = frozenset(FREE_FIELDS) - {"train.num_iterations"}


def has_checkpoint(workdir: str | pathlib.Path) -> bool:
    """Whether there is a run to resume in a folder, which need not be there; nothing is made or opened."""
    last = pathlib.Path(workdir, "checkpoints", "last")
    return last.is_dir() and any(step.name.isdecimal() for step in last.iterdir())


def finished_result(workdir: str | pathlib.Path, config: ConfigDict) -> dict[str, Any] | None:
    """Returns the result of the finished run in a folder; None: there is none.

    Raises:
        UserError: it is of a config that computes something else, or on other data than there are now.
    """
    workdir = pathlib.Path(workdir)
    if not (workdir / "result.json").exists():
        return None
    before = config_checks.flat_fields(logs.read_json(workdir / "config.json"))
    # As JSON gives it back: a tuple is a list there.
    for field, value in config_checks.flat_fields(json.loads(json.dumps(config.to_dict()))).items():
        if field not in FINISHED_FREE_FIELDS and (field not in before or before[field] != value):
            raise types.UserError(
                f"workdir: {str(workdir)!r} holds a finished run with {field} = {before.get(field)!r}, this one has "
                f"{value!r}; choose another --workdir"
            )
    if "data_fingerprint" in before and before["data_fingerprint"] != setup_run.load_dataset(config.data).fingerprint:
        raise types.UserError(
            f"workdir: {str(workdir)!r} holds a finished run on other data than data.dir = {config.data.dir!r} has as "
            f"{config.data.dataset!r} now; choose another --workdir"
        )
    return logs.read_json(workdir / "result.json")


def is_finished(workdir: str | pathlib.Path, config: ConfigDict) -> bool:
    """Whether the run in a folder, if there is one, has done all that a config asks for and only shows its result."""
    workdir = pathlib.Path(workdir)
    if not (workdir / "result.json").exists():
        return False
    before = config_checks.flat_fields(logs.read_json(workdir / "config.json"))
    return before.get("train.num_iterations") == config.train.num_iterations


class RunDirectory:
    """The files of one run and the loop's position in it.

    Args:
        workdir: created if it is not there.
        config: the run's config.
        dataset: what it runs on.

    Attributes:
        iteration: the iteration to work on, from 1.
        epoch: the epoch of that iteration to work on, from 0; above 0 in a run that resumes inside an iteration.
        losses: mean loss of each epoch of that iteration so far.
        history: the records of finished iterations; the first is the initial model's.

    Raises:
        UserError: the folder holds a run of another config or on other data, checkpoints without a config, or another
            process is working in it.
    """

    def __init__(self, workdir: str | pathlib.Path, config: ConfigDict, dataset: Dataset):
        self._workdir, self._config, self._dataset = pathlib.Path(workdir), config, dataset
        (self._workdir / "pseudo_labels").mkdir(parents=True, exist_ok=True)
        self._lock = logs.lock_workdir(self._workdir)
        self._checkpoints = checkpoints.Checkpoints(self._workdir)
        # As it will be read back: a tuple as a list.
        self._record = json.loads(json.dumps(config.to_dict() | {"data_fingerprint": dataset.fingerprint}))
        self._check_config()
        self._log: logs.MetricsLog | None = None
        self._saved_at = time.monotonic()
        self._seconds: dict[str, float] = {}
        self.iteration, self.epoch = 1, 0
        self.losses: list[float] = []
        self.history: list[dict[str, Any]] = []

    def _check_config(self) -> None:
        # Before its first checkpoint a run has nothing that another config could spoil.
        if not self.is_resuming():
            return
        path = self._workdir / "config.json"
        if not path.exists():
            raise types.UserError(
                f"workdir: {str(self._workdir)!r} has checkpoints but no config.json that says what they are of; "
                "choose another --workdir"
            )
        before = config_checks.flat_fields(logs.read_json(path))
        if before.get("data_fingerprint") not in (None, self._record["data_fingerprint"]):
            raise types.UserError(
                f"workdir: {str(self._workdir)!r} holds a run on other images or labels than data.dataset = "
                f"{self._config.data.dataset!r} has now; choose another --workdir"
            )
        for name, value in config_checks.flat_fields(self._record).items():
            if name not in before or (before[name] != value and name not in FREE_FIELDS):
                raise types.UserError(
                    f"workdir: {str(self._workdir)!r} holds a run with {name} = {before.get(name)!r}, this one has "
                    f"{value!r}; choose another --workdir"
                )

    def is_resuming(self) -> bool:
        """Whether `restore` will return a checkpoint's state, whatever it is given."""
        return self._checkpoints.has_last()

    def pin(self, **facts: Any) -> None:
        """Notes, before `restore`, what else the run depends on, such as a digest of the model that it starts from.

        Args:
            **facts: JSON values, kept in config.json.

        Raises:
            UserError: the run has begun with another value.
        """
        if self.is_resuming():
            before = logs.read_json(self._workdir / "config.json")
            for name, value in facts.items():
                if before.get(name) not in (None, value):
                    raise types.UserError(
                        f"workdir: {str(self._workdir)!r} holds a run with another {name.replace('_', ' ')}; choose "
                        "another --workdir"
                    )
        self._record |= facts

    def restore(self, initial: TrainState) -> TrainState:
        """Returns the state to go on from: the last checkpoint's, or the initial one; from here on the run is this one."""
        restored = self._checkpoints.restore_last(initial)
        if restored is not None:
            initial, position = restored
            self.iteration, self.epoch = position["iteration"], position["epoch"]
            self.losses, self.history, self._seconds = position["losses"], position["history"], position["seconds"]
        if restored is None or not self.is_over():
            # An earlier end's result first: it must never lie beside a config that it is not of.
            (self._workdir / "result.json").unlink(missing_ok=True)
            logs.write_json(self._workdir / "config.json", self._record)
            if restored is not None:
                print(f"resuming {self._workdir}: {self.place()}", flush=True)
        self._log = logs.MetricsLog(self._workdir, self.history)
        return initial

    def measure_initial(self, state: TrainState, evaluate: Callable[[dict[str, Any]], dict[str, float]]) -> None:
        """Records the initial model, direct transfer, unless an earlier start did; evaluate: (variables) -> scores."""
        if not self.history:
            with self.phase("evaluate"):
                scores = evaluate(state.variables)
            self.end_iteration(state, scores)

    def is_over(self) -> bool:
        """Whether the last iteration is done, or config.stop ends the run here."""
        if self.iteration > self._config.train.num_iterations:
            return True
        stop, measured = self._config.get("stop"), self._dataset.has_queries
        if stop is None or stop.when == "never" or (stop.when == "auto" and measured):
            return False
        if stop.when == "metric" and measured:
            return reporting.has_fallen(self.history, stop.patience)
        return reporting.label_free_choice(self.history, stop)[1]

    def place(self) -> str:
        """Where the loop is, for people."""
        return f"iteration {self.iteration}/{self._config.train.num_iterations}, epoch {self.epoch + 1}"

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Adds the seconds spent inside to this iteration's phase `name`."""
        start = time.monotonic()
        yield
        self._seconds[name] = self._seconds.get(name, 0.0) + time.monotonic() - start

    def save_pseudo_labels(self, pseudo_labels: np.ndarray, **facts: float) -> None:
        """Keeps this iteration's pseudo labels and numbers to log with them.

        Args:
            pseudo_labels: [N], or [N, k] where a sample has several.
            **facts: finite numbers.
        """
        path = self._pseudo_labels_path(self.iteration)
        logs.write_arrays(path, pseudo_labels=pseudo_labels, paths=self._dataset.samples["train"].names, **facts)

    def load_pseudo_labels(self) -> tuple[np.ndarray, dict[str, float]]:
        """Returns this iteration's (pseudo labels, the numbers kept with them)."""
        with np.load(self._pseudo_labels_path(self.iteration), allow_pickle=False) as arrays:
            facts = {name: float(arrays[name]) for name in arrays if arrays[name].ndim == 0}
            return arrays["pseudo_labels"], facts

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

    def end_iteration(self, state: TrainState, measured: dict[str, Any]) -> None:
        """Logs what was measured in an iteration, saves the model and moves on to the next one.

        Called before the first iteration, it records the initial model.
        """
        number = self.iteration if self.history else 0
        seconds = {name: round(value, 3) for name, value in self._seconds.items()}
        record = {"iteration": number, **measured, "seconds": seconds}
        self.history.append(record)
        self._log.write(record)
        print(reporting.iteration_line(record, self._config.train.num_iterations), flush=True)
        if number:
            self.iteration, self.epoch, self.losses = self.iteration + 1, 0, []
        self._seconds = {}
        # The best first: a run killed in between comes back to this iteration and saves both again.
        if reporting.best_iteration(self.history, self._config.get("stop")) == number:
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
        result = reporting.summarize(self.history, method=method, config=self._config, mesh=mesh)
        logs.write_json(self._workdir / "result.json", result)
        print(reporting.result_table(result))
        print(f"run directory: {self._workdir}", flush=True)
        self._log.close()
        self._checkpoints.close()
        self._lock.close()
        return result
