import numpy as np
import pytest
import tiny_data

from reid_jax import image_count, postprocess


@pytest.mark.parametrize("size,num_ids", [(2, 40), (4, 30), (10, 20), (20, 12)])
def test_clusters_of_a_known_size(size, num_ids):
    embeddings, _ = tiny_data.clustered_features(num_ids=num_ids, size=size, dim=24, spread=0.3)
    found = image_count.estimate_images_per_identity(embeddings)
    assert size / 1.5 <= found <= size * 1.5
    np.testing.assert_allclose(image_count.estimate_images_per_identity(3 * embeddings), found)


def test_whitened_embeddings_are_not_whitened_again():
    # A direction that all share, as networks' embeddings have.
    embeddings = tiny_data.clustered_features(num_ids=20, size=10, dim=64, spread=0.3)[0] + 2 * np.eye(64)[0]
    whitened = postprocess.apply(postprocess.fit("pca_whiten", [embeddings]), embeddings)
    guesses = [image_count.estimate_images_per_identity(rows) for rows in (embeddings, whitened)]
    assert guesses[0] == guesses[1] and 7 < guesses[0] < 13


@pytest.mark.parametrize("num_images", [10, 20, 60])
def test_few_images_are_not_all_one_group(num_images):
    embeddings, _ = tiny_data.clustered_features(num_ids=num_images // 2, size=2, dim=32, spread=0.2)
    assert 2 <= image_count.estimate_images_per_identity(embeddings) <= 3.5


def test_hardly_any_images():
    eye = np.eye(8)
    assert [image_count.estimate_images_per_identity(eye[:n]) for n in (1, 2, 3, 4)] == [1, 2, 2, 2]
    # None is like another.
    assert image_count.estimate_images_per_identity(np.random.default_rng(0).normal(size=(200, 64))) < 4
    # All are the same image.
    assert image_count.estimate_images_per_identity(np.ones((7, 3))) == 7


def test_neighbours_that_are_looked_at():
    # SpCL's 30 for the 17.2 images of an identity in Market-1501, and not fewer than 4.
    assert [image_count.num_neighbors(guess) for guess in (1, 2, 4, 10, 17.2, 500)] == [4, 4, 7, 18, 30, 30]


@pytest.mark.parametrize("shape", [(0, 4), (4,)])
def test_what_are_no_embeddings(shape):
    with pytest.raises(ValueError, match=r"embeddings must be \[N, D\], at least one, got shape"):
        image_count.estimate_images_per_identity(np.zeros(shape))
