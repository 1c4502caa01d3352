"""What a method clusters, trains on and ranks: single images, or tracklets of frames."""

import dataclasses

import numpy as np

from reid_jax import errors, identities
from reid_jax.data.records import Records


@dataclasses.dataclass(frozen=True)
class Samples:
    """The samples of one split; S samples, F frames. A sample of an image data set has one frame.

    Attributes:
        frames: [F] int64, indices of images, sample after sample.
        starts: [S + 1] int64; sample i has frames[starts[i]:starts[i + 1]].
        pids: [S] int64; see `Records`.
        camids: [S] int64.
        names: [S] str, the path of each sample's first frame.
    """

    frames: np.ndarray
    starts: np.ndarray
    pids: np.ndarray
    camids: np.ndarray
    names: np.ndarray

    @classmethod
    def of_images(cls, num_images: int) -> "Samples":
        """Returns one sample for each of S images of which nothing is known; an image's name is its number."""
        every, unknown = np.arange(num_images + 1), np.full(num_images, identities.UNKNOWN)
        return cls(every[:-1], every, unknown, unknown, np.arange(num_images).astype(np.str_))

    def __len__(self) -> int:
        return len(self.pids)

    @property
    def counts(self) -> np.ndarray:
        """[S] int64, frames of each sample."""
        return np.diff(self.starts)


def image_samples(records: Records) -> Samples:
    """Returns one sample per image."""
    every = np.arange(len(records) + 1)
    return Samples(every[:-1], every, records.pids, records.camids, records.paths)


def tracklet_samples(records: Records, *, max_frames: int) -> Samples:
    """Returns one sample per tracklet, in the order of their first frames.

    Args:
        records: a split of which every image belongs to a tracklet.
        max_frames: of longer tracklets this many frames are kept, evenly spaced from the first to the last.

    Raises:
        UserError: an image has no tracklet, or the frames of one disagree about identity or camera.
        ValueError: max_frames is less than 1.
    """
    where = f"{records.dataset}/{records.split}"
    if max_frames < 1:
        raise ValueError(f"max_frames must be at least 1, got {max_frames}")
    without = np.flatnonzero(records.tracklets < 0)
    if len(without):
        raise errors.UserError(
            f"{where}: {len(without)} of {len(records)} images belong to no tracklet, the first is "
            f"{records.paths[without[0]]}"
        )
    _, firsts, labels = np.unique(records.tracklets, return_index=True, return_inverse=True)
    for name in ("pids", "camids"):
        values = getattr(records, name)
        odd = np.flatnonzero(values != values[firsts[labels]])
        if len(odd):
            raise errors.UserError(
                f"{where}: the frames of tracklet {records.tracklets[odd[0]]} have different {name}: "
                f"{values[firsts[labels[odd[0]]]]} and {values[odd[0]]}, at {records.paths[odd[0]]}"
            )
    # Records lie in the order of their paths, and so do the frames of a tracklet.
    order = np.argsort(firsts[labels], kind="stable")
    firsts, counts = np.unique(firsts[labels], return_counts=True)
    kept = [_evenly_spaced(frames, max_frames) for frames in np.split(order, np.cumsum(counts)[:-1])]
    starts = np.concatenate([[0], np.cumsum([len(frames) for frames in kept])])
    return Samples(np.concatenate(kept), starts, records.pids[firsts], records.camids[firsts], records.paths[firsts])


def _evenly_spaced(items: np.ndarray, most: int) -> np.ndarray:
    if len(items) <= most:
        return items
    return items[np.linspace(0, len(items) - 1, most).round().astype(int)]


def select(samples: Samples, indices: np.ndarray) -> Samples:
    """Returns some of the samples, in the order of indices [n]."""
    indices = np.arange(len(samples))[indices]
    kept = [samples.frames[samples.starts[index] : samples.starts[index + 1]] for index in indices]
    starts = np.concatenate([[0], np.cumsum([len(frames) for frames in kept])]).astype(np.int64)
    labels = (getattr(samples, name)[indices] for name in ("pids", "camids", "names"))
    return Samples(np.concatenate([*kept, np.empty(0, np.int64)]), starts, *labels)
