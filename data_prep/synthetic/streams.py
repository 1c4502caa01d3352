"""Where every random decision comes from: one generator per thing decided, none shared."""

import enum

import numpy as np


class Stream(enum.IntEnum):
    """What a generator decides; part of its key, so that no two kinds of decision share numbers."""

    IDENTITY = 0
    CAMERA = 1
    SCENE = 2
    HABITS = 3
    ALLOCATION = 4
    PASSAGE = 5
    IMAGE = 6
    JUNK = 7
    DISTRACTOR = 8
    VIDEO = 9


def generator(seed: int, stream: Stream, *numbers: int) -> np.random.Generator:
    """Returns the generator of one thing, the same however many other things there are.

    Args:
        seed: the world's seed, at least 0.
        stream: what is decided.
        *numbers: which one, e.g. an identity and an image's index; each at least 0.

    Returns:
        A fresh generator.
    """
    return np.random.default_rng([seed, int(stream), *numbers])
