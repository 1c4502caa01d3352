"""When to stop, and which iteration to keep, without any label."""

from collections.abc import Sequence


def label_free_choice(agreements: Sequence[float | None], *, patience: int, min_rise: float) -> tuple[int, bool]:
    """Chooses the iteration whose pseudo labels agree most with the ones before, as long as that still rises.

    Training and clustering that help each other settle: the pseudo labels change less from one iteration to the
    next. Once the agreement has stopped rising, further iterations mostly fit the labels' errors.

    Args:
        agreements: per iteration, the agreement (e.g. adjusted Rand index) of its pseudo labels with those of
            the iteration before; None for the first.
        patience: iterations without a rise after which to stop.
        min_rise: the least increase over the best so far that counts as a rise.

    Returns:
        (index of the chosen iteration, whether to stop now).

    Raises:
        ValueError: no iterations, or patience less than 1.
    """
    if not agreements or patience < 1:
        raise ValueError(f"need at least one iteration and patience >= 1, got {len(agreements)} and {patience}")
    best, best_agreement = 0, float("-inf")
    for iteration, agreement in enumerate(agreements):
        if agreement is not None and agreement > best_agreement + min_rise:
            best, best_agreement = iteration, agreement
    return best, len(agreements) - 1 - best >= patience
