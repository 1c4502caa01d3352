"""Compares methods on one data set under an equal budget, from their run directories NAME_DATASET_SEED or NAME/seed_SEED.

    python benchmarks/equal_budget.py runs/hct_synthetic_* runs/buc_synthetic_* runs/softened_synthetic_*
    python benchmarks/equal_budget.py --by=images runs/hct_synthetic_* runs/cluster_dynamics_synthetic_*

The budget is what the shortest run took: of every run the best iteration that was done by then counts. In seconds,
evaluation included, the runs must have had the machine to themselves, or shared it alike. In images that went through a
train step, it does not matter where they ran; what was embedded, and the training of an original model, is not counted.
"""

import argparse
import importlib
import json
import pathlib
import re

import numpy as np
from ml_collections import ConfigDict

from reid_jax.runs import dataset as dataset_lib
from reid_jax.runs import metrics_files


def read_history(workdir: str) -> list[dict]:
    """The records of a run's iterations."""
    return metrics_files.read_records(pathlib.Path(workdir, metrics_files.NAME))


def read_result(workdir: str) -> dict:
    """What a run came to."""
    return json.loads(pathlib.Path(workdir, "result.json").read_text())


def read_config(workdir: str) -> ConfigDict:
    """A run's config; its method's for the data set, where the folder has none."""
    path, result = pathlib.Path(workdir, "config.json"), read_result(workdir)
    if path.exists():
        return ConfigDict(json.loads(path.read_text()))
    return importlib.import_module(f"reid_jax.experiments.configs.{result['method']}").get_config(result["dataset"])


def row_name(workdir: str) -> str:
    """What a row of the table is called: the run's folder without data set and seed, or the sweep's row."""
    path = pathlib.Path(workdir).resolve()
    if re.fullmatch(r"seed_\d+", path.name):
        return path.parent.name
    return re.sub(r"_\d+$", "", path.name).removesuffix(f"_{read_result(workdir)['dataset']}")


def seconds_of(workdir: str) -> list[float]:
    """Seconds of each iteration, all phases."""
    return [sum(record["seconds"].values()) for record in read_history(workdir)]


def images_of(workdir: str) -> list[float]:
    """Images that went through a train step in each iteration; 0 in the first record, of the initial model."""
    config, method = read_config(workdir), read_result(workdir)["method"]
    train, num_images = config.train, len(dataset_lib.load_dataset(config.data).samples["train"])

    def trained_on(record):
        if method in ("cluster_dynamics", "dbscan"):
            batch = train.num_ids * train.num_instances
            return train.get("num_epochs", 1) * train.num_steps * batch * (2 if config.source.dataset else 1)
        if method == "hct":
            return train.num_epochs * (record["num_clusters"] // train.num_ids) * train.num_ids * train.num_instances
        if method in ("buc", "softened"):
            num_epochs = train.first_epochs if record["iteration"] == 1 else train.num_epochs
            return num_epochs * (num_images // train.batch_size) * train.batch_size
        if method == "pul":
            return train.num_epochs * (round(record["selected"] * num_images) // train.batch_size) * train.batch_size
        raise ValueError(f"{workdir}: images are not counted for {method}")

    return [trained_on(record) if record["iteration"] else 0 for record in read_history(workdir)]


def summary(workdir: str, ends: np.ndarray, budget: float) -> dict[str, float]:
    """What one run reached: before training, within the budget, at its end; ends: its cost up to each iteration."""
    result, history = read_result(workdir), read_history(workdir)
    within = [record for record, end in zip(history, ends) if end <= budget]
    best = max(within or history[:1], key=lambda record: record["mAP"])
    return {
        "direct": history[0]["mAP"],
        "within": best["mAP"],
        "within_rank1": best["rank1"],
        "best": result["best"]["mAP"],
        "best_rank1": result["best"]["rank1"],
        "last": result["last"]["mAP"],
        "label_free": result["label_free_choice"]["mAP"] if result["label_free_choice"] else np.nan,
        "cost": ends[-1],
    }


def cell(values: list[float]) -> str:
    """Mean and standard deviation over the seeds, in per cent."""
    values = 100 * np.array(values)
    if np.isnan(values).all():
        return "–"
    return f"{values.mean():.1f} ± {values.std(ddof=1):.1f}" if len(values) > 1 else f"{values[0]:.1f}"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdirs", nargs="+", help="run directories of one data set")
    parser.add_argument("--by", choices=["seconds", "images"], default="seconds", help="what the budget is counted in")
    args = parser.parse_args()
    datasets = {read_result(workdir)["dataset"] for workdir in args.workdirs}
    if len(datasets) > 1:
        parser.error(f"the runs are on different data sets: {', '.join(sorted(datasets))}")
    costs = seconds_of if args.by == "seconds" else images_of
    ends = {workdir: np.cumsum(costs(workdir)) for workdir in args.workdirs}
    budget = min(end[-1] for end in ends.values())
    print(f"{datasets.pop()}: mAP / rank-1 in per cent, mean and standard deviation (n - 1) over the seeds")
    print(f"equal budget: {budget:,.0f} {args.by}\n")
    print(f"| method | seeds | direct transfer | best in equal budget | best | last | label-free choice | {args.by} |")
    print("|---|---|---|---|---|---|---|---|")
    names = {workdir: row_name(workdir) for workdir in args.workdirs}
    for name in dict.fromkeys(names.values()):
        own = [summary(workdir, ends[workdir], budget) for workdir in args.workdirs if names[workdir] == name]
        column = {key: [row[key] for row in own] for key in own[0]}
        print(
            f"| {name} | {len(own)} | {cell(column['direct'])} | {cell(column['within'])} / {cell(column['within_rank1'])} | "
            f"{cell(column['best'])} / {cell(column['best_rank1'])} | {cell(column['last'])} | "
            f"{cell(column['label_free'])} | {np.mean(column['cost']):,.0f} |"
        )


if __name__ == "__main__":
    main()
