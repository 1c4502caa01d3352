import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from reid_jax import label_metrics

NOBODY = np.full(8, -1)
# Three together, two together, three outliers.
LABELS = np.array([0, 0, 0, 1, 1, -1, -1, -1])


def sizes_of(metrics):
    return {name: metrics[name] for name in ("num_clusters", "num_groups", "num_alone", "largest_cluster")}


def make_people(rng, *, num_people=60, num_cameras=6, seen_by=6):
    """Returns (pids, camids) [N]: 16 images of a person, by some of the cameras."""
    pids = np.repeat(np.arange(num_people), 16)
    cameras = np.stack([rng.permutation(num_cameras)[:seen_by] for _ in range(num_people)])
    return pids, cameras[pids, rng.integers(0, seen_by, len(pids))]


def test_sizes_by_hand():
    expected = {"num_clusters": 5, "num_groups": 2, "num_alone": 3, "largest_cluster": 3}
    assert sizes_of(label_metrics.clustered_metrics(LABELS, None, NOBODY)) == expected
    alone = label_metrics.singleton_labels(LABELS)
    assert sizes_of(label_metrics.label_metrics(alone, None, NOBODY)) == expected
    # Of HCD the top level.
    levels = np.stack([np.arange(8), alone], axis=1)
    assert sizes_of(label_metrics.level_metrics(levels, None, NOBODY)) == expected
    # Of PUL's the selected samples; the largest number may be greater than that of clusters that are left.
    expected = {"num_clusters": 5, "num_groups": 1, "num_alone": 1, "largest_cluster": 3}
    selected = np.array([0, 0, 0, 4, -1, -1, -1, -1])
    assert sizes_of(label_metrics.selected_metrics(selected, None, NOBODY)) == expected


def test_extremes():
    every = label_metrics.label_metrics(np.zeros(8, int), None, NOBODY)
    assert sizes_of(every) == {"num_clusters": 1, "num_groups": 1, "num_alone": 0, "largest_cluster": 8}
    nobody = label_metrics.clustered_metrics(NOBODY, None, NOBODY)
    assert sizes_of(nobody) == {"num_clusters": 8, "num_groups": 0, "num_alone": 8, "largest_cluster": 1}


def test_what_was_logged_before_is_as_it_was(rng):
    labels, previous, true_ids = (rng.integers(-1, 9, 60) for _ in range(3))
    camids = rng.integers(-1, 4, 60)
    new = {"num_groups", "num_alone", "largest_cluster", "camera_nmi"}
    measured = (
        label_metrics.clustered_metrics(labels, previous, true_ids, camids=camids),
        label_metrics.selected_metrics(labels, previous, true_ids, camids=camids),
        label_metrics.level_metrics(labels[:, None].clip(0), previous[:, None].clip(0), true_ids, camids=camids),
    )
    names = ["num_clusters", "agreement", "bcubed_precision", "bcubed_recall", "bcubed_f", "nmi", "ari"]
    names += ["true_positives", "false_positives", "false_negatives"]
    for metrics in measured:
        kept = [name for name in metrics if name not in new and not name.startswith("level")]
        assert kept == names and new <= metrics.keys()
        assert all(type(metrics[name]) in (int, float) for name in metrics)
    used = label_metrics.singleton_labels(labels)
    assert measured[0]["num_clusters"] == len(np.unique(used))
    known = true_ids >= 0
    expected = sklearn_metrics.normalized_mutual_info_score(true_ids[known], used[known])
    assert measured[0]["nmi"] == pytest.approx(expected)


def test_cameras_of_random_right_and_single_camera_labels(rng):
    pids, camids = make_people(rng)
    random = rng.integers(0, 60, len(pids))
    split = np.unique(6 * pids + camids, return_inverse=True)[1]
    found = [label_metrics.camera_dependence(labels, camids) for labels in (random, pids, split, camids)]
    np.testing.assert_allclose(found, [0, 0, 1, 1], atol=0.03)
    # Plain NMI would call clusters that are of one camera each hardly less independent than pairs by chance.
    pairs = rng.permutation(len(pids)) // 2
    plain = [sklearn_metrics.normalized_mutual_info_score(labels, camids) for labels in (split, pairs)]
    assert plain[0] < 0.5 and plain[1] > 0.25
    assert abs(label_metrics.camera_dependence(pairs, camids)) < 0.05
    # People whom two cameras saw: right labels tell something of the camera.
    pids, camids = make_people(rng, seen_by=2)
    assert 0.5 < label_metrics.camera_dependence(pids, camids) < 0.7


def test_cameras_count_for_samples_that_are_not_alone_and_known():
    labels, camids = np.array([0, 0, 1, 1, 2, 3, 4, 4]), np.array([0, 0, 1, 1, 1, 0, 1, -1])
    # Of the last cluster only one camera is known: its samples are left out, like those that are alone.
    assert label_metrics.camera_dependence(labels, camids) == pytest.approx(1)
    for nothing in (np.full(8, -1), np.zeros(8, int), np.array([0, 0, 0, 0, 1, 1, -1, 1])):
        assert label_metrics.camera_dependence(labels, nothing) is None
        assert "camera_nmi" not in label_metrics.label_metrics(labels, None, NOBODY, camids=nothing)
    assert "camera_nmi" not in label_metrics.label_metrics(labels, None, NOBODY)


def test_cameras_of_every_method(rng):
    pids, camids = make_people(rng, num_people=8)
    expected = label_metrics.camera_dependence(pids, camids)
    left_out = np.where(rng.random(len(pids)) < 0.3, -1, pids)
    used = left_out >= 0
    of_used = label_metrics.camera_dependence(pids[used], camids[used])
    levels, nobody = np.stack([np.arange(len(pids)), pids], axis=1), np.full(len(pids), -1)
    for measure, labels, value in (
        (label_metrics.label_metrics, pids, expected),
        (label_metrics.level_metrics, levels, expected),
        (label_metrics.clustered_metrics, left_out, of_used),
        (label_metrics.selected_metrics, left_out, of_used),
    ):
        assert measure(labels, None, nobody, camids=camids)["camera_nmi"] == pytest.approx(value)
