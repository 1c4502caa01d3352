import numpy as np

from reid_jax.linkage import unions


def test_halvings_by_hand():
    # Components {0, 2, 3, 5} and {1, 4}: neighbours first, then the totals of two.
    levels = [(a.tolist(), b.tolist()) for a, b in unions.halvings(np.array([0, 1, 0, 0, 1, 0]))]
    assert levels == [([0, 3, 1], [2, 5, 4]), ([0], [3])]
    assert list(unions.halvings(np.arange(4))) == []


def test_halvings_leave_every_total_at_its_root():
    rng = np.random.default_rng(0)
    for num_items in (1, 2, 17, 64):
        labels = rng.integers(0, max(1, num_items // 4), num_items)
        _, firsts, inverse = np.unique(labels, return_index=True, return_inverse=True)
        united, totals = firsts[inverse], np.arange(num_items)
        for targets, sources in unions.halvings(united):
            assert len(np.unique(targets)) == len(targets)
            totals[targets] += totals[sources]
        expected = np.bincount(united, weights=np.arange(num_items))
        np.testing.assert_array_equal(totals[firsts], expected[firsts])


def test_united_among_by_hand():
    united = np.array([0, 1, 0, 0, 1, 0])
    assert unions.united_among(united, np.array([2, 3, 4])).tolist() == [0, 1, 2, 2, 4, 5]
    assert unions.united_among(united, np.arange(6)).tolist() == united.tolist()
    assert unions.united_among(united, np.arange(0)).tolist() == [0, 1, 2, 3, 4, 5]
