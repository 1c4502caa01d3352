import dataclasses

import numpy as np
import pytest

from reid_jax import errors
from reid_jax.data.records import Records
from reid_jax.data.samples import image_samples, select, tracklet_samples


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


def test_select_by_hand():
    samples = select(tracklet_samples(RECORDS, max_frames=900), np.array([2, 0]))
    np.testing.assert_array_equal(samples.frames, [5, 0, 1, 4])
    np.testing.assert_array_equal(samples.starts, [0, 1, 4])
    np.testing.assert_array_equal(samples.pids, [1, 1])
    np.testing.assert_array_equal(samples.camids, [1, 0])
    assert list(samples.names) == ["frame005.jpg", "frame000.jpg"]
    assert samples.frames.dtype == samples.starts.dtype == np.int64


def test_select_is_indexing_of_samples():
    rng = np.random.default_rng(0)
    tracklets = rng.integers(0, 12, 80)
    samples = tracklet_samples(make_records(tracklets, tracklets % 5, tracklets % 3), max_frames=4)
    frames = np.split(samples.frames, samples.starts[1:-1])
    for indices in (np.arange(12), rng.permutation(12)[:7], [3, 3, 3], [-1, 0, -12], rng.random(12) < 0.5, [11]):
        selected, expected = select(samples, indices), np.arange(12)[indices]
        assert len(selected) == len(expected)
        np.testing.assert_array_equal(selected.counts, samples.counts[expected])
        np.testing.assert_array_equal(selected.frames, np.concatenate([frames[index] for index in expected]))
        for name in ("pids", "camids", "names"):
            np.testing.assert_array_equal(getattr(selected, name), getattr(samples, name)[expected])


def test_select_none_and_of_the_selected():
    samples = image_samples(RECORDS)
    nothing = select(samples, [])
    assert len(nothing) == len(nothing.frames) == len(nothing.names) == 0
    assert nothing.starts.tolist() == [0] and nothing.frames.dtype == np.int64
    again = select(select(samples, [5, 1, 3]), [2, 0])
    assert again.frames.tolist() == [3, 5] and again.starts.tolist() == [0, 1, 2]
    with pytest.raises(IndexError, match="index 6 is out of bounds"):
        select(samples, [0, 6])


def test_errors():
    with pytest.raises(errors.UserError, match="1 of 6 images belong to no tracklet, the first is frame002.jpg"):
        tracklet_samples(dataclasses.replace(RECORDS, tracklets=np.array([7, 7, -1, 2, 7, 5])), max_frames=9)
    with pytest.raises(errors.UserError, match="tracklet 7 have different pids: 1 and 9, at frame004.jpg"):
        tracklet_samples(dataclasses.replace(RECORDS, pids=np.array([1, 1, 3, 3, 9, 1])), max_frames=9)
    with pytest.raises(errors.UserError, match="tracklet 2 have different camids: 1 and 0, at frame003.jpg"):
        tracklet_samples(dataclasses.replace(RECORDS, camids=np.array([0, 0, 1, 0, 0, 1])), max_frames=9)
    with pytest.raises(ValueError, match="max_frames"):
        tracklet_samples(RECORDS, max_frames=0)
