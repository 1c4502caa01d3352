import tracemalloc

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import distance

from reid_jax import distances
from reid_jax.distances import reranking


def make_case(seed: int, num_queries: int, num_gallery: int, *, dim: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Returns query [Q, D] and gallery [G, D] float32 of any lengths, around a few directions."""
    rng = np.random.default_rng(seed)
    num_rows = num_queries + num_gallery
    x = rng.normal(size=(7, dim))[rng.integers(0, 7, num_rows)] + 0.6 * rng.normal(size=(num_rows, dim))
    x = (rng.uniform(0.5, 2, (num_rows, 1)) * x).astype(np.float32)
    return x[:num_queries], x[num_queries:]


def dense_oracle(query, gallery, *, k1, k2, original_weight, metric="cosine"):
    """The published algorithm on dense arrays: every original distance, every encoding, one pair after another."""
    x = np.concatenate([query, gallery]).astype(np.float64)
    if metric == "cosine":
        x /= np.linalg.norm(x, axis=1, keepdims=True)
    original = distance.cdist(x, x) ** 2
    original = (original / original.max(axis=0)).T
    ranking = np.argsort(original, axis=1)

    def reciprocal(row, k):
        forward = ranking[row, : k + 1]
        return forward[(ranking[forward, : k + 1] == row).any(axis=1)]

    encodings = np.zeros_like(original)
    for row in range(len(x)):
        near = members = reciprocal(row, k1)
        for candidate in near:
            added = reciprocal(candidate, int(np.around(k1 / 2)))
            if len(np.intersect1d(added, near)) > 2 / 3 * len(added):
                members = np.union1d(members, added)
        weights = np.exp(-original[row, members])
        encodings[row, members] = weights / weights.sum()
    encodings = np.stack([encodings[ranking[row, :k2]].mean(axis=0) for row in range(len(x))])
    num_queries = len(query)
    common = np.minimum(encodings[:num_queries, None], encodings[None, num_queries:]).sum(axis=2)
    jaccard = 1 - common / (2 - common)
    return (1 - original_weight) * jaccard + original_weight * original[:num_queries, num_queries:]


def whole(query, gallery, **options) -> np.ndarray:
    """Returns all blocks as one array [Q, G], after a look at what they are."""
    starts, blocks = zip(*reranking.reranked_distances(query, gallery, **options))
    assert list(starts) == np.cumsum([0, *map(len, blocks)])[:-1].tolist()
    assert all(type(block) is np.ndarray and block.dtype == np.float32 for block in blocks)
    result = np.concatenate(blocks)
    assert result.shape == (len(query), len(gallery)) and result.min() >= 0 and result.max() <= 1
    return result


@pytest.mark.parametrize("metric", distances.METRICS)
@pytest.mark.parametrize(
    "seed, num_queries, num_gallery, k1, k2, original_weight",
    [
        (0, 20, 60, 20, 6, 0.3),
        (1, 1, 70, 7, 3, 0.3),
        (2, 50, 33, 5, 1, 0.7),
        (3, 9, 30, 30, 6, 0.0),
        (4, 5, 1, 2, 3, 0.5),
    ],
)
def test_equals_the_published_algorithm(metric, seed, num_queries, num_gallery, k1, k2, original_weight):
    query, gallery = make_case(seed, num_queries, num_gallery)
    options = {"k1": k1, "k2": k2, "original_weight": original_weight, "metric": metric}
    expected = dense_oracle(query, gallery, **options)
    for block_size in (1, 7, 512):
        found = whole(query, gallery, block_size=block_size, **options)
        np.testing.assert_allclose(found, expected, atol=1e-5)
    if original_weight:  # else many are exactly 1, and rounding orders the oracle's
        np.testing.assert_array_equal(np.argsort(found, axis=1), np.argsort(expected, axis=1))


def test_the_defaults_are_the_papers():
    query, gallery = make_case(5, 10, 40)
    expected = dense_oracle(query, gallery, k1=20, k2=6, original_weight=0.3)
    np.testing.assert_allclose(whole(query, gallery), expected, atol=1e-5)
    np.testing.assert_array_equal(whole(query, gallery), whole(query, gallery, **distances.Reranking()._asdict()))


def test_by_hand():
    # On a line, the query at 0, the gallery at 1 and 3: the nearest of 3 is 1, which has the query for its nearest.
    found = whole(np.array([[0.0]]), np.array([[1.0], [3.0]]), k1=1, k2=1, original_weight=0.25, metric="euclidean")
    # The largest squared distance is 9 from the query and 4 from the nearer one. Weights: 1 and e^-1/9, 1 and e^-1/4.
    own, other = np.exp(-1 / 9) / (1 + np.exp(-1 / 9)), 1 / (1 + np.exp(-1 / 4))
    common = min(1 - own, 1 - other) + min(own, other)
    np.testing.assert_allclose(found, [[0.75 * (1 - common / (2 - common)) + 0.25 / 9, 1.0]], atol=1e-6)


def test_all_weight_on_the_original_leaves_the_ranking_as_it_is():
    query, gallery = make_case(6, 12, 50)
    cosine = np.asarray(distances.pairwise_distances(query, gallery, metric="cosine"))
    found = whole(query, gallery, k1=5, k2=3, original_weight=1.0)
    np.testing.assert_array_equal(np.argsort(found, axis=1), np.argsort(cosine, axis=1))


def test_lengths_count_only_where_the_metric_says_so():
    query, gallery = make_case(7, 6, 40)
    given, longer = (whole(query, rows, k1=5, k2=3) for rows in (gallery, 3 * gallery))
    np.testing.assert_allclose(given, longer, atol=1e-6)
    given, longer = (whole(query, rows, k1=5, k2=3, metric="euclidean") for rows in (gallery, 3 * gallery))
    assert np.abs(given - longer).max() > 0.1
    # The unit of length does not.
    both = whole(3 * query, 3 * gallery, k1=5, k2=3, metric="euclidean")
    np.testing.assert_allclose(both, given, atol=1e-6)


def test_order_of_the_gallery_does_not_matter():
    query, gallery = make_case(8, 10, 45)
    order = np.random.default_rng(0).permutation(45)
    given, permuted = (whole(query, jnp.asarray(rows), k1=8, k2=3) for rows in (gallery, gallery[order]))
    np.testing.assert_allclose(permuted, given[:, order], atol=1e-6)


@pytest.mark.parametrize("tile", [(8, 8), (55, 7), (1, 54), (13, 1024)])
def test_tiles_of_neighbours_do_not_matter(monkeypatch, tile):
    query, gallery = make_case(9, 10, 45)
    expected = whole(query, gallery, k1=12, k2=3)
    monkeypatch.setattr(reranking, "_TILE", tile)
    np.testing.assert_allclose(whole(query, gallery, k1=12, k2=3), expected, atol=1e-6)


def test_rows_without_any_distance():
    found = whole(np.ones((3, 4)), np.ones((5, 4)), k1=2, k2=1, metric="euclidean")
    assert np.isfinite(found).all()
    assert list(reranking.reranked_distances(np.ones((0, 4)), np.eye(4), k1=2, k2=1)) == []


def test_within_what_so_few_rows_allow():
    paper = distances.Reranking()
    assert paper.within(21) == paper
    assert paper.within(20) == (19, 6, 0.3) and paper.within(5) == (4, 5, 0.3) and paper.within(2) == (1, 2, 0.3)
    query, gallery = make_case(11, 1, 3)
    for rows in (1, 3):
        found = whole(query, gallery[:rows], **paper.within(1 + rows)._asdict())
        assert found.shape == (1, rows)


def test_never_holds_all_distances():
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(400, 16))
    x = (np.repeat(centers, 10, axis=0) + 0.05 * rng.normal(size=(4000, 16))).astype(np.float32)
    query, gallery = x[::4], np.delete(x, np.s_[::4], axis=0)
    tracemalloc.start()
    try:
        for _, block in reranking.reranked_distances(query, gallery, k1=8, k2=3, block_size=16):
            assert len(block) <= 16
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < len(query) * len(gallery) * 4  # and N x N has 5 times as many


def test_errors():
    query, gallery = make_case(10, 5, 20)

    def call(query=query, gallery=gallery, **options):
        next(reranking.reranked_distances(query, gallery, **{"k1": 5, "k2": 3} | options))

    with pytest.raises(ValueError, match=r"query must be \[Q, D\], got shape \(8,\)"):
        call(query=query[0])
    with pytest.raises(ValueError, match=r"gallery must be \[G, D\] with D = 8, as query has, got shape \(20, 7\)"):
        call(gallery=gallery[:, 1:])
    with pytest.raises(ValueError, match=r"k1 must be in 1..24"):
        call(k1=25)
    with pytest.raises(ValueError, match=r"k2 must be in 1..6"):
        call(k2=7)
    for wrong in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match=f"original_weight must be in 0..1, got {wrong}"):
            call(original_weight=wrong)
    with pytest.raises(ValueError, match="metric must be one of"):
        call(metric="manhattan")
    with pytest.raises(ValueError, match="block_size must be at least 1, got 0"):
        call(block_size=0)
    for name, rows in (("query", query), ("gallery", gallery)):
        for value in (np.nan, np.inf, 1e19):
            wrong = rows.copy()
            wrong[3, 1] = value
            with pytest.raises(ValueError, match=f"{name} must be finite, .* in row 3$"):
                call(**{name: wrong})
