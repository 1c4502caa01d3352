import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reid_jax import distances
from reid_jax.retrieval import gallery_search

RNG = np.random.default_rng(0)
QUERY, GALLERY = RNG.normal(size=(7, 19)).astype(np.float32), RNG.normal(size=(103, 19)).astype(np.float32)
# Small integers, so that distances are exact and many are equal.
COARSE_QUERY, COARSE_GALLERY = (RNG.integers(0, 3, size=(rows, 19)).astype(np.float32) for rows in (7, 103))


def sorted_oracle(query, gallery, k, metric):
    """Returns (distances, indices) [Q, K] by a stable sort of all distances, padded as a Ranking is."""
    full = np.asarray(distances.pairwise_distances(query, gallery, metric=metric))
    order = np.argsort(full, axis=1, kind="stable")[:, :k]
    missing = ((0, 0), (0, k - order.shape[1]))
    nearest = np.pad(np.take_along_axis(full, order, axis=1), missing, constant_values=np.inf)
    return nearest, np.pad(order, missing, constant_values=-1)


def in_pieces(gallery, sizes):
    """Yields the rows in arrays of these sizes, again and again, all in the same memory, as a reader's buffer is."""
    wanted = max(sizes) * gallery.shape[1]
    flat = np.empty(wanted + 16, np.float32)
    # At a multiple of 64 bytes jax reads it in place.
    first = -flat.ctypes.data % 64 // 4
    memory = flat[first : first + wanted].reshape(max(sizes), -1)
    start, turn = 0, 0
    while start < len(gallery):
        rows = gallery[start : start + sizes[turn % len(sizes)]]
        memory[: len(rows)] = rows
        yield memory[: len(rows)]
        memory[:] = 0
        start, turn = start + len(rows), turn + 1


@pytest.mark.parametrize("metric", distances.METRICS)
@pytest.mark.parametrize("block_size", [8, 1024])
def test_equals_a_full_sort_and_nearest_neighbors_whatever_the_block(metric, block_size):
    found = gallery_search.search_gallery(QUERY, GALLERY, k=5, metric=metric, block_size=block_size)
    nearest, indices = sorted_oracle(QUERY, GALLERY, 5, metric)
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_allclose(found.distances, nearest, rtol=1e-6, atol=1e-6)
    nearest, indices = distances.nearest_neighbors(QUERY, GALLERY, k=5, metric=metric)
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_allclose(found.distances, nearest, rtol=1e-6, atol=1e-6)
    assert type(found.distances) is np.ndarray and found.distances.dtype == np.float32
    assert type(found.indices) is np.ndarray and found.indices.dtype == np.int64
    assert found.distances.flags.writeable and found.indices.flags.writeable


@pytest.mark.parametrize("sizes", [(1,), (8,), (7, 0, 40, 3), (200,)])
@pytest.mark.parametrize("block_size", [1, 8, 30])
def test_the_sizes_that_rows_come_in_change_nothing(sizes, block_size):
    whole = gallery_search.search_gallery(QUERY, GALLERY, k=5, block_size=block_size)
    for blocks in (in_pieces(GALLERY, sizes), [block.copy() for block in in_pieces(GALLERY, sizes)]):
        found = gallery_search.search_gallery(QUERY, blocks, k=5, block_size=block_size)
        np.testing.assert_array_equal(found.indices, whole.indices)
        np.testing.assert_array_equal(found.distances, whole.distances)


def test_reads_a_gallery_on_disk_or_on_the_device_and_other_types(tmp_path):
    np.save(tmp_path / "gallery.npy", GALLERY)
    on_disk = np.load(tmp_path / "gallery.npy", mmap_mode="r")
    whole = gallery_search.search_gallery(QUERY, GALLERY, k=5, block_size=8)
    for gallery in (on_disk, jnp.asarray(GALLERY), GALLERY.astype(np.float64)):
        found = gallery_search.search_gallery(jnp.asarray(QUERY), gallery, k=5, block_size=8)
        jax.tree.map(np.testing.assert_array_equal, found, whole)
    half = GALLERY.astype(np.float16)
    found, same = (gallery_search.search_gallery(QUERY, x, k=5, block_size=8) for x in (half, half.astype(np.float32)))
    jax.tree.map(np.testing.assert_array_equal, found, same)


@pytest.mark.parametrize("metric", distances.METRICS)
@pytest.mark.parametrize("k, block_size", [(5, 8), (5, 1024), (103, 30)])
def test_of_equal_distances_the_lower_index_is_first(metric, k, block_size):
    # Cosines are exact between axes only.
    query, gallery = (
        np.eye(19, dtype=np.float32)[x[:, 0].astype(int)] if metric == "cosine" else x
        for x in (COARSE_QUERY, COARSE_GALLERY)
    )
    found = gallery_search.search_gallery(query, gallery, k=k, metric=metric, block_size=block_size)
    nearest, indices = sorted_oracle(query, gallery, k, metric)
    np.testing.assert_array_equal(found.distances, nearest)
    np.testing.assert_array_equal(found.indices, indices)


def test_rows_that_are_twice_in_the_gallery_are_equally_far():
    gallery = np.concatenate([GALLERY, GALLERY, GALLERY[::-1]])
    found = gallery_search.search_gallery(QUERY, gallery, k=15, block_size=30)
    nearest = gallery_search.search_gallery(QUERY, GALLERY, k=5, block_size=30).indices
    copies = np.sort([nearest, 103 + nearest, 308 - nearest], axis=0)
    np.testing.assert_array_equal(found.indices, np.moveaxis(copies, 0, 2).reshape(7, 15))


def test_by_hand_with_ties_across_block_borders():
    gallery = np.array([[2.0], [1.0], [3.0], [1.0], [0.0], [1.0], [9.0]])
    found = gallery_search.search_gallery(np.array([[0.0], [3.0]]), gallery, k=4, metric="euclidean", block_size=2)
    np.testing.assert_array_equal(found.distances, [[0, 1, 1, 1], [0, 1, 2, 2]])
    np.testing.assert_array_equal(found.indices, [[4, 1, 3, 5], [2, 0, 1, 3]])


@pytest.mark.parametrize("block_size", [1, 2, 1024])
def test_fewer_rows_than_k(block_size):
    found = gallery_search.search_gallery(QUERY, GALLERY[:3], k=5, block_size=block_size)
    nearest, indices = sorted_oracle(QUERY, GALLERY[:3], 5, "cosine")
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_allclose(found.distances, nearest, rtol=1e-6, atol=1e-6)
    assert (found.indices[:, 3:] == -1).all() and np.isposinf(found.distances[:, 3:]).all()


def test_no_queries():
    nothing = gallery_search.search_gallery(QUERY[:0], GALLERY, k=5)
    assert nothing.distances.shape == nothing.indices.shape == (0, 5)


def test_permuting_the_gallery_permutes_the_indices(rng):
    order = rng.permutation(len(GALLERY))
    found = gallery_search.search_gallery(QUERY, GALLERY[order], k=5, block_size=8)
    whole = gallery_search.search_gallery(QUERY, GALLERY, k=5, block_size=8)
    np.testing.assert_array_equal(order[found.indices], whole.indices)


def test_one_compile_for_all_blocks_and_progress_after_each():
    before, done = gallery_search._merge._cache_size(), []
    gallery_search.search_gallery(QUERY, in_pieces(GALLERY, (7, 40)), k=11, block_size=13, progress=done.append)
    assert gallery_search._merge._cache_size() == before + 1
    assert done == [*range(13, 103, 13), 103]


def test_a_gallery_smaller_than_a_block_is_not_filled_up(monkeypatch):
    merge, sizes = gallery_search._merge, []

    def counting(best, prepared_query, rows, *others, **options):
        sizes.append(len(rows))
        return merge(best, prepared_query, rows, *others, **options)

    monkeypatch.setattr(gallery_search, "_merge", counting)
    gallery_search.search_gallery(QUERY, in_pieces(GALLERY, (40,)), k=5, block_size=1024)
    gallery_search.search_gallery(QUERY, in_pieces(GALLERY, (40,)), k=5, block_size=30)
    assert sizes == [103, 30, 30, 30, 30]


def test_indices_go_beyond_32_bits():
    # As if 2^31 rows had been before.
    best = gallery_search._Best(*(np.array([[value]]) for value in (np.float32(np.inf), np.int32(0), np.int32(-1))))
    prepared = distances.prepare(QUERY[:1], metric="cosine")
    best, _ = gallery_search._merge(best, prepared, QUERY[:1], 1, 2**31 - 1, metric="cosine")
    assert int(best.blocks[0, 0]) == 2**31 - 1 and int(best.rows[0, 0]) == 0


def test_the_largest_rows_have_finite_distances():
    row = np.zeros((1, 4), np.float32)
    row[0, 0] = 0.999 * np.sqrt(gallery_search._LARGEST_SQUARE)
    for metric in distances.METRICS:
        found = gallery_search.search_gallery(row, np.concatenate([-row, row]), k=2, metric=metric)
        np.testing.assert_array_equal(found.indices, [[1, 0]])
        assert np.isfinite(found.distances).all() and found.distances[0, 0] < 1e-6


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e19])
@pytest.mark.parametrize("metric", distances.METRICS)
def test_a_row_that_is_not_finite_is_named(value, metric):
    wrong = GALLERY.copy()
    wrong[[45, 70], 3] = value
    done = []
    with pytest.raises(ValueError, match=r"gallery_blocks must"):
        gallery_search.search_gallery(QUERY, wrong, k=5, metric=metric, block_size=8, progress=done.append)
    assert done == [8, 16, 24, 32, 40]
    with pytest.raises(ValueError, match=r"query must"):
        gallery_search.search_gallery(wrong, GALLERY, k=2, metric=metric)


RERANK = distances.Reranking(k1=6, k2=3, original_weight=0.4)


@pytest.mark.parametrize("k, block_size", [(5, 256), (5, 3), (120, 2)])
def test_reranked_is_a_full_sort_of_the_reranked_distances(k, block_size):
    blocks = distances.reranked_distances(QUERY, GALLERY, **RERANK._asdict(), metric="euclidean", block_size=block_size)
    full, done = np.concatenate([block for _, block in blocks]), []
    order = np.argsort(full, axis=1, kind="stable")[:, :k]
    found = gallery_search.search_reranked(
        QUERY, GALLERY, k=k, rerank=RERANK, metric="euclidean", block_size=block_size, progress=done.append
    )
    most = min(k, 103)
    np.testing.assert_array_equal(found.indices[:, :most], order)
    np.testing.assert_array_equal(found.distances[:, :most], np.take_along_axis(full, order, axis=1))
    assert (found.indices[:, most:] == -1).all() and np.isposinf(found.distances[:, most:]).all()
    assert done == sorted({min(stop, 7) for stop in range(block_size, 7 + block_size, block_size)})


def test_search_reranks_where_it_is_asked_to():
    by_cosine, reranked = (gallery_search.search(QUERY, GALLERY, top=4, rerank=rerank) for rerank in (None, RERANK))
    expected = gallery_search.search_reranked(QUERY, GALLERY, k=4, rerank=RERANK)
    jax.tree.map(np.testing.assert_array_equal, reranked, expected)
    assert (reranked.indices != by_cosine.indices).any()
    # All weight on the original distance: the same order.
    original = gallery_search.search(QUERY, GALLERY, top=4, rerank=RERANK._replace(original_weight=1.0))
    np.testing.assert_array_equal(original.indices, by_cosine.indices)


def test_of_equal_reranked_distances_the_lower_index_is_first():
    same = np.repeat(np.eye(4, dtype=np.float32), 3, axis=0)
    found = gallery_search.search_reranked(same[:1], same, k=12, rerank=distances.Reranking(2, 1, 0.5))
    tied = found.distances[0, 1:] == found.distances[0, :-1]
    assert tied.sum() > 5 and (np.diff(found.indices[0])[tied] > 0).all()


def test_errors_of_reranking():
    with pytest.raises(ValueError, match="k must be at least 1"):
        gallery_search.search_reranked(QUERY, GALLERY, k=0, rerank=RERANK)
    with pytest.raises(ValueError, match="gallery must have at least 1 row"):
        gallery_search.search_reranked(QUERY, GALLERY[:0], k=1, rerank=RERANK)
    with pytest.raises(ValueError, match="k1 must be in 1..9"):
        gallery_search.search(QUERY, GALLERY[:3], rerank=distances.Reranking())


def test_errors():
    with pytest.raises(ValueError, match=r"query must"):
        gallery_search.search_gallery(QUERY[0], GALLERY, k=1)
    with pytest.raises(ValueError, match=r"gallery_blocks must"):
        gallery_search.search_gallery(QUERY, GALLERY[:, 1:], k=1)
    with pytest.raises(ValueError, match=r"gallery_blocks must"):
        gallery_search.search_gallery(QUERY, list(GALLERY), k=1)
    with pytest.raises(ValueError, match=r"gallery_blocks must"):
        gallery_search.search_gallery(QUERY, GALLERY[..., None], k=1)
    with pytest.raises(ValueError, match="k must"):
        gallery_search.search_gallery(QUERY, GALLERY, k=0)
    with pytest.raises(ValueError, match="metric must"):
        gallery_search.search_gallery(QUERY, GALLERY, k=1, metric="manhattan")
    with pytest.raises(ValueError, match="block_size must"):
        gallery_search.search_gallery(QUERY, GALLERY, k=1, block_size=0)
    for empty in (GALLERY[:0], [], iter([GALLERY[:0], GALLERY[:0]])):
        with pytest.raises(ValueError, match="gallery_blocks must"):
            gallery_search.search_gallery(QUERY, empty, k=1)
