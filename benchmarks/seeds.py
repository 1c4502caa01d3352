"""Puts finished runs of several seeds into the tables of docs/results.md.

python benchmarks/seeds.py runs/hct_synthetic_0 runs/hct_synthetic_1 runs/hct_synthetic_2
"""

import json
import pathlib

import numpy as np
from absl import app

from reid_jax.runs import metrics_files

_QUALITIES = (
    "bcubed_precision",
    "bcubed_recall",
    "bcubed_f",
    "silhouette",
    "reliable_precision",
    "reliable_cross_camera",
    "selected",
    "agreement",
)
_SCORES = {"mAP": "mAP", "rank1": "rank-1", "mINP": "mINP"}


def main(argv: list[str]) -> None:
    """Prints direct transfer, best and last for each run, and the means of every iteration."""
    runs = [pathlib.Path(name) for name in argv[1:]]
    results = [json.loads((run / "result.json").read_text()) for run in runs]
    print(f"{results[0]['method']} on {results[0]['dataset']}, {results[0]['device']}")
    print("| seed | direct transfer mAP / rank-1 | best (iteration) | last | label-free choice (iteration) | seconds |")
    print("|---|---|---|---|---|---|")
    for result in results:
        cells = [str(result["seed"])]
        for name in ("direct_transfer", "best", "last", "label_free_choice"):
            record = result[name]
            if record is not None:
                where = f" ({record['iteration']})" if name in ("best", "label_free_choice") else ""
                cells.append(f"{100 * record['mAP']:.1f} / {100 * record['rank1']:.1f}{where}")
        print("| " + " | ".join([*cells, f"{sum(result['seconds'].values()):.0f}"]) + " |")
    histories = [metrics_files.read_records(run / metrics_files.NAME) for run in runs]
    columns = [key for key in _QUALITIES if key in histories[0][-1]]
    print("\nmean over the seeds, in per cent\n")
    print("| iteration | " + " | ".join([*columns, *_SCORES.values()]) + " |")
    print("|---" * (1 + len(columns) + len(_SCORES)) + "|")
    for records in zip(*histories):
        cells = []
        for key in (*columns, *_SCORES):
            values = [record[key] for record in records if record.get(key) is not None]
            cells.append(f"{100 * np.mean(values):.1f}" if values else "")
        print(f"| {records[0]['iteration']} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    app.run(main)
