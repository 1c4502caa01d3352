"""Index batches -> batches on the devices, fetched ahead of the step that uses them."""

import collections
import queue
import threading
from collections.abc import Iterator

import jax
import numpy as np
from jax.sharding import Mesh

from reid_jax import sharding
from reid_jax.data.images import ImageSource


def device_batches(
    images: ImageSource, index_batches: np.ndarray, mesh: Mesh, *, prefetch: int = 2
) -> Iterator[jax.Array]:
    """Yields the images of each row of an index array, split over the devices of a mesh.

    A thread reads (or receives from the decoding workers) up to `prefetch` batches ahead, and as many are on
    their way to the devices, so that a step never waits unless reading is slower than computing.

    Args:
        images: N images.
        index_batches: [steps, B] integer, in 0..N-1; B is a multiple of the mesh's size.
        mesh: the devices.
        prefetch: how many batches to keep ready.

    Yields:
        [B, H, W, 3] uint8, once per row, in order.

    Raises:
        ValueError: index_batches is not [steps, B] or an index is out of range.
    """
    index_batches = np.asarray(index_batches)
    if index_batches.ndim != 2:
        raise ValueError(f"index_batches must be [steps, B], got shape {index_batches.shape}")
    if index_batches.size and not 0 <= index_batches.min() <= index_batches.max() < len(images):
        raise ValueError(
            f"index_batches must be in 0..{len(images) - 1}, got {index_batches.min()}..{index_batches.max()}"
        )
    on_device: collections.deque = collections.deque()
    for batch in _read_ahead(images.batches(index_batches), prefetch):
        on_device.append(sharding.put_batch(mesh, batch))
        if len(on_device) > prefetch:
            yield on_device.popleft()
    yield from on_device


def _read_ahead(batches: Iterator[np.ndarray], depth: int) -> Iterator[np.ndarray]:  # noqa: C901
    """Runs an iterator in a thread, at most `depth` items ahead of its reader."""
    ready: queue.Queue = queue.Queue(maxsize=max(depth, 1))
    stop = threading.Event()

    def offer(item) -> bool:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def read() -> None:
        try:
            for batch in batches:
                if not offer((batch, None)):
                    return
            offer((None, None))
        except Exception as error:  # handed to the reader, which raises it
            offer((None, error))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        while True:
            batch, error = ready.get()
            if error is not None:
                raise error
            if batch is None:
                return
            yield batch
    finally:
        stop.set()
        thread.join()
