"""When to stop, and which iteration to keep, without any label."""

from collections.abc import Sequence


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
