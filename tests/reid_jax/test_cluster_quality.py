import numpy as np
import pytest
from sklearn import metrics

from reid_jax import cluster_quality

RNG = np.random.default_rng(0)
LABELINGS = [
    (RNG.integers(0, 7, 60), RNG.integers(0, 5, 60)),
    (np.arange(20), RNG.integers(0, 4, 20)),
    (np.zeros(20, int), RNG.integers(0, 4, 20)),
    (RNG.integers(10, 13, 30) ** 2, RNG.integers(0, 30, 30)),
]


def slow_bcubed(labels, pids):
    same_label, same_pid = labels[:, None] == labels, pids[:, None] == pids
    both = (same_label & same_pid).sum(1)
    precision, recall = (both / same_label.sum(1)).mean(), (both / same_pid.sum(1)).mean()
    return precision, recall, 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize("labels,pids", LABELINGS)
def test_against_definitions_and_scikit_learn(labels, pids):
    np.testing.assert_allclose(cluster_quality.bcubed(labels, pids), slow_bcubed(labels, pids), rtol=1e-12)
    same_label, same_pid = labels[:, None] == labels, pids[:, None] == pids
    upper = np.triu(np.ones((len(pids),) * 2, bool), 1)
    expected = (
        (same_label & same_pid & upper).sum(),
        (same_label & ~same_pid & upper).sum(),
        (~same_label & same_pid & upper).sum(),
    )
    assert tuple(cluster_quality.pair_counts(labels, pids)) == expected
    ari = cluster_quality.adjusted_rand_index(labels, pids)
    np.testing.assert_allclose(ari, metrics.adjusted_rand_score(pids, labels), atol=1e-12)
    nmi = cluster_quality.normalized_mutual_information(labels, pids)
    np.testing.assert_allclose(nmi, metrics.normalized_mutual_info_score(pids, labels), atol=1e-12)


def test_bcubed_by_hand():
    # Clusters {0, 0, 1} and {1}: precision (2/3 + 2/3 + 1/3 + 1) / 4, recall (1 + 1 + 1/2 + 1/2) / 4.
    precision, recall, f_score = cluster_quality.bcubed(np.array([5, 5, 5, 9]), np.array([0, 0, 1, 1]))
    assert (precision, recall) == (pytest.approx(2 / 3), 0.75)
    assert f_score == pytest.approx(2 * (2 / 3) * 0.75 / (2 / 3 + 0.75))


def test_unknown_identities_are_left_out():
    labels, pids = np.array([0, 0, 1, 1, 2]), np.array([3, 3, 4, -1, -1])
    assert cluster_quality.bcubed(labels, pids) == (1.0, 1.0, 1.0)
    assert np.isnan(cluster_quality.bcubed(labels, np.full(5, -1))).all()


def test_equal_labelings_agree_whatever_the_numbers(rng):
    labels = rng.integers(0, 5, 40)
    renamed = (labels * 7 + 3) % 11
    assert cluster_quality.adjusted_rand_index(labels, renamed) == 1.0
    assert cluster_quality.normalized_mutual_information(labels, renamed) == pytest.approx(1.0)
    assert cluster_quality.adjusted_rand_index(np.arange(5), np.arange(5)) == 1.0


def test_silhouette_equals_scikit_learn_in_blocks(rng):
    points = rng.normal(size=(50, 3)).astype(np.float32)
    distances = np.sqrt(((points[:, None] - points) ** 2).sum(-1))
    labels = rng.integers(0, 6, 50)
    labels[:2] = [50, 51]  # two that are alone
    expected = metrics.silhouette_score(distances, labels, metric="precomputed")
    for block_size in (7, 1000):
        assert cluster_quality.silhouette(distances, labels, block_size=block_size) == pytest.approx(expected, abs=1e-6)
    without = labels.copy()
    without[10:20] = -1
    kept = without >= 0
    expected = metrics.silhouette_score(distances[np.ix_(kept, kept)], labels[kept], metric="precomputed")
    assert cluster_quality.silhouette(distances, without) == pytest.approx(expected, abs=1e-6)
    assert np.isnan(cluster_quality.silhouette(distances, np.zeros(50, int)))


def test_shape_errors():
    with pytest.raises(ValueError, match=r"must both be \[N\]"):
        cluster_quality.bcubed(np.zeros(3), np.zeros(4))
    with pytest.raises(ValueError, match=r"distances must"):
        cluster_quality.silhouette(np.zeros((3, 4)), np.zeros(3))
