import numpy as np
import pytest
import tiny_data
from scipy.spatial import distance

from reid_jax.retrieval import open_set
from reid_jax.retrieval.open_set import Nearest


def make_labelled(num_items, *, dim=6, num_ids=8, seed=0):
    """Returns (embeddings, pids, camids): identities of several images, one of a single image, distractors, two cameras."""
    rng = np.random.default_rng(seed)
    pids = rng.integers(0, num_ids, num_items)
    pids[num_items // 2] = num_ids
    embeddings = rng.normal(size=(num_ids + 1, dim))[pids] + 0.7 * rng.normal(size=(num_items, dim))
    return embeddings.astype(np.float32), pids, rng.integers(-1, 2, num_items)


def brute_force(embeddings, pids, camids, metric):
    """Item by item, from the definition."""
    between = distance.cdist(embeddings.astype(np.float64), embeddings.astype(np.float64), metric)
    same, other = np.full((2, len(pids)), np.inf)
    for query in range(len(pids)):
        for item in range(len(pids)):
            if item == query or pids[query] == 0:
                continue
            if pids[item] != pids[query]:
                other[query] = min(other[query], between[query, item])
            elif camids[item] == -1 or camids[item] != camids[query]:
                same[query] = min(same[query], between[query, item])
    return same, other


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "sqeuclidean"])
@pytest.mark.parametrize("block_size", [1, 7, 60, 512])
def test_nearest_equals_the_definition(metric, block_size):
    embeddings, pids, camids = make_labelled(60)
    found = open_set.nearest_same_and_other(embeddings, pids, camids, metric=metric, block_size=block_size)
    same, other = brute_force(embeddings, pids, camids, metric)
    np.testing.assert_allclose(found.same, same, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.other, other, rtol=1e-5, atol=1e-5)
    assert found.same.dtype == found.other.dtype == np.float32
    assert np.isinf(found.same[30]) and np.isfinite(found.other[30])  # a person's only image


def test_without_cameras_and_by_default():
    embeddings, pids, _ = make_labelled(40, seed=1)
    unknown = np.full(40, -1)
    for found in (
        open_set.nearest_same_and_other(embeddings, pids),
        open_set.nearest_same_and_other(embeddings, pids, unknown, metric="cosine"),
    ):
        same, other = brute_force(embeddings, pids, unknown, "cosine")
        np.testing.assert_allclose(found.same, same, atol=1e-5)
        np.testing.assert_allclose(found.other, other, atol=1e-5)


def test_nearest_by_hand():
    # On a line: person 1 at 0 and 3, person 2 at 4 and 10, a distractor at 11 and one at 12.
    line = np.array([[0.0], [3], [4], [10], [11], [12]], np.float32)
    pids, inf = np.array([1, 1, 2, 2, 0, 0]), np.inf
    found = open_set.nearest_same_and_other(line, pids, metric="euclidean")
    np.testing.assert_allclose(found.same, [3, 3, 6, 6, inf, inf])
    np.testing.assert_allclose(found.other, [4, 1, 1, 1, inf, inf])
    # Both images of person 2 are by camera 5; one of person 1 is by a camera that is not known.
    found = open_set.nearest_same_and_other(line, pids, np.array([-1, 5, 5, 5, 5, 5]), metric="euclidean")
    np.testing.assert_allclose(found.same, [3, 3, inf, inf, inf, inf])
    np.testing.assert_allclose(found.other, [4, 1, 1, 1, inf, inf])


def test_order_of_the_items_does_not_matter():
    embeddings, pids, camids = make_labelled(50, seed=2)
    order = np.random.default_rng(0).permutation(50)
    given = open_set.nearest_same_and_other(embeddings, pids, camids)
    permuted = open_set.nearest_same_and_other(embeddings[order], pids[order], camids[order])
    np.testing.assert_allclose(permuted.same, given.same[order], atol=1e-6)
    np.testing.assert_allclose(permuted.other, given.other[order], atol=1e-6)


def test_names_of_identities_and_cameras_do_not_matter():
    embeddings, pids, camids = make_labelled(50, seed=3)
    given = open_set.nearest_same_and_other(embeddings, pids, camids)
    renamed = open_set.nearest_same_and_other(
        embeddings, np.where(pids > 0, 1000 - pids, 0), np.where(camids >= 0, 9 - camids, -1)
    )
    np.testing.assert_array_equal(renamed.same, given.same)
    np.testing.assert_array_equal(renamed.other, given.other)


def test_an_item_is_not_its_own_neighbor():
    twice = np.repeat(np.eye(3, dtype=np.float32), 2, axis=0)
    found = open_set.nearest_same_and_other(twice, np.array([1, 1, 2, 3, 4, 4]))
    np.testing.assert_allclose(found.same, [0, 0, np.inf, np.inf, 0, 0], atol=1e-6)
    np.testing.assert_allclose(found.other, [1, 1, 0, 0, 1, 1], atol=1e-6)


def test_distractors_that_look_alike_do_not_change_the_threshold():
    embeddings, pids, camids = make_labelled(60, seed=4)
    before = open_set.calibrate(open_set.nearest_same_and_other(embeddings, pids, camids), false_alarm_rate=0.2)
    distractors = np.tile(10 * np.ones(6) * [1, -1, 1, -1, 1, -1], (40, 1)).astype(np.float32)
    people = pids > 0
    near = open_set.nearest_same_and_other(
        np.concatenate([embeddings, distractors]),
        np.concatenate([pids, np.zeros(40, int)]),
        np.concatenate([camids, np.full(40, -1)]),
    )
    after = open_set.calibrate(near, false_alarm_rate=0.2)
    assert after.num_items == before.num_items == people.sum()
    assert after.max_distance == pytest.approx(before.max_distance, abs=1e-3)


def test_no_items_and_one():
    found = open_set.nearest_same_and_other(np.zeros((0, 4), np.float32), np.zeros(0, int))
    assert found.same.shape == found.other.shape == (0,)
    found = open_set.nearest_same_and_other(np.ones((1, 4), np.float32), np.ones(1, int))
    assert np.isinf(found).all()


def test_errors_of_nearest():
    embeddings, pids, camids = make_labelled(20)
    with pytest.raises(ValueError, match=r"pids must"):
        open_set.nearest_same_and_other(embeddings, pids[1:], camids)
    with pytest.raises(ValueError, match=r"camids must"):
        open_set.nearest_same_and_other(embeddings, pids, camids[:, None])
    with pytest.raises(ValueError, match="pids must"):
        open_set.nearest_same_and_other(embeddings, np.where(pids == pids[3], -1, pids), camids)
    with pytest.raises(ValueError, match=r"x must"):
        open_set.nearest_same_and_other(embeddings[:, 0], pids, camids)
    with pytest.raises(ValueError, match="metric must"):
        open_set.nearest_same_and_other(embeddings, pids, metric="jaccard")
    with pytest.raises(ValueError, match="block_size must"):
        open_set.nearest_same_and_other(embeddings, pids, block_size=0)
    for value in (np.nan, np.inf):
        embeddings[7, 2] = value
        with pytest.raises(ValueError, match="embeddings must"):
            open_set.nearest_same_and_other(embeddings, pids, camids)


def below(value):
    return float(np.nextafter(np.float32(value), np.float32(-1)))


#                           found at 0.1, then at 0.4, nearer to another, only image, no other
SAME = np.array([0.05, 0.3, 0.35, np.inf, 0.2], np.float32)
OTHER = np.array([0.1, 0.4, 0.2, 0.2, np.inf], np.float32)


@pytest.mark.parametrize(
    ("rate", "max_distance", "false_alarms", "found"),
    [
        (0.0, 0.1, 0.0, 1 / 4),
        (0.2, 0.1, 0.0, 1 / 4),
        (0.25, 0.2, 1 / 4, 1 / 4),
        (0.5, 0.2, 1 / 4, 1 / 4),  # two are at 0.2: both or neither
        (0.74, 0.2, 1 / 4, 1 / 4),
        (0.75, 0.4, 3 / 4, 3 / 4),
        (0.99, 0.4, 3 / 4, 3 / 4),
    ],
)
def test_calibration_by_hand(rate, max_distance, false_alarms, found):
    result = open_set.calibrate(Nearest(SAME, OTHER), false_alarm_rate=rate)
    assert result == (below(max_distance), false_alarms, found, 4, 4)


def test_as_near_as_another_is_not_found():
    tied = Nearest(np.array([0.3, 0.3], np.float32), np.array([0.3, 0.9], np.float32))
    assert open_set.calibrate(tied, false_alarm_rate=0.5).found_rate == 0.5


@pytest.mark.filterwarnings("error")
def test_nobody_to_find():
    alone = Nearest(np.full(2, np.inf, np.float32), np.array([0.3, 0.5], np.float32))
    result = open_set.calibrate(alone, false_alarm_rate=0.5)
    assert np.isnan(result.found_rate) and (result.num_present, result.false_alarm_rate) == (0, 0.5)


def test_another_person_at_no_distance():
    near = Nearest(np.zeros(3, np.float32), np.array([0, 0, 1], np.float32))
    result = open_set.calibrate(near, false_alarm_rate=0.5)
    assert result.max_distance < 0 and (result.false_alarm_rate, result.found_rate) == (0, 0)


def some_nearest(num_items, *, seed, ties):
    rng = np.random.default_rng(seed)
    same, other = (rng.uniform(0.1, 1.5, num_items).astype(np.float32) for _ in range(2))
    if ties:
        same, other = np.round(same, 1), np.round(other, 1)
    same[rng.random(num_items) < 0.2] = np.inf
    return Nearest(same, other)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("num_items", [1, 2, 17, 100])
def test_the_greatest_threshold_that_keeps_the_promise(num_items, ties):
    for seed, rate in enumerate([0, 1e-9, 0.01, 0.05, 0.1, 0.29, 0.3, 1 / 3, 0.5, 0.7, 0.9, 0.999]):
        near = some_nearest(num_items, seed=seed, ties=ties)
        result = open_set.calibrate(near, false_alarm_rate=rate)
        assert result.false_alarm_rate == np.mean(near.other <= result.max_distance) <= rate
        further = np.nextafter(np.float32(result.max_distance), np.float32(np.inf))
        assert np.mean(near.other <= further) > rate
        found = [a <= result.max_distance and a < b for a, b in zip(*near) if np.isfinite(a)]
        assert (result.num_items, result.num_present) == (num_items, len(found))
        assert result.found_rate == pytest.approx(np.mean(found)) if found else np.isnan(result.found_rate)


def test_a_rate_that_can_be_met_exactly_is():
    # 0.29 * 100 is a little less than 29 in floating point, and k / n times n may be less or more than k.
    for num_items in (3, 7, 49, 100, 1000):
        near = Nearest(*np.tile(np.arange(num_items, dtype=np.float32), (2, 1)))
        for allowed in range(num_items):
            result = open_set.calibrate(near, false_alarm_rate=allowed / num_items)
            assert result.false_alarm_rate == allowed / num_items
            if allowed:
                less = np.nextafter(allowed / num_items, 0)
                assert open_set.calibrate(near, false_alarm_rate=less).false_alarm_rate == (allowed - 1) / num_items


def test_more_false_alarms_find_more():
    near = some_nearest(80, seed=5, ties=True)
    results = [open_set.calibrate(near, false_alarm_rate=rate) for rate in np.linspace(0, 0.99, 50)]
    for name in ("max_distance", "false_alarm_rate", "found_rate"):
        values = [getattr(result, name) for result in results]
        assert (np.diff(values) >= 0).all() and values[0] < values[-1]


def test_order_does_not_matter_to_the_calibration():
    near = some_nearest(30, seed=6, ties=False)
    order = np.random.default_rng(0).permutation(30)
    permuted = Nearest(near.same[order], near.other[order])
    assert open_set.calibrate(permuted, false_alarm_rate=0.2) == open_set.calibrate(near, false_alarm_rate=0.2)


def test_holds_for_people_who_were_not_calibrated_on():
    features, pids = tiny_data.clustered_features(num_ids=600, size=2, dim=16, spread=0.5)
    known = pids < 300
    near = open_set.nearest_same_and_other(features[known], pids[known] + 1)
    result = open_set.calibrate(near, false_alarm_rate=0.1)
    strangers = (1 - features[~known] @ features[known].T).min(axis=1)
    assert 0.07 < np.mean(strangers <= result.max_distance) < 0.13


def test_errors_of_calibrate():
    near = Nearest(SAME, OTHER)
    for rate in (-0.01, 1, 1.5, np.nan):
        with pytest.raises(ValueError, match="false_alarm_rate must"):
            open_set.calibrate(near, false_alarm_rate=rate)
    for items in (slice(4, 5), slice(0, 0)):
        with pytest.raises(ValueError, match="nearest must"):
            open_set.calibrate(Nearest(SAME[items], OTHER[items]), false_alarm_rate=0.1)
