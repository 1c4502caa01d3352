import jax
import numpy as np
import pytest

from reid_jax import errors, sharding


def test_batches_are_split_and_states_copied(meshes):
    for mesh, devices in zip(meshes, (1, 8)):
        batch = sharding.put_batch(mesh, np.arange(16))
        state = sharding.put_replicated(mesh, {"a": np.arange(16)})["a"]
        assert batch.addressable_shards[0].data.shape == (16 // devices,)
        assert len(state.sharding.device_set) == devices and state.addressable_shards[0].data.shape == (16,)


def test_errors(meshes):
    with pytest.raises(errors.UserError, match="num_devices must be in 0..8"):
        sharding.make_mesh(9)
    with pytest.raises(errors.UserError, match="batch of 12 images must be a multiple of the 8 devices"):
        sharding.check_batch_size(meshes[1], 12)
    assert sharding.make_mesh().size == len(jax.devices())
