"""The pictures of a report: each a PNG, with what a reader sees in it."""

import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.manifold import TSNE

from experiments import curves, report_runs
from experiments.report_runs import Run, Views
from experiments.setup_run import Dataset
from reid_jax import atomic, distances, image_rows, label_errors, report, types
from reid_jax.image_rows import Mark, Row, Tile

_CURVES = (
    "mAP", "rank1", "bcubed_f", "bcubed_precision", "bcubed_recall", "num_clusters", "loss", "selected",
    "reliable_precision", "reliable_cross_camera", "agreement", "silhouette",
)  # fmt: skip
_LEVEL_SCORES = {"bcubed_recall": "recall", "bcubed_precision": "precision", "bcubed_f": "F"}
_RANKED_QUERIES, _RANKED_IMAGES = 5, 10
_STRIPS, _STRIP_IMAGES, _GROUP_IMAGES = 6, 12, 4
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


def all_curves(groups: Mapping[str, Sequence[Run]], folder: pathlib.Path) -> Picture:
    """Draws what runs logged over their iterations, seeds together."""
    histories = {name: [run.records for run in runs] for name, runs in groups.items()}
    panels = {}
    for field in _CURVES:
        if any(curves.is_number(record.get(field)) for runs in histories.values() for run in runs for record in run):
            found = curves.make_curves(histories, field)
            panels[curves.label_of(field)] = {name: runs for name, runs in found.items() if any(map(len, runs))}
    file = folder / "curves.png"
    report.save_curves(file, panels)
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
    report.save_cmc(file, rankings, max_rank=_CMC_RANKS)
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


def sweep_selected(table: Mapping[str, Any], file: pathlib.Path) -> Picture | None:
    """Draws how much a sweep's runs select in their first iteration over what it varies (PUL's Fig. 5a).

    Returns:
        None where the runs do not select samples, or there are not two rows to compare.
    """
    points = []
    for row in table["rows"]:
        found = [_selected_first(pathlib.Path(run["folder"])) for run in row["runs"]]
        known = [share for share in found if share is not None]
        std = float(np.std(known, ddof=1)) if len(known) > 1 else None
        points.append((float(np.mean(known)) if known else None, std))
    text = "How many of the samples are reliable enough to be trained on in the first iteration."
    title = f"{table['title']}: selected in iteration 1"
    return _over_rows(table, {"samples selected in iteration 1": points}, file, Picture(file, title, text))


def _selected_first(folder: pathlib.Path) -> float | None:
    """The part of the samples that a run selected in its first iteration; None: it does not say."""
    path = folder / "metrics.jsonl"
    records = curves.read_records(path, flag="workdir") if path.is_file() else []
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
    varied = {name for place in kept for name in rows[place]["overrides"]}
    if len(varied) == 1 and all(rows[place]["overrides"] for place in kept):
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
    report.save_values(file, values, percent, option=option)
    return picture


def embedding_map(run: Run, views: Views, pseudo_labels: np.ndarray | None, file: pathlib.Path) -> Picture | None:
    """Draws a t-SNE of train samples, coloured by identity, their shapes by what became of them (HCT, Fig. 3)."""
    samples, noun = views.dataset.samples["train"], _noun(run)
    if len(views.mapped) < 4:
        return None
    print(f"{run.name}: t-SNE of {len(views.mapped):,} {noun}", flush=True)
    perplexity = min(30.0, (len(views.mapped) - 1) / 3)
    # PCA as a start keeps what is far apart apart, and needs no luck.
    positions = TSNE(init="pca", perplexity=perplexity, random_state=_SEED).fit_transform(views.map_embeddings)
    true_ids = views.dataset.train_ids
    known = (true_ids >= 0).any()
    outcomes = None
    if known and pseudo_labels is not None:
        outcomes = label_errors.sample_outcomes(pseudo_labels, true_ids)
        if _selects(run):
            outcomes[pseudo_labels < 0] = label_errors.Outcome.LEFT_OUT
        outcomes = outcomes[views.mapped]
    coloured = true_ids if known or pseudo_labels is None else pseudo_labels
    report.save_embedding_map(
        file, positions, coloured[views.mapped], outcomes, title=f"{run.name}: training {noun} as the model sees them", noun=noun
    )
    text = (
        f"t-SNE puts {len(views.mapped):,} of the {len(samples):,} training {noun} on a plane so that those the kept model "
        "finds alike are near each other. "
    )
    if known:
        text += "A colour is a person: a good model has a separate cloud for each. "
    else:
        text += "A colour is a cluster of the pseudo labels, since nobody said who is who. "
    if outcomes is not None:
        text += (
            "The shape says what the pseudo labels of the iteration it was trained in made of an image. A false "
            "positive is in a cluster that mostly shows someone else; a false negative is split off from the main "
            "cluster of its person."
        )
    return Picture(file, "What is near to what (t-SNE)", text)


def cluster_sizes(run: Run, pseudo_labels: np.ndarray, true_ids: np.ndarray, file: pathlib.Path) -> Picture:
    """Draws how large clusters are, beside how many samples people have."""
    selected = pseudo_labels[pseudo_labels >= 0] if _selects(run) else pseudo_labels
    sizes = {run.name: label_errors.cluster_sizes(selected)}
    known = true_ids[true_ids >= 0]
    if len(known):
        sizes[report.TRUE_IDENTITIES] = label_errors.cluster_sizes(known)
    report.save_cluster_sizes(file, sizes, noun=_noun(run))
    text = f"How many {_noun(run)} the clusters of the pseudo labels have"
    text += ", beside how many there are of each person." if len(known) else "."
    if _selects(run):
        text += f" Only those selected for training are counted, {len(selected):,} of {len(pseudo_labels):,}."
    return Picture(file, "Sizes of the clusters", text)


def largest_clusters(run: Run, dataset: Dataset, pseudo_labels: np.ndarray, file: pathlib.Path) -> Picture | None:
    """Draws some samples of the largest clusters, where nobody said who is who and there is nothing to compare with."""
    names, counts = np.unique(pseudo_labels[pseudo_labels >= 0], return_counts=True)
    rows = []
    for place in np.argsort(-counts, kind="stable")[:_STRIPS]:
        members = _spread(np.flatnonzero(pseudo_labels == names[place]), _STRIP_IMAGES)
        tiles = [Tile(image) for image in report_runs.images_of(dataset, "train", members)]
        rows.append(Row(f"cluster {names[place]}: {counts[place]:,} {_noun(run)}", tiles))
    if not rows:
        return None
    _save(image_rows.draw_rows(rows), file)
    text = "Some images of each of the largest clusters of the pseudo labels: whom the labels take for one person."
    return Picture(file, "Largest clusters", text, is_photo=True)


def wrong_merges(run: Run, dataset: Dataset, pseudo_labels: np.ndarray, file: pathlib.Path) -> Picture | None:
    """Draws the clusters that hold most wrong pairs."""
    true_ids = _judged(run, dataset, pseudo_labels)
    rows = []
    for mixture in label_errors.largest_wrong_merges(pseudo_labels, true_ids, most=_STRIPS):
        total = sum(map(len, mixture.groups))
        title = (
            f"cluster {mixture.label}: {total} {_noun(run)} of {len(mixture.groups)} people, "
            f"{mixture.num_wrong_pairs:,} pairs wrongly together"
        )
        rows.append(_strip(dataset, title, mixture.groups, [f"person {true_ids[group[0]]}" for group in mixture.groups]))
    if not rows:
        return None
    _save(image_rows.draw_rows(rows, legend={Mark.RIGHT: "the cluster's main person", Mark.WRONG: "somebody else"}), file)
    text = (
        "The clusters with most pairs of different people: whom the labels take for one person. A few images of each, "
        "those with the most first."
    )
    return Picture(file, "Largest wrong merges", text, is_photo=True)


def wrong_splits(run: Run, dataset: Dataset, pseudo_labels: np.ndarray, file: pathlib.Path) -> Picture | None:
    """Draws the people who are spread over clusters with most missing pairs."""
    rows = []
    true_ids = _judged(run, dataset, pseudo_labels)
    for mixture in label_errors.largest_wrong_splits(pseudo_labels, true_ids, most=_STRIPS):
        total = sum(map(len, mixture.groups))
        title = (
            f"person {mixture.label}: {total} {_noun(run)} in {len(mixture.groups)} clusters, "
            f"{mixture.num_wrong_pairs:,} pairs wrongly apart"
        )
        names = [pseudo_labels[group[0]] for group in mixture.groups]
        rows.append(
            _strip(dataset, title, mixture.groups, [f"cluster {name}" if name >= 0 else "in none" for name in names])
        )
    if not rows:
        return None
    _save(image_rows.draw_rows(rows, legend={Mark.RIGHT: "the person's main cluster", Mark.WRONG: "another cluster"}), file)
    text = "The people most of whose pairs are in different clusters: whom the labels take for several people."
    return Picture(file, "Largest wrong splits", text, is_photo=True)


def _selects(run: Run) -> bool:
    """Whether a negative pseudo label says that the sample was not selected for training, not that it is alone."""
    return run.method == "pul"


def _judged(run: Run, dataset: Dataset, pseudo_labels: np.ndarray) -> np.ndarray:
    """The train samples' identities; -1 for those that the pseudo labels say nothing of."""
    return np.where((pseudo_labels < 0) & _selects(run), types.UNKNOWN, dataset.train_ids)


def _strip(dataset: Dataset, title: str, groups: Sequence[np.ndarray], captions: Sequence[str]) -> Row:
    """A row with a few samples of each of several groups, the first group's marked as right."""
    per_group = max(1, min(_GROUP_IMAGES, _STRIP_IMAGES // min(len(groups), _STRIP_IMAGES)))
    chosen = [
        (index, caption, Mark.RIGHT if place == 0 else Mark.WRONG)
        for place, (group, caption) in enumerate(zip(groups, captions))
        for index in _spread(group, per_group)
    ][:_STRIP_IMAGES]
    images = report_runs.images_of(dataset, "train", [index for index, _, _ in chosen])
    return Row(title, [Tile(image, caption, mark) for image, (_, caption, mark) in zip(images, chosen)])


def _spread(group: np.ndarray, most: int) -> np.ndarray:
    """A few of a group, evenly spaced: neighbours in it are often frames of one moment."""
    return group[np.linspace(0, len(group) - 1, min(most, len(group))).round().astype(int)]


def reliable_samples(run: Run, dataset: Dataset, reliable: np.ndarray, file: pathlib.Path) -> Picture | None:
    """Draws samples with their reliable ones (SSL), those with the fewest right ones first."""
    true_ids = dataset.train_ids
    if not (true_ids >= 0).any():
        return None
    is_right = (true_ids[reliable] == true_ids[:, None]) & (true_ids[:, None] >= 0)
    judged = np.flatnonzero(true_ids >= 0)
    worst = judged[np.argsort(is_right[judged].sum(axis=1), kind="stable")[:_STRIPS]]
    rows = []
    for index in worst:
        tiles = [Tile(report_runs.images_of(dataset, "train", [index])[0], f"person {true_ids[index]}", Mark.QUERY)]
        images = report_runs.images_of(dataset, "train", reliable[index])
        tiles += [
            Tile(image, f"person {true_ids[other]}", Mark.RIGHT if right else Mark.WRONG)
            for image, other, right in zip(images, reliable[index], is_right[index])
        ]
        rows.append(Row(f"{is_right[index].sum()} of {reliable.shape[1]} are of the same person", tiles))
    _save(image_rows.draw_rows(rows, legend={Mark.QUERY: "an image", Mark.RIGHT: "reliable, right", Mark.WRONG: "reliable, wrong"}), file)
    text = (
        "This method has no clusters: every image is trained to be like the few it is most similar to, its reliable "
        f"ones. {100 * is_right[judged].mean():.1f}% of them are right; these are images with the fewest right ones."
    )
    return Picture(file, "Least reliable images", text, is_photo=True)


def ranked_lists(run: Run, views: Views, file: pathlib.Path, *, best: bool) -> Picture | None:
    """Draws the nearest gallery images of the queries with the greatest or the least average precision."""
    ap = views.ranking.ap
    valid = np.flatnonzero(~np.isnan(ap))
    if not len(valid):
        return None
    query, gallery = (views.dataset.samples[split] for split in ("query", "gallery"))
    order = valid[np.argsort(-ap[valid] if best else ap[valid], kind="stable")]
    # One query of a person is enough to see.
    _, firsts = np.unique(query.pids[order], return_index=True)
    chosen = order[np.sort(firsts)][:_RANKED_QUERIES]
    found = np.asarray(distances.pairwise_distances(views.query[chosen], views.gallery, metric="cosine"))
    rows = []
    for row, index in zip(found, chosen):
        pid, camid = query.pids[index], query.camids[index]
        is_seen = (gallery.pids == pid) & (gallery.camids == camid) & (camid != types.UNKNOWN)
        candidates = np.flatnonzero(~is_seen & (gallery.pids != types.UNKNOWN))
        ranked = candidates[np.argsort(row[candidates], kind="stable")]
        is_right = gallery.pids[ranked] == pid
        tiles = [Tile(report_runs.images_of(views.dataset, "query", [index])[0], "query", Mark.QUERY)]
        shown = ranked[:_RANKED_IMAGES]
        for place, image in enumerate(report_runs.images_of(views.dataset, "gallery", shown)):
            mark = Mark.RIGHT if is_right[place] else Mark.WRONG
            tiles.append(Tile(image, f"{place + 1}: {row[shown[place]]:.3f}", mark))
        title = (
            f"{query.names[index]}: average precision {100 * ap[index]:.1f}%, {is_right.sum()} right images in the "
            f"gallery, the first at rank {int(np.argmax(is_right)) + 1}, the last at {int(np.flatnonzero(is_right)[-1]) + 1}"
        )
        rows.append(Row(title, tiles))
    _save(image_rows.draw_rows(rows, legend={Mark.RIGHT: "the same person", Mark.WRONG: "somebody else"}), file)
    name = "Best" if best else "Worst"
    text = (
        f"The queries with the {'greatest' if best else 'least'} average precision, one for each person, and the gallery "
        "images nearest to them: rank and distance (1 - cosine). Images of the same person by the query's own camera are "
        "left out, as in the evaluation."
    )
    return Picture(file, f"{name} queries", text, is_photo=True)


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
    report.save_curves(file, panels, over="level", from_zero=True)
    text = (
        "The labels of the last iteration from the lowest level of clusters to the highest, which is trained on: from "
        "level to level clusters unite, recall rises and precision falls."
    )
    return Picture(file, "Level by level", text)


def hierarchy(run: Run, file: pathlib.Path) -> Picture | None:
    """Takes over the picture of one identity's hierarchy (HCD's Fig. 6) that a finished run has drawn."""
    drawn = run.folder / "hierarchy.png"
    if not drawn.is_file():
        return None
    with atomic.atomic_path(file) as temporary:
        shutil.copyfile(drawn, temporary)
    text = "One person's images and the clusters they are in at every level, a bar for each; the uppermost is the top level."
    return Picture(file, "One person's clusters at every level", text, is_photo=True)


def _noun(run: Run) -> str:
    return "tracklets" if run.config["data"].get("tracklets") else "images"


def _save(picture, file: pathlib.Path) -> None:
    with atomic.atomic_path(file) as temporary:
        picture.save(temporary)
