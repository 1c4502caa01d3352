import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics

from reid_jax import distances as sample_distances
from reid_jax import evaluate


def slow_ranking(distances, query_pids, query_camids, gallery_pids, gallery_camids, trapezoid=False):
    """The protocol as existing projects write it: one query after the other, every gallery image in order."""
    aps, inps, cmcs = [], [], []
    for row, pid, camid in zip(distances, query_pids, query_camids):
        hits = []
        for index in np.argsort(row, kind="stable"):
            same_camera = gallery_camids[index] == camid and camid != -1
            if gallery_pids[index] == -1 or (gallery_pids[index] == pid and same_camera):
                continue
            hits.append(gallery_pids[index] == pid)
        if pid == -1 or not any(hits):
            aps.append(np.nan)
            continue
        precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
        recall = np.cumsum(hits) / np.sum(hits)
        if trapezoid:
            aps.append(metrics.auc(np.concatenate([[0], recall]), np.concatenate([[1], precision])))
        else:
            aps.append(precision[np.array(hits)].mean())
        inps.append(np.sum(hits) / (np.flatnonzero(hits)[-1] + 1))
        cmcs.append([any(hits[: rank + 1]) for rank in range(50)])
    return np.array(aps), np.mean(inps), np.mean(cmcs, axis=0)


def random_case(seed, levels=None):
    """Distances and identities with junk, distractors, unknown queries and unknown cameras; levels: how many differ."""
    rng = np.random.default_rng(seed)
    distances = rng.random((40, 90)).astype(np.float32)
    if levels:
        distances = np.floor(distances * levels)
    return distances, rng.integers(-1, 9, 40), rng.integers(-1, 3, 40), rng.integers(-1, 8, 90), rng.integers(-1, 3, 90)


@pytest.mark.parametrize("levels", [None, 3, 30, 1])
@pytest.mark.parametrize("ap_method", evaluate.AP_METHODS)
def test_equals_the_literal_loop(levels, ap_method):
    for seed in range(4):
        case = random_case(seed, levels)
        result = evaluate.rank_gallery(*case, ap_method=ap_method)
        aps, inp, cmc = slow_ranking(*case, trapezoid=ap_method == "trapezoid")
        np.testing.assert_allclose(result.ap, aps, rtol=1e-12)
        np.testing.assert_allclose([result.mAP, result.mINP], [np.nanmean(aps), inp], rtol=1e-12)
        np.testing.assert_allclose(result.cmc, cmc, rtol=1e-12)
        assert result.num_skipped == np.isnan(aps).sum() > 0 and result.num_valid + result.num_skipped == 40


def test_equals_scikit_learn_without_ties():
    distances, query_pids, _, gallery_pids, _ = random_case(5)
    query_pids, gallery_pids = query_pids.clip(1, 7), gallery_pids.clip(0)
    case = (distances, query_pids, np.zeros(40), gallery_pids, np.ones(90))
    hits = [gallery_pids == pid for pid in query_pids]
    expected = [metrics.average_precision_score(hit, -row) for hit, row in zip(hits, distances)]
    np.testing.assert_allclose(evaluate.rank_gallery(*case).ap, expected, rtol=1e-6)
    curves = [metrics.precision_recall_curve(hit, -row) for hit, row in zip(hits, distances)]
    expected = [metrics.auc(recall, precision) for precision, recall, _ in curves]
    np.testing.assert_allclose(evaluate.rank_gallery(*case, ap_method="trapezoid").ap, expected, rtol=1e-6)


def test_by_hand():
    # In order of distance: junk, another, own camera (out), match, distractor, match -> matches at ranks 2 and 4.
    distances = np.array([[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]])
    gallery = np.array([-1, 8, 7, 7, 0, 7]), np.array([2, 1, 1, 2, 2, 3])
    result = evaluate.rank_gallery(distances, np.array([7]), np.array([1]), *gallery, max_rank=5)
    assert result.mAP == pytest.approx((1 / 2 + 2 / 4) / 2) and result.mINP == pytest.approx(2 / 4)
    assert result.cmc.tolist() == [0, 1, 1, 1, 1] and (result.num_valid, result.num_skipped) == (1, 0)
    trapezoid = evaluate.rank_gallery(distances, np.array([7]), np.array([1]), *gallery, ap_method="trapezoid")
    assert trapezoid.mAP == pytest.approx(((0 + 1 / 2) / 2 + (1 / 3 + 2 / 4) / 2) / 2)
    # A query whose camera is not known shares it with nobody, not even with another unknown one.
    unknown = evaluate.rank_gallery(distances, np.array([7]), np.array([-1]), gallery[0], np.full(6, -1))
    assert unknown.mAP == pytest.approx((1 / 2 + 2 / 3 + 3 / 5) / 3)


def test_equal_distances_go_by_gallery_index():
    result = evaluate.rank_gallery(np.zeros((1, 4)), np.array([1]), np.array([0]), np.array([5, 1, 6, 1]), np.ones(4))
    assert result.mAP == pytest.approx((1 / 2 + 2 / 4) / 2)


def test_order_of_queries_and_identity_numbers_do_not_matter():
    distances, query_pids, query_camids, gallery_pids, gallery_camids = random_case(6)
    result = evaluate.rank_gallery(distances, query_pids, query_camids, gallery_pids, gallery_camids)
    order = np.random.default_rng(0).permutation(40)
    other = evaluate.rank_gallery(
        jnp.asarray(distances[order]),
        np.where(query_pids > 0, 1000 - query_pids, query_pids)[order],
        query_camids[order],
        np.where(gallery_pids > 0, 1000 - gallery_pids, gallery_pids),
        gallery_camids,
    )
    np.testing.assert_array_equal(other.ap, result.ap[order])
    np.testing.assert_array_equal(other.cmc, result.cmc)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_embeddings_equal_their_distances_in_blocks(metric):
    rng = np.random.default_rng(0)
    query, gallery = rng.normal(size=(40, 16)).astype(np.float32), rng.normal(size=(90, 16)).astype(np.float32)
    _, *identities = random_case(7)
    similarity = query @ gallery.T / np.linalg.norm(query, axis=1)[:, None] / np.linalg.norm(gallery, axis=1)
    distances = 1 - similarity if metric == "cosine" else np.linalg.norm(query[:, None] - gallery, axis=2)
    expected = evaluate.rank_gallery(distances, *identities)
    for block_size in (7, 40, 512):
        result = evaluate.evaluate_embeddings(query, gallery, *identities, metric=metric, block_size=block_size)
        np.testing.assert_allclose(result.ap, expected.ap, rtol=1e-12)
        np.testing.assert_array_equal(result.cmc, expected.cmc)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_reranked_embeddings_equal_their_reranked_distances(metric):
    rng = np.random.default_rng(1)
    _, *identities = random_case(7)
    centers = rng.normal(size=(10, 16)).astype(np.float32)
    query, gallery = (
        centers[pids] + 1.2 * rng.normal(size=(len(pids), 16)).astype(np.float32)
        for pids in (identities[0], identities[2])
    )
    rerank = sample_distances.Reranking(k1=8, k2=3, original_weight=0.2)
    blocks = sample_distances.reranked_distances(query, gallery, k1=8, k2=3, original_weight=0.2, metric=metric)
    expected = evaluate.rank_gallery(np.concatenate([block for _, block in blocks]), *identities)
    for block_size in (7, 512):
        result = evaluate.evaluate_embeddings(
            query, gallery, *identities, metric=metric, block_size=block_size, rerank=rerank
        )
        np.testing.assert_allclose(result.ap, expected.ap, rtol=1e-12)
        np.testing.assert_array_equal(result.cmc, expected.cmc)
    # Images of a person are near to each other, and so have neighbours in common.
    assert expected.mAP > evaluate.evaluate_embeddings(query, gallery, *identities, metric=metric).mAP + 0.02
    with pytest.raises(ValueError, match="k1 must be in 1..129"):
        evaluate.evaluate_embeddings(query, gallery, *identities, rerank=sample_distances.Reranking(k1=130))


@pytest.mark.filterwarnings("error")
def test_nothing_to_rank_is_nan_and_no_crash():
    distances, query_pids, query_camids, gallery_pids, gallery_camids = random_case(8)
    nobody, junk = np.full(40, 99), np.full(90, -1)
    for pids, gallery in ((nobody, gallery_pids), (np.full(40, -1), gallery_pids), (query_pids, junk)):
        result = evaluate.rank_gallery(distances, pids, query_camids, gallery, gallery_camids)
        assert (result.num_valid, result.num_skipped) == (0, 40)
        assert np.isnan([result.mAP, result.mINP, *result.cmc, *result.ap]).all()
    # One gallery image, and a curve that is longer than the gallery.
    result = evaluate.rank_gallery(np.ones((1, 1)), np.array([3]), np.array([0]), np.array([3]), np.array([1]))
    assert result.mAP == result.mINP == 1 and result.cmc.tolist() == [1.0] * 50


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_named(value):
    distances, *identities = random_case(0)
    distances[37, 5] = value  # not in the first task's rows
    with pytest.raises(ValueError, match="distances must"):
        evaluate.rank_gallery(distances, *identities)
    embeddings = {"query": np.ones((40, 3), np.float32), "gallery": np.ones((90, 3), np.float32)}
    for name, row in (("query", 39), ("gallery", 88)):
        broken = embeddings[name].copy()
        broken[row, 1] = value
        with pytest.raises(ValueError, match=f"{name} must"):
            evaluate.evaluate_embeddings(*(embeddings | {name: jnp.asarray(broken)}).values(), *identities)
    # Finite, but their squares are not in float32.
    with pytest.raises(ValueError, match="distances must"):
        evaluate.evaluate_embeddings(
            embeddings["query"] * 1e30, embeddings["gallery"], *identities, metric="euclidean", block_size=7
        )


def test_errors():
    case = random_case(0)
    with pytest.raises(ValueError, match=r"distances must"):
        evaluate.rank_gallery(case[0][0], *case[1:])
    with pytest.raises(ValueError, match=r"query_camids must"):
        evaluate.rank_gallery(case[0], case[1], case[2][1:], *case[3:])
    with pytest.raises(ValueError, match=r"gallery_pids must"):
        evaluate.rank_gallery(*case[:3], case[1], case[4])
    with pytest.raises(ValueError, match="ap_method must"):
        evaluate.rank_gallery(*case, ap_method="area")
    with pytest.raises(ValueError, match="max_rank must"):
        evaluate.rank_gallery(*case, max_rank=0)
    with pytest.raises(ValueError, match=r"y must"):
        evaluate.evaluate_embeddings(np.zeros((40, 3)), np.zeros((90, 4)), *case[1:])
