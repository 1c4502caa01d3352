"""Which signal chooses a run's iteration best without labels, from run directories whose mAP is known.

    python benchmarks/label_free_choice.py docs/measured/dbscan_cluster_synthetic_*
    python benchmarks/label_free_choice.py --next_labels docs/measured/hct_*

For each signal in metrics.jsonl: its rank correlation with mAP over a run's iterations, and the regret of choosing by it, the
best mAP of the run, the start's included, less that of the iteration with the greatest signal (the least where less is
better). Both once without the start (iteration 0) and once with it, in the runs that know the signal there.

Most methods cluster before they train, so that a record's labels, and what was measured of them, are of the model before.
--next_labels takes that from the record after: then it is of the record's own model, the start's too, and the last iteration,
whose labels nobody made, cannot be chosen in any row.
"""

import argparse
import json
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from reid_jax.runs import metrics_files, stopping

Record = dict[str, Any]


class Run(NamedTuple):
    """A run's records, the start's first, and the iteration that the run itself chose without labels, if it did."""

    records: list[Record]
    kept: int | None


class Signal(NamedTuple):
    """Where a signal is logged, whether less is better (-1), and whether it is measured of labels."""

    name: str
    sign: int = 1
    of_labels: bool = False


SIGNALS = (
    Signal("agreement", of_labels=True),
    Signal("silhouette", of_labels=True),
    Signal("selected", of_labels=True),
    Signal("camera_nmi", -1, of_labels=True),
    Signal("share_alone", -1, of_labels=True),
    Signal("num_groups", of_labels=True),
    Signal("loss", -1),
    Signal("recognition"),
)
_ONLINE = ("cluster_dynamics",)  # their labels are made while they train


def read_run(folder: pathlib.Path, *, next_labels: bool) -> Run:
    """Reads a finished run; next_labels: what is measured of labels from the record after, and no last record."""
    records = metrics_files.read_records(folder / metrics_files.NAME)
    result = json.loads((folder / "result.json").read_text())
    labels = next(folder.glob("pseudo_labels/*.npz"), None)
    num_samples = None if labels is None else len(np.load(labels, allow_pickle=False)["pseudo_labels"])
    for record in records:
        record["share_alone"] = record.get("outliers")
        if "outliers" not in record and "num_alone" in record and num_samples:
            record["share_alone"] = record["num_alone"] / num_samples
    if next_labels:
        of_labels = [signal.name for signal in SIGNALS if signal.of_labels and result["method"] not in _ONLINE]
        pairs = zip(records[:-1], records[1:])
        records = [record | {name: after.get(name) for name in of_labels} for record, after in pairs]
    kept = result["label_free_choice"] and result["label_free_choice"]["iteration"]
    return Run(records, kept if kept is None or kept < len(records) else None)


def values(records: list[Record], signal: Signal) -> np.ndarray:
    """The signal of every record, greater is better; nan where there is none."""
    found = [record.get(signal.name) for record in records]
    return signal.sign * np.array([np.nan if value is None else value for value in found], float)


def rank_correlation(signal: np.ndarray, scores: np.ndarray) -> float:
    """Spearman's, of the iterations that have the signal; nan of fewer than three, and of a signal that never changes."""
    known = np.isfinite(signal)
    if known.sum() < 3 or np.ptp(signal[known]) == 0 or np.ptp(scores[known]) == 0:
        return float("nan")
    return float(stats.spearmanr(signal[known], scores[known]).statistic)


def greatest(signal: np.ndarray) -> int:
    """The first iteration with the greatest signal."""
    return int(np.nanargmax(signal))


def rising(signal: np.ndarray, *, min_rise: float = 0.005) -> int:
    """The iteration that `stopping.label_free_choice` keeps of a run that goes on to its end."""
    known = [None if np.isnan(value) else value for value in signal]
    return stopping.label_free_choice(known, patience=len(known), min_rise=min_rise)[0]


class Row(NamedTuple):
    """What a signal does in one run; nan where it is not known."""

    correlation: float
    regret: float
    gain: float  # over the start


def recognized(run: Run) -> int:
    """The iteration that `stopping.last_recognized` keeps of a run that goes on to its end."""
    signal = [record["recognition"] for record in run.records]
    return stopping.last_recognized(signal, patience=len(signal))[0]


def judge(run: Run, signal: Signal, choose: Callable[[np.ndarray], int], *, with_start: bool) -> Row | None:
    """Correlation and choice in one run; None where it does not log the signal."""
    scores = np.array([record["mAP"] for record in run.records])
    found = values(run.records, signal)
    if (with_start and np.isnan(found[0])) or np.isfinite(found[1:]).sum() < 2:
        return None
    first = 0 if with_start else 1
    choice = first + choose(found[first:])
    return Row(
        rank_correlation(found[first:], scores[first:]), scores.max() - scores[choice], scores[choice] - scores[0]
    )


def fixed(run: Run, choice: int) -> Row:
    """What an iteration that no signal chose comes to."""
    scores = [record["mAP"] for record in run.records]
    return Row(float("nan"), max(scores) - scores[choice], scores[choice] - scores[0])


def cells(rows: list[Row | None]) -> list[str]:
    """Runs, mean correlation, mean and greatest regret, and how many choices are below the start."""
    rows = [row for row in rows if row is not None]
    if not rows:
        return ["", "", "", "", ""]
    correlations = np.array([row.correlation for row in rows])
    correlations = correlations[np.isfinite(correlations)]
    regrets = 100 * np.array([row.regret for row in rows])
    return [
        str(len(rows)),
        f"{correlations.mean():+.2f}" if len(correlations) else "",
        f"{regrets.mean():.1f}",
        f"{regrets.max():.1f}",
        str(sum(row.gain < 0 for row in rows)),
    ]


def table(runs: list[Run], signals: tuple[Signal, ...] = SIGNALS) -> str:
    """The Markdown table of some runs."""
    columns = ["runs", "rank correlation", "regret", "worst", "below start"]
    head = ["choice by", *columns, *(f"with start: {name}" for name in columns)]
    lines = [head, ["---"] * len(head)]
    for name, rows in (
        ("nothing: the start", [fixed(run, 0) for run in runs]),
        ("nothing: the last iteration", [fixed(run, -1) for run in runs]),
        ("what the run chose", [fixed(run, run.kept) for run in runs if run.kept is not None]),
        ("the last recognized", [fixed(run, recognized(run)) for run in runs if "recognition" in run.records[0]]),
    ):
        if rows:
            lines.append([name, *cells(rows), *cells([])])
    for signal in signals:
        rules = [("", greatest)] + [(", rises of 0.005", rising)] * (signal.name in ("agreement", "silhouette"))
        for rule, choose in rules:
            without, with_start = (
                cells([judge(run, signal, choose, with_start=start) for run in runs]) for start in (False, True)
            )
            if any(without):
                name = signal.name + " (less)" * (signal.sign < 0) + rule
                lines.append([name, *without, *with_start])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", help="run directories, or folders of sweeps")
    parser.add_argument("--next_labels", action="store_true", help="measure labels by the model that they are of")
    args = parser.parse_args()
    places = [place for found in metrics_files.find_folders(args.folders).values() for place in found]
    runs = [read_run(place, next_labels=args.next_labels) for place in places]
    runs = [run for run in runs if len(run.records) > 2 and "mAP" in run.records[0]]
    print(f"{len(runs)} runs of three records or more; mAP in points\n")
    print(table(runs))


if __name__ == "__main__":
    main()
