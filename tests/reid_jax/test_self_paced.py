import numpy as np
import pytest

from reid_jax import self_paced


def memberships(labels):
    """[N, N] bool: whether two samples are together; an outlier is alone."""
    labels = np.asarray(labels)
    return ((labels[:, None] == labels) & (labels[:, None] >= 0)) | np.eye(len(labels), dtype=bool)


def slow_overlap(labels, others):
    ours, theirs = memberships(labels), memberships(others)
    return (ours & theirs).sum(axis=1) / (ours | theirs).sum(axis=1)


def slow_threshold(labels, looser, share):
    """By distances 1 - IoU, in ascending order, as SpCL's code has it."""
    gaps = 1 - slow_overlap(labels, looser)
    least = [min(gaps[labels == c]) for c in np.unique(labels[labels >= 0]) if (labels == c).sum() > 1]
    return 1 - sorted(least)[min(len(least) - 1, round(len(least) * share))]


def slow_reliable(labels, tighter, looser, least_independence):
    """Returns which samples are together at the end, [N, N] bool: SpCL's code sample by sample."""
    independent, compact = slow_overlap(labels, looser), slow_overlap(labels, tighter)
    own = [memberships(labels)[i] for i in range(len(labels))]
    keys = [
        ("cluster", labels[i])
        if labels[i] >= 0
        and max(independent[own[i]]) >= least_independence - 1e-9
        and compact[i] >= max(compact[own[i]]) - 1e-9
        else ("alone", i)
        for i in range(len(labels))
    ]
    return np.array([[a == b for b in keys] for a in keys])


def draw_clusterings(rng, num_samples=60):
    """Three labelings with outliers, of which the others move some samples of the first."""
    labels = rng.integers(-1, 9, num_samples)
    labels[rng.random(num_samples) < 0.15] = -1
    labels[:3] = [20, 21, 21]  # a cluster of one
    tighter, looser = labels.copy(), labels.copy()
    tighter[rng.random(num_samples) < 0.3] = -1
    tighter[rng.random(num_samples) < 0.2] += 30
    looser[looser == 4] = 3
    looser[rng.random(num_samples) < 0.15] = 7
    return labels, tighter, looser


@pytest.mark.parametrize("seed", range(5))
def test_it_is_what_the_matrices_say(seed):
    labels, tighter, looser = draw_clusterings(np.random.default_rng(seed))
    np.testing.assert_allclose(self_paced.independence(labels, looser), slow_overlap(labels, looser), rtol=1e-12)
    np.testing.assert_allclose(self_paced.compactness(labels, tighter), slow_overlap(labels, tighter), rtol=1e-12)
    sizes = []
    for share in (0.9, 0.5, 0.0, 1.0):
        least = self_paced.independence_threshold(labels, looser, share=share)
        assert least == pytest.approx(slow_threshold(labels, looser, share))
        found = self_paced.reliable_labels(labels, tighter=tighter, looser=looser, least_independence=least)
        np.testing.assert_array_equal(memberships(found), slow_reliable(labels, tighter, looser, least))
        kept = found[found >= 0]
        assert found.dtype == np.int64 and (np.bincount(kept) > 1).all()  # no gaps, none alone
        sizes.append(len(kept))
    assert 0 < sizes[2] < sizes[1] < sizes[0] < (labels >= 0).sum()


#                   0  1  2  3  4  5  6  7  8   9
LABELS = np.array([[5, 5, 5, 5, 2, 2, 2, 8, 8, -1], [0, 0, 0, 1, 2, 2, 2, 3, -1, -1], [5, 5, 5, 5, 2, 2, 2, 2, 2, 2]])


def test_by_hand():
    labels, tighter, looser = LABELS
    expected = [1] * 4 + [1 / 2] * 3 + [2 / 6] * 2 + [1 / 6]
    np.testing.assert_array_equal(self_paced.independence(labels, looser), expected)
    expected = [3 / 4] * 3 + [1 / 4] + [1] * 3 + [1 / 2] * 2 + [1]
    np.testing.assert_array_equal(self_paced.compactness(labels, tighter), expected)
    # Three clusters, by independence 1, 1/2, 1/3: round(2.7) is past the last; round(1.5) = 2 is too; round(.9) = 1.
    shares = {0.9: 1 / 3, 0.5: 1 / 3, 0.3: 1 / 2, 0.0: 1.0, 1.0: 1 / 3}
    assert {share: self_paced.independence_threshold(labels, looser, share=share) for share in shares} == shares

    def reliable(least):
        return self_paced.reliable_labels(labels, tighter=tighter, looser=looser, least_independence=least).tolist()

    # Sample 3 is not in the most compact part of its cluster; both of cluster 8 are equally compact.
    assert reliable(1 / 3) == [1, 1, 1, -1, 0, 0, 0, 2, 2, -1]
    assert reliable(1 / 2) == [1, 1, 1, -1, 0, 0, 0, -1, -1, -1]
    assert reliable(0.51) == [0, 0, 0, -1, -1, -1, -1, -1, -1, -1]


def test_a_cluster_is_as_independent_as_its_best_sample():
    # The looser clustering parts one sample from its cluster and puts it elsewhere.
    labels, looser = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 1, 1, 1, 1])
    assert self_paced.independence(labels, looser).tolist() == [2 / 3, 2 / 3, 1 / 6, 3 / 4, 3 / 4, 3 / 4]
    found = self_paced.reliable_labels(labels, tighter=labels, looser=looser, least_independence=2 / 3)
    assert found.tolist() == [0, 0, 0, 1, 1, 1]


def test_a_sample_that_is_kept_alone_is_an_outlier():
    # Tighter, cluster 0 is sample 0 with strangers, and all others of it are with more strangers.
    labels, tighter = np.array([0, 0, 1, 1, 1, 1]), np.array([0, 1, 1, 1, 1, 1])
    assert self_paced.compactness(labels, tighter)[:2].tolist() == [1 / 2, 1 / 6]
    found = self_paced.reliable_labels(labels, tighter=tighter, looser=labels, least_independence=1.0)
    assert found.tolist() == [-1, -1, 0, 0, 0, 0]


def test_equal_clusterings_keep_everything(rng):
    labels = rng.integers(-1, 6, 50)
    renamed = np.where(labels < 0, -1, 2 * (labels + 3) % 13)
    assert self_paced.independence(labels, renamed).tolist() == [1.0] * 50
    assert self_paced.independence_threshold(labels, renamed) == 1.0
    found = self_paced.reliable_labels(labels, tighter=renamed, looser=labels, least_independence=1.0)
    np.testing.assert_array_equal(found, labels)
    order = rng.permutation(50)
    again = self_paced.reliable_labels(
        labels[order], tighter=labels[order], looser=labels[order], least_independence=1.0
    )
    np.testing.assert_array_equal(again, labels[order])


def test_without_a_cluster_nothing_is_reliable():
    alone = np.full(4, -1)
    assert self_paced.independence(alone, np.zeros(4, int)).tolist() == [1 / 4] * 4
    found = self_paced.reliable_labels(alone, tighter=alone, looser=alone, least_independence=0.0)
    assert found.tolist() == [-1] * 4


def test_errors():
    for call in (self_paced.independence, self_paced.compactness, self_paced.independence_threshold):
        with pytest.raises(ValueError, match=r"must both be \[N\], got shapes \(3,\) and \(4,\)"):
            call(np.zeros(3, int), np.zeros(4, int))
        with pytest.raises(ValueError, match=r"must both be \[N\]"):
            call(np.zeros((3, 1), int), np.zeros((3, 1), int))
    with pytest.raises(ValueError, match=r"must both be \[N\]"):
        self_paced.reliable_labels(np.zeros(3), tighter=np.zeros(4), looser=np.zeros(3), least_independence=0.5)
    with pytest.raises(ValueError, match="share must be in 0..1, got 1.5"):
        self_paced.independence_threshold(np.zeros(3, int), np.zeros(3, int), share=1.5)
    with pytest.raises(ValueError, match="a cluster of two samples or more"):
        self_paced.independence_threshold(np.arange(3), np.arange(3))
