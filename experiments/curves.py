"""Draws what runs logged over their iterations, as in PUL's Fig. 5(b) to (d), or over HCD's levels, as in its Fig. 5.

    python experiments/curves.py --runs=runs/pul_synthetic --fields=selected,mAP --output=curves.png
    python experiments/curves.py --runs=runs/pul_threshold_market1501 --output=curves.png
    python experiments/curves.py --runs=runs/cluster_dynamics_synthetic --over=level --output=levels.png

A run is a run directory or a sweep's folder, several separated by commas; the seeds of a row are one curve, their
range a band around it. A field is a number in the lines of metrics.jsonl; over levels, those of the last iteration.
"""

import json
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags

from reid_jax import errors
from reid_jax.cli import program
from reid_jax.pictures import plots

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
_DEFAULT_FIELDS = {
    "iteration": (("selected", "mAP", "loss"), 2),
    "level": (("bcubed_precision", "bcubed_recall", "bcubed_f", "num_clusters"), 4),
}
_METRICS = "metrics.jsonl"
Runs = Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]


def find_runs(folders: Sequence[str]) -> dict[str, list[list[dict[str, Any]]]]:
    """Reads the records of all runs in folders, as `find_folders` finds and names them.

    Raises:
        UserError: a folder has no runs or is given twice, or a file cannot be read.
    """
    return {
        name: [read_records(place / _METRICS) for place in places] for name, places in find_folders(folders).items()
    }


def find_folders(folders: Sequence[str], *, flag: str = "runs") -> dict[str, list[pathlib.Path]]:
    """Finds the run directories in folders.

    Args:
        folders: run directories, or folders of sweeps.
        flag: the command line's name for them, for messages.

    Returns:
        By name, the run directories, one for each seed. Original models' (`source_...`) are left out of folders that
        hold others.

    Raises:
        UserError: a folder has no runs or is given twice.
    """
    found: dict[tuple[str, str], list[pathlib.Path]] = {}
    if len({pathlib.Path(folder).resolve() for folder in folders}) < len(folders):
        raise errors.UserError(f"--{flag}: a folder is given twice: {', '.join(folders)}")
    for folder in map(pathlib.Path, folders):
        paths = sorted(folder.rglob(_METRICS))
        inside = [path for path in paths if path.parent == folder or not path.parent.name.startswith("source_")]
        paths = inside or paths
        if not paths:
            raise errors.UserError(
                f"--{flag}: no {_METRICS} in {str(folder)!r}; it must be a run directory or a sweep's folder"
            )
        for path in paths:
            row = path.parent.relative_to(folder)
            parts = [part for part in row.parts if not part.startswith("seed_")]
            name = " ".join([folder.resolve().name] * (len(folders) > 1 or not parts) + parts)
            found.setdefault((name, " ".join([str(folder), *parts])), []).append(path.parent)
    short = [name for name, _ in found]
    # Folders of the same name at different places are told apart by their paths.
    return {name if short.count(name) == 1 else path: places for (name, path), places in found.items()}


def read_records(path: pathlib.Path, *, flag: str = "runs") -> list[dict[str, Any]]:
    """Reads a metrics.jsonl, without a last line that a killed run left half written.

    Raises:
        UserError: a line is no JSON object.
    """
    records = []
    text = path.read_text()
    for number, line in enumerate(text[: text.rfind("\n") + 1].splitlines(), start=1):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise errors.UserError(f"--{flag}: line {number} of {str(path)!r} is not JSON") from error
        if not isinstance(records[-1], dict):
            raise errors.UserError(f"--{flag}: line {number} of {str(path)!r} is no JSON object")
    return records


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
    usual, most = _DEFAULT_FIELDS[over]
    found = [field for field in usual if any(is_number(record.get(field)) for record in records)]
    return found[:most] or [usual[-1]]


def label_of(field: str) -> str:
    """What a field's axis is called; `make_curves` draws shares in per cent."""
    return f"{_SHARES[field]}, per cent" if field in _SHARES else _NAMES.get(field, field.replace("_", " "))


def is_number(value: Any) -> bool:
    """Whether a value of a record can be drawn."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def main() -> None:
    """Draws as the flags say."""
    given = flags.FLAGS
    program.require("runs", "output")
    program.check_folder_of(given.output)
    runs, over = find_runs(given.runs), given.over
    if over == "level":
        runs = by_level(runs)
    panels = {}
    for field in given.fields or default_fields(runs, over=over):
        panels[label_of(field)] = make_curves(runs, field, over=over)
    try:
        plots.save_curves(given.output, panels, over=over, from_zero=over == "level")
    except errors.UserError as error:
        raise errors.UserError(f"--output: {error}") from error
    drawn = [name for name in runs if any(len(run) for curves in panels.values() for run in curves[name])]
    print(f"curves of {', '.join(drawn)}: {os.fspath(given.output)}", flush=True)
    for name in runs.keys() - drawn:
        print(f"not drawn, it has none of these fields: {name}", flush=True)


def define_flags() -> None:
    """Defines the command line."""
    flags.DEFINE_list("runs", [], "Run directories or folders of sweeps, separated by commas.")
    flags.DEFINE_enum(
        "over", "iteration", list(_DEFAULT_FIELDS), "What is drawn over: iterations, or HCD's levels at the last one."
    )
    flags.DEFINE_list(
        "fields",
        [],
        "Fields of metrics.jsonl, a panel each; if not given, of selected, mAP and loss the first two known. Over "
        "levels named without level1_; if not given, BCubed precision, recall, F and the number of clusters.",
    )
    flags.DEFINE_string("output", None, "The picture; .png, .pdf or .svg.")


if __name__ == "__main__":
    program.run(main, define_flags)
