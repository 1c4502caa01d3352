import dataclasses

import numpy as np
import pytest

from reid_jax import types
from reid_jax.data.records import Records
from reid_jax.data.samples import image_samples, tracklet_samples


def make_records(tracklets, pids, camids):
    paths = np.array([f"frame{number:03d}.jpg" for number in range(len(tracklets))])
    arrays = (np.asarray(values, np.int64) for values in (pids, camids, tracklets))
    return Records("walks", "train", *arrays, paths, "0", [], np.arange(len(tracklets)))


RECORDS = make_records([7, 7, 2, 2, 7, 5], [1, 1, 3, 3, 1, 1], [0, 0, 1, 1, 0, 1])


def test_images():
    samples = image_samples(RECORDS)
    assert len(samples) == 6
    np.testing.assert_array_equal(samples.frames, range(6))
    np.testing.assert_array_equal(samples.counts, np.ones(6))
    np.testing.assert_array_equal(samples.pids, RECORDS.pids)


def test_tracklets_come_in_the_order_of_their_first_frames():
    samples = tracklet_samples(RECORDS, max_frames=900)
    assert len(samples) == 3
    np.testing.assert_array_equal(samples.frames, [0, 1, 4, 2, 3, 5])
    np.testing.assert_array_equal(samples.starts, [0, 3, 5, 6])
    np.testing.assert_array_equal(samples.pids, [1, 3, 1])
    np.testing.assert_array_equal(samples.camids, [0, 1, 1])
    assert list(samples.names) == ["frame000.jpg", "frame002.jpg", "frame005.jpg"]


def test_long_tracklets_are_thinned_evenly():
    samples = tracklet_samples(make_records([0] * 9 + [1], [1] * 10, [0] * 10), max_frames=3)
    np.testing.assert_array_equal(samples.frames, [0, 4, 8, 9])
    np.testing.assert_array_equal(samples.counts, [3, 1])


def test_errors():
    with pytest.raises(types.UserError, match="1 of 6 images belong to no tracklet, the first is frame002.jpg"):
        tracklet_samples(dataclasses.replace(RECORDS, tracklets=np.array([7, 7, -1, 2, 7, 5])), max_frames=9)
    with pytest.raises(types.UserError, match="tracklet 7 have different pids: 1 and 9, at frame004.jpg"):
        tracklet_samples(dataclasses.replace(RECORDS, pids=np.array([1, 1, 3, 3, 9, 1])), max_frames=9)
    with pytest.raises(types.UserError, match="tracklet 2 have different camids: 1 and 0, at frame003.jpg"):
        tracklet_samples(dataclasses.replace(RECORDS, camids=np.array([0, 0, 1, 0, 0, 1])), max_frames=9)
    with pytest.raises(types.UserError, match="data.max_frames must be at least 1, got 0"):
        tracklet_samples(RECORDS, max_frames=0)
