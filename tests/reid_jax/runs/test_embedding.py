import numpy as np
import pytest
from ml_collections import ConfigDict

from reid_jax import errors, postprocess
from reid_jax.data.samples import Samples
from reid_jax.embeddings import Features
from reid_jax.runs import embedding
from reid_jax.runs.dataset import Dataset, TrainingData


def make_data(camids, *, num_source=0):
    every = np.arange(len(camids) + 1)
    samples = Samples(every[:-1], every, every[:-1], np.asarray(camids), every[:-1].astype(str))
    return TrainingData(Dataset({}, {}, {"train": samples}), None, num_source)


def make_config(kind, *, weights="", checkpoint=""):
    return ConfigDict(
        {"embedding": {"postprocess": kind, "shrinkage": 0.03}, "model": {"weights": weights, "checkpoint": checkpoint}}
    )


@pytest.mark.parametrize(
    "camids,options,chosen",
    [
        ([0] * 8 + [1] * 8, {}, "camera_center"),
        ([0] * 8 + [1] * 8, {"weights": "mobilenet_v2"}, "camera_whiten"),
        ([0] * 8 + [1] * 8, {"weights": "mobilenet_v2", "checkpoint": "runs/a"}, "camera_center"),
        ([0] * 16, {"weights": "mobilenet_v2"}, "pca_whiten"),
        ([-1] * 16, {}, "center"),
        (list(range(16)), {}, "center"),  # a mean of one image would be all that there is of it
    ],
)
def test_chooses_by_the_start_and_the_cameras(camids, options, chosen):
    assert embedding.choose(make_config("auto", **options), make_data(camids).target) == chosen


@pytest.mark.parametrize("kind", postprocess.KINDS[1:])
def test_zeros_have_the_shapes_of_the_fit(kind):
    data, options = make_data([3, 3, 3, 7, 7, -1, 7, 3]), make_config(kind).embedding
    fitted = embedding.fit(options, np.random.default_rng(0).normal(size=(8, 4)), data)
    found = embedding.zeros(options, 4, data)
    for name in ("mean", "cameras", "camera_means", "projection"):
        assert getattr(found, name).shape == getattr(fitted, name).shape
        assert getattr(found, name).dtype == getattr(fitted, name).dtype


def test_the_target_is_what_is_fitted_and_all_is_processed_stripes_by_themselves():
    rng = np.random.default_rng(0)
    data, options = make_data([0, 0, 0, 1, 1, 1], num_source=2), make_config("camera_center").embedding
    rows, stripes = rng.normal(size=(8, 4)), rng.normal(size=(8, 2, 4))
    fitted = embedding.fit(options, rows, data)
    found = embedding.processed(options, Features(rows, stripes), fitted, data)
    camids = np.array([-1, -1, 0, 0, 0, 1, 1, 1])
    assert (data.camids == camids).all()

    def expected(part):
        own = postprocess.fit("camera_center", part[2:], camids=camids[2:])
        return postprocess.apply(own, part, camids)

    np.testing.assert_array_equal(found.embeddings, expected(rows))
    np.testing.assert_array_equal(found.stripes[:, 1], expected(np.ascontiguousarray(stripes[:, 1])))


def test_cameras_must_be_known_and_embeddings_differ():
    with pytest.raises(
        errors.UserError, match="must be one of none, center, pca_whiten where no image's camera is known"
    ):
        embedding.check(make_config("camera_whiten"), make_data([-1, -1]))
    embedding.check(make_config("pca_whiten"), make_data([-1, -1]))
    options = make_config("camera_center").embedding
    assert not embedding.can_fit(options, np.float32([[1, 0], [1, 0], [0, 1], [0, 1]]), make_data([0, 0, 1, 1]))
    assert embedding.can_fit(options, np.float32([[1, 0], [0, 1], [0, 1], [0, 1]]), make_data([0, 0, 1, 1]))
    with pytest.raises(errors.NonFiniteLossError, match="embedding.postprocess = 'center': embeddings must differ"):
        embedding.fit(make_config("center").embedding, np.ones((2, 4)), make_data([-1, -1]))
