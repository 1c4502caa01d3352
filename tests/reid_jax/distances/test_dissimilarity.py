import numpy as np
import pytest

from reid_jax.distances import dissimilarity
from reid_jax.embeddings import Features, l2_normalize

RNG = np.random.default_rng(0)
FEATURES = l2_normalize(
    Features(RNG.normal(size=(37, 6)).astype(np.float32), RNG.normal(size=(37, 4, 5)).astype(np.float32))
)
CAMIDS = RNG.integers(0, 3, 37)


def plain(part_weight, camera_penalty, metric):
    """SSL eq. (5), (6), (7) with loops, in float64."""

    def distance(a, b):
        a, b = a.astype(np.float64), b.astype(np.float64)
        if metric == "cosine":
            return 1 - a @ b
        return np.sum((a - b) ** 2) if metric == "sqeuclidean" else np.linalg.norm(a - b)

    found = np.zeros((37, 37))
    for i in range(37):
        for j in range(37):
            if i != j:
                d = distance(FEATURES.embeddings[i], FEATURES.embeddings[j])
                d_part = np.mean([distance(a, b) for a, b in zip(FEATURES.stripes[i], FEATURES.stripes[j])])
                found[i, j] = (1 - part_weight) * d + part_weight * d_part + camera_penalty * (CAMIDS[i] == CAMIDS[j])
    return found


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine"])
@pytest.mark.parametrize("part_weight,camera_penalty", [(0.0, 0.0), (0.5, 0.0), (0.3, 0.2), (0.0, 0.2), (1.0, 0.0)])
@pytest.mark.parametrize("block_size", [8, 64])
def test_equals_its_definition(part_weight, camera_penalty, metric, block_size):
    options = {"camids": CAMIDS, "part_weight": part_weight, "camera_penalty": camera_penalty, "metric": metric}
    expected = plain(part_weight, camera_penalty, metric)
    found = dissimilarity.dissimilarities(FEATURES, **options, block_size=block_size)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    nearest = np.asarray(dissimilarity.most_similar(FEATURES, k=5, **options, block_size=block_size))
    np.fill_diagonal(expected, np.inf)
    np.testing.assert_array_equal(nearest, np.argsort(expected, axis=1, kind="stable")[:, :5])


def test_one_part_over_the_whole_is_the_global_distance():
    whole = Features(FEATURES.embeddings, FEATURES.embeddings[:, None])
    np.testing.assert_allclose(
        dissimilarity.dissimilarities(whole, part_weight=0.5), dissimilarity.dissimilarities(whole), atol=1e-6
    )


def test_the_camera_term_prefers_other_cameras_by_hand():
    # Sample 1 is nearest to 0 but of its camera; a penalty above the difference of 0.1 makes it sample 2.
    line = Features(np.array([[0.0], [1.0], [1.1]], np.float32))
    camids = np.array([4, 4, 5])
    for penalty, nearest in ((0.0, 1), (0.05, 1), (0.2, 2)):
        found = dissimilarity.most_similar(line, k=1, camids=camids, camera_penalty=penalty)
        assert found[0, 0] == nearest


def test_of_equal_ones_the_lower_comes_first():
    same = Features(np.ones((4, 2), np.float32))
    np.testing.assert_array_equal(dissimilarity.most_similar(same, k=3), [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])


def test_errors():
    with pytest.raises(ValueError, match=r"k must"):
        dissimilarity.most_similar(FEATURES, k=37)
    with pytest.raises(ValueError, match=r"part_weight must"):
        dissimilarity.dissimilarities(FEATURES, part_weight=1.5)
    with pytest.raises(ValueError, match=r"camera_penalty must"):
        dissimilarity.dissimilarities(FEATURES, camera_penalty=-1.0)
    with pytest.raises(ValueError, match=r"features.stripes must"):
        dissimilarity.dissimilarities(Features(FEATURES.embeddings), part_weight=0.5)
    for camids in (None, np.zeros(3, int), np.where(np.arange(37) == 5, -1, 0)):
        with pytest.raises(ValueError, match=r"camids must"):
            dissimilarity.dissimilarities(FEATURES, camids=camids, camera_penalty=0.1)
