"""A gallery ranked for every query, and the limit beyond which the nearest is nobody."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from reid_jax import errors, identities
from reid_jax.distances import Reranking
from reid_jax.progress import ProgressBar
from reid_jax.retrieval import gallery_search, open_set
from reid_jax.retrieval.collection import Collection

_MUCH_LARGER = 2  # times as many images make more false alarms
# Images of a person are alike: a rate is as certain as the number of people makes it, whatever that of images.
_FEW_PEOPLE = 50
_MOST_CALIBRATION = 20_000  # images; each is compared with all others


class Match(NamedTuple):
    """One line of a query's ranked list.

    Attributes:
        distance: 1 - cosine, 0..2; after re-ranking the re-ranked one, 0..1, which is that of no other search.
        index: in the gallery.
        is_near: whether it is within the limit.
    """

    distance: float
    index: int
    is_near: bool


def rank(
    queries: Collection,
    gallery: Collection,
    *,
    top: int,
    max_distance: float = np.inf,
    rerank: Reranking | None = None,
) -> list[list[Match]]:
    """Ranks the gallery for every query; an image is never its own match.

    Args:
        queries: Q items.
        gallery: of the same model.
        top: length of a list, where the gallery has as many.
        max_distance: of matches that are near; infinite: all are.
        rerank: ranks by re-ranked distances, as `gallery_search.search_reranked` does, and holds all embeddings of the
            gallery. None: by 1 - cosine.

    Returns:
        Q lists, the nearest first.

    Raises:
        ValueError: max_distance is finite where there is re-ranking; or a number of rerank is out of its range.
    """
    if rerank is not None and np.isfinite(max_distance):
        raise ValueError(
            "max_distance must be infinite with rerank, whose distances depend on everyone in the gallery, got "
            f"{max_distance}"
        )
    # One more than asked for: a query that is in the gallery is its own nearest.
    ranking = _nearest(queries, gallery, min(top + 1, len(gallery)), rerank)
    ranked = []
    for query, (distances, indices) in enumerate(zip(*ranking)):
        own = queries.place(query)
        others = [
            Match(float(distance), int(index), bool(distance <= max_distance))
            for distance, index in zip(distances, indices)
            if index >= 0 and (own is None or gallery.place(index) != own)
        ]
        ranked.append(others[:top])
    return ranked


def _nearest(queries: Collection, gallery: Collection, k: int, rerank: Reranking | None) -> gallery_search.Ranking:
    """Returns the k nearest of the gallery."""
    total, unit = (len(gallery), "images") if rerank is None else (len(queries), "queries")
    done = 0

    def show(number: int) -> None:
        nonlocal done
        bar.update(number - done)
        done = number

    with ProgressBar(total, f"searching {gallery.source}", unit=unit) as bar:
        if rerank is None:
            return gallery_search.search_gallery(queries.embeddings(), gallery.blocks(), k=k, progress=show)
        return gallery_search.search_reranked(
            queries.embeddings(), gallery.embeddings(), k=k, rerank=rerank, progress=show
        )


def calibrate(labelled: Collection, gallery: Collection, *, false_alarms: float) -> float:
    """Chooses the limit on the distance, and says on standard output what it does.

    Args:
        labelled: images of known people.
        gallery: what will be searched.
        false_alarms: the greatest part of images of people who are not in the gallery that may be taken for someone.

    Raises:
        UserError: there are not two known people.
    """
    if len(_people(labelled.pids)) < 2:
        raise errors.UserError(
            f"the images of {labelled.source!r} must be of two known people at least: a folder with a "
            "sub-folder for each person, or an .npz with pids"
        )
    chosen = _some_people(labelled.pids, most=_MOST_CALIBRATION)
    embeddings = np.concatenate(
        [
            block[chosen[(chosen >= start) & (chosen < start + len(block))] - start]
            for start, block in _numbered_blocks(labelled)
        ]
    )
    with ProgressBar(len(chosen), f"calibrating on {labelled.source}", unit="images") as bar:
        nearest = open_set.nearest_same_and_other(
            embeddings, labelled.pids[chosen], labelled.camids[chosen], progress=bar.update
        )
    limit = open_set.calibrate(nearest, false_alarm_rate=false_alarms)
    _report_limit(limit, len(_people(labelled.pids[chosen])), labelled, gallery)
    return limit.max_distance


def _report_limit(limit: open_set.Calibration, num_people: int, labelled: Collection, gallery: Collection) -> None:
    present = (
        f"of {limit.num_present:,} of somebody who is, {100 * limit.found_rate:.1f}% are found first"
        if limit.num_present
        else "nobody has a second image that could be found"
    )
    print(
        f"limit {max(limit.max_distance, 0):.3f}, by {limit.num_items:,} images of {num_people:,} people in "
        f"{labelled.source}: of images of somebody who is not in the gallery {100 * limit.false_alarm_rate:.1f}% are taken "
        f"for someone; {present}",
        flush=True,
    )
    if num_people < _FEW_PEOPLE:
        print(
            f"{num_people} people are few: the images of one are alike, and of other people more may be taken for someone",
            flush=True,
        )
    if len(gallery) > _MUCH_LARGER * limit.num_items:
        print(
            f"the gallery has {len(gallery):,} images, more than the {limit.num_items:,} of the calibration: among more "
            "people there are more who look alike, and more false alarms",
            flush=True,
        )


def _people(pids: np.ndarray) -> np.ndarray:
    return np.unique(pids[pids > identities.DISTRACTOR_PID])


def _some_people(pids: np.ndarray, *, most: int) -> np.ndarray:
    """Indices of known images, ascending: of people drawn at random where there are more than `most`."""
    known = np.flatnonzero(pids >= 0)
    if len(known) <= most:
        return known
    names, counts = np.unique(pids[known], return_counts=True)
    order = np.random.default_rng(0).permutation(len(names))
    enough = max(2, int(np.searchsorted(np.cumsum(counts[order]), most, side="right")))
    return known[np.isin(pids[known], names[order[:enough]])][:most]


def _numbered_blocks(images: Collection) -> Iterator[tuple[int, np.ndarray]]:
    """Yields blocks of embeddings with the place of their first row."""
    start = 0
    for block in images.blocks():
        yield start, block
        start += len(block)
