"""The unions of one step as an array, and the order in which they are carried out.

Clusters are known by their first sample, their root. United clusters come as `united` [N] int: for every root the
root of its component, for what is no root itself.
"""

from collections.abc import Iterator

import numpy as np


def halvings(united: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (targets, sources): combined level after level, they leave every component's total at its root.

    Neighbours in a component are combined first, then the totals of two, of four and so on. Within a level no target
    occurs twice, so that plain indexing combines them all, in an order that never varies.

    Args:
        united: [N] int, as the module says.

    Yields:
        Two arrays [P] int of one level's pairs.
    """
    sources = np.flatnonzero(united != np.arange(len(united)))
    items = np.concatenate([np.unique(united[sources]), sources])
    items = items[np.lexsort((items, united[items]))]
    starts = np.flatnonzero(united[items] == items)
    positions = np.arange(len(items)) - np.repeat(starts, np.diff(starts, append=len(items)))
    stride = 1
    while stride <= positions.max(initial=0):
        chosen = np.flatnonzero(positions % (2 * stride) == stride)
        yield items[chosen - stride], items[chosen]
        stride *= 2


def united_among(united: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Returns the unions of some items only, among themselves.

    Args:
        united: [N] int, as the module says.
        items: [R] int, ascending.

    Returns:
        [N] int: for these items the first of them in the same component, for all others themselves.
    """
    among = np.arange(len(united))
    _, places, inverse = np.unique(united[items], return_index=True, return_inverse=True)
    among[items] = items[places[inverse]]
    return among
