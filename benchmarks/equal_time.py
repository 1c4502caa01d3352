"""Compares methods on one data set under equal time, from their run directories; several runs of a method are seeds.

    python benchmarks/equal_time.py runs/hct_synthetic_* runs/buc_synthetic_* runs/softened_synthetic_*

The time is that of the shortest run: of every run the best iteration that was done by then counts, evaluation included.
The runs must have had the machine to themselves, or shared it alike.
"""

import argparse
import json
import pathlib

import numpy as np


def summary(workdir: str, budget: float) -> dict[str, float | str]:
    """What one run reached: before training, within the budget, at its end."""
    result = json.loads(pathlib.Path(workdir, "result.json").read_text())
    history = read_history(workdir)
    ends = np.cumsum([total_seconds(record) for record in history])
    within = [record for record, end in zip(history, ends) if end <= budget]
    best = max(within or history[:1], key=lambda record: record["mAP"])
    return {
        "method": result["method"],
        "dataset": result["dataset"],
        "direct": history[0]["mAP"],
        "within": best["mAP"],
        "within_rank1": best["rank1"],
        "best": result["best"]["mAP"],
        "best_rank1": result["best"]["rank1"],
        "last": result["last"]["mAP"],
        "label_free": result["label_free_choice"]["mAP"] if result["label_free_choice"] else np.nan,
        "seconds": ends[-1],
    }


def read_history(workdir: str) -> list[dict]:
    """The records of a run's iterations."""
    return [json.loads(line) for line in pathlib.Path(workdir, "metrics.jsonl").read_text().splitlines()]


def total_seconds(record: dict) -> float:
    """Seconds of one iteration, all phases."""
    return sum(record["seconds"].values())


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdirs", nargs="+", help="run directories of one data set")
    workdirs = parser.parse_args().workdirs
    budget = min(sum(map(total_seconds, read_history(workdir))) for workdir in workdirs)
    rows = [summary(workdir, budget) for workdir in workdirs]
    datasets = {row["dataset"] for row in rows}
    if len(datasets) > 1:
        parser.error(f"the runs are on different data sets: {', '.join(sorted(datasets))}")
    print(f"{datasets.pop()}: mAP / rank-1 in per cent, mean and standard deviation (n - 1) over the seeds")
    print(f"equal time: {budget:.0f} s\n")
    print("| method | seeds | direct transfer | best in equal time | best | last | label-free choice | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]

        def cell(name, own=own):
            values = 100 * np.array([row[name] for row in own])
            if np.isnan(values).all():
                return "–"
            return f"{values.mean():.1f} ± {values.std(ddof=1):.1f}" if len(values) > 1 else f"{values[0]:.1f}"

        print(
            f"| {method} | {len(own)} | {cell('direct')} | {cell('within')} / {cell('within_rank1')} | "
            f"{cell('best')} / {cell('best_rank1')} | {cell('last')} | {cell('label_free')} | "
            f"{np.mean([row['seconds'] for row in own]):.0f} |"
        )


if __name__ == "__main__":
    main()
