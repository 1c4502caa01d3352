"""Flags that several commands have; what the commands do by them: tests/experiments/test_published_models.py."""

import types

import numpy as np
import pytest
from absl import flags
from tiny_runs import made

from reid_jax import errors, postprocess
from reid_jax.cli import program, shared_flags


@pytest.fixture
def parse(monkeypatch):
    """Defines flags as a command does, and parses arguments: (function that defines, *arguments) -> values."""
    foreign = set(flags.FLAGS)

    def run(define, *arguments):
        monkeypatch.setattr(program, "_groups", [])
        define()
        flags.FLAGS(["command", *arguments])
        return flags.FLAGS

    yield run
    for name in set(flags.FLAGS) - foreign:
        delattr(flags.FLAGS, name)
    flags.FLAGS.mark_as_parsed()


def test_post_processing_has_every_kind(parse):
    args = parse(lambda: shared_flags.define_postprocess("crops"))
    assert args.postprocess == "none" and args.whiten_dim == 0
    assert flags.FLAGS["postprocess"].parser.enum_values == list(postprocess.KINDS)


def test_some_commands_choose_and_some_list_all(parse):
    args = parse(lambda: shared_flags.define_postprocess("crops", default="auto", also="all"), "--postprocess=all")
    assert args.postprocess == "all" and flags.FLAGS["postprocess"].default == "auto"
    assert "auto: pca_whiten where --model names published weights" in flags.FLAGS["postprocess"].help


@pytest.mark.parametrize("takes_exported", [True, False])
def test_what_a_model_may_be_is_said(parse, takes_exported):
    parse(lambda: shared_flags.define_model("not needed for an .npz", takes_exported=takes_exported))
    text = flags.FLAGS["model"].help
    assert ("a .zip of export" in text) == takes_exported and text.endswith("color_histogram; not needed for an .npz.")
    assert [flags.FLAGS[side].value for side in ("height", "width")] == [None, None]


def options(kind, *, whiten_dim=0, model="color_histogram"):
    return types.SimpleNamespace(postprocess=kind, whiten_dim=whiten_dim, model=model)


def model(fitted=None):
    return types.SimpleNamespace(fitted=fitted)


@pytest.fixture
def images(rng):
    return made(rng.normal(size=(60, 5)), source="crops")


def fitted_kind(args, images, network):
    fitted = shared_flags.fit_postprocess(args, images, network)
    return None if fitted is None else fitted.kind


def test_auto_whitens_what_was_not_trained_on_these_images(images, rng, tmp_path, capsys):
    assert fitted_kind(options("auto"), images, model()) == "pca_whiten"
    assert capsys.readouterr().out == ("post-processing: pca_whiten, fitted without labels on the 60 images of crops\n")
    own = options("auto", model=str(tmp_path))  # a run, or a model folder
    few = made(rng.normal(size=(49, 5)))
    for args, collection, network in (
        (own, images, model()),
        (options("auto"), few, model()),
        (options("auto"), images, None),
        (options("auto"), images, model("whatever was fitted")),
        (options("none"), images, model()),
    ):
        assert fitted_kind(args, collection, network) is None
    assert fitted_kind(options("center", model=str(tmp_path)), few, None) == "center"
    few_told, fitted_told = capsys.readouterr().out.splitlines()
    assert few_told.startswith("no post-processing: whitening is fitted to 50 images or more")
    assert fitted_told.startswith("post-processing: center")


def test_a_smaller_dim(images):
    assert shared_flags.fit_postprocess(options("pca_whiten", whiten_dim=3), images, model()).dim == 3
    with pytest.raises(
        errors.UserError, match="--whiten_dim: it must be at most 5, the numbers of an embedding .* got 6"
    ):
        shared_flags.fit_postprocess(options("auto", whiten_dim=6), images, model())
    for kind in ("none", "center", "camera_center"):
        with pytest.raises(errors.UserError, match=f"--whiten_dim: .* is needed with it, got --postprocess={kind}"):
            shared_flags.check_whiten_dim(options(kind, whiten_dim=3))
        shared_flags.check_whiten_dim(options(kind))


def test_what_cannot_be_fitted_is_told_by_the_flag(images):
    with pytest.raises(
        errors.UserError, match="^--postprocess: kind must be center or pca_whiten where no camera has two images"
    ):
        shared_flags.fit_postprocess(options("camera_whiten"), images, model())
    same = made(np.ones((60, 5)))
    with pytest.raises(errors.UserError, match="^--postprocess: embeddings must differ from each other"):
        shared_flags.fit_postprocess(options("auto"), same, model())
    centred = model(postprocess.fit("center", images.blocks()))
    with pytest.raises(
        errors.UserError, match="^--postprocess: it must be none, the model has center already, got center"
    ):
        shared_flags.fit_postprocess(options("center"), images, centred)
