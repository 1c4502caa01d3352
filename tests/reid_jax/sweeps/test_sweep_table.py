"""experiments/sweep_table.py: tables of made-up results."""

import pytest

from reid_jax.experiments.configs.sweeps import Sweep
from reid_jax.sweeps import sweep_rows, sweep_table

STEPS = Sweep("hct", "Steps", "", {"s = 7": {"cluster.num_steps": 7}, "s = 8": {"cluster.num_steps": 8}})


def result(mAP, *, iterations=3, clusters=8, seconds=10.0):
    """A result.json's relevant part; mAP None: nothing could be measured."""
    scores = {} if mAP is None else {"mAP": mAP, "rank1": mAP + 0.1, "rank5": mAP + 0.2, "rank10": mAP + 0.3}
    best = {"iteration": 1, "num_clusters": clusters + 1, **scores}
    last = {"iteration": iterations, "num_clusters": clusters, **({"mAP": 0.25, "rank1": 0.5} if scores else {})}
    direct = {"mAP": 0.05, "rank1": 0.1} if scores else None
    seconds = {"train": seconds, "embed": 0.5}
    return {"direct_transfer": direct, "best": best, "last": last, "iterations": iterations, "seconds": seconds}


def tabulate(sweep, results, *, seeds=()):
    """The table of results in the order of the runs; a text in place of a result is the reason of a failure."""
    runs = sweep_rows.plan(sweep, dataset="synthetic", settings={}, seeds=seeds, workdir="runs")
    outcomes = [
        sweep_table.Outcome(run, {}, value)
        if isinstance(value, str)
        else sweep_table.Outcome(run, sweep_table.measure(value), None)
        for run, value in zip(runs, results, strict=True)
    ]
    return sweep_table.tabulate(sweep, outcomes)


def test_what_a_table_shows_of_a_result():
    assert sweep_table.measure(result(0.3, seconds=9.5)) == {
        "direct_mAP": 0.05,
        "direct_rank1": 0.1,
        "best_mAP": 0.3,
        "best_rank1": pytest.approx(0.4),
        "best_rank5": pytest.approx(0.5),
        "best_rank10": pytest.approx(0.6),
        "last_mAP": 0.25,
        "last_rank1": 0.5,
        "iterations": 3,
        "num_clusters": 8,
        "seconds": 10.0,
    }
    unknown = {name for name, value in sweep_table.measure(result(None)).items() if value is None}
    best = {"best_mAP", "best_rank1", "best_rank5", "best_rank10"}
    assert unknown == {"direct_mAP", "direct_rank1", *best, "last_mAP", "last_rank1"}


def test_the_table_of_one_seed():
    table = tabulate(STEPS, [result(0.3), result(None, clusters=1234)])
    assert sweep_table.text_table(table).splitlines()[:4] == [
        "Steps: hct on synthetic",
        "       direct mAP  rank-1  best mAP  rank-1  rank-5  rank-10  last mAP  rank-1  iterations  clusters  seconds",
        "s = 7         5.0    10.0      30.0    40.0    50.0     60.0      25.0    50.0           3         8       10",
        "s = 8           –       –         –       –       –        –         –       –           3      1234       10",
    ]


def test_the_table_of_several_seeds():
    results = [result(0.3, seconds=9.5), result(0.5, seconds=11.5), result(0.4), "loss | nan"]
    table = tabulate(STEPS._replace(source="HCT, Table 3"), results, seeds=[0, 1])
    # n - 1: the deviation of 0.3 and 0.5 is 0.1 sqrt(2).
    assert table["rows"][0]["mean"]["best_mAP"] == pytest.approx(0.4)
    assert table["rows"][0]["std"]["best_mAP"] == pytest.approx(0.1 * 2**0.5)
    assert table["rows"][1]["mean"]["best_mAP"] == 0.4 and table["rows"][1]["std"]["best_mAP"] is None
    assert [run["failure"] for run in table["rows"][1]["runs"]] == [None, "loss | nan"]
    lines = sweep_table.markdown_table(table).splitlines()
    assert lines[0] == "# Steps: hct on synthetic; compare HCT, Table 3"
    assert lines[2:6] == [
        "|  | direct mAP | rank-1 | best mAP | rank-1 | rank-5 | rank-10 | last mAP | rank-1 | iterations | clusters | seconds | failed |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
        "| s = 7 | 5.0 ± 0.0 | 10.0 ± 0.0 | 40.0 ± 14.1 | 50.0 ± 14.1 | 60.0 ± 14.1 | 70.0 ± 14.1 | 25.0 ± 0.0 | 50.0 ± 0.0 | 3 ± 0 | 8 ± 0 | "
        "11 ± 1 |  |",
        "| s = 8 | 5.0 | 10.0 | 40.0 | 50.0 | 60.0 | 70.0 | 25.0 | 50.0 | 3 | 8 | 10 | seed 1: loss \\| nan |",
    ]
    assert lines[7].startswith("Mean ± standard deviation (n - 1) over the seeds 0, 1; accuracies in per cent")
