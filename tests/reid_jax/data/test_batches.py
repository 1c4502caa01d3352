import threading

import numpy as np
import pytest

from reid_jax.data import batches as batches_lib
from reid_jax.data.images import CachedImages

IMAGES = CachedImages(np.arange(20 * 2 * 2 * 3, dtype=np.uint8).reshape(20, 2, 2, 3))
INDEX_BATCHES = np.random.default_rng(0).integers(0, 20, (7, 8))


def test_batches_come_in_order_on_any_mesh(meshes):
    for mesh in meshes:
        for prefetch in (0, 1, 3, 50):
            found = list(batches_lib.device_batches(IMAGES, INDEX_BATCHES, mesh, prefetch=prefetch))
            assert len(found) == 7 and len(found[0].sharding.device_set) == mesh.size
            for batch, indices in zip(found, INDEX_BATCHES):
                assert (np.asarray(batch) == IMAGES.array[indices]).all()


def test_stopping_early_ends_the_reading_thread(meshes):
    before = threading.active_count()
    for _ in range(3):
        iterator = batches_lib.device_batches(IMAGES, INDEX_BATCHES, meshes[0])
        next(iterator)
        iterator.close()
    assert threading.active_count() == before


def test_an_error_while_reading_reaches_the_caller(meshes):
    class Failing(CachedImages):
        def batches(self, index_batches):
            yield self.array[index_batches[0]]
            raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        list(batches_lib.device_batches(Failing(IMAGES.array), INDEX_BATCHES, meshes[0]))


def test_errors(meshes):
    with pytest.raises(ValueError, match=r"must be \[steps, B\]"):
        next(batches_lib.device_batches(IMAGES, np.arange(3), meshes[0]))
    with pytest.raises(ValueError, match=r"in 0..19, got -1..3"):
        next(batches_lib.device_batches(IMAGES, np.array([[-1, 3]]), meshes[0]))
