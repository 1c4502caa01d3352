"""Runs a list of overrides of one method and prints a table like the papers'.

    python experiments/sweep.py --list
    python experiments/sweep.py --sweep=buc_criterion --dataset=market1501 --seeds=0,1,2
    python experiments/sweep.py --method=hct --grid=cluster.linkage=single,average --set=train.num_epochs=4

A row has its own run directory, WORKDIR/ROW or, with --seeds, WORKDIR/ROW/seed_S. The same command again skips the
runs that are finished and resumes the others.
"""

import difflib
import importlib
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
from absl import flags
from ml_collections import ConfigDict

from reid_jax import atomic, errors
from reid_jax.cli import command_line, program
from reid_jax.experiments.configs import sweeps
from reid_jax.experiments.configs.sweeps import Sweep
from reid_jax.runs import compatibility, logs
from reid_jax.sweeps import sweep_rows, sweep_table
from reid_jax.sweeps.sweep_rows import Run
from reid_jax.sweeps.sweep_table import Outcome

METHODS = ("contrast", "hct", "buc", "pul", "softened", "cluster_dynamics", "dbscan", "supervised", "combine")


def load_method(method: str) -> Callable[[ConfigDict, str], dict[str, Any]]:
    """Returns a method's run function (config, workdir) -> result."""
    return getattr(importlib.import_module(f"reid_jax.experiments.{method}"), f"run_{method}")


def finished_result(run: Run) -> dict[str, Any] | None:
    """Returns the result of a run that is finished, or None.

    Raises:
        UserError: the folder holds a finished run of a config that computes something else, or on other data.
    """
    try:
        return compatibility.finished_result(run.folder, run.config)
    except errors.UserError as error:
        raise errors.UserError(f"row {run.label!r}: {error}") from error


def execute(run: Run) -> Outcome:
    """Runs what is not finished of a run; what its config, its numbers or its size got wrong is noted, not raised."""
    try:
        result = finished_result(run) or load_method(run.method)(run.config, str(run.folder))
    except (errors.UserError, errors.NonFiniteLossError) as error:
        return Outcome(run, {}, " ".join(str(error).split()))
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):  # out of memory; anything else is a fault of the program
            raise
        return Outcome(run, {}, str(error).strip().partition("\n")[0])
    return Outcome(run, sweep_table.measure(result), None, result.get("learned_from", ""))


def run_sweep(sweep: Sweep, runs: Sequence[Run], workdir: str | pathlib.Path) -> list[Outcome]:
    """Runs what is not finished and keeps the table in `workdir` up to date.

    Raises:
        UserError: the folder has another sweep's table, or a finished run is of another config; before any run starts.
    """
    _check_table(sweep, pathlib.Path(workdir, "table.json"))
    finished = [finished_result(run) is not None for run in runs]
    pathlib.Path(workdir).mkdir(parents=True, exist_ok=True)
    outcomes = []
    for number, (run, is_finished) in enumerate(zip(runs, finished), start=1):
        note = " (finished before)" if is_finished else ""
        print(f"[{number}/{len(runs)}] {run.label}, seed {run.config.seed}: {run.folder}{note}", flush=True)
        outcomes.append(execute(run))
        # After every run: a sweep takes long, and what interrupts it leaves a table of what is done.
        table = sweep_table.tabulate(sweep, outcomes)
        logs.write_json(pathlib.Path(workdir, "table.json"), table)
        with atomic.atomic_path(pathlib.Path(workdir, "table.md")) as temporary:
            temporary.write_text(sweep_table.markdown_table(table))
    return outcomes


def report_sweep(sweep: Sweep, runs: Sequence[Run], workdir: str | pathlib.Path) -> None:
    """Runs what is not finished and prints the table.

    Raises:
        UserError: as `run_sweep`; or runs failed, after all others are done.
    """
    outcomes = run_sweep(sweep, runs, workdir)
    print(sweep_table.text_table(sweep_table.tabulate(sweep, outcomes)))
    print(f"table: {os.path.join(workdir, 'table.md')}", flush=True)
    num_failed = sum(outcome.failure is not None for outcome in outcomes)
    if num_failed:
        raise errors.UserError(f"{num_failed} of {len(outcomes)} runs failed; the table says why")


def _check_table(sweep: Sweep, path: pathlib.Path) -> None:
    """Refuses to replace the table of another sweep, or one with rows that this sweep has not."""
    if not path.exists():
        return
    table = logs.read_json(path)
    title = table.get("title")
    if title != sweep.title:
        raise errors.UserError(
            f"workdir: {str(path)!r} is the table of the sweep {title!r}, not of {sweep.title!r}; choose another --workdir"
        )
    for row in table.get("rows", ()):
        if row["label"] not in sweep.rows and not all(run["failure"] for run in row["runs"]):
            raise errors.UserError(
                f"workdir: {str(path)!r} has a row {row['label']!r}, which would be lost; ask for it as well, or "
                "choose another --workdir"
            )


def choose_sweep(name: str | None, method: str | None, grid: Sequence[str], dataset: str) -> Sweep:
    """Returns the sweep that --sweep names, or that --method and --grid describe.

    Raises:
        UserError: there is no such sweep, or not exactly one is given.
    """
    if (name is None) == (method is None) or (name is not None and grid):
        raise errors.UserError(
            "give either --sweep=NAME (--list shows them) or --method=METHOD and --grid=FIELD=VALUES"
        )
    if name is None:
        rows = sweep_rows.grid_rows(grid, sweep_rows.load_config(method, dataset))
        return Sweep(method, ", ".join(text.partition("=")[0] for text in grid) or "Default config", "", rows)
    named = sweeps.get_sweeps()
    if name not in named:
        (nearest,) = difflib.get_close_matches(name, named, n=1, cutoff=0)
        raise errors.UserError(f"--sweep: there is no {name!r}; did you mean {nearest!r}? --list shows all")
    return named[name]


def list_sweeps() -> str:
    """The named sweeps: name, rows, what they differ in, and the paper's table."""
    named = sweeps.get_sweeps()
    width = max(map(len, named))
    return "\n".join(
        f"{name:{width}}  {len(sweep.rows):2d} rows  {sweep.title}: {sweep.source}" for name, sweep in named.items()
    )


def main() -> None:
    """Runs a sweep as the flags say."""
    args = flags.FLAGS
    if args.list:
        print(list_sweeps())
        return
    sweep = choose_sweep(args.sweep, args.method, args.grid, args.dataset)
    settings = sweep_rows.parse_settings(args.set, sweep_rows.load_config(sweep.method, args.dataset))
    workdir = args.workdir or os.path.join("runs", f"{args.sweep or f'{args.method}_grid'}_{args.dataset}")
    seeds = sweep_rows.parse_seeds(args.seeds)
    command_line.check_workdir(pathlib.Path(workdir))
    runs = sweep_rows.plan(sweep, dataset=args.dataset, settings=settings, seeds=seeds, workdir=workdir)
    report_sweep(sweep, runs, workdir)


def define_flags() -> None:
    """Defines the command line."""
    program.group("Rows")
    flags.DEFINE_bool("list", False, "Print the named sweeps and end.")
    flags.DEFINE_string("sweep", None, "A named sweep; --list shows them.")
    flags.DEFINE_enum("method", None, METHODS, "The method, for a sweep of one's own.")
    flags.DEFINE_multi_string("grid", [], "FIELD=VALUE,VALUE...; given several times: all combinations.")
    flags.DEFINE_multi_string("set", [], "FIELD=VALUE,FIELD=VALUE... of the config, for all rows.")
    program.group("Runs")
    flags.DEFINE_list("seeds", [], "Run every row once with each of these seeds; the table has mean and deviation.")
    flags.DEFINE_string("dataset", "synthetic", "Data set of the method's config.")
    flags.DEFINE_string("workdir", None, "Where the rows' folders and the table are; runs/SWEEP_DATASET if not given.")


if __name__ == "__main__":
    program.run(main, define_flags)
