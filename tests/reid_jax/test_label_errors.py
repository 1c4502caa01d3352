"""reid_jax/label_errors.py: whose a cluster is, and which samples, clusters and identities the labels get wrong."""

import itertools

import numpy as np
import pytest

from reid_jax import cluster_quality, identities, label_errors
from reid_jax.label_errors import Outcome

# Cluster 7 holds three of identity 1 and two of 2; cluster 3 two of 2; cluster 5 one of 1 and two nobody knows.
LABELS = np.array([7, 7, 7, 7, 7, 3, 3, 5, 5, 5, -1, -1, -1])
TRUE_IDS = np.array([1, 1, 1, 2, 2, 2, 2, 1, -1, -1, 2, 8, -1])


def random_labelings(number):
    """Small labelings of all kinds: few and many clusters, unknown identities, samples that no cluster took."""
    rng = np.random.default_rng(0)
    for _ in range(number):
        size, clusters, identities = rng.integers(1, 25), rng.integers(1, 9), rng.integers(1, 9)
        yield rng.integers(-1, clusters, size) * 3, rng.integers(-1, identities, size) * 2


def slow_clusters(labels):
    """Clusters by the order in which ties are decided: the lists of their samples."""
    inside = [np.flatnonzero(labels == label).tolist() for label in sorted({*labels.tolist()}) if label >= 0]
    return inside + [[i] for i in range(len(labels)) if labels[i] < 0]


def slow_outcomes(labels, true_ids):
    clusters = slow_clusters(labels)
    votes = [[true_ids[i] for i in cluster if true_ids[i] >= 0] for cluster in clusters]
    owners = [max(sorted(set(ids)), key=ids.count) if ids else None for ids in votes]
    outcomes = {}
    for number, cluster in enumerate(clusters):
        for i in cluster:
            mine = [other for other in range(len(clusters)) if owners[other] == true_ids[i]]
            if true_ids[i] < 0:
                outcomes[i] = Outcome.UNKNOWN
            elif owners[number] != true_ids[i]:
                outcomes[i] = Outcome.FALSE_POSITIVE
            elif max(mine, key=lambda other: votes[other].count(true_ids[i])) != number:
                outcomes[i] = Outcome.FALSE_NEGATIVE
            else:
                outcomes[i] = Outcome.TRUE_POSITIVE
    return [outcomes[i] for i in range(len(labels))]


def slow_mixtures(outer, inner, true_ids):
    """By outer cluster (a list of samples), its groups and pairs, as (first sample, groups, pairs), in their order."""
    found = []
    for samples in outer:
        groups = [[i for i in part if i in samples and true_ids[i] >= 0] for part in inner]
        groups = sorted((group for group in groups if group), key=lambda group: -len(group))
        wrong = sum(len(a) * len(b) for a, b in itertools.combinations(groups, 2))
        if wrong:
            found.append((groups, wrong))
    return sorted(found, key=lambda mixture: -mixture[1])


def as_lists(mixtures):
    return [([group.tolist() for group in mixture.groups], mixture.num_wrong_pairs) for mixture in mixtures]


def test_outcomes_by_hand():
    positive, false_positive, false_negative, unknown = 0, 1, 2, -1
    assert label_errors.sample_outcomes(LABELS, TRUE_IDS).tolist() == [
        *[positive] * 3,
        *[false_positive] * 2,
        *[positive] * 2,  # identity 2 has as many in cluster 7, but that is 1's
        *[false_negative, unknown, unknown],
        *[false_negative, positive, unknown],  # nobody else is of identity 8
    ]
    assert label_errors.sample_outcomes(LABELS, TRUE_IDS).dtype == np.int8 and Outcome.UNKNOWN == identities.UNKNOWN


def test_a_main_cluster_has_most_of_the_identity_not_most_samples():
    # Cluster 0 has 5 samples, 3 of them of identity 4; cluster 1 has 4 and all are.
    labels, true_ids = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1]), np.array([4, 4, 4, 5, -1, 4, 4, 4, 4])
    assert label_errors.sample_outcomes(labels, true_ids).tolist() == [2, 2, 2, 1, -1, 0, 0, 0, 0]


def test_ties_go_to_the_lowest_and_last_to_what_no_cluster_took():
    outcomes = label_errors.sample_outcomes
    assert outcomes(np.array([0, 0]), np.array([9, 3])).tolist() == [1, 0]
    assert outcomes(np.array([6, 4]), np.array([3, 3])).tolist() == [2, 0]
    assert outcomes(np.array([-1, 4]), np.array([3, 3])).tolist() == [2, 0]
    assert outcomes(np.array([-1, -1, -2]), np.array([3, 3, 3])).tolist() == [0, 2, 2]


def test_outcomes_equal_the_definitions():
    seen = set()
    for labels, true_ids in random_labelings(300):
        outcomes = label_errors.sample_outcomes(labels, true_ids).tolist()
        assert outcomes == slow_outcomes(labels, true_ids)
        seen.update(outcomes)
    assert seen == {-1, 0, 1, 2}


def test_merges_and_splits_by_hand():
    (merge,) = label_errors.largest_wrong_merges(LABELS, TRUE_IDS, most=9)
    assert (merge.label, *as_lists([merge])) == (7, ([[0, 1, 2], [3, 4]], 6))
    splits = label_errors.largest_wrong_splits(LABELS, TRUE_IDS, most=9)
    assert [split.label for split in splits] == [2, 1]
    # Identity 2: 2 x 2 + 2 x 1 + 2 x 1; of equally large clusters that of label 3 is first.
    assert as_lists(splits) == [([[5, 6], [3, 4], [10]], 8), ([[0, 1, 2], [7]], 3)]
    assert as_lists(label_errors.largest_wrong_splits(LABELS, TRUE_IDS, most=1)) == as_lists(splits[:1])


def test_of_as_many_pairs_the_lowest_label_comes_first():
    labels, true_ids = np.array([8, 8, 2, 2, 5, 5, 5]), np.array([1, 0, 1, 0, 1, 1, 0])
    merges = label_errors.largest_wrong_merges(labels, true_ids, most=3)
    assert [(merge.label, merge.num_wrong_pairs) for merge in merges] == [(5, 2), (2, 1), (8, 1)]
    assert as_lists(merges)[1:] == [([[3], [2]], 1), ([[1], [0]], 1)]
    splits = label_errors.largest_wrong_splits(np.array([0, 1, 0, 1]), np.array([6, 6, 4, 4]), most=3)
    assert [split.label for split in splits] == [4, 6]


def test_merges_and_splits_equal_the_definitions():
    lengths = set()
    for labels, true_ids in random_labelings(300):
        clusters, identities = slow_clusters(labels), slow_clusters(true_ids)
        merges = label_errors.largest_wrong_merges(labels, true_ids, most=100)
        splits = label_errors.largest_wrong_splits(labels, true_ids, most=100)
        assert as_lists(merges) == slow_mixtures(clusters, identities, true_ids)
        assert as_lists(splits) == slow_mixtures(identities, clusters, true_ids)
        for merge in merges:
            assert {merge.label} == set(labels[np.concatenate(merge.groups)])
        for split in splits:
            assert {split.label} == set(true_ids[np.concatenate(split.groups)])
        assert as_lists(label_errors.largest_wrong_merges(labels, true_ids, most=2)) == as_lists(merges[:2])
        lengths |= {len(merges), len(splits)}
    assert {0, 1, 2, 3} <= lengths


def test_all_wrong_pairs_are_those_of_the_pair_counts():
    rng = np.random.default_rng(1)
    labels, true_ids = rng.integers(0, 20, 500), rng.integers(-1, 30, 500)
    counts = cluster_quality.pair_counts(labels, true_ids)
    merges = label_errors.largest_wrong_merges(labels, true_ids, most=500)
    splits = label_errors.largest_wrong_splits(labels, true_ids, most=500)
    assert sum(merge.num_wrong_pairs for merge in merges) == counts.false_positives
    assert sum(split.num_wrong_pairs for split in splits) == counts.false_negatives


def test_the_numbers_of_labels_do_not_matter():
    rng = np.random.default_rng(2)
    labels, true_ids = rng.integers(0, 20, 500), rng.integers(0, 30, 500)
    order = rng.permutation(500)
    outcomes = label_errors.sample_outcomes(labels, true_ids)
    # Names in another range, in the same order, of another type.
    renamed = label_errors.sample_outcomes((labels * 5 + 2).astype(np.uint64), (true_ids * 7).astype(np.int16))
    np.testing.assert_array_equal(outcomes, renamed)
    np.testing.assert_array_equal(outcomes[order], label_errors.sample_outcomes(labels[order], true_ids[order]))


def test_right_labels_have_no_errors():
    true_ids = np.array([3, 3, 0, 0, 0, 9])
    assert not label_errors.sample_outcomes(true_ids + 1, true_ids).any()
    assert label_errors.largest_wrong_merges(true_ids + 1, true_ids, most=5) == []
    assert label_errors.largest_wrong_splits(true_ids + 1, true_ids, most=5) == []


@pytest.mark.parametrize("size", [0, 3])
def test_nothing_is_known(size):
    labels, true_ids = np.zeros(size, int), np.full(size, -1)
    assert label_errors.sample_outcomes(labels, true_ids).tolist() == [Outcome.UNKNOWN] * size
    assert label_errors.largest_wrong_merges(labels, true_ids, most=1) == []
    assert label_errors.largest_wrong_splits(labels, true_ids, most=1) == []


def test_cluster_sizes():
    assert label_errors.cluster_sizes(LABELS).tolist() == [5, 3, 2, 1, 1, 1]
    assert label_errors.cluster_sizes(np.zeros(4, np.uint8)).tolist() == [4]
    assert label_errors.cluster_sizes(np.zeros(0, int)).tolist() == []


@pytest.mark.parametrize(
    "labels,true_ids,message",
    [
        (np.zeros((2, 2), int), np.zeros(2, int), r"pseudo_labels must be \[N\] integers, got shape \(2, 2\) of int64"),
        (np.zeros(2), np.zeros(2, int), r"pseudo_labels must be \[N\] integers, got shape \(2,\) of float64"),
        (np.zeros(2, int), np.zeros(2, bool), r"true_ids must be \[N\] integers, got shape \(2,\) of bool"),
        (np.zeros(2, int), np.zeros(3, int), r"true_ids must be \[2\] as pseudo_labels, got shape \(3,\)"),
    ],
)
def test_other_shapes_and_types_are_refused(labels, true_ids, message):
    for function in (label_errors.largest_wrong_merges, label_errors.largest_wrong_splits):
        with pytest.raises(ValueError, match=message):
            function(labels, true_ids, most=1)
    with pytest.raises(ValueError, match=message):
        label_errors.sample_outcomes(labels, true_ids)
    if "pseudo" in message[:6]:
        with pytest.raises(ValueError, match=message):
            label_errors.cluster_sizes(labels)


@pytest.mark.parametrize("function", [label_errors.largest_wrong_merges, label_errors.largest_wrong_splits])
def test_at_least_one_is_asked_for(function):
    with pytest.raises(ValueError, match="most must"):
        function(LABELS, TRUE_IDS, most=0)
