"""A run's checkpoints: the last ones, to resume from, and the best one, to use.

Each checkpoint is a folder that orbax writes under a temporary name and renames when it is complete, with the
items `variables` (the model), `optimizer` (the rest of the train state) and `progress` (JSON: where the loop is).
Its name is the state's step, or the next free number where a run saves that step again: older checkpoints go only
when a newer one is complete.
"""

import errno
import hashlib
import pathlib
import shutil
import sys
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import traverse_util

from reid_jax import errors
from reid_jax.training.train_step import TrainState

_LAST, _BEST = "last", "best"
_MODEL = "variables"
_FITTED = "postprocess"  # beside the model's variables, where embeddings are post-processed
_TRAINED = "trained"  # what the optimizer moves, where the model is an average of that
_SPARE_BYTES = 2**20  # for what a checkpoint has besides arrays


class Checkpoints:
    """The checkpoints of one run directory.

    Args:
        workdir: the run directory; they lie in its folder checkpoints/.
    """

    def __init__(self, workdir: str | pathlib.Path):
        root = pathlib.Path(workdir).absolute() / "checkpoints"
        # Two of the last, so that there is one at every moment.
        self._managers = {_LAST: _manager(root / _LAST, max_to_keep=2), _BEST: _manager(root / _BEST, max_to_keep=1)}

    def has_last(self) -> bool:
        """Whether there is a checkpoint to resume from."""
        return self._managers[_LAST].latest_step() is not None

    def save_last(self, state: TrainState, progress: dict[str, Any]) -> None:
        """Saves what is needed to go on from here.

        Args:
            state: the train state.
            progress: JSON values; where the loop is.

        Raises:
            OSError: the disk is full; earlier checkpoints are untouched.
        """
        self._save(_LAST, state, progress)

    def save_best(self, state: TrainState, progress: dict[str, Any]) -> None:
        """Saves the model to keep; see `save_last`."""
        self._save(_BEST, state, progress)

    def restore_last(self, like: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
        """Returns the newest whole (state, progress), placed and typed as `like`, or None if there is none.

        Raises:
            UserError: there are checkpoints, and none can be read.
        """
        manager = self._managers[_LAST]
        if not self.has_last():
            return None
        args = ocp.args.Composite(
            variables=ocp.args.StandardRestore(_model_item(like)),
            optimizer=ocp.args.StandardRestore(_optimizer_item(like)),
            progress=ocp.args.JsonRestore(),
        )
        items = _read_newest(manager.directory, manager.all_steps(), lambda number: manager.restore(number, args=args))
        variables, optimizer = items["variables"], items["optimizer"]
        fitted = variables.pop(_FITTED, ())
        trained, average = (optimizer.pop(_TRAINED), variables) if like.average else (variables, ())
        return TrainState(**optimizer, **trained, average=average, fitted=fitted), items["progress"]

    def close(self) -> None:
        """Waits for and closes what is open."""
        for manager in self._managers.values():
            manager.close()

    def _save(self, kind: str, state: TrainState, progress: dict[str, Any]) -> None:
        manager = self._managers[kind]
        # Looked at first: when a disk fills up while orbax writes, its threads print tracebacks of their own.
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) + _SPARE_BYTES
        if shutil.disk_usage(manager.directory).free < needed:
            reason = f"No space left on device: a checkpoint takes {needed:,} bytes"
            raise OSError(errno.ENOSPC, reason, str(manager.directory))
        # A run killed right after this save repeats it; deleting the old checkpoint first could leave none.
        number = max([int(state.step), *(taken + 1 for taken in manager.all_steps())])
        try:
            manager.save(
                number,
                args=ocp.args.Composite(
                    variables=ocp.args.StandardSave(_model_item(state)),
                    optimizer=ocp.args.StandardSave(_optimizer_item(state)),
                    progress=ocp.args.JsonSave(progress),
                ),
                force=True,
            )
        except Exception as error:
            # The storage library under orbax reports a full disk in its own exception types.
            if "No space left on device" in str(error) or "RESOURCE_EXHAUSTED" in str(error):
                raise OSError(errno.ENOSPC, "No space left on device", str(manager.directory)) from error
            raise


def restore_variables(
    checkpoint: str | pathlib.Path, like: dict[str, Any], *, optional: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Reads only the model of a checkpoint.

    Args:
        checkpoint: a run directory (its best model), or its folder checkpoints/best or checkpoints/last.
        like: the model's variables, or shapes of them, as `model.init` gives them. What the checkpoint has
            besides, such as a classifier, is left out.
        optional: parts of the model, such as "head", that may be absent or of other shapes there: they are as in
            `like`, which then must be arrays.

    Returns:
        The variables.

    Raises:
        UserError: there is no checkpoint, it cannot be read, or it is of another model.
    """
    leaves = _read_model(checkpoint, like, optional, _read_variables)
    expected = traverse_util.flatten_dict(like, sep="/")
    return traverse_util.unflatten_dict({name: leaves.get(name, leaf) for name, leaf in expected.items()}, sep="/")


def restore_fitted(checkpoint: str | pathlib.Path) -> dict[str, np.ndarray]:
    """Reads the post-processing that a checkpoint has beside its model: arrays by name, none where there is none.

    Raises:
        UserError: there is no checkpoint, or it cannot be read.
    """
    folder, steps = find_model(checkpoint)
    variables = _read_newest(folder, steps, lambda number: _read_variables(folder / str(number)))
    return {name: np.asarray(values) for name, values in variables.get(_FITTED, {}).items()}


def check_variables(checkpoint: str | pathlib.Path, like: dict[str, Any], *, optional: tuple[str, ...] = ()) -> None:
    """Checks, without reading values, that `restore_variables` can read a checkpoint; arguments and errors as there."""
    _read_model(checkpoint, like, optional, _read_shapes)


def digest(variables: dict[str, Any]) -> str:
    """Returns 16 hexadecimal digits that tell a model's variables from any others."""
    digest = hashlib.sha256()
    for name, leaf in sorted(traverse_util.flatten_dict(variables, sep="/").items()):
        digest.update(f"{name} {leaf.shape} {leaf.dtype}".encode())
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()[:16]


def _read_model(
    checkpoint: str | pathlib.Path,
    like: dict[str, Any],
    optional: tuple[str, ...],
    read: Callable[[pathlib.Path], dict[str, Any]],
) -> dict[str, Any]:
    """Returns what `read` finds of a model, by name, without what is optional and of another shape.

    Raises:
        UserError: as `restore_variables`.
    """
    folder, steps = find_model(checkpoint)
    variables = _read_newest(folder, steps, lambda number: read(folder / str(number)))
    leaves = traverse_util.flatten_dict(variables, sep="/")
    for name, leaf in traverse_util.flatten_dict(like, sep="/").items():
        if name in leaves and leaves[name].shape == leaf.shape:
            continue
        there = leaves.pop(name).shape if name in leaves else "absent"
        if name.split("/")[1] not in optional:  # params/head/...
            raise errors.UserError(
                f"checkpoint {str(checkpoint)!r} is of another model: {name} is {there} there, {leaf.shape} in this one"
            )
    return leaves


def find_model(checkpoint: str | pathlib.Path) -> tuple[pathlib.Path, list[int]]:
    """Finds the models of a checkpoint, of which the newest that is whole counts.

    Args:
        checkpoint: as in `restore_variables`.

    Returns:
        The folder they are in, and their numbers.

    Raises:
        UserError: there is no checkpoint.
    """
    path = pathlib.Path(checkpoint).absolute()
    folder = path if path.name in (_LAST, _BEST) else path / "checkpoints" / _BEST
    if not folder.is_dir():
        raise errors.UserError(f"no checkpoint in {str(checkpoint)!r}; expected the folder checkpoints/best in it")
    steps = [int(step.name) for step in folder.iterdir() if step.name.isdecimal() and (step / _MODEL).is_dir()]
    if not steps:
        raise errors.UserError(f"no finished checkpoint in {str(checkpoint)!r}")
    return folder, steps


def _read_newest(folder: pathlib.Path, numbers: Iterable[int], read: Callable[[int], Any]) -> Any:
    """Returns what `read` makes of the newest checkpoint that is whole, and says so if that is not the newest."""
    first_error = None
    for number in sorted(numbers, reverse=True):
        try:
            result = read(number)
        except Exception as error:  # orbax tells damage by many types, a plain Exception among them
            first_error = first_error or error
            continue
        if first_error is not None:
            print(f"the newest checkpoint in {folder} is damaged; going on from {number}", file=sys.stderr, flush=True)
        return result
    reason = str(first_error).strip().partition("\n")[0]
    raise errors.UserError(f"no checkpoint in {str(folder)!r} can be read: {reason}") from first_error


def _read_variables(checkpoint: pathlib.Path) -> dict[str, Any]:
    args = ocp.args.Composite(variables=ocp.args.StandardRestore(_read_shapes(checkpoint)))
    with _checkpointer() as checkpointer:
        return checkpointer.restore(checkpoint, args=args)[_MODEL]


def _read_shapes(checkpoint: pathlib.Path) -> dict[str, Any]:
    with _checkpointer() as checkpointer:
        metadata = checkpointer.metadata(checkpoint).item_metadata[_MODEL]
    if metadata is None:
        raise FileNotFoundError(f"{checkpoint / _MODEL} lacks its metadata")
    return jax.tree.map(_shape_of, metadata.tree)


def _checkpointer() -> ocp.Checkpointer:
    # Opened with all its items: orbax warns about those that it does not know, and about a lone item.
    handler = ocp.CompositeCheckpointHandler(
        variables=ocp.StandardCheckpointHandler(),
        optimizer=ocp.StandardCheckpointHandler(),
        progress=ocp.JsonCheckpointHandler(),
    )
    return ocp.Checkpointer(handler)


def _shape_of(metadata: Any) -> jax.ShapeDtypeStruct:
    # On one device, whatever devices the checkpoint was written from.
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(metadata.shape, metadata.dtype, sharding=here)


def _manager(folder: pathlib.Path, *, max_to_keep: int) -> ocp.CheckpointManager:
    return ocp.CheckpointManager(
        folder,
        options=ocp.CheckpointManagerOptions(
            max_to_keep=max_to_keep,
            cleanup_tmp_directories=True,
            enable_async_checkpointing=False,
        ),
        item_names=(_MODEL, "optimizer", "progress"),
    )


def _model_item(state: TrainState) -> dict[str, Any]:
    return state.variables | ({_FITTED: state.fitted} if state.fitted else {})


def _optimizer_item(state: TrainState) -> dict[str, Any]:
    rest = {"step": state.step, "opt_state": state.opt_state, "memory": state.memory}
    return rest | {_TRAINED: state.trained} if state.average else rest
