"""When the nearest of a gallery is not the person: a threshold on the distance, calibrated on labelled embeddings.

Every labelled item asks twice: whether it is found where its person is in the gallery, and how near the nearest other
person is, which is what it would be taken for if its own were not.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from reid_jax import distances, identities


class Nearest(NamedTuple):
    """The nearest items of each query among all others; inf where there are none.

    Attributes:
        same: [Q] float32, distance to the nearest of the same identity, not by the same camera where that is known.
        other: [Q] float32, to the nearest of another identity, distractors among them; inf for a distractor itself.
    """

    same: np.ndarray
    other: np.ndarray


class Calibration(NamedTuple):
    """A threshold and what it does to the items it was chosen on.

    Attributes:
        max_distance: an item is found if its nearest is at most so far.
        false_alarm_rate: part of the items whose nearest other person is as near, 0..1.
        found_rate: of those whose person is there, the part whose nearest is that person and near enough; nan if
            there are none.
        num_items: how many items could be false alarms.
        num_present: how many have their person among the others.
    """

    max_distance: float
    false_alarm_rate: float
    found_rate: float
    num_items: int
    num_present: int


def nearest_same_and_other(
    embeddings: np.ndarray,
    pids: np.ndarray,
    camids: np.ndarray | None = None,
    *,
    metric: str = "cosine",
    block_size: int = 512,
    progress: Callable[[int], None] | None = None,
) -> Nearest:
    """Finds for every item whose person is known the nearest of its identity and of all others.

    Args:
        embeddings: [N, D] float.
        pids: [N] integer, at least 0; distractors (0) are nobody's match, and ask for nobody.
        camids: [N] integer, -1 where not known; None: none is. An item of one's own identity and camera is not a match.
        metric: as in `distances.pairwise_distances`.
        block_size: items at a time; that many distances to all are held.
        progress: called after each block with the number of its items.

    Returns:
        The distances.

    Raises:
        ValueError: shapes do not fit, an embedding is not finite, or an identity is not known.
    """
    embeddings, pids = np.asarray(embeddings), np.asarray(pids)
    camids = np.full(len(pids), identities.UNKNOWN) if camids is None else np.asarray(camids)
    for name, array in (("pids", pids), ("camids", camids)):
        if array.shape != embeddings.shape[:1]:
            raise ValueError(f"{name} must be [{len(embeddings)}] as embeddings, got shape {array.shape}")
    if (pids < 0).any():
        raise ValueError(f"pids must be known, at least 0, got {pids.min()}")
    # One row that is not would make the distances of all others nan.
    if not np.isfinite(embeddings).all():
        raise ValueError("embeddings must be finite, got nan or infinity")
    nearest_of = Nearest(*np.full((2, len(pids)), np.inf, np.float32))
    for start, block in distances.distance_blocks(embeddings, embeddings, metric=metric, block_size=block_size):
        rows = np.arange(start, start + len(block))
        is_same = pids[rows, None] == pids
        is_seen = (camids[rows, None] == camids) & (camids[rows, None] != identities.UNKNOWN)
        is_match = is_same & ~is_seen & (pids != identities.DISTRACTOR_PID)
        is_match[rows - start, rows] = False
        # Two distractors may show one person, whom nobody labelled: their distance is no false alarm.
        is_other = ~is_same & (pids[rows, None] != identities.DISTRACTOR_PID)
        for nearest, allowed in zip(nearest_of, (is_match, is_other)):
            nearest[rows] = np.min(np.asarray(block), axis=1, where=allowed, initial=np.inf)
        if progress is not None:
            progress(len(block))
    return nearest_of


def calibrate(nearest: Nearest, *, false_alarm_rate: float) -> Calibration:
    """Chooses the greatest threshold at which at most so many items would be taken for another person.

    Args:
        nearest: from `nearest_same_and_other`.
        false_alarm_rate: at least 0, below 1.

    Returns:
        The threshold and both rates at it.

    Raises:
        ValueError: the rate is out of its range, or there is one identity only.
    """
    if not 0 <= false_alarm_rate < 1:
        raise ValueError(f"false_alarm_rate must be in [0, 1), got {false_alarm_rate}")
    others = np.sort(nearest.other[np.isfinite(nearest.other)])
    if not len(others):
        raise ValueError("nearest must hold items of at least two identities")
    # Just below the first distance that would be one false alarm too many.
    allowed = int(np.searchsorted(np.arange(len(others)) / len(others), false_alarm_rate, side="right")) - 1
    max_distance = float(np.nextafter(others[allowed], np.float32(-np.inf)))
    is_present = np.isfinite(nearest.same)
    is_found = (nearest.same <= max_distance) & (nearest.same < nearest.other)
    return Calibration(
        max_distance,
        float((others <= max_distance).mean()),
        float(is_found[is_present].mean()) if is_present.any() else float("nan"),
        len(others),
        int(is_present.sum()),
    )
