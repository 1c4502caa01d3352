"""What a search writes: the table of matches and the contact sheet of queries with their ranked lists."""

import csv
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from reid_jax import identities
from reid_jax.pictures import image_rows
from reid_jax.pictures.image_rows import Mark, Row, Tile
from reid_jax.retrieval.collection import Collection
from reid_jax.retrieval.ranking import Match

SHEET_QUERIES = 20
_SHEET_MATCHES = 20


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


def contact_sheet(
    queries: Collection, gallery: Collection, ranked: Sequence[Sequence[Match]], max_distance: float
) -> Image.Image:
    """Draws each query and its ranked list; where both sides' people are known, right and wrong ones are framed."""
    rows, missing = [], 0
    is_known = queries.knows_people_of(gallery)
    for query, matches in enumerate(ranked[:SHEET_QUERIES]):
        tiles = [Tile(queries.thumbnail(query), "query", Mark.QUERY)]
        for place, match in enumerate(matches[:_SHEET_MATCHES], start=1):
            image = gallery.thumbnail(match.index)
            missing += image is None
            query_pid, pid = (queries.pids[query], gallery.pids[match.index]) if is_known else (identities.UNKNOWN,) * 2
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
