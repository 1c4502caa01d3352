"""Collections with post-processing; what they are without it: tests/experiments/test_search.py."""

import dataclasses

import numpy as np
import pytest
from tiny_runs import made

from reid_jax import errors, postprocess
from reid_jax.retrieval import embedding_files
from reid_jax.retrieval.collection import check_comparable, open_collection
from reid_jax.retrieval.embedding_files import Origin


@pytest.fixture
def vectors(rng):
    return rng.normal(size=(20, 6)).astype(np.float32) + 1


CAMERAS = np.resize([1, 2, -1], 20)


@pytest.fixture(params=["memory", "file"])
def collection(request, vectors, tmp_path, monkeypatch):
    """The same embeddings in memory and in a file that is read 7 rows at a time."""
    if request.param == "memory":
        return dataclasses.replace(made(vectors), camids=CAMERAS)
    file = tmp_path / "x.npz"
    paths = np.array([f"{i}.jpg" for i in range(20)])
    origin = Origin("m", 24, 12, "/nowhere")
    embedding_files.write_embeddings(file, made(vectors).embeddings(), paths, origin=origin, camids=CAMERAS)
    read_blocks = embedding_files.read_blocks
    monkeypatch.setattr(embedding_files, "read_blocks", lambda opened: read_blocks(opened, rows_per_block=7))
    return open_collection(str(file), flag="gallery", model=None, batch_size=8)


@pytest.mark.parametrize("kind", postprocess.KINDS[1:])
def test_embeddings_are_post_processed_when_they_are_read(collection, vectors, kind):
    dim = 4 if kind.endswith("whiten") else 0
    fitted = postprocess.fit(kind, collection.blocks(), camids=collection.camids, dim=dim)
    found = collection.postprocessed(fitted)
    expected = postprocess.apply(fitted, vectors, CAMERAS)
    assert found.shape == expected.shape and len(found) == 20
    np.testing.assert_allclose(found.embeddings(), expected, atol=1e-5)
    np.testing.assert_allclose(np.concatenate(list(found.blocks())), expected, atol=1e-5)
    # All else is the same, and the embeddings given stay.
    assert found.place(3) == collection.place(3) and found.source == collection.source
    np.testing.assert_allclose(collection.embeddings(), made(vectors).embeddings(), atol=1e-6)


def test_they_are_of_another_model(collection):
    fitted = postprocess.fit("center", collection.blocks())
    found = collection.postprocessed(fitted)
    assert found.origin.model == postprocess.digest("m", fitted) != "m" and found.origin[1:] == collection.origin[1:]
    check_comparable([("query", found), ("gallery", collection.postprocessed(fitted))])
    with pytest.raises(errors.UserError, match=f"is of a model with the weights m, --query .* of {found.origin.model}"):
        check_comparable([("query", found), ("gallery", collection)])
    # Where the model is not known it stays so.
    unknown = dataclasses.replace(collection, origin=Origin())
    assert unknown.postprocessed(fitted).origin.model == ""


def test_what_does_not_fit(collection):
    fitted = postprocess.fit("center", [np.eye(5)])
    with pytest.raises(errors.UserError, match="post-processing of 5 numbers does not fit the 6 of '"):
        collection.postprocessed(fitted)
    fitted = postprocess.fit("center", collection.blocks())
    with pytest.raises(errors.UserError, match="the embeddings of '.*' have post-processing already, center"):
        collection.postprocessed(fitted).postprocessed(fitted)
