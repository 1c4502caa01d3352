"""When a run stops, and which iteration it keeps: by mAP where it is known, else without any label."""

from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

_MOST_LOST = 0.1


def label_free_choice(signal: Sequence[float | None], *, patience: int, min_rise: float) -> tuple[int, bool]:
    """Chooses the iteration with the greatest signal, as long as that still rises.

    The agreement of an iteration's pseudo labels with the ones before is such a signal: training and clustering that
    help each other settle, and once the agreement has stopped rising, further iterations mostly fit the labels'
    errors. Where labels are only ever merged, they always agree; there the silhouette says when merging has begun to
    unite what lies apart.

    Args:
        signal: per iteration, e.g. the adjusted Rand index with the labels before, or the silhouette; None where it
            is not known, as in the first.
        patience: iterations without a rise after which to stop.
        min_rise: the least increase over the best so far that counts as a rise.

    Returns:
        (index of the chosen iteration, whether to stop now).

    Raises:
        ValueError: no iterations, or patience less than 1.
    """
    if not signal or patience < 1:
        raise ValueError(f"need at least one iteration and patience >= 1, got {len(signal)} and {patience}")
    best, best_value = 0, float("-inf")
    for iteration, value in enumerate(signal):
        if value is not None and value > best_value + min_rise:
            best, best_value = iteration, value
    return best, len(signal) - 1 - best >= patience


def last_recognized(recognition: Sequence[float], *, patience: int, most_lost: float = _MOST_LOST) -> tuple[int, bool]:
    """Chooses the last model that knows its training images again as well as the start did, or nearly so.

    Training that does not collapse gets better for longer than any signal of its labels can tell (docs/measured_runs.md); where
    it does collapse, the model no longer tells images apart.

    Args:
        recognition: per iteration, the start's first: the mean reciprocal rank of an augmented copy's own image.
        patience: iterations that are not chosen after which to stop.
        most_lost: the part of the start's recognition that may be lost, 0..1.

    Returns:
        (index of the chosen iteration, 0 for the start, whether to stop now).

    Raises:
        ValueError: no iterations, or patience less than 1.
    """
    if not recognition or patience < 1:
        raise ValueError(f"need at least one iteration and patience >= 1, got {len(recognition)} and {patience}")
    least = (1 - most_lost) * recognition[0]
    chosen = max(index for index, value in enumerate(recognition) if value >= least)
    return chosen, len(recognition) - 1 - chosen >= patience


def first_saturated(signal: Sequence[float], *, patience: int, tolerance: float) -> int | None:
    """Finds the iteration at which a signal, such as the share of samples selected, has stopped changing (PUL, III-B).

    Args:
        signal: per iteration.
        patience: iterations that it must not have changed for.
        tolerance: what its greatest and least value in them, and in the one before, must differ by less than.

    Returns:
        The index of the first such iteration; None: there is none.

    Raises:
        ValueError: patience less than 1.
    """
    if patience < 1:
        raise ValueError(f"patience must be at least 1, got {patience}")
    for index in range(patience, len(signal)):
        recent = signal[index - patience : index + 1]
        if max(recent) - min(recent) < tolerance:
            return index
    return None


def stops_now(history: list[dict[str, Any]], stop: ConfigDict, *, has_scores: bool) -> bool:
    """Whether config.stop ends a run before its last iteration.

    Args:
        history: records; the first is the initial model's.
        stop: config.stop.
        has_scores: whether accuracy can be measured.
    """
    if stop.when == "never" or (stop.when == "auto" and has_scores):
        return False
    if stop.when == "metric" and has_scores:
        return has_fallen(history, stop.patience)
    return kept_without_labels(history, stop)[1]


def best_iteration(history: list[dict[str, Any]], stop: ConfigDict | None) -> int:
    """Index into history of the model to keep: the greatest mAP, or the label-free choice where there is none.

    Args:
        history: records; the first is the initial model's, which counts only where mAP is known.
        stop: config.stop, or None for methods without pseudo labels: then the last iteration.
    """
    if "mAP" in history[0]:
        return max(range(len(history)), key=lambda i: history[i]["mAP"])
    return kept_without_labels(history, stop)[0] if stop is not None else len(history) - 1


def has_fallen(history: list[dict[str, Any]], patience: int) -> bool:
    """Whether no trained model of the last `patience` iterations beat the best mAP before (BUC sec. 3.2)."""
    return len(history) > 1 and len(history) - 2 - best_iteration(history[1:], None) >= patience


def kept_without_labels(history: list[dict[str, Any]], stop: ConfigDict | None) -> tuple[int, bool]:
    """(index into history, whether to stop now) by the signal that config.stop names."""
    if len(history) == 1:
        return 0, False
    if stop.signal == "last":
        recognition = [record.get("recognition") for record in history]
        if None in recognition:  # not measured: the last iteration is the choice
            return len(history) - 1, False
        return last_recognized(recognition, patience=stop.patience)
    signal = [record.get(stop.signal) for record in history[1:]]
    if stop.signal == "selected":  # the weak original model may select more than those that learn from it do
        if min(signal) == 1:  # nothing is left out: the number cannot tell when to stop
            return len(signal), False
        saturated = first_saturated(signal, patience=stop.patience, tolerance=stop.min_rise)
        return (len(signal), False) if saturated is None else (saturated + 1, True)
    choice, stop_now = label_free_choice(signal, patience=stop.patience, min_rise=stop.min_rise)
    return choice + 1, stop_now
