"""One mesh over the devices; arrays are split along the batch axis or copied whole to every device."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from reid_jax import errors

BATCH_AXIS = "data"


def make_mesh(num_devices: int = 0) -> Mesh:
    """Returns a one-dimensional mesh with Auto axes.

    Args:
        num_devices: how many of `jax.devices()` to use, in their order; 0 means all.

    Raises:
        UserError: more devices asked for than there are.
    """
    devices = jax.devices()
    if not 0 <= num_devices <= len(devices):
        raise errors.UserError(
            f"num_devices must be in 0..{len(devices)} (0 = all of this machine's), got {num_devices}"
        )
    # Not jax.make_mesh: its Explicit axes make gathers and sorts of sharded arrays raise.
    return Mesh(np.array(devices[: num_devices or None]), (BATCH_AXIS,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of an array that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharded(mesh: Mesh) -> NamedSharding:
    """The sharding of an array whose first axis, the batch, is split over the devices."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXIS))


def check_batch_size(mesh: Mesh, batch_size: int) -> None:
    """Checks that a global batch splits evenly.

    Raises:
        UserError: the batch size is not a multiple of the number of devices.
    """
    if batch_size < 1 or batch_size % mesh.size:
        raise errors.UserError(
            f"a batch of {batch_size} images must be a multiple of the {mesh.size} devices it is split over; "
            "choose another batch size or set num_devices"
        )


def put_replicated(mesh: Mesh, tree: Any) -> Any:
    """Copies every leaf of a pytree whole to every device of the mesh."""
    return jax.device_put(tree, replicated(mesh))


def put_batch(mesh: Mesh, tree: Any) -> Any:
    """Splits every leaf [B, ...] of a pytree of host arrays over the devices of the mesh."""
    return jax.device_put(tree, batch_sharded(mesh))
