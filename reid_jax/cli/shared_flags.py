"""Flags that several commands have, each defined once."""

from typing import TYPE_CHECKING

from absl import flags

from reid_jax import errors
from reid_jax.cli import program

if TYPE_CHECKING:
    from reid_jax.inference.trained_model import TrainedModel

MODEL = (
    "A run directory (its best model) or its folder checkpoints/best or checkpoints/last, a model folder, or a .zip of "
    "export"
)


def define_model(more: str = "") -> None:
    """Defines --model, of the group Input; `more` is what a command adds to its description."""
    program.group("Input")
    flags.DEFINE_string("model", None, f"{MODEL}; {more}." if more else f"{MODEL}.")


def define_embedding() -> None:
    """Defines how images are embedded: --batch_size and --on_bad_image."""
    program.group("Embedding")
    flags.DEFINE_integer("batch_size", 64, "Images embedded at a time.", lower_bound=1)
    flags.DEFINE_enum("on_bad_image", "fail", ["fail", "skip"], "What to do with images that cannot be decoded.")


def load_model(args: flags.FlagValues) -> "TrainedModel":
    """Loads the model of --model, for batches of --batch_size.

    Raises:
        UserError: as `trained_model.load`.
    """
    from reid_jax.inference import trained_model  # not for --help

    with errors.prefixed("--model: "):
        return trained_model.load(args.model, batch_size=args.batch_size)
