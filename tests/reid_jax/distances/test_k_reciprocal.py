import tracemalloc

import numpy as np
import pytest
from scipy.spatial import distance
from sklearn import cluster

from reid_jax import distances
from reid_jax.distances import k_reciprocal


def make_clusters(seed: int, num_rows: int, *, num_clusters: int = 6, noise: float = 0.4) -> np.ndarray:
    """Returns [N, 8] float32, L2-normalised rows around a few directions."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(num_clusters, 8))[rng.integers(0, num_clusters, num_rows)]
    x = x + noise * rng.normal(size=(num_rows, 8))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def rank_all(x: np.ndarray) -> np.ndarray:
    """Returns [N, N]: every row itself, then the others, the nearest first."""
    full = distance.cdist(x.astype(np.float64), x.astype(np.float64), "sqeuclidean")
    np.fill_diagonal(full, -1)
    return np.argsort(full, axis=1, kind="stable")


def dense_oracle(x: np.ndarray, ranking: np.ndarray, k1: int, k2: int) -> np.ndarray:
    """Returns the distances [N, N] from the definition, member after member."""
    num_rows = len(x)
    sq_distances = distance.cdist(x.astype(np.float64), x.astype(np.float64), "sqeuclidean")

    def reciprocal(i, k):
        return {j for j in ranking[i][: k + 1] if i in ranking[j][: k + 1]}

    encodings = np.zeros((num_rows, num_rows))
    for i in range(num_rows):
        own = reciprocal(i, k1)
        members = set(own)
        for q in own:
            added = reciprocal(q, int(np.around(k1 / 2)))
            if len(added & own) > 2 / 3 * len(added):
                members |= added
        for j in members:
            encodings[i, j] = np.exp(-sq_distances[i, j])
        encodings[i] /= encodings[i].sum()
    if k2 > 1:
        encodings = np.stack([encodings[ranking[i][:k2]].mean(axis=0) for i in range(num_rows)])
    result = np.empty((num_rows, num_rows))
    for i in range(num_rows):
        for j in range(num_rows):
            common = np.minimum(encodings[i], encodings[j]).sum()
            result[i, j] = 1 - common / (2 - common)
    return result


def to_dense(result) -> np.ndarray:
    """As the docstring of `jaccard_from_neighbors` says."""
    dense = np.ones(result.shape, np.float32)
    coo = result.tocoo()
    dense[coo.row, coo.col] = coo.data
    return dense


@pytest.mark.parametrize(
    "seed, num_rows, k1, k2",
    [(0, 60, 20, 6), (1, 61, 7, 3), (2, 90, 5, 1), (3, 40, 30, 6), (4, 80, 10, 11), (5, 9, 1, 2)],
)
def test_equals_the_definition(seed, num_rows, k1, k2):
    x = make_clusters(seed, num_rows)
    x[1] = x[0]
    x[num_rows // 2 : num_rows // 2 + 4] = x[num_rows // 2]
    ranking = rank_all(x)
    result = k_reciprocal.jaccard_from_neighbors(x, ranking[:, : k1 + 1], k1=k1, k2=k2)
    expected = dense_oracle(x, ranking, k1, k2)
    np.testing.assert_allclose(to_dense(result), expected, atol=1e-6)
    # What is stored is what is not at distance 1, and the zeros.
    stored = np.zeros(result.shape, bool)
    stored[result.tocoo().row, result.tocoo().col] = True
    np.testing.assert_array_equal(stored, expected < 1 - 1e-12)
    assert result.dtype == np.float32 and result.shape == (num_rows, num_rows)


@pytest.mark.parametrize("k1, k2", [(20, 6), (7, 2)])
def test_from_embeddings_of_any_length(k1, k2):
    x = make_clusters(6, 70)
    lengths = np.random.default_rng(0).uniform(0.1, 10, (70, 1)).astype(np.float32)
    result = distances.jaccard_distances(lengths * x, k1=k1, k2=k2)
    np.testing.assert_allclose(to_dense(result), dense_oracle(x, rank_all(x), k1, k2), atol=1e-6)


def test_the_defaults_are_the_papers():
    x = make_clusters(7, 50)
    by_default = to_dense(distances.jaccard_distances(x))
    np.testing.assert_array_equal(by_default, to_dense(distances.jaccard_distances(x, k1=20, k2=6)))


def test_by_hand():
    # On a line at 0, 1 and 3: the first two are reciprocal, the third's nearest is the second, which is not mutual.
    x, neighbors = np.array([[0.0], [1.0], [3.0]]), np.array([[0, 1], [1, 0], [2, 1]])
    result = k_reciprocal.jaccard_from_neighbors(x, neighbors, k1=1, k2=1)
    expected = 1 - np.exp(-1)  # the lesser weights are both 1 / (1 + e)
    np.testing.assert_allclose(result.data, [0, expected, expected, 0, 0], atol=1e-7)
    np.testing.assert_array_equal(result.indices, [0, 1, 0, 1, 2])
    np.testing.assert_array_equal(result.indptr, [0, 2, 4, 5])
    # With means of two the first two are encoded alike, and the third shares half of its weight with them.
    result = k_reciprocal.jaccard_from_neighbors(x, neighbors, k1=1, k2=2)
    assert result.nnz == 9
    np.testing.assert_allclose(result.toarray(), [[0, 0, 2 / 3], [0, 0, 2 / 3], [2 / 3, 2 / 3, 0]], atol=1e-7)


def test_exactly_two_thirds_do_not_add():
    # Every row leaves out one other. R(0, 4) is all but 2; R(1, 2) = {0, 1, 2} has two thirds of its members in there.
    neighbors = [[0, 1, 3, 4, 5], [1, 0, 2, 3, 4], [2, 1, 3, 4, 5], [3, 4, 5, 0, 1], [4, 3, 5, 0, 1], [5, 3, 4, 0, 2]]
    # Without any distance between them, members weigh alike: 1/5 each for 0, and 1/3 for 2, with R(2, 4) = {1, 2, 5}.
    result = to_dense(k_reciprocal.jaccard_from_neighbors(np.zeros((6, 1)), neighbors, k1=4, k2=1))
    np.testing.assert_allclose(result[0, 2], 1 - 0.4 / 1.6, atol=1e-7)
    np.testing.assert_allclose(result, dense_oracle(np.zeros((6, 1)), np.array(neighbors), 4, 1), atol=1e-6)


@pytest.mark.parametrize("block", [1, 100, 1000])
def test_blocks_do_not_matter(monkeypatch, block):
    x = make_clusters(8, 83)
    whole = distances.jaccard_distances(x, k1=9, k2=4)
    monkeypatch.setattr(k_reciprocal, "_BLOCK", block)
    in_blocks = distances.jaccard_distances(x, k1=9, k2=4)
    for attribute in ("indptr", "indices", "data"):
        np.testing.assert_array_equal(getattr(in_blocks, attribute), getattr(whole, attribute))


def test_symmetric_zero_diagonal_sorted_columns(monkeypatch):
    monkeypatch.setattr(k_reciprocal, "_BLOCK", 2000)
    x = make_clusters(9, 300, num_clusters=30)
    x[5] = x[200]
    result = distances.jaccard_distances(x, k1=12, k2=4)
    assert result.nnz < 300 * 300 / 2
    mirrored = result.T.tocsr()
    for attribute in ("indptr", "indices", "data"):
        np.testing.assert_array_equal(getattr(mirrored, attribute), getattr(result, attribute))
    for row in range(300):
        columns = result.indices[result.indptr[row] : result.indptr[row + 1]]
        assert (np.diff(columns) > 0).all()
        assert result.data[result.indptr[row] : result.indptr[row + 1]][columns == row] == [0]
    assert result.data.min() == 0 and result.data.max() <= 1
    assert result.indices.dtype == result.indptr.dtype == np.int32


def test_order_of_the_rows_does_not_matter():
    x = make_clusters(10, 90)
    order = np.random.default_rng(0).permutation(90)
    given, permuted = (to_dense(distances.jaccard_distances(rows, k1=8, k2=3)) for rows in (x, x[order]))
    np.testing.assert_allclose(permuted, given[np.ix_(order, order)], atol=1e-6)


def test_every_row_a_neighbor():
    x = make_clusters(11, 25)
    result = distances.jaccard_distances(x, k1=24, k2=1)
    assert result.nnz == 25 * 25
    np.testing.assert_allclose(result.toarray(), dense_oracle(x, rank_all(x), 24, 1), atol=1e-6)
    # The mean over all is the same for all.
    np.testing.assert_allclose(distances.jaccard_distances(x, k1=24, k2=25).toarray(), 0, atol=1e-6)


def test_rows_far_apart_do_not_overflow():
    x = 1e4 * make_clusters(12, 30)
    result = k_reciprocal.jaccard_from_neighbors(x, rank_all(x), k1=5, k2=1)
    np.testing.assert_array_equal(to_dense(result), 1 - np.eye(30))


def test_dbscan_of_sparse_is_that_of_dense():
    rng = np.random.default_rng(13)
    centers = rng.normal(size=(12, 16))
    x = np.concatenate([np.repeat(centers, 15, axis=0) + 0.2 * rng.normal(size=(180, 16)), rng.normal(size=(30, 16))])
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    options = {"eps": 0.6, "min_samples": 4, "metric": "precomputed"}
    labels = cluster.DBSCAN(**options).fit_predict(distances.jaccard_distances(x, k1=10, k2=4))
    expected = cluster.DBSCAN(**options).fit_predict(dense_oracle(x, rank_all(x), 10, 4).clip(0))
    np.testing.assert_array_equal(labels, expected)
    assert len(set(labels) - {-1}) >= 12 and (labels == -1).any()


def test_never_holds_all_distances(monkeypatch):
    monkeypatch.setattr(k_reciprocal, "_BLOCK", 2**15)
    x = make_clusters(14, 4000, num_clusters=400, noise=0.05)
    _, others = distances.nearest_neighbors(x, k=10)
    neighbors = np.column_stack([np.arange(4000), others])
    tracemalloc.start()
    try:
        result = k_reciprocal.jaccard_from_neighbors(x, neighbors, k1=10, k2=4)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert result.nnz < 4000 * 4000 / 20
    assert peak < 4000 * 4000 * 4 / 4


def test_errors():
    x = make_clusters(15, 20)
    neighbors = rank_all(x)[:, :6]

    def call(x=x, neighbors=neighbors, k1=5, k2=3):
        return k_reciprocal.jaccard_from_neighbors(x, neighbors, k1=k1, k2=k2)

    with pytest.raises(ValueError, match=r"x must"):
        call(x=x[0])
    with pytest.raises(ValueError, match="x must"):
        call(x=np.where(np.isin(np.arange(20), [3, 7])[:, None], np.nan, x))
    with pytest.raises(ValueError, match=r"k1 must"):
        call(k1=0)
    with pytest.raises(ValueError, match=r"k1 must"):
        call(k1=20)
    with pytest.raises(ValueError, match=r"k2 must"):
        call(k2=0)
    with pytest.raises(ValueError, match=r"k2 must"):
        call(k2=7)
    for wrong, shape in ((neighbors[:, :5], "20, 5"), (neighbors[1:], "19, 6"), (neighbors[:, 0], "20,")):
        rule = r"neighbors must be \[N, K\] with N = 20 and K > k1 = 5, got shape"
        with pytest.raises(ValueError, match=rf"{rule} \({shape}\)"):
            call(neighbors=wrong)
    with pytest.raises(ValueError, match="neighbors must"):
        call(neighbors=neighbors.astype(float))
    with pytest.raises(ValueError, match=r"neighbors must"):
        call(neighbors=np.where(neighbors == 19, 20, neighbors))
    with pytest.raises(ValueError, match=r"neighbors must"):
        call(neighbors=np.where(neighbors == 19, -1, neighbors))
    with pytest.raises(ValueError, match="neighbors must"):
        call(neighbors=np.roll(neighbors, -1, axis=1))
    repeated = neighbors.copy()
    repeated[4, 2] = repeated[4, 3]
    with pytest.raises(ValueError, match=r"neighbors must"):
        call(neighbors=repeated)


def test_scales_divide_the_squared_distances():
    x = make_clusters(17, 40)
    neighbors = rank_all(x)[:, :8]
    given = k_reciprocal.encodings_from_neighbors(x, neighbors, k1=7, k2=3)
    halved = k_reciprocal.encodings_from_neighbors(np.sqrt(2) * x, neighbors, k1=7, k2=3, scales=np.full(40, 2.0))
    np.testing.assert_allclose(halved.toarray(), given.toarray(), atol=1e-6)
    np.testing.assert_allclose(given.sum(axis=1), 1, atol=1e-6)
    with pytest.raises(ValueError, match=r"scales must be \[N\] with N = 40, got shape \(39,\)"):
        k_reciprocal.encodings_from_neighbors(x, neighbors, k1=7, k2=3, scales=np.ones(39))
    for value in (0, -1, np.inf, np.nan):
        with pytest.raises(ValueError, match=f"scales must be finite and above 0, got {float(value)} for row 3"):
            k_reciprocal.encodings_from_neighbors(
                x, neighbors, k1=7, k2=3, scales=np.where(np.arange(40) == 3, value, 1.0)
            )


def test_distances_between_some_rows_are_those_of_all():
    x = make_clusters(18, 60)
    neighbors = rank_all(x)[:, :8]
    expected = to_dense(k_reciprocal.jaccard_from_neighbors(x, neighbors, k1=7, k2=3))
    encodings = k_reciprocal.encodings_from_neighbors(x, neighbors, k1=7, k2=3)
    found = k_reciprocal.distances_between(encodings[5:17], encodings[20:].tocsc())
    np.testing.assert_array_equal(found, expected[5:17, 20:])
    assert k_reciprocal.distances_between(encodings[:0], encodings.tocsc()).shape == (0, 60)


def test_errors_from_embeddings():
    x = make_clusters(16, 20)
    with pytest.raises(ValueError, match=r"x must"):
        distances.jaccard_distances(x[0])
    with pytest.raises(ValueError, match=r"k1 must"):
        distances.jaccard_distances(x)
    with pytest.raises(ValueError, match=r"k2 must"):
        distances.jaccard_distances(x, k1=5, k2=7)
    x[2, 0] = np.inf
    with pytest.raises(ValueError, match="x must"):
        distances.jaccard_distances(x, k1=5, k2=3)
