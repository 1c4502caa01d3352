"""The few types and constants that cross module borders."""

from typing import NamedTuple

import jax
import numpy as np

# Market-1501's conventions, kept for every data set: a junk detection, an image nobody labelled, a camera
# or tracklet that is not known are all -1; 0 is a real detection of nobody in the query set.
UNKNOWN = -1
DISTRACTOR_PID = 0


class UserError(ValueError):
    """Something the user gave is wrong: printed as one line naming what, where and the rule; exit status 2."""


class BusyError(UserError):
    """Another process is working in a run directory."""


class NonFiniteLossError(RuntimeError):
    """A training loss, the model or its embeddings are nan or infinite; the run cannot go on from here."""


class Features(NamedTuple):
    """What a model makes of a batch of images, or of N samples.

    Attributes:
        embeddings: [B, D] float32, the pooled feature; not normalised unless said so.
        stripes: [B, S, D] float32, one pooled feature per horizontal stripe, or None without stripes.
    """

    embeddings: jax.Array | np.ndarray
    stripes: jax.Array | np.ndarray | None = None
