"""Flags that several commands have, each defined once."""

from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags

from reid_jax import errors, postprocess
from reid_jax.cli import program

if TYPE_CHECKING:
    from reid_jax.inference.trained_model import TrainedModel
    from reid_jax.retrieval.collection import Collection

_MODEL = (
    "A run directory (its best model) or its folder checkpoints/best or checkpoints/last, a model folder, {exported}or a "
    "name that needs no training: published weights (reid weights list), or color_histogram"
)
# Fewer embeddings than this tell little of their own directions.
_FEWEST_WHITENED = 50


def define_model(more: str = "", *, takes_exported: bool = True) -> None:
    """Defines --model, --height and --width, of the group Input.

    Args:
        more: what a command adds to the description of --model.
        takes_exported: whether it may be a .zip.
    """
    program.group("Input")
    text = _MODEL.format(exported="a .zip of export, " if takes_exported else "")
    flags.DEFINE_string("model", None, f"{text}; {more}." if more else f"{text}.")
    for side, usual in (("height", 256), ("width", 128)):
        flags.DEFINE_integer(
            side,
            None,
            f"The {side} in pixels that published weights see images at; if not given, by the images' median shape, or "
            f"about {usual} where there are none to look at.",
            1,
        )


def define_embedding() -> None:
    """Defines how images are embedded: --batch_size and --on_bad_image."""
    program.group("Embedding")
    flags.DEFINE_integer("batch_size", 64, "Images embedded at a time.", lower_bound=1)
    flags.DEFINE_enum("on_bad_image", "fail", ["fail", "skip"], "What to do with images that cannot be decoded.")


def define_postprocess(fitted_on: str, *, default: str = "none", also: str | None = None) -> None:
    """Defines --postprocess and --whiten_dim; `fitted_on` says on what, `default` may be "auto", `also` is one value more."""
    program.group("Post-processing")
    auto = (
        "auto: pca_whiten where --model names published weights, which were not trained on your images, and there are "
        f"{_FEWEST_WHITENED} images or more; none otherwise"
    )
    flags.DEFINE_enum(
        "postprocess",
        default,
        [*(["auto"] if default == "auto" else []), *postprocess.KINDS, *([also] if also else [])],
        f"What is done to embeddings, fitted without labels on {fitted_on}. camera_...: each camera has a mean of its "
        f"own.{f' {auto}.' if default == 'auto' else ''}",
    )
    flags.DEFINE_integer("whiten_dim", 0, "Numbers of a whitened embedding; 0: as many as before.", lower_bound=0)


def check_whiten_dim(args: flags.FlagValues, dim: int | None = None) -> None:
    """Checks --whiten_dim.

    Args:
        args: the flags.
        dim: of the embeddings; None: not known yet.

    Raises:
        UserError: it is given where nothing is whitened, or is more than the embeddings have.
    """
    if args.whiten_dim and args.postprocess in ("none", "center", "camera_center"):
        raise errors.UserError(
            "--whiten_dim: --postprocess=pca_whiten or camera_whiten is needed with it, got "
            f"--postprocess={args.postprocess}"
        )
    if dim is not None and args.whiten_dim > dim:
        raise errors.UserError(
            f"--whiten_dim: it must be at most {dim}, the numbers of an embedding of this model, got {args.whiten_dim}"
        )


def load_model(args: flags.FlagValues, images: Any = None, *, size: tuple[int, int] = (0, 0)) -> "TrainedModel":
    """Loads the model of --model, for batches of --batch_size, and says what it learned from.

    Args:
        args: the flags.
        images: by whose shapes published weights' images get their size where it is not given: `Records` or `ImageFiles`.
        size: (height, width) in pixels of images whose embeddings theirs will be compared with: they get the same.

    Raises:
        UserError: as `trained_model.load`.
    """
    from reid_jax.inference import networks, trained_model  # not for --help

    with errors.prefixed("--model: "):
        height, width = args.height or 0, args.width or 0
        if networks.is_published(args.model):
            height, width = height or size[0], width or size[1]
        if images is not None:
            height, width = networks.auto_size(args.model, images, height=height, width=width)
        model = trained_model.load(args.model, batch_size=args.batch_size, height=height, width=width)
        if networks.is_published(args.model):
            print(f"{args.model} sees images of {model.height} x {model.width} pixels (height x width)", flush=True)
    if model.about:
        print(f"model: {model.about}", flush=True)
    return model


def fit_postprocess(args: flags.FlagValues, images: "Collection", model: "TrainedModel | None") -> Any:
    """Fits what --postprocess says to a collection; None where there is nothing to do.

    Raises:
        UserError: it cannot be fitted to them, or the model has post-processing already.
    """
    from reid_jax.inference import networks

    check_whiten_dim(args, images.shape[1])
    kind = args.postprocess
    if model is not None and model.fitted is not None and kind not in ("auto", "none"):
        raise errors.UserError(f"--postprocess: it must be none, the model has {model.fitted.kind} already, got {kind}")
    if kind == "auto":
        is_untrained = model is not None and model.fitted is None and networks.is_published(args.model)
        kind = "pca_whiten" if is_untrained else "none"
        if is_untrained and len(images) < _FEWEST_WHITENED:
            kind = "none"
            print(
                f"no post-processing: whitening is fitted to {_FEWEST_WHITENED} images or more "
                "(--postprocess=pca_whiten does it anyway)",
                flush=True,
            )
    if kind == "none":
        return None
    with errors.prefixed("--postprocess: ", ValueError):
        fitted = postprocess.fit(kind, images.blocks(), camids=np.asarray(images.camids), dim=args.whiten_dim)
    print(
        f"post-processing: {kind}, fitted without labels on the {len(images):,} images of {images.source}", flush=True
    )
    return fitted
