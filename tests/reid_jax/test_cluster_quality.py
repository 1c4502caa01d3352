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


@pytest.mark.parametrize("num_items, num_a, num_b", [(30, 3, 4), (200, 40, 6), (500, 200, 2), (90, 2, 30), (41, 2, 2)])
def test_adjusted_mutual_information_is_scikit_learns(rng, num_items, num_a, num_b):
    a, b = rng.integers(0, num_a, num_items), rng.integers(0, num_b, num_items)
    b[:10] = a[:10] % num_b
    for labels in ((a, b), (b, a), (a, a % num_b), (7 * a + 2, b)):
        expected = metrics.adjusted_mutual_info_score(*labels, average_method="min")
        np.testing.assert_allclose(cluster_quality.adjusted_mutual_information(*labels), expected, atol=1e-9)


def test_adjusted_mutual_information_by_hand(rng):
    # Two pairs each. Of the three ways to pair four images one has all in common, log 2, and two have nothing.
    labels = np.array([0, 0, 1, 1])
    assert cluster_quality.adjusted_mutual_information(labels, labels) == pytest.approx(1)
    expected = np.log(2) / 3
    crossed = cluster_quality.adjusted_mutual_information(labels, np.array([0, 1, 0, 1]))
    assert crossed == pytest.approx((0 - expected) / (np.log(2) - expected))
    # One tells the other wholly: enough.
    assert cluster_quality.adjusted_mutual_information(np.arange(8) // 2, np.arange(8) // 4) == pytest.approx(1)
    # Nothing to tell, or nothing but by chance; an unknown image counts for nothing.
    for other in (np.zeros(4, int), np.arange(4), np.array([0, 0, -1, -1])):
        assert cluster_quality.adjusted_mutual_information(labels, other) == 0
    # Never beyond 1, where rounding would take it.
    many = [rng.integers(0, 5, 40) for _ in range(50)]
    assert max(cluster_quality.adjusted_mutual_information(each, each % 3) for each in many) <= 1


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
