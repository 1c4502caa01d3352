import numpy as np
import pytest

from reid_jax import distances
from reid_jax.retrieval import gallery_search, ranking
from reid_jax.retrieval.collection import Collection
from reid_jax.retrieval.embedding_files import Origin

RERANK = distances.Reranking(k1=5, k2=3, original_weight=0.3)


def make_embeddings(seed: int, num_items: int) -> np.ndarray:
    """Returns [N, 8] float32 around a few directions."""
    rng = np.random.default_rng(seed)
    centers = np.random.default_rng(0).normal(size=(5, 8))
    return (centers[rng.integers(0, 5, num_items)] + 0.8 * rng.normal(size=(num_items, 8))).astype(np.float32)


def make_collection(embeddings: np.ndarray, *, folder: str) -> Collection:
    """Returns a collection of images of a folder, of nobody known."""
    paths, unknown = np.array([f"{place}.jpg" for place in range(len(embeddings))]), np.full(len(embeddings), -1)
    return Collection(folder, embeddings.shape, paths, unknown, unknown, Origin(folder=folder), embeddings)


def test_reranked_lists_are_those_of_the_search():
    query, gallery = make_embeddings(1, 4), make_embeddings(2, 30)
    collections = make_collection(query, folder="/queries"), make_collection(gallery, folder="/gallery")
    expected = gallery_search.search(query, gallery, top=6, rerank=RERANK)
    ranked = ranking.rank(*collections, top=6, rerank=RERANK)
    assert [[match.index for match in matches] for matches in ranked] == expected.indices.tolist()
    assert [[match.distance for match in matches] for matches in ranked] == expected.distances.tolist()
    assert all(match.is_near for matches in ranked for match in matches)
    by_cosine = ranking.rank(*collections, top=6)
    assert [[match.index for match in matches] for matches in by_cosine] != expected.indices.tolist()
    found = gallery_search.search(query, gallery, top=6)
    assert [[match.index for match in matches] for matches in by_cosine] == found.indices.tolist()


@pytest.mark.parametrize("rerank", [None, RERANK])
def test_an_image_is_never_its_own_match(rerank):
    gallery = make_collection(make_embeddings(3, 20), folder="/gallery")
    ranked = ranking.rank(gallery, gallery, top=19, rerank=rerank)
    for query, matches in enumerate(ranked):
        assert sorted(match.index for match in matches) == [index for index in range(20) if index != query]


def test_no_limit_goes_with_reranking():
    gallery = make_collection(make_embeddings(3, 20), folder="/gallery")
    with pytest.raises(ValueError, match="^max_distance must be infinite with rerank, .*, got 0.5$"):
        ranking.rank(gallery, gallery, top=3, max_distance=0.5, rerank=RERANK)
    with pytest.raises(ValueError, match="k1 must be in 1..39"):
        ranking.rank(gallery, gallery, top=3, rerank=distances.Reranking(k1=40))
