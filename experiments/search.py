"""Finds a person again: ranks the images of a gallery by how alike they are to each query image.

    python experiments/search.py --model=runs/shop --query=person.jpg --gallery=/path/to/crops
    python experiments/search.py --model=shop.zip --query=people --gallery=crops.npz --output=runs/found \\
        --false_alarms=0.05 --calibration=runs/shop_people/people

A query is an image, a folder of them, or an .npz of embed.py; a gallery is a folder or an .npz, which for more than a
few thousand images spares embedding them each time. The output folder has results.csv and a contact sheet, results.png.

Somebody is always the nearest. --max_distance says from where on a match is none ("not in the gallery");
--false_alarms chooses it: so many people who are not in the gallery may be taken for someone who is. That is measured
on images whose people are known: --calibration is a folder with a sub-folder for each person, or an .npz with pids.
"""

import csv
import io
import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from absl import flags

from data_prep import cli
from experiments import trained_model
from experiments.collection import Collection, check_comparable, open_collection
from reid_jax import atomic, gallery_search, image_rows, open_set, types
from reid_jax.image_rows import Mark, Row, Tile
from reid_jax.progress import ProgressBar

_SHOWN_QUERIES = 10  # on standard output
_SHOWN_MATCHES = 20
_SHEET_QUERIES = 20
_SHEET_MATCHES = 20
_RESULTS = ("results.csv", "results.png")
_MUCH_LARGER = 2  # times as many images make more false alarms
# Images of a person are alike: a rate is as certain as the number of people makes it, whatever that of images.
_FEW_PEOPLE = 50
_MOST_CALIBRATION = 20_000  # images; each is compared with all others


class Match(NamedTuple):
    """One line of a query's ranked list."""

    distance: float
    index: int  # in the gallery
    is_near: bool  # within the limit


def rank(queries: Collection, gallery: Collection, *, top: int, max_distance: float) -> list[list[Match]]:
    """Ranks the gallery for every query; an image is never its own match.

    Args:
        queries: Q items.
        gallery: of the same model.
        top: length of a list, where the gallery has as many.
        max_distance: of matches that are near.

    Returns:
        Q lists, the nearest first.
    """
    done = 0

    def show(rows_done: int) -> None:
        nonlocal done
        bar.update(rows_done - done)
        done = rows_done

    # One more than asked for: a query that is in the gallery is its own nearest.
    k = min(top + 1, len(gallery))
    with ProgressBar(len(gallery), f"searching {gallery.source}", unit="images") as bar:
        ranking = gallery_search.search_gallery(queries.embeddings(), gallery.blocks(), k=k, progress=show)
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


def calibrate(labelled: Collection, gallery: Collection, *, false_alarms: float) -> float:
    """Chooses the limit on the distance, and says on standard output what it does.

    Raises:
        UserError: there are not two known people.
    """
    if len(np.unique(labelled.pids[labelled.pids > types.DISTRACTOR_PID])) < 2:
        raise types.UserError(
            f"--calibration: the images of {labelled.source!r} must be of two known people at least: a folder with a "
            "sub-folder for each person, or an .npz with pids"
        )
    chosen = _some_people(labelled.pids, most=_MOST_CALIBRATION)
    embeddings = np.concatenate(
        [
            block[chosen[(chosen >= start) & (chosen < start + len(block))] - start]
            for start, block in _counted(labelled)
        ]
    )
    with ProgressBar(len(chosen), f"calibrating on {labelled.source}", unit="images") as bar:
        nearest = open_set.nearest_same_and_other(
            embeddings, labelled.pids[chosen], labelled.camids[chosen], progress=bar.update
        )
    found = open_set.calibrate(nearest, false_alarm_rate=false_alarms)
    num_people = len(np.unique(labelled.pids[chosen][labelled.pids[chosen] > types.DISTRACTOR_PID]))
    present = (
        f"of {found.num_present:,} of somebody who is, {100 * found.found_rate:.1f}% are found first"
        if found.num_present
        else "nobody has a second image that could be found"
    )
    print(
        f"limit {max(found.max_distance, 0):.3f}, by {found.num_items:,} images of {num_people:,} people in "
        f"{labelled.source}: of images of somebody who is not in the gallery {100 * found.false_alarm_rate:.1f}% are taken "
        f"for someone; {present}",
        flush=True,
    )
    if num_people < _FEW_PEOPLE:
        print(
            f"{num_people} people are few: the images of one are alike, and of other people more may be taken for someone",
            flush=True,
        )
    if len(gallery) > _MUCH_LARGER * found.num_items:
        print(
            f"the gallery has {len(gallery):,} images, more than the {found.num_items:,} of the calibration: among more "
            "people there are more who look alike, and more false alarms",
            flush=True,
        )
    return found.max_distance


def _some_people(pids: np.ndarray, *, most: int) -> np.ndarray:
    """Indices of known images, ascending: of people drawn at random where there are more than `most`."""
    known = np.flatnonzero(pids >= 0)
    if len(known) <= most:
        return known
    names, counts = np.unique(pids[known], return_counts=True)
    order = np.random.default_rng(0).permutation(len(names))
    enough = max(2, int(np.searchsorted(np.cumsum(counts[order]), most, side="right")))
    return known[np.isin(pids[known], names[order[:enough]])][:most]


def _counted(images: Collection) -> Iterator[tuple[int, np.ndarray]]:
    """Yields blocks of embeddings with the place of their first row."""
    start = 0
    for block in images.blocks():
        yield start, block
        start += len(block)


def results_table(
    queries: Collection, gallery: Collection, ranked: Sequence[Sequence[Match]], max_distance: float
) -> str:
    """The text of results.csv; whether a match is within the limit is told where there is one."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["query", "rank", "distance", "within_limit", "match"])
    for query, matches in enumerate(ranked):
        for place, match in enumerate(matches, start=1):
            near = "" if np.isinf(max_distance) else "yes" if match.is_near else "no"
            writer.writerow([queries.paths[query], place, f"{match.distance:.4f}", near, gallery.paths[match.index]])
    return text.getvalue()


def verdict(matches: Sequence[Match], max_distance: float) -> str:
    """What a ranked list says, in a few words."""
    if not matches:
        return "nothing to compare with: an image is not its own match"
    near = sum(match.is_near for match in matches)
    if not near:
        return f"not in the gallery: the nearest is at {matches[0].distance:.4f}, the limit {max_distance:.4f}"
    if np.isinf(max_distance):
        return f"the nearest is at {matches[0].distance:.3f}"
    return f"{near} of {len(matches)} within the limit of {max_distance:.3f}"


def contact_sheet(queries: Collection, gallery: Collection, ranked: Sequence[Sequence[Match]], max_distance: float):
    """Draws each query and its ranked list; where both sides' people are known, right and wrong ones are framed."""
    rows, missing = [], 0
    is_known = queries.knows_people_of(gallery)
    for query, matches in enumerate(ranked[:_SHEET_QUERIES]):
        tiles = [Tile(queries.thumbnail(query), "query", Mark.QUERY)]
        for place, match in enumerate(matches[:_SHEET_MATCHES], start=1):
            image = gallery.thumbnail(match.index)
            missing += image is None
            query_pid, pid = (queries.pids[query], gallery.pids[match.index]) if is_known else (types.UNKNOWN,) * 2
            mark = _mark(query_pid, pid) if match.is_near else Mark.DIMMED
            tiles.append(Tile(image, f"{place}: {match.distance:.3f}", mark))
        rows.append(Row(f"{queries.paths[query]}: {verdict(matches, max_distance)}", tiles))
    if missing:
        print(f"{missing} images are no longer where they were; the sheet has crosses there", flush=True)
    return image_rows.draw_rows(rows, legend={Mark.NEUTRAL: "person not known", Mark.DIMMED: "beyond the limit"})


def _mark(query_pid: int, gallery_pid: int) -> Mark:
    if query_pid < 0 or gallery_pid < 0:
        return Mark.NEUTRAL
    return Mark.RIGHT if query_pid == gallery_pid else Mark.WRONG


def main() -> None:
    """Searches as the flags say."""
    given = flags.FLAGS
    cli.require("query", "gallery", "output")
    if given.max_distance is not None and given.false_alarms is not None:
        raise types.UserError("--max_distance and --false_alarms: give one of them, the other follows")
    if given.calibration and given.false_alarms is None:
        raise types.UserError("--calibration: --false_alarms is needed with it, such as 0.05")
    output = pathlib.Path(given.output).expanduser()
    if output.exists() and not output.is_dir():
        raise types.UserError(f"--output: {given.output!r} must be a folder, it is a file")
    others = [path.name for path in output.iterdir() if path.name not in _RESULTS] if output.is_dir() else []
    if others:
        raise types.UserError(
            f"--output: {given.output!r} must be a new folder or one of earlier results, it holds {others[0]!r}"
        )
    for flag in ("query", "gallery"):
        if pathlib.Path(given[flag].value).is_dir() and output.resolve().is_relative_to(
            pathlib.Path(given[flag].value).resolve()
        ):
            raise types.UserError(
                f"--output: {given.output!r} must not lie in --{flag}, whose images would be added to"
            )
    model = trained_model.load(given.model, batch_size=given.batch_size) if given.model else None
    opened = {
        flag: open_collection(
            given[flag].value,
            flag=flag,
            model=model,
            batch_size=given.batch_size,
            on_bad_image=given.on_bad_image,
            people_in_folders=flag == "calibration",
        )
        for flag in ("query", "gallery", "calibration")
        if given[flag].value
    }
    check_comparable(opened.items())
    queries, gallery = opened["query"], opened["gallery"]
    max_distance = np.inf if given.max_distance is None else given.max_distance
    if given.false_alarms is not None:
        if "calibration" not in opened and not (gallery.pids >= 0).any():
            raise types.UserError(
                "--calibration is needed with --false_alarms: the people in the gallery are not known; give a folder "
                "with a sub-folder for each person, or an .npz with pids"
            )
        max_distance = calibrate(opened.get("calibration", gallery), gallery, false_alarms=given.false_alarms)
    ranked = rank(queries, gallery, top=given.top, max_distance=max_distance)

    output.mkdir(parents=True, exist_ok=True)
    with atomic.atomic_path(output / "results.csv") as temporary:
        temporary.write_text(results_table(queries, gallery, ranked, max_distance), encoding="utf-8", errors="replace")
    with atomic.atomic_path(output / "results.png") as temporary:
        contact_sheet(queries, gallery, ranked, max_distance).save(temporary)
    for query, matches in enumerate(ranked[:_SHOWN_QUERIES]):
        print(f"{queries.paths[query]}: {verdict(matches, max_distance)}")
        for place, match in enumerate(matches[:_SHOWN_MATCHES], start=1):
            beyond = "" if match.is_near else "  beyond the limit"
            print(f"  {place:3d}  {match.distance:.3f}  {gallery.paths[match.index]}{beyond}")
    if len(ranked) > _SHOWN_QUERIES:
        print(
            f"... and {len(ranked) - _SHOWN_QUERIES} more queries in results.csv, the first {_SHEET_QUERIES} in results.png"
        )
    print(f"written: {output / 'results.csv'}, {output / 'results.png'}", flush=True)


def define_flags() -> None:
    """Defines the command line."""
    flags.DEFINE_string(
        "model", None, "A run directory (its best model), or a file of export.py; not needed for two .npz."
    )
    flags.DEFINE_string("query", None, "An image, a folder of them, or an .npz of embed.py.")
    flags.DEFINE_string("gallery", None, "A folder of images, sub-folders included, or an .npz of embed.py.")
    flags.DEFINE_integer("top", 10, "Matches listed for each query.", lower_bound=1, upper_bound=1000)
    flags.DEFINE_float("max_distance", None, "Beyond it (1 - cosine, 0..2) a match is none.", 0.0, 2.0)
    flags.DEFINE_float(
        "false_alarms",
        None,
        "Part of those not in the gallery who may be taken for someone; chooses max_distance.",
        0.0,
        0.99,
    )
    flags.DEFINE_string("calibration", None, "Images of known people to choose it on; the gallery if its are known.")
    flags.DEFINE_string("output", "runs/search", "Folder for results.csv and results.png.")
    flags.DEFINE_integer("batch_size", 64, "Images embedded at a time.", lower_bound=1)
    flags.DEFINE_enum("on_bad_image", "fail", ["fail", "skip"], "What to do with images that cannot be decoded.")


if __name__ == "__main__":
    cli.run(main, define_flags)
