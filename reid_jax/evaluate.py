"""How well a gallery is ranked for every query: CMC, mAP and mINP by the protocol of Market-1501.

The distances come from the device; ranking runs on the host, where sorting the values alone and looking up the
few true matches is many times faster than sorting the gallery's indices.
"""

from collections.abc import Iterable
from concurrent import futures
from typing import NamedTuple

import jax
import numpy as np

from reid_jax import distances as sample_distances
from reid_jax.identities import UNKNOWN

AP_METHODS = ("step", "trapezoid")
_ROWS_PER_TASK = 32
_ROWS_PER_CHECK = 4096


class RankingResult(NamedTuple):
    """What a ranking is worth; fractions 0..1, nan where no query is valid.

    Attributes:
        mAP: mean over valid queries of the average precision.
        mINP: mean over valid queries of matches / rank of the last match (Ye et al. 2021).
        cmc: [max_rank] float64, entry k - 1: the part of valid queries with a match at rank k or before.
        num_valid: queries with at least one match.
        num_skipped: queries without a match left, or of unknown identity; they count in no mean.
        ap: [Q] float64, average precision; nan for skipped queries.
    """

    mAP: float
    mINP: float
    cmc: np.ndarray
    num_valid: int
    num_skipped: int
    ap: np.ndarray


def rank_gallery(
    distances: np.ndarray | jax.Array,
    query_pids: np.ndarray,
    query_camids: np.ndarray,
    gallery_pids: np.ndarray,
    gallery_camids: np.ndarray,
    *,
    ap_method: str = "step",
    max_rank: int = 50,
) -> RankingResult:
    """Ranks the gallery by distance for every query, equal distances by gallery index.

    For a query, gallery images of the same identity from the same camera are taken out, and so is junk (pid -1);
    distractors (pid 0) stay. A camera of -1 is not known and equals no other.

    Args:
        distances: [Q, G] float.
        query_pids: [Q] integer.
        query_camids: [Q] integer.
        gallery_pids: [G] integer.
        gallery_camids: [G] integer.
        ap_method: "step", the mean of the precision at every match; or "trapezoid", the area under the
            precision-recall curve by trapezoids, as scikit-learn computed it before 0.19 and BUC reports it.
        max_rank: length of the CMC curve.

    Returns:
        A RankingResult.

    Raises:
        ValueError: shapes do not fit, a distance is not finite, or an option is out of its range.
    """
    if distances.ndim != 2:
        raise ValueError(f"distances must be [Q, G], got shape {distances.shape}")
    identities = _check_identities(distances.shape, query_pids, query_camids, gallery_pids, gallery_camids)
    _check_options(ap_method, max_rank)
    return _rank([(0, distances)], identities, ap_method, max_rank)


def evaluate_embeddings(
    query: np.ndarray | jax.Array,
    gallery: np.ndarray | jax.Array,
    query_pids: np.ndarray,
    query_camids: np.ndarray,
    gallery_pids: np.ndarray,
    gallery_camids: np.ndarray,
    *,
    metric: str = "cosine",
    ap_method: str = "step",
    max_rank: int = 50,
    block_size: int = 512,
    rerank: sample_distances.Reranking | None = None,
) -> RankingResult:
    """The same from embeddings, without ever holding all Q x G distances.

    Args:
        query: [Q, D] float.
        gallery: [G, D] float.
        query_pids: [Q] integer; this and the next three as in `rank_gallery`.
        query_camids: [Q] integer.
        gallery_pids: [G] integer.
        gallery_camids: [G] integer.
        metric: as in `distances.pairwise_distances`.
        ap_method: as in `rank_gallery`.
        max_rank: as in `rank_gallery`.
        block_size: queries at a time; the distances of two blocks are held.
        rerank: ranks by `distances.reranked_distances`; whatever is in the gallery, junk included, can be a neighbour.
            None: by the distances themselves.

    Returns:
        A RankingResult.

    Raises:
        ValueError: shapes do not fit, an embedding or a distance is not finite, or an option is out of its range.
    """
    shape = (len(query), len(gallery))
    identities = _check_identities(shape, query_pids, query_camids, gallery_pids, gallery_camids)
    _check_options(ap_method, max_rank)
    for name, embeddings in (("query", query), ("gallery", gallery)):
        for start in range(0, len(embeddings), _ROWS_PER_CHECK):
            _check_finite(name, start, embeddings[start : start + _ROWS_PER_CHECK])
    options = {"metric": metric, "block_size": block_size}
    if rerank is None:
        blocks = sample_distances.distance_blocks(query, gallery, **options)
    else:
        blocks = sample_distances.reranked_distances(query, gallery, **rerank._asdict(), **options)
    return _rank(blocks, identities, ap_method, max_rank)


class _Identities(NamedTuple):
    """Who is on the images. The gallery's entries of one identity are neighbours in `by_pid`.

    Attributes:
        kept: [G'] gallery indices that are not junk.
        by_pid: [G'] places in `kept`, sorted by pid.
        firsts, lasts: [Q] the part of `by_pid` that has the query's identity; empty for unknown ones.
        query_camids: [Q].
        gallery_camids: [G'], of `kept`.
    """

    kept: np.ndarray
    by_pid: np.ndarray
    firsts: np.ndarray
    lasts: np.ndarray
    query_camids: np.ndarray
    gallery_camids: np.ndarray


def _check_identities(shape, query_pids, query_camids, gallery_pids, gallery_camids) -> _Identities:
    """Checks the shapes against those of the distances and finds everyone's entries."""
    names = ("query_pids", "query_camids", "gallery_pids", "gallery_camids")
    values = (query_pids, query_camids, gallery_pids, gallery_camids)
    arrays = {name: np.asarray(array) for name, array in zip(names, values)}
    for name, array in arrays.items():
        letter, length = ("Q", shape[0]) if name.startswith("query") else ("G", shape[1])
        if array.shape != (length,):
            raise ValueError(f"{name} must be [{letter}] with {letter} = {length}, got shape {array.shape}")
    kept = np.flatnonzero(arrays["gallery_pids"] != UNKNOWN)
    by_pid = np.argsort(arrays["gallery_pids"][kept], kind="stable")
    sorted_pids = arrays["gallery_pids"][kept][by_pid]
    # Unknown queries find nothing, because no kept entry has their pid.
    firsts, lasts = (np.searchsorted(sorted_pids, arrays["query_pids"], side=side) for side in ("left", "right"))
    return _Identities(kept, by_pid, firsts, lasts, arrays["query_camids"], arrays["gallery_camids"][kept])


def _check_options(ap_method, max_rank) -> None:
    if ap_method not in AP_METHODS:
        raise ValueError(f"ap_method must be one of {AP_METHODS}, got {ap_method!r}")
    if max_rank < 1:
        raise ValueError(f"max_rank must be at least 1, got {max_rank}")


def _check_finite(name: str, start: int, rows) -> None:
    """Checks some rows of an array, the first of which is row `start`: a nan would count as a match at rank 1."""
    rows = np.asarray(rows)
    finite = np.isfinite(rows)
    if not finite.all():
        place = np.unravel_index(np.argmin(finite), finite.shape)
        raise ValueError(f"{name} must be finite, got {rows[place]} in row {start + place[0]}")


def _rank(blocks: Iterable, identities: _Identities, ap_method: str, max_rank: int) -> RankingResult:
    """Ranks blocks (first query, distances [B, G]) and takes the means."""
    num_queries = len(identities.firsts)
    ap, inp = np.full(num_queries, np.nan), np.full(num_queries, np.nan)
    first_ranks = np.full(num_queries, max_rank + 1)

    def rank_rows(start, block):
        _check_finite("distances", start, block)
        rows = block[:, identities.kept] if len(identities.kept) < block.shape[1] else block
        for query, row, ordered in zip(range(start, start + len(rows)), rows, np.sort(rows, axis=1)):
            ranks = _match_ranks(row, ordered, identities, query)
            if len(ranks):
                ap[query] = _average_precision(ranks, ap_method)
                inp[query] = len(ranks) / ranks[-1]
                first_ranks[query] = ranks[0]

    # NumPy's sort lets other threads run.
    with futures.ThreadPoolExecutor() as pool:
        for start, block in blocks:
            block = np.asarray(block)
            offsets = range(0, len(block), _ROWS_PER_TASK)
            parts = [block[offset : offset + _ROWS_PER_TASK] for offset in offsets]
            list(pool.map(rank_rows, [start + offset for offset in offsets], parts))

    valid = ~np.isnan(ap)
    num_valid = int(valid.sum())
    if not num_valid:
        return RankingResult(np.nan, np.nan, np.full(max_rank, np.nan), 0, num_queries, ap)
    firsts = np.bincount(first_ranks[valid].clip(max=max_rank + 1), minlength=max_rank + 2)
    cmc = np.cumsum(firsts[1 : max_rank + 1]) / num_valid
    means = float(ap[valid].mean()), float(inp[valid].mean())
    return RankingResult(*means, cmc, num_valid, num_queries - num_valid, ap)


def _match_ranks(row: np.ndarray, ordered: np.ndarray, identities: _Identities, query: int) -> np.ndarray:
    """Returns the ascending ranks, from 1, of a query's matches, given its distances [G'] and the same in order."""
    same = identities.by_pid[identities.firsts[query] : identities.lasts[query]]
    places = np.searchsorted(ordered, row[same])
    # Next to an equal distance, the index decides, which the sorted values do not tell.
    after = np.minimum(places + 1, len(ordered) - 1)
    if (ordered[after] == row[same])[after > places].any():
        places = np.argsort(np.argsort(row, kind="stable"))[same]
    camid = identities.query_camids[query]
    removed = (identities.gallery_camids[same] == camid) & (camid != UNKNOWN)
    matches = np.sort(places[~removed])
    return matches - np.searchsorted(np.sort(places[removed]), matches) + 1


def _average_precision(ranks: np.ndarray, ap_method: str) -> float:
    """Average precision of matches at ascending ranks, from 1."""
    num_matches = np.arange(1, len(ranks) + 1)
    precision = num_matches / ranks
    if ap_method == "trapezoid":
        # The curve's point before a match; it begins at precision 1.
        before = np.where(ranks > 1, (num_matches - 1) / np.maximum(ranks - 1, 1), 1.0)
        precision = (precision + before) / 2
    return float(precision.mean())
