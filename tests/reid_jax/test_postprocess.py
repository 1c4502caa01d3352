import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.decomposition import PCA

from reid_jax import postprocess
from reid_jax.embeddings import l2_normalize

ALL = postprocess.KINDS[1:]
PLAIN = ("center", "pca_whiten")


@pytest.fixture
def rows(rng):
    """Embeddings [60, 5] in a cone, as networks make them: more variance in some directions, and two cameras."""
    return (rng.normal(size=(60, 5)) * [1, 0.7, 0.5, 0.3, 0.2] + 2).astype(np.float32)


@pytest.fixture
def camids(rng):
    return rng.integers(0, 3, 60) * 4 - 1  # -1, 3 and 7


def gram(embeddings):
    return embeddings @ embeddings.T


def test_centring_by_hand():
    # The lengths of embeddings do not count: the mean is (0.5, 0.5).
    fitted = postprocess.fit("center", [np.array([[3.0, 0.0], [0.0, 0.1]])])
    np.testing.assert_allclose(fitted.mean, [0.5, 0.5])
    half = np.sqrt(0.5)
    found = postprocess.apply(fitted, np.array([[1.0, 0.0], [0.0, 5.0], [-0.6, 0.8]]))
    np.testing.assert_allclose(found[:2], [[half, -half], [-half, half]], rtol=1e-6)
    np.testing.assert_allclose(found[2], np.array([-1.1, 0.3]) / np.hypot(1.1, 0.3), rtol=1e-6)
    assert found.dtype == np.float32 and fitted.dim == 2 and fitted.projection.shape == (0, 0)


def test_whitening_by_hand():
    # Around the mean (0.6, 0) the first direction varies by 0, the second by 0.64: with a part of 0.25 of that added to
    # both, the divisors are 0.4 and the root of 0.8.
    fitted = postprocess.fit("pca_whiten", [np.array([[0.6, 0.8], [0.6, -0.8]])], shrinkage=0.25)
    np.testing.assert_allclose(fitted.projection, [[0, 1 / 0.4], [1 / np.sqrt(0.8), 0]], atol=1e-6)
    found = postprocess.apply(fitted, np.array([[0.6, 0.8], [1.0, 0.0]]))
    np.testing.assert_allclose(found, [[1, 0], [0, 1]], atol=1e-6)


def test_cameras_by_hand():
    right, up, left = [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]
    fitted = postprocess.fit("camera_center", [np.array([right, up, left, up])], camids=np.array([5, 5, 9, 9]))
    assert fitted.cameras.tolist() == [5, 9] and fitted.cameras.dtype == np.int32
    np.testing.assert_allclose(fitted.camera_means, [[0.5, 0.5], [-0.5, 0.5]])
    np.testing.assert_allclose(fitted.mean, [0, 0.5])
    found = postprocess.apply(fitted, np.array([right, right, right, right]), np.array([5, 9, -1, 6]))
    own, other, mean = np.array([0.5, -0.5]), np.array([1.5, -0.5]), np.array([1, -0.5])
    # A camera that is not known, or was not there to be fitted, has the mean of all.
    np.testing.assert_allclose(found, l2_normalize(np.stack([own, other, mean, mean])), rtol=1e-6)
    np.testing.assert_allclose(postprocess.apply(fitted, np.array([right])), found[2:3])


@pytest.mark.parametrize("dim", [0, 3])
def test_whitening_is_scikit_learns(rows, dim):
    oracle = PCA(n_components=dim or None, whiten=True).fit(l2_normalize(rows.astype(np.float64)))
    expected = l2_normalize(oracle.transform(l2_normalize(rows.astype(np.float64))))
    found = postprocess.apply(postprocess.fit("pca_whiten", [rows], dim=dim, shrinkage=0), rows)
    assert found.shape == (60, dim or 5)
    np.testing.assert_allclose(gram(found), gram(expected), atol=2e-3)
    np.testing.assert_allclose(np.abs(np.sum(found * expected, axis=0)), np.sum(expected**2, axis=0), rtol=1e-3)


@pytest.mark.parametrize("shrinkage", [0, 0.1])
@pytest.mark.parametrize("kind", ["pca_whiten", "camera_whiten"])
def test_whitened_directions_vary_alike(rows, camids, kind, shrinkage):
    fitted = postprocess.fit(kind, [rows], camids=camids, shrinkage=shrinkage)
    centred = l2_normalize(rows.astype(np.float64))
    for camera in (-1, 3, 7) if kind == "camera_whiten" else ():
        centred[camids == camera] -= centred[camids == camera].mean(axis=0)
    covariance = np.cov((centred - centred.mean(axis=0)) @ fitted.projection, rowvar=False, bias=True)
    variances = np.linalg.eigvalsh(np.cov(centred, rowvar=False, bias=True))[::-1]
    np.testing.assert_allclose(covariance, np.diag(variances / (variances + shrinkage * variances[0])), atol=1e-3)


def test_centring_per_camera_is_centring_of_each(rows, camids):
    found = postprocess.apply(postprocess.fit("camera_center", [rows], camids=camids), rows, camids)
    for camera in (3, 7):
        own = rows[camids == camera]
        expected = postprocess.apply(postprocess.fit("center", [own]), own)
        np.testing.assert_allclose(found[camids == camera], expected, atol=1e-5)
    overall = postprocess.apply(postprocess.fit("center", [rows]), rows)
    np.testing.assert_allclose(found[camids == -1], overall[camids == -1], atol=1e-5)


def test_with_one_camera_its_mean_is_the_mean_of_all(rows):
    one = np.full(60, 2)
    for plain, by_camera in zip(PLAIN, postprocess.CAMERA_KINDS):
        found = postprocess.apply(postprocess.fit(by_camera, [rows], camids=one), rows, one)
        np.testing.assert_allclose(found, postprocess.apply(postprocess.fit(plain, [rows]), rows), atol=1e-5)


@pytest.mark.parametrize("kind", ALL)
def test_blocks_and_lengths_change_nothing(rows, camids, kind):
    whole = postprocess.fit(kind, [rows], camids=camids)
    lengths = np.linspace(0.1, 9, 60)[:, None]
    parts = postprocess.fit(kind, (lengths[i : i + 7] * rows[i : i + 7] for i in range(0, 60, 7)), camids=camids)
    assert whole.kind == parts.kind == kind
    for one, other in zip(whole[1:], parts[1:]):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, atol=2e-5)
    np.testing.assert_allclose(
        postprocess.apply(whole, rows, camids), postprocess.apply(whole, lengths * rows, camids), atol=1e-5
    )


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("with_cameras", [False, True])
def test_traced_it_is_the_same(rows, camids, kind, with_cameras):
    fitted = postprocess.fit(kind, [rows], camids=camids)
    cameras = np.append(camids[:-1], 100) if with_cameras else None
    found = jax.jit(lambda rows, cameras: postprocess.traced(fitted, rows, cameras))(rows, cameras)
    expected = postprocess.apply(fitted, rows, cameras)
    assert found.dtype == expected.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=3e-6)
    np.testing.assert_allclose(np.linalg.norm(expected, axis=1), 1, rtol=1e-6)


def test_without_anything_fitted_embeddings_are_normalised(rows):
    np.testing.assert_allclose(postprocess.apply(None, rows), l2_normalize(rows))
    np.testing.assert_allclose(postprocess.traced(None, jax.numpy.asarray(rows)), l2_normalize(rows), rtol=1e-6)
    # Zeros have no direction and stay.
    assert not postprocess.apply(None, np.zeros((1, 5))).any()


def test_fewer_embeddings_than_numbers_and_a_smaller_dim(rng):
    few = rng.normal(size=(4, 16))
    fitted = postprocess.fit("pca_whiten", [few])
    assert fitted.projection.shape == (16, 16) and fitted.dim == 16
    found = postprocess.apply(fitted, few)
    # Four images, whitened, are as far apart as can be: the corners of a tetrahedron.
    np.testing.assert_allclose(gram(found), np.eye(4) * 4 / 3 - 1 / 3, atol=0.15)
    smaller = postprocess.fit("pca_whiten", [few], dim=2)
    assert smaller.dim == 2
    np.testing.assert_array_equal(smaller.projection, fitted.projection[:, :2])


def test_the_signs_of_directions_are_fixed(rows):
    projection = postprocess.fit("pca_whiten", [rows]).projection
    assert (projection[np.abs(projection).argmax(axis=0), np.arange(5)] > 0).all()


def test_digests_tell_apart(rows, camids):
    every = [None, *(postprocess.fit(kind, [rows], camids=camids) for kind in ALL)]
    every += [postprocess.fit("center", [rows[1:]]), postprocess.fit("pca_whiten", [rows], dim=3)]
    digests = [postprocess.digest(model, fitted) for model, fitted in itertools.product(("a", "b"), every)]
    assert digests[0] == "a" and len(set(digests)) == len(digests) == 14
    assert postprocess.digest("a", postprocess.fit("center", [rows])) == digests[1] and len(digests[1]) == 16
    assert postprocess.digest("a", every[1]._replace(kind="pca_whiten")) != digests[1]  # whatever the arrays are


def test_embeddings_that_do_not_differ(rows):
    assert postprocess.is_spread(rows)
    assert not postprocess.is_spread(rows[:1]) and not postprocess.is_spread(rows[[0, 0, 0]] * [[1], [2], [3]])
    # Every camera has its own embedding: nothing differs within one.
    cameras = np.array([1, 1, 2, 2])
    assert postprocess.is_spread(rows[[0, 0, 1, 1]]) and not postprocess.is_spread(rows[[0, 0, 1, 1]], cameras)
    assert postprocess.is_spread(rows[:4], cameras)


ONE, TWO = np.eye(3)[:1], np.eye(3)[:2]


@pytest.mark.parametrize(
    "kind,rows,options,message",
    [
        ("none", TWO, {}, "kind must be one of center, camera_center, pca_whiten, camera_whiten, got 'none'"),
        ("whiten", TWO, {}, "kind must be one of .* got 'whiten'"),
        ("pca_whiten", TWO, {"dim": -1}, "dim and shrinkage must be at least 0, got -1 and 0.03"),
        ("pca_whiten", TWO, {"shrinkage": float("nan")}, "at least 0, got 0 and nan"),
        ("pca_whiten", TWO, {"dim": 4}, "dim must be at most 3, the embeddings' own, got 4"),
        ("center", np.ones((0, 3)), {}, "embeddings must be at least one, got none"),
        ("center", ONE, {}, "embeddings must differ from each other, these 1 do not"),
        ("pca_whiten", np.ones((9, 3)), {}, "embeddings must differ from each other, these 9 do not"),
        (
            "camera_center",
            np.ones((4, 3)),
            {"camids": np.array([1, 1, 2, 2])},
            "must differ .* within a camera, these 4",
        ),
        ("camera_center", TWO, {"camids": np.array([1, 2])}, "where no camera has two images, got 'camera_center'"),
        ("camera_center", TWO, {}, "must be center or pca_whiten where no camera has two images, got 'camera_center'"),
        ("camera_whiten", TWO, {"camids": np.array([-1, -1])}, "where no camera has two images, got 'camera_whiten'"),
        ("camera_center", TWO, {"camids": np.array([1])}, r"camids must be \[N\], one for each embedding, got 1"),
        ("camera_center", TWO, {"camids": np.array([1, 1, 2])}, "one for each of the 2 embeddings, got 3"),
        (
            "camera_center",
            TWO,
            {"camids": np.array([2**40, 2**40])},
            f"camids must be at most 2147483647, int32, got {2**40}",
        ),
    ],
)
def test_what_cannot_be_fitted(kind, rows, options, message):
    with pytest.raises(ValueError, match=message):
        postprocess.fit(kind, [rows], **options)


def test_embeddings_of_another_size(rows):
    fitted = postprocess.fit("center", [rows])
    for run in (postprocess.apply, postprocess.traced):
        with pytest.raises(ValueError, match=r"embeddings must be \[N, 5\], as those of the fit, got shape \(2, 3\)"):
            run(fitted, np.ones((2, 3), np.float32))


def test_one_array_is_one_block():
    rows = np.random.default_rng(0).normal(size=(20, 6))
    one, blocks = (postprocess.fit("pca_whiten", given) for given in (rows, [rows[:7], rows[7:]]))
    np.testing.assert_allclose(one.projection, blocks.projection, atol=1e-5)


@pytest.mark.parametrize("kind", postprocess.KINDS[1:])
def test_in_a_loss_it_is_the_same(kind):
    rng = np.random.default_rng(0)
    rows, camids = rng.normal(size=(30, 5)) + 1, rng.integers(0, 3, 30)
    fitted = postprocess.fit(kind, rows, camids=camids)
    arrays = postprocess.arrays(fitted)
    assert all(np.size(array) for array in arrays.values())  # orbax saves no empty ones
    again = postprocess.from_arrays(kind, arrays)
    assert all(np.array_equal(getattr(again, name), getattr(fitted, name)) for name in fitted._fields)
    unit = np.float32(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    np.testing.assert_allclose(
        postprocess.in_loss(arrays, jnp.asarray(unit), jnp.asarray(camids)),
        postprocess.apply(fitted, rows, camids),
        atol=1e-5,
    )
    at_mean = jnp.asarray(fitted.camera_means[:1] if len(fitted.cameras) else fitted.mean[None])
    camera = jnp.asarray(fitted.cameras[:1] if len(fitted.cameras) else [-1])
    gradient = jax.grad(lambda x: postprocess.in_loss(arrays, x, camera).sum())(at_mean)
    assert jnp.isfinite(gradient).all()
