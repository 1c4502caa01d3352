"""Writes a report of runs: one HTML file that opens in any browser, and its pictures.

    python experiments/report.py --workdir=runs/hct_synthetic
    python experiments/report.py --workdir=runs/hct_synthetic,runs/buc_synthetic --output=runs/comparison
    python experiments/report.py --workdir=runs/hct_merge_steps                # a sweep's folder

The report has a table of results beside the papers' figures, what the runs logged over their iterations, CMC curves,
and of some runs what the labels and the model do: a t-SNE with right and wrong pseudo labels, the sizes of clusters, the
largest wrong merges and splits, and the queries that are ranked best and worst. The pictures need the extra `.[viz]`.
The model that a run kept embeds its data for that, which is kept in the run's folder embeddings/ for the next report.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags

from reid_jax import atomic, errors
from reid_jax.cli import program
from reid_jax.reports import paper_figures, report_page, report_pictures, report_runs, report_strips
from reid_jax.reports.report_pictures import Picture
from reid_jax.reports.report_runs import Run
from reid_jax.runs import logs

_TITLES = (
    "run", "data set", "iterations", "direct transfer", "best (iteration)", "rank-1", "rank-5", "rank-10", "mINP", "last",
    "label-free choice", "clusters", "BCubed P / R / F", "seconds",
)  # fmt: skip
_PAGE, _PICTURES = "report.html", ("curves.png", "cmc.png", "run[0-9]*_*.png", "sweep[0-9]*.png")
_SCORES = ("mAP", "rank1", "rank5", "rank10", "mINP")
_INTRODUCTION = (
    "Person re-identification: given an image of a person, find the person's images by other cameras in a gallery. "
    "Training goes in iterations: the model embeds all images, like ones are put into clusters, and the model is trained "
    "as if each cluster were a person. These guesses at who is who are the pseudo labels. "
    "Unless their name says otherwise, these runs learned it without labels of the people in their target's training "
    "images; labels are used here to measure it. "
    "mAP (mean average precision) is 100 where all images of the person come before all others; rank-k is the share of "
    "queries with a right image among the first k; mINP is low where one image of the person comes very late."
)
_TABLE_NOTE = (
    "In per cent. The first rows need no training: colours alone, and what runs start from with the best post-processing "
    "that needs no label. Direct transfer, best, last and label-free choice are mAP. Direct transfer is the model before any "
    "training here, best the iteration with the greatest mAP, chosen by the test labels as the papers do, label-free choice "
    "the iteration that a signal without labels chooses, for those who have none. Clusters and BCubed are of the best "
    "iteration's pseudo labels, in which images that no cluster took are clusters of their own: with precision 100 no cluster holds two people, with recall 100 nobody is in two clusters. "
    "Where runs differ only in their seeds there is their mean and standard deviation (n - 1)."
)
_PAPER_NOTE = (
    "What the papers report for these methods, on data sets of photographs and with a ResNet-50. These figures are the "
    "papers', not measured here."
)


def main() -> None:
    """Writes the report that the flags ask for."""
    args = flags.FLAGS
    # A folder's name may have a comma in it.
    lists = [[value] if pathlib.Path(value).is_dir() else value.split(",") for value in args.workdir]
    folders = [folder for values in lists for folder in values if folder]
    if not folders:
        raise errors.UserError("--workdir is needed: one or several run directories, separated by commas")
    if args.output is None and len(folders) > 1:
        raise errors.UserError("--output is needed with several runs: the folder to write the report to")
    output = pathlib.Path(args.output or pathlib.Path(folders[0], "report"))
    if output.exists() and not output.is_dir():
        raise errors.UserError(f"--output: {str(output)!r} must be a folder, it is a file")
    write_report(folders, output, details=args.details, batch_size=args.batch_size, data_dir=args.data_dir)


def write_report(
    folders: Sequence[str], output: pathlib.Path, *, details: int, batch_size: int, data_dir: str | None = None
) -> pathlib.Path:
    """Writes the report of all runs in folders and says so on standard output.

    Args:
        folders: run directories or sweeps' folders.
        output: the folder to write to; made if it is not there.
        details: how many runs are looked at closely.
        batch_size: images embedded at a time.
        data_dir: where the runs' data sets were prepared; None: where each run had its own.

    Returns:
        The page.

    Raises:
        UserError: a folder holds no run, or a run's model or data cannot be read.
    """
    runs = report_runs.find_runs(folders)
    groups = report_runs.group_runs(runs)
    output.mkdir(parents=True, exist_ok=True)
    if (output / _PAGE).exists():  # an earlier report's pictures must not stay beside this one's
        for pattern in _PICTURES:
            for picture in output.glob(pattern):
                picture.unlink()
    title = ", ".join(groups) if len(groups) <= 3 else f"{len(runs)} runs"
    parts: list[str | Picture] = [report_page.heading(1, f"Report: {title}"), report_page.paragraph(_INTRODUCTION)]
    parts += [report_page.heading(2, "Results"), results_table(groups), report_page.paragraph(_TABLE_NOTE)]
    parts += [*learned_notes(runs), *unmeasured_note(runs)]
    parts += papers_table({run.method for run in runs if "mAP" in run.records[0]})
    logged = [report_pictures.all_curves(groups, output), *sweep_pictures(folders, output)]
    parts += [report_page.heading(2, "What was logged"), *(picture for picture in logged if picture is not None)]

    detailed = choose_detailed(groups, most=details)
    anchors = {f"run{number}": run for number, run in enumerate(detailed, start=1)}
    rankings, about = {}, []
    for anchor, run in anchors.items():
        cmc, closely = one_run(run, output, anchor, batch_size=batch_size, data_dir=data_dir)
        if cmc is not None:
            (group,) = [name for name, members in groups.items() if run in members]
            rankings.setdefault(group, []).append(cmc)
        about += [report_page.heading(2, f"{run.name}: {run.method} on {run.described_data}", anchor), *closely]
    if rankings:
        parts.append(report_pictures.cmc(rankings, output))
    if len(detailed) < len(runs):
        parts.append(
            report_page.paragraph(f"{len(detailed)} of the {len(runs)} runs are looked at closely (--details).")
        )
    parts.append(report_page.links({anchor: run.name for anchor, run in anchors.items()}))
    page = output / _PAGE
    with atomic.atomic_path(page) as temporary:
        text = report_page.page(f"Report: {title}", [*parts, *about])
        temporary.write_text(text, encoding="utf-8", errors="replace")
    print(f"report of {len(runs)} run{'s' * (len(runs) > 1)}, {page.stat().st_size / 1e6:.1f} MB: {page}", flush=True)
    return page


def choose_detailed(groups: Mapping[str, Sequence[Run]], *, most: int) -> list[Run]:
    """Chooses the runs that are looked at closely: the first of each group, then the second ones, and so on."""
    longest = max(map(len, groups.values()))
    in_turn = [runs[place] for place in range(longest) for runs in groups.values() if place < len(runs)]
    return in_turn[:most]


def one_run(
    run: Run, folder: pathlib.Path, prefix: str, *, batch_size: int, data_dir: str | None = None
) -> tuple[np.ndarray | None, list[str | Picture]]:
    """Looks at what the model that a run kept does: its CMC curve, where there are queries, and pictures."""
    views = report_runs.look(run, batch_size=batch_size, data_dir=data_dir)
    labels = report_runs.load_pseudo_labels(run, views.dataset)
    clusters = reliable = None
    if labels is not None and run.method == "softened":
        reliable = labels
    elif labels is not None:
        clusters = labels if labels.ndim == 1 else labels[:, -1]  # of levels the top one is trained on
    kept = run.records[run.kept]["iteration"]
    about = f"Of the model that the run kept, of iteration {kept}, and the pseudo labels of iteration {max(kept, 1)}."
    notes = [report_page.paragraph(about)]
    if not run.is_finished:
        notes.append(report_page.paragraph("The run has not finished: this is how far it is."))

    def file(name: str) -> pathlib.Path:
        return folder / f"{prefix}_{name}.png"

    pictures = [report_pictures.embedding_map(run, views, clusters, file("map"))]
    if clusters is not None:
        pictures.append(report_pictures.cluster_sizes(run, clusters, views.dataset.train_ids, file("sizes")))
        if (views.dataset.train_ids >= 0).any():
            pictures.append(report_strips.wrong_merges(run, views.dataset, clusters, file("wrong_merges")))
            pictures.append(report_strips.wrong_splits(run, views.dataset, clusters, file("wrong_splits")))
        else:
            pictures.append(report_strips.largest_clusters(run, views.dataset, clusters, file("largest_clusters")))
    if reliable is not None:
        pictures.append(report_strips.reliable_samples(run, views.dataset, reliable, file("reliable")))
    pictures += [report_pictures.levels(run, file("levels")), report_pictures.hierarchy(run, file("hierarchy"))]
    if views.ranking is not None:
        pictures.append(report_strips.ranked_lists(run, views, file("worst_queries"), best=False))
        pictures.append(report_strips.ranked_lists(run, views, file("best_queries"), best=True))
    shown = [picture for picture in pictures if picture is not None]
    cmc = None if views.ranking is None else views.ranking.cmc
    return cmc, [*notes, *shown, report_page.details("All options of this run", run.config)]


def sweep_pictures(folders: Sequence[str], output: pathlib.Path) -> list[Picture]:
    """Draws the results of those folders that are sweeps' over what they vary."""
    pictures = []
    for number, folder in enumerate(folders, start=1):
        path = pathlib.Path(folder, "table.json")
        if path.exists():
            table = logs.read_json(path)
            pictures.append(report_pictures.sweep_values(table, output / f"sweep{number}.png"))
            pictures.append(report_pictures.sweep_selected(table, path.parent, output / f"sweep{number}_selected.png"))
    return [picture for picture in pictures if picture is not None]


def results_table(groups: Mapping[str, Sequence[Run]]) -> str:
    """The table of results: a row for each run, and one for the mean of runs that differ in their seeds."""
    rows, means = _baseline_rows([run for runs in groups.values() for run in runs]), []
    for name, runs in groups.items():
        rows += [_result_row(run) for run in runs]
        finished = [run for run in runs if run.is_finished]
        if len(finished) > 1:
            means.append(len(rows))
            rows.append(_mean_row(name, finished))
    return report_page.table(_TITLES, rows, means=means)


def _baseline_rows(runs: Sequence[Run]) -> list[list[str]]:
    """What needs no training, measured on the same images: first in the table, each once for a data set."""
    rows = {}
    for run in runs:
        for name, scores in run.baselines.items():
            # What starts from the same weights has the same scores.
            row = [name, run.described_data, "", "", *(_percent(scores[field]) for field in _SCORES)]
            rows.setdefault(tuple(row), [*row, *[""] * (len(_TITLES) - len(row))])
    return list(rows.values())


def learned_notes(runs: Sequence[Run]) -> list[str]:
    """What the runs' models learned from, with or without labels of people; alike ones in one paragraph."""
    names: dict[str, list[str]] = {}
    for run in runs:
        names.setdefault(run.learned_from, []).append(run.name)
    return [
        report_page.paragraph(f"{', '.join(group)} learned from {learned_from}.")
        for learned_from, group in names.items()
        if learned_from
    ]


def unmeasured_note(runs: Sequence[Run]) -> list[str]:
    """What is to be said of runs on data whose people nobody has named."""
    names = [run.name for run in runs if "mAP" not in run.records[0]]
    if not names:
        return []
    return [
        report_page.paragraph(
            f"Of {', '.join(names)} no accuracy could be measured, since nobody said who is who: the number in brackets is the "
            "iteration whose model was kept, chosen by a signal without labels. Clusters are those that its training began "
            "with; the trained model's own groups, which are better as a rule, are made by `reid group`."
        )
    ]


def _result_row(run: Run) -> list[str]:
    first, best, last = run.records[0], run.records[run.kept], run.records[-1]
    label_free = run.records[run.label_free] if run.label_free is not None else {}
    seconds = sum(sum(record["seconds"].values()) for record in run.records)
    scores = [best.get(f"bcubed_{name}") for name in ("precision", "recall", "f")]
    kept = _percent(best.get("mAP"))
    return [
        run.name + ("" if run.is_finished else " (not finished)"),
        run.described_data,
        str(len(run.records) - 1),
        _percent(first.get("mAP")),
        f"{kept} ({best['iteration']})",
        *(_percent(best.get(field)) for field in _SCORES[1:]),
        _percent(last.get("mAP")),
        _percent(label_free.get("mAP")),
        f"{best['num_clusters']:,}" if "num_clusters" in best else "–",
        "–" if None in scores else " / ".join(map(_percent, scores)),
        f"{seconds:,.0f}",
    ]


def _mean_row(name: str, runs: Sequence[Run]) -> list[str]:
    kept = [run.records[run.kept] for run in runs]
    label_free = [run.records[run.label_free] if run.label_free is not None else {} for run in runs]
    best = [_mean([record.get(field) for record in kept]) for field in _SCORES]
    return [
        f"{name}: mean of {len(runs)} seeds",
        runs[0].described_data,
        "",
        _mean([run.records[0].get("mAP") for run in runs]),
        *best,
        _mean([run.records[-1].get("mAP") for run in runs]),
        _mean([record.get("mAP") for record in label_free]),
        *[""] * 3,
    ]


def _percent(value: Any) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _mean(values: Sequence[float | None]) -> str:
    known = [100 * value for value in values if value is not None]
    if len(known) < 2:
        return "–"
    return f"{np.mean(known):.1f} ± {np.std(known, ddof=1):.1f}"


def papers_table(methods: set[str]) -> list[str]:
    """The papers' figures for methods, with what they are; nothing for methods that no paper has figures of."""
    figures = paper_figures.figures_of(methods)
    if not figures:
        return []
    titles = ("the papers' figures", "data set", "rank-1", "mAP", "source")
    rows = [
        (figure.name, figure.dataset, f"{figure.rank1:.1f}", f"{figure.mAP:.1f}", figure.source) for figure in figures
    ]
    note = report_page.paragraph(_PAPER_NOTE)
    return [report_page.heading(2, "The papers' figures"), note, report_page.table(titles, rows)]


def define_flags() -> None:
    """Defines the command line."""
    program.group("Input")
    flags.DEFINE_multi_string(
        "workdir", [], "Run directories or folders of sweeps, separated by commas, or the flag several times."
    )
    program.group("Output")
    flags.DEFINE_string("output", None, "Folder for report.html and its pictures; for one run RUN/report if not given.")
    flags.DEFINE_integer("details", 3, "How many runs are looked at closely.", lower_bound=0, upper_bound=20)
    program.group("Models and data")
    flags.DEFINE_string("data_dir", None, "Where the data sets were prepared; where each run had its own if not given.")
    flags.DEFINE_integer("batch_size", 256, "Images embedded at a time.", lower_bound=1)


if __name__ == "__main__":
    program.run(main, define_flags)
