"""Flags that several commands have, each defined once."""

from absl import flags

MODEL = (
    "A run directory (its best model) or its folder checkpoints/best or checkpoints/last, a model folder, or a .zip of "
    "export"
)


def define_model(more: str = "") -> None:
    """Defines --model; `more` is what a command adds to its description."""
    flags.DEFINE_string("model", None, f"{MODEL}; {more}." if more else f"{MODEL}.")


def define_embedding() -> None:
    """Defines how images are embedded: --batch_size and --on_bad_image."""
    flags.DEFINE_integer("batch_size", 64, "Images embedded at a time.", lower_bound=1)
    flags.DEFINE_enum("on_bad_image", "fail", ["fail", "skip"], "What to do with images that cannot be decoded.")
