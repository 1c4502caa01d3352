"""A run's config made whole: by what is given, by an earlier start, by the weights' name, and by the images."""

import json

import numpy as np
import published
import pytest
import tiny_runs

from reid_jax import errors
from reid_jax.data.images import CachedImages
from reid_jax.experiments import hct
from reid_jax.experiments.configs import buc as buc_config
from reid_jax.experiments.configs import hct as hct_config
from reid_jax.experiments.configs import pul as pul_config
from reid_jax.experiments.configs import softened as softened_config
from reid_jax.runs import dataset as dataset_lib
from reid_jax.runs import fitting, models, settings, start
from reid_jax.weights import store


@pytest.fixture(autouse=True)
def weights(tmp_path, monkeypatch):
    """A folder of weights that has "tiny"."""
    monkeypatch.setenv("REID_JAX_WEIGHTS", str(tmp_path / "weights"))
    published.add_architecture(monkeypatch)
    published.add_random("tiny")


def make_config(prepared, get_config=hct_config.get_config, dataset="folder", **more):
    config = get_config(dataset)
    fields = {"data.dataset": "tiny", "data.dir": str(prepared), "data.num_pixels": 64 * 32, "evaluation.batch_size": 8}
    fields |= {"model.weights": "tiny", "embedding.postprocess": "none"} | {
        name.replace("__", "."): value for name, value in more.items()
    }
    config.update_from_flattened_dict(fields)
    return config


@pytest.fixture
def fit(prepared, tmp_path, meshes, capsys):
    """(config) -> (the whole config, what was printed)."""

    def run(config, workdir=tmp_path / "run"):
        before = config.to_dict()
        whole = fitting.fit_config(config, dataset_lib.load_dataset(config.data), workdir, meshes[1])
        assert config.to_dict() == before
        return whole, capsys.readouterr().out.splitlines()

    return run


def test_size_and_counts_are_chosen_and_printed(fit, prepared):
    config, lines = fit(make_config(prepared, data__images_per_identity=6.0))
    assert (config.data.height, config.data.width) == (64, 32)  # the crops are 24 x 12
    assert (config.model.backbone, config.model.pooling) == ("resnet_tiny", "avg")
    # 24 images, 6 of each: 20 merges of 1.
    assert (config.cluster.num_steps, config.train.num_ids, config.train.num_instances) == (20, 4, 4)
    assert not settings.open_fields(config)
    assert lines == [
        "images are resized to 64 x 32 (height x width), after their median shape (--config.data.height and width)",
        "about 6 images per identity (as given): cluster.num_steps = 20, train.num_ids = 4, train.num_instances = 4",
    ]


def test_what_is_given_is_not_touched(fit, prepared):
    fields = {"data.height": 48, "data.width": 24, "cluster.num_steps": 3, "train.num_ids": 5, "train.num_instances": 2}
    config = make_config(prepared, **{name.replace(".", "__"): value for name, value in fields.items()})
    whole, lines = fit(config)
    assert lines == [] and {name: _value(whole, name) for name in fields} == fields
    assert whole.data.images_per_identity == 0  # nothing follows from it
    # A config of the papers has nothing open.
    paper = make_config(prepared, dataset="market1501", model__weights="weights/resnet50.npz")
    whole, lines = fit(paper)
    assert lines == [] and whole.model.pooling == "avg"
    assert whole.to_dict() | {"model": None} == paper.to_dict() | {"model": None}


def _value(config, name):
    section, field = name.split(".")
    return config[section][field]


def test_images_of_an_identity_are_estimated_by_the_start(fit, prepared, monkeypatch):
    seen = []
    monkeypatch.setattr(
        fitting.image_count, "estimate_images_per_identity", lambda rows: seen.append(rows.shape) or 5.96
    )
    config, lines = fit(make_config(prepared))
    assert seen == [(24, 64)] and config.data.images_per_identity == 6.0
    assert lines[1].startswith(
        "about 6 images per identity (estimated without labels; where you know better: "
        "--config.data.images_per_identity=N): cluster.num_steps = 20, "
    )
    # Of random weights, colours tell more.
    config, lines = fit(make_config(prepared, model__weights=""))
    assert seen[1:] == [(24, 6 * 128)] and config.model.backbone == "mobilenet_v2"


def test_random_weights_are_told_in_the_first_line(fit, prepared):
    fields = {"data__images_per_identity": 6.0}
    for more in ({}, {"data__height": 64, "data__width": 32}):
        config = make_config(prepared, dataset="folder_small", model__weights="", **fields, **more)
        _, lines = fit(config)
        assert lines[0].startswith("from random weights, to try the tools on: photographs need a pretrained start")
    _, lines = fit(make_config(prepared, **fields))
    assert not any("random" in line for line in lines)
    # What the project makes itself is made for random weights.
    made = hct_config.get_config("synthetic")
    assert made.data.dataset in fitting._FROM_RANDOM and "folder_small" not in fitting._FROM_RANDOM


def test_a_run_that_resumes_takes_what_was_chosen(fit, prepared, tmp_path):
    workdir = tmp_path / "earlier"
    workdir.mkdir()
    first, _ = fit(make_config(prepared, data__images_per_identity=6.0), workdir)
    first.data.update(height=96, width=64)
    first.cluster.num_steps = 7
    (workdir / "config.json").write_text(json.dumps(first.to_dict()))
    # Before there is a checkpoint, nothing depends on it.
    again, lines = fit(make_config(prepared, data__images_per_identity=2.0), workdir)
    assert again.cluster.num_steps == 12 and again.data.height == 64 and len(lines) == 2
    (workdir / "checkpoints" / "last" / "3").mkdir(parents=True)
    # The weights may be gone.
    store.path_of("tiny").rename(tmp_path / "moved")
    resumed, lines = fit(make_config(prepared), workdir)
    (tmp_path / "moved").rename(store.path_of("tiny"))
    assert resumed.to_dict() == first.to_dict() and lines == []
    given, _ = fit(make_config(prepared, cluster__num_steps=9), workdir)
    assert given.cluster.num_steps == 9


def test_weights_are_looked_for_before_images_are_decoded(fit, prepared, monkeypatch):
    monkeypatch.setattr(dataset_lib, "with_images", lambda *_: pytest.fail("it decodes"))
    with pytest.raises(errors.UserError, match="^model.weights: the weights resnet18 are not on this machine yet"):
        fit(make_config(prepared, model__weights="resnet18"))
    with pytest.raises(errors.UserError, match="^model.weights: there are no published weights 'tiny2'"):
        fit(make_config(prepared, model__weights="tiny2"))
    with pytest.raises(errors.UserError, match="^model.weights: no file 'none.npz'"):
        fit(make_config(prepared, model__weights="none.npz"))
    with pytest.raises(errors.UserError, match="^no checkpoint in 'none'"):
        fit(make_config(prepared, model__checkpoint="none"))


def test_a_checkpoint_is_a_start_too(fit, prepared, tmp_path, own_backbone):
    run = tiny_runs.write_run(tmp_path / "before", prepared)
    fields = {"model__checkpoint": str(run), "model__backbone": "own_backbone:Backbone"}
    config, lines = fit(make_config(prepared, **fields))
    assert config.data.images_per_identity >= 2 and "estimated without labels" in lines[1]
    assert config.model.backbone == "own_backbone:Backbone"


def test_sizes_are_multiples_of_a_patch(fit, prepared):
    config, _ = fit(make_config(prepared, model__weights="vit_s14_dinov2", data__images_per_identity=6.0))
    assert (config.data.height, config.data.width) == (70, 28) and config.model.pooling == "token"
    given = {"data__height": 70, "data__width": 32, "data__images_per_identity": 6.0}
    with pytest.raises(errors.UserError, match="data.width must be a multiple of 14 for the backbone vit_s14, got 32"):
        fit(make_config(prepared, model__weights="vit_s14_dinov2", **given))


def test_what_follows_from_the_size(fit, prepared):
    stripes, _ = fit(make_config(prepared, softened_config.get_config, data__images_per_identity=6.0))
    # The map of 64 x 32 pixels is 2 x 1.
    assert stripes.dissimilarity.num_parts == 2 and stripes.augment.sized_crop_aspect == (2.0, 3.0)
    large, _ = fit(
        make_config(prepared, buc_config.get_config, data__height=320, data__width=320, data__images_per_identity=6.0)
    )
    assert large.dissimilarity.num_parts == 5  # of 10 rows, at most 8
    assert large.augment.sized_crop_aspect == (0.75, 1.33) and large.train.num_iterations == 1 + 20
    shifted, _ = fit(make_config(prepared, pul_config.get_config, data__images_per_identity=6.0))
    assert shifted.augment.max_shift == settings.max_shift(32) == 6.4


def test_a_whole_run_on_crops_of_ones_own(prepared, tmp_path, own_backbone):
    fields = {"train__num_iterations": 1, "train__num_epochs": 1, "augment__padding": 2, "num_devices": 1}
    fields |= {"model__weights": "", "model__backbone": "own_backbone:Backbone"}
    config = make_config(prepared, data__images_per_identity=6.0, **fields)
    workdir, output = tiny_runs.run(hct.run_hct, config, tmp_path / "run")
    lines = output.splitlines()
    assert lines[0].startswith("from random weights, to try the tools on")
    assert lines[1].startswith("images are resized to 64 x 32") and lines[2].startswith("about 6 images per identity")
    saved = json.loads((workdir / "config.json").read_text())
    assert saved["cluster"]["num_steps"] == 20 and saved["data"]["height"] == 64
    result = json.loads((workdir / "result.json").read_text())
    assert next(iter(result["baselines"])) == "color_histogram" and result["learned_from"].startswith(
        "tiny by hct, no labels"
    )
    # The same command, of which nothing is chosen again, shows the result.
    _, shown = tiny_runs.run(hct.run_hct, make_config(prepared, **fields), workdir)
    assert "color_histogram" in shown and "images are resized" not in shown and "iteration  1/1" not in shown
    with pytest.raises(errors.UserError, match="holds a run with data.images_per_identity = 6.0, this one has 2.0"):
        tiny_runs.run(hct.run_hct, make_config(prepared, data__images_per_identity=2.0, **fields), workdir)


def test_a_run_says_what_it_starts_from(prepared, meshes, capsys):
    config = make_config(prepared, data__height=64, data__width=32)
    config.model = start.with_architecture(config.model)
    model, images = models.build_model(config.model), CachedImages(np.zeros((2, 64, 32, 3), np.uint8))
    variables = models.initial_variables(config, model, images, batch_size=2)
    assert capsys.readouterr().out == "starting from tiny, trained on noise (labels: none); no labels of people\n"
    published_state, _ = store.read("tiny")
    kernel = variables["params"]["backbone"]["conv1"]["kernel"]
    np.testing.assert_array_equal(kernel, published_state["conv1.weight"].transpose(2, 3, 1, 0))


def test_post_processing_is_chosen_and_kept_when_a_run_goes_on(fit, prepared, tmp_path):
    config, lines = fit(make_config(prepared, embedding__postprocess="auto", data__images_per_identity=6.0))
    assert config.embedding.postprocess == "camera_whiten"
    assert lines[1] == "embeddings are post-processed by camera_whiten (embedding.postprocess)"
    # What a run has chosen, and that a run from before there was any has none.
    for kept, expected in ({"postprocess": "center"}, "center"), ({}, "none"):
        workdir = tmp_path / expected
        (workdir / "checkpoints/last/3").mkdir(parents=True)
        record = config.to_dict() | {"embedding": kept}
        (workdir / "config.json").write_text(json.dumps(record))
        found, _ = fit(make_config(prepared, embedding__postprocess="auto"), workdir)
        assert found.embedding.postprocess == expected
