"""Rows of images in a report: whom pseudo labels take for one person or for several, and what is ranked how."""

import pathlib
from collections.abc import Sequence

import numpy as np

from reid_jax import atomic, distances, identities, label_errors
from reid_jax.pictures import image_rows
from reid_jax.pictures.image_rows import Mark, Row, Tile
from reid_jax.reports import report_runs
from reid_jax.reports.report_pictures import Picture
from reid_jax.reports.report_runs import Run, Views
from reid_jax.runs.dataset import Dataset

_RANKED_QUERIES, _RANKED_IMAGES = 5, 10
_STRIPS, _STRIP_IMAGES, _GROUP_IMAGES = 6, 12, 4


def largest_clusters(run: Run, dataset: Dataset, pseudo_labels: np.ndarray, file: pathlib.Path) -> Picture | None:
    """Draws some samples of the largest clusters, where nobody said who is who and there is nothing to compare with."""
    names, counts = np.unique(pseudo_labels[pseudo_labels >= 0], return_counts=True)
    rows = []
    for place in np.argsort(-counts, kind="stable")[:_STRIPS]:
        members = _spread(np.flatnonzero(pseudo_labels == names[place]), _STRIP_IMAGES)
        tiles = [Tile(image) for image in report_runs.images_of(dataset, "train", members)]
        rows.append(Row(f"cluster {names[place]}: {counts[place]:,} {run.noun}", tiles))
    if not rows:
        return None
    _save(image_rows.draw_rows(rows), file)
    text = "Some images of each of the largest clusters of the pseudo labels: whom the labels take for one person."
    return Picture(file, "Largest clusters", text, is_photo=True)


def wrong_merges(run: Run, dataset: Dataset, pseudo_labels: np.ndarray, file: pathlib.Path) -> Picture | None:
    """Draws the clusters that hold most wrong pairs."""
    true_ids, pids = _judged(run, dataset, pseudo_labels), dataset.samples["train"].pids
    rows = []
    for mixture in label_errors.largest_wrong_merges(pseudo_labels, true_ids, most=_STRIPS):
        total = sum(map(len, mixture.groups))
        title = (
            f"cluster {mixture.label}: {total} {run.noun} of {len(mixture.groups)} people, "
            f"{mixture.num_wrong_pairs:,} pairs wrongly together"
        )
        rows.append(_strip(dataset, title, mixture.groups, [f"person {pids[group[0]]}" for group in mixture.groups]))
    if not rows:
        return None
    _save(
        image_rows.draw_rows(rows, legend={Mark.RIGHT: "the cluster's main person", Mark.WRONG: "somebody else"}), file
    )
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
            f"person {dataset.samples['train'].pids[mixture.groups[0][0]]}: {total} {run.noun} in {len(mixture.groups)} clusters, "
            f"{mixture.num_wrong_pairs:,} pairs wrongly apart"
        )
        names = [pseudo_labels[group[0]] for group in mixture.groups]
        rows.append(
            _strip(dataset, title, mixture.groups, [f"cluster {name}" if name >= 0 else "in none" for name in names])
        )
    if not rows:
        return None
    _save(
        image_rows.draw_rows(rows, legend={Mark.RIGHT: "the person's main cluster", Mark.WRONG: "another cluster"}),
        file,
    )
    text = "The people most of whose pairs are in different clusters: whom the labels take for several people."
    return Picture(file, "Largest wrong splits", text, is_photo=True)


def _judged(run: Run, dataset: Dataset, pseudo_labels: np.ndarray) -> np.ndarray:
    """The train samples' identities; -1 for those that the pseudo labels say nothing of."""
    return np.where((pseudo_labels < 0) & run.selects, identities.UNKNOWN, dataset.train_ids)


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
    """Draws samples with their reliable ones (SSL), those with the fewest right ones first.

    Args:
        run: of softened similarity.
        dataset: with its images.
        reliable: [N, k] indices of train samples.
        file: to write.

    Returns:
        None where no identity is known, or each sample's only reliable one is itself, as in the first iteration.
    """
    true_ids, pids = dataset.train_ids, dataset.samples["train"].pids
    is_judged = (true_ids[reliable] >= 0) & (true_ids[:, None] >= 0)
    is_right = (true_ids[reliable] == true_ids[:, None]) & is_judged
    if not is_judged.any() or (reliable == np.arange(len(reliable))[:, None]).all():
        return None
    judged = np.flatnonzero(is_judged.any(axis=1))
    worst = judged[np.argsort(is_right[judged].sum(axis=1), kind="stable")]
    # One sample of a person is enough to see.
    worst = worst[np.sort(np.unique(pids[worst], return_index=True)[1])][:_STRIPS]
    rows = []
    for index in worst:
        image, *others = report_runs.images_of(dataset, "train", [index, *reliable[index]])
        tiles = [Tile(image, f"person {pids[index]}", Mark.QUERY)]
        for other, shown, right, known in zip(reliable[index], others, is_right[index], is_judged[index]):
            mark = Mark.RIGHT if right else Mark.WRONG if known else Mark.NEUTRAL
            tiles.append(Tile(shown, f"person {pids[other]}" if known else "not known", mark))
        rows.append(Row(f"{is_right[index].sum()} of {is_judged[index].sum()} are of the same person", tiles))
    words = {Mark.QUERY: "an image", Mark.RIGHT: "reliable, right", Mark.WRONG: "reliable, wrong"}
    _save(image_rows.draw_rows(rows, legend=words), file)
    text = (
        "This method has no clusters: every image is trained to be like the few it is most similar to, its reliable "
        f"ones. {100 * is_right[is_judged].mean():.1f}% of them are right; these are images with the fewest right ones."
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
    query_distances = np.asarray(distances.pairwise_distances(views.query[chosen], views.gallery, metric=views.metric))
    rows = []
    for row, index in zip(query_distances, chosen):
        pid, camid = query.pids[index], query.camids[index]
        is_seen = (gallery.pids == pid) & (gallery.camids == camid) & (camid != identities.UNKNOWN)
        candidates = np.flatnonzero(~is_seen & (gallery.pids != identities.UNKNOWN))
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
        "images nearest to them: rank and distance. Images of the same person by the query's own camera are "
        "left out, as in the evaluation."
    )
    return Picture(file, f"{name} queries", text, is_photo=True)


def _save(picture, file: pathlib.Path) -> None:
    with atomic.atomic_path(file) as temporary:
        picture.save(temporary)
