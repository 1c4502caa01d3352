"""The plots of a report: each a PNG, with what a reader sees in it."""

import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from reid_jax import atomic, label_errors
from reid_jax.data import verification
from reid_jax.pictures import plots
from reid_jax.reports import curves
from reid_jax.reports.report_runs import Run, Views
from reid_jax.runs import metrics_files

_CURVES = (
    "mAP", "rank1", "bcubed_f", "bcubed_precision", "bcubed_recall", "num_clusters", "loss", "selected",
    "reliable_precision", "reliable_cross_camera", "agreement", "silhouette",
)  # fmt: skip
_LEVEL_SCORES = {"bcubed_recall": "recall", "bcubed_precision": "precision", "bcubed_f": "F"}
_CMC_RANKS = 20
_SEED = 0


class Picture(NamedTuple):
    """A picture and what is said of it.

    Attributes:
        file: the PNG, in the report's folder.
        title: a few words.
        text: what is seen, for someone who has not read the papers.
        is_photo: whether it shows images of the data set, which JPEG keeps smaller.
    """

    file: pathlib.Path
    title: str
    text: str
    is_photo: bool = False


def all_curves(groups: Mapping[str, Sequence[Run]], folder: pathlib.Path) -> Picture | None:
    """Draws what runs logged over their iterations, seeds together; None where they logged nothing."""
    histories = {name: [run.records for run in runs] for name, runs in groups.items()}
    panels = {}
    for field in _CURVES:
        if any(curves.is_number(record.get(field)) for runs in histories.values() for run in runs for record in run):
            curves_of = curves.make_curves(histories, field)
            panels[curves.label_of(field)] = {name: runs for name, runs in curves_of.items() if any(map(len, runs))}
    if not panels:
        return None
    file = folder / "curves.png"
    plots.save_curves(file, panels)
    return Picture(
        file,
        "Over the iterations",
        "Iteration 0 is the model before any training here (direct transfer). mAP and rank-1 are measured with the "
        "test labels and were not used in training. BCubed compares the pseudo labels with the true identities: "
        "precision falls where different people share a cluster, recall where a person is in several. Agreement is how "
        "much the labels are those of the iteration before. With several seeds a line is their mean and a band their range.",
    )


def cmc(rankings: Mapping[str, Sequence[np.ndarray]], folder: pathlib.Path) -> Picture:
    """Draws the CMC curves of kept models."""
    file = folder / "cmc.png"
    plots.save_cmc(file, rankings, max_rank=_CMC_RANKS)
    return Picture(
        file,
        "Cumulative matching (CMC)",
        "For how many of the queries an image of the same person, by another camera, is among the k nearest images of "
        "the gallery, by the model that the run kept. Rank 1 is the share of queries whose first answer is right.",
    )


def sweep_values(table: Mapping[str, Any], file: pathlib.Path) -> Picture | None:
    """Draws a sweep's results over what it varies (BUC's Fig. 3a, PUL's 6, SSL's 4, HCD's 4).

    Returns:
        None where there are not two rows to compare.
    """
    accuracies = {
        title: [(row["mean"].get(field), row["std"].get(field)) for row in table["rows"]]
        for field, title in (("best_mAP", "mAP, best iteration"), ("best_rank1", "rank-1, best iteration"))
    }
    text = f"What comes of it when this option is changed; {table['method']} on {table['dataset']}."
    return _over_rows(table, accuracies, file, Picture(file, table["title"], text))


def sweep_selected(table: Mapping[str, Any], folder: pathlib.Path, file: pathlib.Path) -> Picture | None:
    """Draws how much a sweep's runs select in their first iteration over what it varies (PUL's Fig. 5a).

    Returns:
        None where the runs do not select samples, or there are not two rows to compare.
    """
    points = []
    for row in table["rows"]:
        # The sweep's folder may have been moved, and what its table names may be anything: its own runs are read.
        places = [folder.joinpath(*pathlib.PurePath(run["folder"]).parts[-2:]) for run in row["runs"]]
        shares = [_selected_first(place) for place in places]
        known = [share for share in shares if share is not None]
        std = float(np.std(known, ddof=1)) if len(known) > 1 else None
        points.append((float(np.mean(known)) if known else None, std))
    text = "How many of the samples are reliable enough to be trained on in the first iteration."
    title = f"{table['title']}: selected in iteration 1"
    return _over_rows(table, {"samples selected in iteration 1": points}, file, Picture(file, title, text))


def _selected_first(folder: pathlib.Path) -> float | None:
    """The part of the samples that a run selected in its first iteration; None: it does not say."""
    path = folder / metrics_files.NAME
    records = metrics_files.read_records(path, flag="workdir") if path.is_file() else []
    share = records[1].get("selected") if len(records) > 1 else None
    return share if curves.is_number(share) else None


def _over_rows(
    table: Mapping[str, Any],
    series: Mapping[str, Sequence[tuple[float | None, float | None]]],
    file: pathlib.Path,
    picture: Picture,
) -> Picture | None:
    """Draws (mean, standard deviation) of a sweep's rows over the value of the option that differs between them."""
    rows = table["rows"]
    kept = [place for place in range(len(rows)) if any(points[place][0] is not None for points in series.values())]
    # What all rows set alike is not what they differ in.
    varied = {
        name
        for place in kept
        for name in rows[place]["overrides"]
        if len({str(rows[other]["overrides"].get(name)) for other in kept}) > 1
    }
    if len(varied) == 1 and all(varied <= set(rows[place]["overrides"]) for place in kept):
        (option,) = varied
        values = [rows[place]["overrides"][option] for place in kept]
        if not all(map(curves.is_number, values)):
            values = list(map(str, values))
    else:  # several options, or a row that leaves the only one as it is
        option, values = "row of the sweep", [rows[place]["label"] for place in kept]
    if len(kept) < 2 or len(set(values)) < len(values):
        return None
    percent = {
        name: [tuple(None if value is None else 100 * value for value in points[place]) for place in kept]
        for name, points in series.items()
    }
    plots.save_values(file, values, percent, option=option)
    return picture


def embedding_map(run: Run, views: Views, pseudo_labels: np.ndarray | None, file: pathlib.Path) -> Picture | None:
    """Draws a t-SNE of train samples, coloured by identity, their shapes by what became of them (HCT, Fig. 3)."""
    samples, noun = views.dataset.samples["train"], run.noun
    # Of embeddings that are all the same, as a model that collapsed makes them, there is nothing to map.
    if len(views.mapped) < 4 or np.ptp(views.map_embeddings, axis=0).max() < 1e-6:
        return None
    from sklearn.manifold import TSNE  # its import takes a second

    print(f"{run.name}: t-SNE of {len(views.mapped):,} {noun}", flush=True)
    perplexity = min(30.0, (len(views.mapped) - 1) / 3)
    # PCA as a start keeps what is far apart apart, and needs no luck.
    positions = TSNE(init="pca", perplexity=perplexity, random_state=_SEED).fit_transform(views.map_embeddings)
    true_ids = views.dataset.train_ids
    known = (true_ids >= 0).any()
    outcomes = None
    if known and pseudo_labels is not None:
        outcomes = label_errors.sample_outcomes(pseudo_labels, true_ids)
        if run.selects:
            outcomes[pseudo_labels < 0] = label_errors.Outcome.LEFT_OUT
        outcomes = outcomes[views.mapped]
    clustered = not known and pseudo_labels is not None
    colours = pseudo_labels if clustered else true_ids
    plots.save_embedding_map(
        file,
        positions,
        colours[views.mapped],
        outcomes,
        title=f"{run.name}: training {noun} as the model sees them",
        noun=noun,
        group="cluster" if clustered else "person",
    )
    text = (
        f"t-SNE puts {len(views.mapped):,} of the {len(samples):,} training {noun} on a plane so that those the kept model "
        "finds alike are near each other. "
    )
    if known:
        text += "A colour is a person: a good model has a separate cloud for each. "
    elif clustered:
        text += "A colour is a cluster of the pseudo labels, since nobody said who is who. "
    if outcomes is not None:
        text += (
            "The shape says what the pseudo labels made of an image. A false "
            "positive is in a cluster that mostly shows someone else; a false negative is split off from the main "
            "cluster of its person."
        )
    return Picture(file, "What is near to what (t-SNE)", text)


def cluster_sizes(run: Run, pseudo_labels: np.ndarray, true_ids: np.ndarray, file: pathlib.Path) -> Picture:
    """Draws how large clusters are, beside how many samples people have."""
    selected = pseudo_labels[pseudo_labels >= 0] if run.selects else pseudo_labels
    sizes = {run.name: label_errors.cluster_sizes(selected)}
    known = true_ids[true_ids >= 0]
    if len(known):
        sizes[plots.TRUE_IDENTITIES] = label_errors.cluster_sizes(known)
    plots.save_cluster_sizes(file, sizes, noun=run.noun)
    text = f"How many {run.noun} the clusters of the pseudo labels have"
    text += ", beside how many there are of each person." if len(known) else "."
    if run.selects:
        text += f" Only those selected for training are counted, {len(selected):,} of {len(pseudo_labels):,}."
    return Picture(file, "Sizes of the clusters", text)


def levels(run: Run, file: pathlib.Path) -> Picture | None:
    """Draws the last labels over HCD's levels (its Fig. 5)."""
    if "level1_num_clusters" not in run.records[-1]:
        return None
    over = curves.by_level({run.name: [run.records]})
    known = [field for field in _LEVEL_SCORES if f"level1_{field}" in run.records[-1]]
    scores = {_LEVEL_SCORES[field]: curves.make_curves(over, field, over="level")[run.name] for field in known}
    panels = {"BCubed, per cent": scores} if scores else {}
    field = "num_clusters"
    panels[curves.label_of(field)] = {"clusters": curves.make_curves(over, field, over="level")[run.name]}
    plots.save_curves(file, panels, over="level", from_zero=True)
    text = (
        "The labels of the last iteration from the lowest level of clusters to the highest, which is trained on: from "
        "level to level clusters unite, recall rises and precision falls."
    )
    return Picture(file, "Level by level", text)


def hierarchy(run: Run, file: pathlib.Path) -> Picture | None:
    """Takes over the picture of one identity's hierarchy (HCD's Fig. 6) that a finished run has drawn."""
    drawn = run.folder / "hierarchy.png"
    if not drawn.is_file() or drawn.is_symlink() or verification.image_problem(drawn.read_bytes()) is not None:
        return None
    with atomic.atomic_path(file) as temporary:
        shutil.copyfile(drawn, temporary)
    text = "One person's images and the clusters they are in at every level, a bar for each; the uppermost is the top level."
    return Picture(file, "One person's clusters at every level", text, is_photo=True)
