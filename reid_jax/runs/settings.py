"""Settings that fit the data: config fields that are left open are chosen by the images, and printed.

Open are the size of images where it is 0, and of the fields below those that are None, as the configs of crops of one's
own have them, or any config's where data.images_per_identity is given on the command line. What is chosen is in the run's
config.json: a run that resumes takes it from there.
"""

import io
import math
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict, config_dict
from PIL import Image

from reid_jax import image_count
from reid_jax.data import pixels as pixels_lib
from reid_jax.data.image_files import ImageFiles
from reid_jax.data.records import Records
from reid_jax.models import backbones
from reid_jax.runs import base_config, start

_BATCH = 64  # P x K of the papers
_SIZED_IMAGES = 1000  # whose shapes are looked at
_MOST_ASPECT = 4.0
_UPRIGHT = 1.5  # height / width from which images are taken for those of people
_SIZE_STEP = 32  # pixels: what most backbones make one cell of their map of


class Guess(NamedTuple):
    """What fields follow from.

    Attributes:
        images: of an identity, about.
        samples: N in training.
        merge_percent: of HCT and BUC.
    """

    images: float
    samples: int
    merge_percent: float

    @property
    def identities(self) -> float:
        """About how many there are, 2 at least."""
        return max(2.0, self.samples / self.images)


def _merge_steps(guess: Guess) -> int:
    """Merge steps until there are about as many clusters as identities; 13 for Market-1501, as HCT has it."""
    merges = max(1, int(guess.merge_percent * guess.samples))
    return max(1, int((guess.samples - guess.identities) / merges))


def _num_neighbors(guess: Guess) -> int:
    return min(image_count.num_neighbors(guess.images), guess.samples - 1)


def _num_instances(guess: Guess) -> int:
    return int(np.clip(round(guess.images), 2, 4))


def _num_ids(guess: Guess) -> int:
    most = max(2, min(int(guess.identities), guess.samples // _num_instances(guess)))
    return min(_BATCH // _num_instances(guess), most)


# By field, what it is of a guess. HCD's num_similar is of one image's others.
CHOICES: dict[str, Callable[[Guess], int | float]] = {
    "cluster.num_steps": _merge_steps,
    "cluster.num_clusters": lambda guess: round(guess.identities),
    "cluster.k1": _num_neighbors,
    "cluster.k2": lambda guess: int(np.clip(round(_num_neighbors(guess) / 5), 2, 6)),
    "cluster.min_samples": lambda guess: int(np.clip(round(guess.images / 3), 2, 4)),
    "dynamics.num_similar": lambda guess: float(max(1, round(guess.images) - 1)),
    "dissimilarity.num_reliable": lambda guess: int(np.clip(round(guess.images) - 1, 1, 4)),
    "train.num_steps": lambda guess: int(np.clip(round(4 * guess.samples / _BATCH), 10, 100)),
    "train.num_ids": _num_ids,
    "train.num_instances": _num_instances,
}
# BUC's stages are its merges: open in its configs alone.
_STAGES = "train.num_iterations"
# Those that follow from the images' size are open, too, where the configs leave them so.
OPEN_BY_SIZE = ("augment.max_shift", "augment.sized_crop_aspect", "dissimilarity.num_parts")
OPEN_FIELDS = (*CHOICES, _STAGES)
ALL_OPEN = (*OPEN_FIELDS, *OPEN_BY_SIZE)  # where they are None
_OPEN_WHERE_ZERO = ("data.height", "data.width", "data.images_per_identity")


def leave_open(config: ConfigDict, *, given: Collection[str] = (), stages: bool = False) -> None:
    """Sets the fields that follow from the number of images per identity to None, but those that are given.

    They keep their types, so that the command line can still give them.

    Args:
        config: changed in place.
        given: dotted names of fields that keep their values.
        stages: whether train.num_iterations is the number of merges, as in BUC.
    """
    with config.ignore_type():
        for name in (*CHOICES, *([_STAGES] if stages else [])):
            section, field = name.split(".")
            if name not in given and section in config and field in config[section]:
                config[section][field] = config_dict.placeholder(type(config[section][field]))


def with_earlier(config: ConfigDict, earlier: dict[str, Any]) -> ConfigDict:
    """Returns a config whose open fields have the values that an earlier start chose.

    Args:
        config: the run's as it was asked for.
        earlier: the fields in the run directory's config.json, by their dotted names; empty: there is no run.
    """
    config = config.copy_and_resolve_references()
    zeros = [name for name in _OPEN_WHERE_ZERO if not _get(config, name)]
    for name in (*zeros, *(name for name in ALL_OPEN if is_open(config, name))):
        if earlier.get(name) is not None:
            section, field = name.split(".")
            config[section][field] = earlier[name]
    if start.weights_name(config.model.weights) and earlier.get("model.weights") == config.model.weights:
        # The weights need no longer be on the machine.
        for field in ("backbone", "normalization"):
            config.model[field] = earlier.get(f"model.{field}", config.model[field])
    if config.model.pooling == "auto":
        config.model.pooling = earlier.get("model.pooling", "auto")
    if not (config.model.weights or config.model.checkpoint) or (earlier and "model.keep_batch_norm" not in earlier):
        config.model.keep_batch_norm = False  # random weights have no statistics worth keeping
    if earlier and _get(config, "cluster.eps_gap") is None and "cluster.eps_gap" not in earlier:
        config.cluster.eps_gap = 0.0  # likewise below: from before there was any
    if config.embedding.postprocess == "auto" and earlier:  # a run from before there was any had none
        config.embedding.postprocess = earlier.get("embedding.postprocess", "none")
    return config


def open_fields(config: ConfigDict) -> list[str]:
    """Returns the dotted names of those fields that are open."""
    return [name for name in OPEN_FIELDS if is_open(config, name)]


def is_open(config: ConfigDict, name: str) -> bool:
    """Whether a config has a field of that dotted name and leaves it open."""
    return _get(config, name) is None


def _get(config: ConfigDict, name: str) -> Any:
    """A field's value by its dotted name; 0 where the config has no such field."""
    section, field = name.split(".")
    return config[section].get(field, 0) if section in config else 0


def choose(config: ConfigDict, *, images_per_identity: float, num_samples: int) -> dict[str, Any]:
    """Returns values for the open fields.

    Args:
        config: with open fields.
        images_per_identity: a guess, above 1.
        num_samples: N.
    """
    percent = config.cluster.get("merge_percent", 0.07) if "cluster" in config else 0.07
    guess = Guess(images_per_identity, num_samples, percent)
    rules = CHOICES | {_STAGES: lambda guess: 1 + _merge_steps(guess)}
    chosen = {name: rules[name](guess) for name in open_fields(config)}
    if "train.num_ids" in chosen and "train.num_instances" not in chosen:  # P fits the K that is given
        given = config.train.num_instances
        chosen["train.num_ids"] = max(2, min(_BATCH // given, num_samples // given, int(guess.identities)))
    return chosen


def choose_size(
    records: Records | ImageFiles, *, pixels: int, height: int = 0, width: int = 0, multiple: int = _SIZE_STEP
) -> tuple[int, int]:
    """Chooses the size that images are resized to: of their median shape, of about so many pixels.

    Args:
        records: the images, of which up to 1,000 are looked at, evenly spaced.
        pixels: height x width, about.
        height: in pixels, where it is given; 0: to be chosen.
        width: likewise.
        multiple: that what is chosen must be a multiple of.

    Returns:
        (height, width) in pixels.
    """
    if height and width:
        return height, width
    places = np.unique(np.linspace(0, len(records) - 1, _SIZED_IMAGES).astype(int))
    sizes = [size for place in places if (size := _upright_size(records.encoded(int(place)))) is not None]
    sizes = sizes or [(2, 1)]  # none can be opened, which is told where they are decoded
    aspect = float(np.clip(np.median([tall / wide for tall, wide in sizes]), 1 / _MOST_ASPECT, _MOST_ASPECT))
    return (
        height or _rounded(width * aspect if width else math.sqrt(pixels * aspect), multiple),
        width or _rounded(height / aspect if height else math.sqrt(pixels / aspect), multiple),
    )


def max_shift(width: int) -> float:
    """The greatest shift along each axis, in pixels, of images of that width: 45 of 224 (PUL sec. IV-B)."""
    return round(45 / 224 * width, 1)


def sized_crop_aspect(height: int, width: int) -> tuple[float, float]:
    """The least and greatest height / width of random crops: BUC's code for people, about the images' own for others."""
    aspect = height / width
    return (2.0, 3.0) if aspect >= _UPRIGHT else (round(0.75 * aspect, 2), round(1.33 * aspect, 2))


def size_multiple(architecture: str) -> int:
    """Returns what the height and width of images for a backbone are chosen as multiples of, in pixels."""
    known = backbones.ARCHITECTURES.get(architecture)
    return _SIZE_STEP if known is None or known.size_multiple == 1 else known.size_multiple


def follow(config: ConfigDict, *, given: Collection[str], method: str, is_own_file: bool = False) -> None:
    """Lets fields follow from augment.preset and data.images_per_identity where those are given, in place.

    Args:
        config: a method's.
        given: dotted names of the fields that were given; they keep their values.
        method: whose config it is.
        is_own_file: it is a file of the user's own: what it does not leave open itself counts as given, but for what
            its augment.preset stands for.
    """
    for field, value in base_config.PRESETS.get(config.augment.preset, {}).items():
        if f"augment.{field}" not in given and field in config.augment:
            config.augment[field] = value
    if config.augment.preset == "shapes" and "model" in config and "model.mirrored" not in given:
        config.model.mirrored = False
    if "data.images_per_identity" in given and not is_own_file:
        leave_open(config, given=given, stages=method == "buc")


def _upright_size(encoded: bytes) -> tuple[int, int] | None:
    """(height, width) of an image by its header; None where there is none that is an image's."""
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            return pixels_lib.upright_size(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _rounded(side: float, multiple: int) -> int:
    return max(1, round(side / multiple)) * multiple
