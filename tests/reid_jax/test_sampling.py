import numpy as np
import pytest

from reid_jax import sampling
from reid_jax.data.samples import Samples


def draw(labels, seed=0, **options):
    return sampling.pk_batches(np.random.default_rng(seed), np.array(labels), **options)


def test_every_cluster_once_p_at_a_time():
    labels = np.repeat(np.arange(12), 5)
    batches = draw(labels, num_ids=4, num_instances=3)
    assert batches.shape == (3, 12)
    rows = labels[batches].reshape(3, 4, 3)
    assert (rows == rows[:, :, :1]).all()  # K images of a cluster next to each other
    assert sorted(rows[:, :, 0].ravel()) == list(range(12))
    assert all(len(set(group)) == 3 for group in batches.reshape(-1, 3))  # without replacement


def test_with_replacement_only_where_a_cluster_is_too_small():
    labels = [0, 1, 1, 2, 2, 2, 2]
    batches = draw(labels, num_ids=3, num_instances=4).reshape(3, 4)
    groups = {labels[group[0]]: group for group in batches}
    assert set(groups[0]) == {0} and set(groups[1]) <= {1, 2} and sorted(groups[2]) == [3, 4, 5, 6]


def test_small_clusters_are_drawn_uniformly():
    counts = np.zeros(3)
    for seed in range(400):
        np.add.at(counts, draw([0, 0, 0], seed, num_ids=1, num_instances=4).ravel(), 1)
    assert np.abs(counts / counts.sum() - 1 / 3).max() < 0.05


def test_clusters_left_over_differ_between_epochs_and_shapes_do_not():
    labels = np.repeat(np.arange(10), 4)
    epochs = [draw(labels, seed, num_ids=4, num_instances=2) for seed in range(20)]
    assert {epoch.shape for epoch in epochs} == {(2, 8)}
    assert set(np.concatenate([labels[epoch].ravel() for epoch in epochs])) == set(range(10))


def test_unused_images_never_appear_and_one_seed_gives_one_epoch():
    labels = np.array([-1, 0, 0, -1, 1, 1, 1, 2])
    first, again = (draw(labels, 5, num_ids=3, num_instances=2) for _ in range(2))
    assert (labels[first] >= 0).all() and (first == again).all()
    assert (first != draw(labels, 6, num_ids=3, num_instances=2)).any()


def test_market_epoch_has_73_batches():
    labels = np.arange(12936) % 1171  # HCT's number of clusters on Market-1501
    assert draw(labels, num_ids=16, num_instances=4).shape == (73, 64)


def test_pk_errors():
    with pytest.raises(ValueError, match="at most the number of clusters, 2, got 3"):
        draw([0, 0, 1], num_ids=3, num_instances=2)
    with pytest.raises(ValueError, match="at least 1"):
        draw([0, 1], num_ids=2, num_instances=0)
    with pytest.raises(ValueError, match=r"must be \[N\]"):
        draw([[0, 1]], num_ids=1, num_instances=1)


def test_shuffled_batches_show_every_labelled_image_once():
    labels = np.array([0, -1, 1, 2, 0, 1, 2])
    batches = sampling.shuffled_batches(np.random.default_rng(0), labels, batch_size=3)
    assert sorted(batches.ravel()) == [0, 2, 3, 4, 5, 6]
    with pytest.raises(ValueError, match="in 1..6"):
        sampling.shuffled_batches(np.random.default_rng(0), labels, batch_size=7)


def test_sequential_batches_repeat_the_last_item():
    assert sampling.sequential_batches(5, batch_size=3).tolist() == [[0, 1, 2], [3, 4, 4]]


def make_samples(counts):
    starts = np.concatenate([[0], np.cumsum(counts)])
    every = np.zeros(len(counts), np.int64)
    return Samples(np.arange(starts[-1]) + 100, starts, every, every, every.astype(str))


def test_frames_are_drawn_from_their_own_sample():
    samples = make_samples([1, 3, 8, 8])
    index_batches = np.array([[3, 1], [0, 2]])
    frames = sampling.draw_frames(np.random.default_rng(0), samples, index_batches, num_frames=4)
    assert frames.shape == (2, 8)
    for sample, drawn in zip([3, 1, 0, 2], frames.reshape(4, 4)):
        own = samples.frames[samples.starts[sample] : samples.starts[sample + 1]]
        assert np.isin(drawn, own).all() and (np.diff(drawn) >= 0).all()
        # Without replacement where there are enough.
        assert len(own) < 4 or len(np.unique(drawn)) == 4


def test_every_frame_is_drawn_equally_often():
    samples = make_samples([6, 2])
    index_batches = np.tile([0, 1], (3000, 1))
    frames = sampling.draw_frames(np.random.default_rng(0), samples, index_batches, num_frames=3)
    counts = np.bincount(frames.ravel() - 100)
    np.testing.assert_allclose(counts[:6] / 3000, 0.5, atol=0.04)
    np.testing.assert_allclose(counts[6:] / 3000, 1.5, atol=0.06)


def test_images_draw_nothing():
    rng = np.random.default_rng(0)
    index_batches = np.array([[2, 0], [1, 1]])
    frames = sampling.draw_frames(rng, make_samples([1, 1, 1]), index_batches, num_frames=1)
    np.testing.assert_array_equal(frames, index_batches + 100)
    assert rng.random() == np.random.default_rng(0).random()


def test_draw_frames_errors():
    with pytest.raises(ValueError, match="num_frames must"):
        sampling.draw_frames(np.random.default_rng(0), make_samples([1]), np.array([[0]]), num_frames=0)


def test_grouped_batches_show_every_cluster_once_a_pass_and_repeat_no_image():
    labels = np.array([7, 7, 7, 7, 7, -1, 3, 3, 5, 9])
    passes = sampling.grouped_batches(
        np.random.default_rng(0), labels, batch_size=3, num_instances=3, num_steps=2 * 7
    ).reshape(-1, 7)
    for drawn in passes:  # 3 of the five, and all of the others
        assert len(set(drawn)) == 7 and sorted(labels[drawn]) == [3, 3, 5, 7, 7, 7, 9]
        assert np.count_nonzero(np.diff(labels[drawn])) == 3  # a cluster's images side by side
    assert any((passes[0] != other).any() for other in passes[1:])


def test_grouped_batches_of_singletons_are_all_images_once():
    batches = sampling.grouped_batches(
        np.random.default_rng(0), np.arange(12), batch_size=4, num_instances=4, num_steps=3
    )
    assert sorted(batches.ravel()) == list(range(12))


def test_grouped_batches_refuse_what_they_cannot_draw():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="must be at least 1, got 4, 0, 1"):
        sampling.grouped_batches(rng, np.arange(4), batch_size=4, num_instances=0, num_steps=1)
    with pytest.raises(ValueError, match="pseudo_labels must"):
        sampling.grouped_batches(rng, np.full(4, -1), batch_size=4, num_instances=2, num_steps=1)


def test_camera_batches_have_groups_of_one_camera(rng):
    labels, camids = np.repeat(np.arange(10), 6), np.tile([3, 3, 3, 3, 5, 5], 10)
    labels[:6] = -1
    batches = sampling.camera_batches(rng, labels, camids, batch_size=16, group_size=8, num_instances=2, num_steps=200)
    assert batches.shape == (200, 16) and (labels[batches] >= 0).all()
    groups = batches.reshape(-1, 8)
    assert (camids[groups] == camids[groups[:, :1]]).all()
    assert np.mean(camids[groups[:, 0]] == 3) == pytest.approx(2 / 3, abs=0.1)  # as many as there are of each
    pairs = labels[groups].reshape(-1, 2)
    assert np.mean(pairs[:, 0] == pairs[:, 1]) > 0.8  # two images of a cluster, side by side
    with pytest.raises(ValueError, match="group_size must divide the batch of 16, got 5"):
        sampling.camera_batches(rng, labels, camids, batch_size=16, group_size=5, num_instances=2, num_steps=1)
    with pytest.raises(ValueError, match="not negative"):
        sampling.camera_batches(rng, np.full(60, -1), camids, batch_size=16, group_size=8, num_instances=2, num_steps=1)
