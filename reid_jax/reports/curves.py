"""Curves of what runs logged: over their iterations, or over the levels of HCD's labels."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from reid_jax import errors
from reid_jax.runs import metrics_files

# What shares are called, in per cent; other fields are drawn as they are.
_SHARES = {
    "selected": "samples selected",
    "mAP": "mAP",
    "rank1": "rank-1",
    "rank5": "rank-5",
    "rank10": "rank-10",
    "rank20": "rank-20",
    "mINP": "mINP",
    "bcubed_precision": "BCubed precision",
    "bcubed_recall": "BCubed recall",
    "bcubed_f": "BCubed F",
    "reliable_precision": "reliable images that are right",
    "reliable_cross_camera": "reliable images by another camera",
}
# What other fields are called where their names say too little.
_NAMES = {
    "num_clusters": "number of clusters",
    "loss": "training loss",
    "agreement": "agreement with the last labels (1: the same)",
    "silhouette": "silhouette of the clusters",
}
# What is drawn over what where no field is asked for, and of how many fields at most.
DEFAULT_FIELDS = {
    "iteration": (("selected", "mAP", "loss"), 2),
    "level": (("bcubed_precision", "bcubed_recall", "bcubed_f", "num_clusters"), 4),
}
Runs = Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]


def find_runs(folders: Sequence[str]) -> dict[str, list[list[dict[str, Any]]]]:
    """Reads the records of all runs in folders, as `metrics_files.find_folders` finds and names them.

    Raises:
        UserError: a folder has no runs or is given twice, or a file cannot be read.
    """
    return {
        name: [metrics_files.read_records(place / metrics_files.NAME) for place in places]
        for name, places in metrics_files.find_folders(folders).items()
    }


def by_level(runs: Runs) -> dict[str, list[list[dict[str, Any]]]]:
    """Makes a record for each level of each run's last one: its level{h}_num_clusters is num_clusters at level h.

    Raises:
        UserError: no run has such a field at its last iteration.
    """
    levels: dict[str, list[list[dict[str, Any]]]] = {}
    for name, histories in runs.items():
        levels[name] = []
        for history in histories:
            records: dict[int, dict[str, Any]] = {}
            for field, value in (history[-1] if history else {}).items():
                if match := re.fullmatch(r"level(\d+)_(.+)", field):
                    records.setdefault(int(match[1]), {})[match[2]] = value
            levels[name].append([{"level": level, **records[level]} for level in sorted(records)])
    if not any(records for histories in levels.values() for records in histories):
        raise errors.UserError(
            "--over: level needs runs with clusters at several levels, of experiments/cluster_dynamics.py; the last "
            f"iteration of {', '.join(runs)} has none"
        )
    return levels


def make_curves(runs: Runs, field: str, *, over: str = "iteration") -> dict[str, list[np.ndarray]]:
    """Picks a field out of records: by name, each run's [iterations, 2] of iteration, or of `over`, and value.

    Raises:
        UserError: no run has it.
    """
    factor = 100 if field in _SHARES else 1
    curves = {}
    for name, histories in runs.items():
        points = [
            [
                (record[over], factor * record[field])
                for record in history
                if is_number(record.get(over)) and is_number(record.get(field))
            ]
            for history in histories
        ]
        curves[name] = [np.array(run).reshape(-1, 2) for run in points]
    if not any(len(run) for histories in curves.values() for run in histories):
        records = [record for histories in runs.values() for history in histories for record in history]
        known = {name for record in records for name, value in record.items() if is_number(value)}
        raise errors.UserError(f"--fields: no run has {field!r}; choose of {', '.join(sorted(known - {over}))}")
    return curves


def default_fields(runs: Runs, *, over: str = "iteration") -> list[str]:
    """Returns what is drawn where no field is asked for: of the usual ones those that a run has, the first few."""
    records = [record for histories in runs.values() for history in histories for record in history]
    usual, most = DEFAULT_FIELDS[over]
    logged = [field for field in usual if any(is_number(record.get(field)) for record in records)]
    return logged[:most] or [usual[-1]]


def label_of(field: str) -> str:
    """What a field's axis is called; `make_curves` draws shares in per cent."""
    return f"{_SHARES[field]}, per cent" if field in _SHARES else _NAMES.get(field, field.replace("_", " "))


def is_number(value: Any) -> bool:
    """Whether a value of a record can be drawn."""
    return isinstance(value, int | float) and not isinstance(value, bool)
