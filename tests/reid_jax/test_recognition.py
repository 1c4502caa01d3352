import numpy as np
import pytest
from sklearn import metrics

from reid_jax import recognition

# Four images at 0, 30, 90 and 180 degrees; their copies at 10, 28, 160 and 180.
ANGLES, COPIES = np.array([0, 30, 90, 180]), np.array([10, 28, 160, 180])


def at(degrees):
    return np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], axis=1).astype(np.float32)


def noisy(rng, noise=0.8, num_items=41, dim=6):
    images = rng.normal(size=(num_items, dim))
    return images.astype(np.float32), (images + noise * rng.normal(size=images.shape)).astype(np.float32)


def slow_similarities(images, copies):
    return metrics.pairwise.cosine_similarity(copies.astype(np.float64), images.astype(np.float64))


def test_by_hand():
    # The third copy is nearer to the fourth image, 20 degrees away, than to its own, 70 away: rank 2.
    rate, reciprocal_rank = recognition.recognition(at(ANGLES), at(COPIES))
    assert (rate, reciprocal_rank) == (0.75, (1 + 1 + 1 / 2 + 1) / 4)
    cosine = np.cos(np.radians([10, 20, 2, 28, 70, 20, 0, 90]))
    expected = (cosine[0::2] - cosine[1::2]).mean()
    assert recognition.separation(at(ANGLES), at(COPIES)) == pytest.approx(expected, abs=1e-6)
    # The two nearest others of the images are 1 2, 0 2, 1 0 and 2 1; of the copies 1 2, 0 2, 3 1 and 2 1.
    assert recognition.neighbor_overlap(at(ANGLES), at(COPIES), k=2) == pytest.approx((1 + 1 + 1 / 3 + 1) / 4)
    # The nearest: 1, 0, 1, 2 and 1, 0, 3, 2.
    assert recognition.neighbor_overlap(at(ANGLES), at(COPIES), k=1) == 0.75


@pytest.mark.parametrize("block_size", [1, 7, 40, 41, 1000])
def test_equals_sorting_all_similarities(rng, block_size):
    images, copies = noisy(rng)
    similarities, items = slow_similarities(images, copies), np.arange(len(images))
    order = np.argsort(-similarities, axis=1)
    ranks = 1 + np.argmax(order == items[:, None], axis=1)
    rate, reciprocal_rank = recognition.recognition(images, copies, block_size=block_size)
    assert 0.1 < rate < 0.9
    assert (rate, reciprocal_rank) == (pytest.approx((ranks == 1).mean()), pytest.approx((1 / ranks).mean()))
    own = similarities.diagonal().copy()
    np.fill_diagonal(similarities, -np.inf)
    expected = (own - similarities.max(1)).mean()
    assert recognition.separation(images, copies, block_size=block_size) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("k, block_size", [(1, 7), (5, 40), (5, 1000), (39, 8)])
def test_neighbor_overlap_equals_sets(rng, k, block_size):
    images, copies = noisy(rng)
    nearest = []
    for rows in (images, copies):
        similarities = slow_similarities(images, rows)
        np.fill_diagonal(similarities, -np.inf)
        nearest.append([set(row[:k]) for row in np.argsort(-similarities, axis=1).tolist()])
    expected = np.mean([len(a & b) / len(a | b) for a, b in zip(*nearest)])
    found = recognition.neighbor_overlap(images, copies, k=k, block_size=block_size)
    assert 0 < expected < 1
    assert found == pytest.approx(expected)


def test_equal_copies_are_known_again(rng):
    images, _ = noisy(rng)
    assert recognition.recognition(images, 3 * images) == (1, 1)  # lengths do not count
    assert recognition.separation(images, images) > 0
    for k in (1, 10, len(images) - 1):
        assert recognition.neighbor_overlap(images, images, k=k) == 1
    # All others are neighbours of every image, whatever its copy.
    assert recognition.neighbor_overlap(images, images[::-1], k=len(images) - 1) == 1


def test_more_noise_is_known_less(rng):
    values = []
    for noise in (0.1, 0.5, 1, 2):
        images, copies = noisy(rng, noise, num_items=200)
        options = recognition.recognition(images, copies), recognition.separation(images, copies)
        values.append([*options[0], options[1], recognition.neighbor_overlap(images, copies, k=10)])
    assert (np.diff(values, axis=0) < 0).all()


def test_the_order_of_the_images_does_not_count(rng):
    images, copies = noisy(rng)
    order = rng.permutation(len(images))
    for measure in (
        recognition.recognition,
        recognition.separation,
        lambda *rows: recognition.neighbor_overlap(*rows, k=3),
    ):
        assert measure(images[order], copies[order]) == pytest.approx(measure(images, copies), abs=1e-6)


def test_images_that_are_as_similar_come_first():
    # Everything alike: the own image is the last of four.
    alike = np.ones((4, 2), np.float32)
    assert recognition.recognition(alike, alike) == (0, 1 / 4)
    assert recognition.separation(alike, alike) == 0
    # Two pairs of equal images: each the second of two.
    pairs = at(np.array([0, 0, 90, 90]))
    assert recognition.recognition(pairs, pairs) == (0, 1 / 2)
    assert recognition.recognition(np.zeros((3, 2)), np.zeros((3, 2))) == (0, pytest.approx(1 / 3))


def test_two_images():
    images = at(np.array([0, 90]))
    assert recognition.recognition(images, images[::-1]) == (0, 1 / 2)
    assert recognition.separation(images, images[::-1]) == pytest.approx(-1)
    assert recognition.neighbor_overlap(images, images[::-1], k=1) == 1


def test_errors():
    images = np.eye(4, 3, dtype=np.float32)
    for measure in (recognition.recognition, recognition.separation):
        with pytest.raises(ValueError, match=r"both be \[N, D\]"):
            measure(images, images[:3])
        with pytest.raises(ValueError, match="N >= 2"):
            measure(images[:1], images[:1])
        with pytest.raises(ValueError, match="block_size must"):
            measure(images, images, block_size=0)
        with pytest.raises(ValueError, match="augmented must be finite, row 2 is not"):
            measure(images, np.where(np.arange(4)[:, None] == 2, np.nan, images))
    for k in (0, 4):
        with pytest.raises(ValueError, match=r"k must be in 1\.\.3"):
            recognition.neighbor_overlap(images, images, k=k)


def test_images_of_one_person_are_not_told_apart():
    # Of the hand example the third copy's own image is its second: the first if two may be meant.
    assert recognition.recognition(at(ANGLES), at(COPIES), num_alike=2) == (1.0, 1.0)
    assert recognition.recognition(at(ANGLES), at(COPIES), num_alike=1) == (0.75, 0.875)
    with pytest.raises(ValueError, match="num_alike must be at least 1, got 0"):
        recognition.recognition(at(ANGLES), at(COPIES), num_alike=0)
