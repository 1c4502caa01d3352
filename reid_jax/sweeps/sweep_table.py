"""The table of a sweep: what became of its runs, put together as numbers, as text and as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from reid_jax.experiments.configs.sweeps import Sweep
from reid_jax.sweeps.sweep_rows import Run

# What a table shows of a result: by its name in table.json, title, factor and decimals.
_COLUMNS = {
    "direct_mAP": ("direct mAP", 100, 1),
    "direct_rank1": ("rank-1", 100, 1),
    "best_mAP": ("best mAP", 100, 1),
    "best_rank1": ("rank-1", 100, 1),
    "best_rank5": ("rank-5", 100, 1),
    "best_rank10": ("rank-10", 100, 1),
    "last_mAP": ("last mAP", 100, 1),
    "last_rank1": ("rank-1", 100, 1),
    "iterations": ("iterations", 1, 0),
    "num_clusters": ("clusters", 1, 0),
    "seconds": ("seconds", 1, 0),
}
_LEGEND = (
    "accuracies in per cent; direct: before any training here; best: the iteration of the greatest mAP; clusters: the last iteration's; "
    "–: not measured"
)


class Outcome(NamedTuple):
    """What became of a run: the numbers of its result, as `measure` names them, what it learned from, or why it failed."""

    run: Run
    measures: dict[str, float | None]
    failure: str | None
    learned_from: str = ""


def measure(result: Mapping[str, Any]) -> dict[str, float | None]:
    """Picks what a table shows out of a result.json; None where it was not measured."""
    best, last = result["best"], result["last"]
    direct = result.get("direct_transfer") or {}
    measures = {f"direct_{name}": direct.get(name) for name in ("mAP", "rank1")}
    measures |= {f"best_{name}": best.get(name) for name in ("mAP", "rank1", "rank5", "rank10")}
    measures |= {f"last_{name}": last.get(name) for name in ("mAP", "rank1")}
    measures |= {"iterations": result["iterations"], "num_clusters": last.get("num_clusters")}
    return measures | {"seconds": sum(result["seconds"].values())}


def tabulate(sweep: Sweep, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Puts outcomes into table.json: each run's numbers, and each row's mean and standard deviation (n - 1)."""
    rows = []
    for label, overrides in sweep.rows.items():
        mine = [outcome for outcome in outcomes if outcome.run.label == label]
        known = {
            name: [outcome.measures[name] for outcome in mine if outcome.measures.get(name) is not None]
            for name in _COLUMNS
        }
        runs = [
            {"seed": outcome.run.config.seed, "folder": str(outcome.run.folder)}
            | {"failure": outcome.failure, "learned_from": outcome.learned_from}
            | outcome.measures
            for outcome in mine
        ]
        mean = {name: float(np.mean(values)) if values else None for name, values in known.items()}
        std = {name: float(np.std(values, ddof=1)) if len(values) > 1 else None for name, values in known.items()}
        rows.append({"label": label, "overrides": overrides, "runs": runs, "mean": mean, "std": std})
    datasets = {outcome.run.config.data.dataset: None for outcome in outcomes}
    return {
        "title": sweep.title,
        "source": sweep.source,
        "method": sweep.method,
        "dataset": ", ".join(datasets),
        "rows": rows,
    }


def table_cells(table: Mapping[str, Any]) -> list[list[str]]:
    """Returns a table's cells, the titles first; the reasons of failed runs are a column of their own."""
    lines = [["", *(title for title, _, _ in _COLUMNS.values())]]
    reasons = []
    for row in table["rows"]:
        line = [row["label"]]
        for name, (_, factor, decimals) in _COLUMNS.items():
            mean, std = row["mean"][name], row["std"][name]
            cell = "–" if mean is None else f"{factor * mean:.{decimals}f}"
            line.append(cell if std is None else f"{cell} ± {factor * std:.{decimals}f}")
        lines.append(line)
        failed = [run for run in row["runs"] if run["failure"]]
        reasons.append("; ".join(f"seed {run['seed']}: {run['failure']}" for run in failed))
    if any(reasons):
        lines = [[*line, reason] for line, reason in zip(lines, ["failed", *reasons])]
    return lines


def heading(table: Mapping[str, Any]) -> tuple[str, str]:
    """Returns a table's (title with the paper's table it can be compared with, what its numbers are)."""
    title = f"{table['title']}: {table['method']} on {table['dataset']}"
    seeds = {run["seed"]: None for row in table["rows"] for run in row["runs"]}
    numbers = _LEGEND
    if any(std is not None for row in table["rows"] for std in row["std"].values()):
        numbers = f"mean ± standard deviation (n - 1) over the seeds {', '.join(map(str, seeds))}; {_LEGEND}"
    learned = {run.get("learned_from"): None for row in table["rows"] for run in row["runs"] if run.get("learned_from")}
    if learned:
        numbers += f"; learned from: {'; '.join(learned)}"
    return title + (f"; compare {table['source']}" if table["source"] else ""), numbers


def text_table(table: Mapping[str, Any]) -> str:
    """The table for a terminal."""
    title, numbers = heading(table)
    cells = table_cells(table)
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = [
        "  ".join(
            cell.rjust(width) if 1 <= i <= len(_COLUMNS) else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths))
        ).rstrip()
        for line in cells
    ]
    return "\n".join([title, *lines, f"({numbers})"])


def markdown_table(table: Mapping[str, Any]) -> str:
    """The table as Markdown."""
    title, numbers = heading(table)
    first, *rest = [[cell.replace("|", "\\|") for cell in line] for line in table_cells(table)]
    rule = ["---", *("---:" for _ in _COLUMNS), *("---" for _ in first[len(_COLUMNS) + 1 :])]
    lines = [f"| {' | '.join(line)} |" for line in (first, rule, *rest)]
    return "\n".join([f"# {title}", "", *lines, "", f"{numbers[0].upper()}{numbers[1:]}.", ""])
