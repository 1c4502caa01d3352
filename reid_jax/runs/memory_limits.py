"""Memory checks before a run starts."""

import os

import jax

from reid_jax import errors


def check_distance_matrix(num_samples: int) -> None:
    """Checks that the N x N distances fit into the memory of the first device.

    Raises:
        UserError: they do not; names N, what they take and what there is.
    """
    device = jax.devices()[0]
    if device.platform == "cpu":
        there, copies = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), 1
    else:
        there, copies = (device.memory_stats() or {}).get("bytes_limit"), 2  # merging works on a copy
    needed = 4 * num_samples**2 * copies
    if there is not None and needed > there:
        raise errors.UserError(
            f"the distances of all pairs of {num_samples:,} samples take {needed / 2**30:,.0f} GiB, the "
            f"{device.platform} has {there / 2**30:,.0f}; softened similarity (softened) holds no such matrix"
        )
