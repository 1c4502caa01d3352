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


@pytest.mark.parametrize("block_size", [1, 7, 40, 41, 1000])
def test_equals_sorting_all_similarities(rng, block_size):
    images, copies = noisy(rng)
    similarities, items = slow_similarities(images, copies), np.arange(len(images))
    order = np.argsort(-similarities, axis=1)
    ranks = 1 + np.argmax(order == items[:, None], axis=1)
    rate, reciprocal_rank = recognition.recognition(images, copies, block_size=block_size)
    assert 0.1 < rate < 0.9
    assert (rate, reciprocal_rank) == (pytest.approx((ranks == 1).mean()), pytest.approx((1 / ranks).mean()))


def test_equal_copies_are_known_again(rng):
    images, _ = noisy(rng)
    assert recognition.recognition(images, 3 * images) == (1, 1)  # lengths do not count


def test_more_noise_is_known_less(rng):
    values = []
    for noise in (0.1, 0.5, 1, 2):
        images, copies = noisy(rng, noise, num_items=200)
        values.append(recognition.recognition(images, copies))
    assert (np.diff(values, axis=0) < 0).all()


def test_the_order_of_the_images_does_not_count(rng):
    images, copies = noisy(rng)
    order = rng.permutation(len(images))
    found = recognition.recognition(images[order], copies[order])
    assert found == pytest.approx(recognition.recognition(images, copies))


def test_images_that_are_as_similar_come_first():
    # Everything alike: the own image is the last of four.
    alike = np.ones((4, 2), np.float32)
    assert recognition.recognition(alike, alike) == (0, 1 / 4)
    # Two pairs of equal images: each the second of two.
    pairs = at(np.array([0, 0, 90, 90]))
    assert recognition.recognition(pairs, pairs) == (0, 1 / 2)
    assert recognition.recognition(np.zeros((3, 2)), np.zeros((3, 2))) == (0, pytest.approx(1 / 3))


def test_two_images():
    images = at(np.array([0, 90]))
    assert recognition.recognition(images, images[::-1]) == (0, 1 / 2)


def test_errors():
    images = np.eye(4, 3, dtype=np.float32)
    with pytest.raises(ValueError, match=r"both be \[N, D\]"):
        recognition.recognition(images, images[:3])
    with pytest.raises(ValueError, match="N >= 2"):
        recognition.recognition(images[:1], images[:1])
    with pytest.raises(ValueError, match="block_size must"):
        recognition.recognition(images, images, block_size=0)
    with pytest.raises(ValueError, match="augmented must be finite, row 2 is not"):
        recognition.recognition(images, np.where(np.arange(4)[:, None] == 2, np.nan, images))


def test_images_of_one_person_are_not_told_apart():
    # Of the hand example the third copy's own image is its second: the first if two may be meant.
    assert recognition.recognition(at(ANGLES), at(COPIES), num_alike=2) == (1.0, 1.0)
    assert recognition.recognition(at(ANGLES), at(COPIES), num_alike=1) == (0.75, 0.875)
    with pytest.raises(ValueError, match="num_alike must be at least 1, got 0"):
        recognition.recognition(at(ANGLES), at(COPIES), num_alike=0)
