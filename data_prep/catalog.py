"""The data sets that can be prepared: their readers, options and published sizes."""

import functools
import types as python_types
from collections.abc import Callable
from typing import NamedTuple

from reid_jax import identities
from reid_jax.data_prep.readers import (
    cifar10,
    coil100,
    cuhk03,
    dukemtmc_videoreid,
    dukemtmcreid,
    folder,
    listing,
    market1501,
    mars,
    msmt17,
    synthetic,
)


class Published(NamedTuple):
    """What the authors of a data set say about it.

    Attributes:
        train: images on disk, or tracklets of a video data set, for training.
        query: the same of the queries.
        gallery: the same of the gallery.
        train_ids: identities for training.
        cameras: cameras of all splits together.
    """

    train: int
    query: int
    gallery: int
    train_ids: int
    cameras: int


class Dataset(NamedTuple):
    """How to prepare a data set.

    Attributes:
        read: the reader, called with a `listing.Source` and the options.
        options: the names of the reader's options.
        published: the published sizes, None if there are none.
        counted: what the published sizes of the splits count, "images" or "tracklets".
        unique_names: whether a file name must be unique within its split.
        has_source: whether it is read from a source, not made.
    """

    read: Callable[..., list[listing.Record]]
    options: tuple[str, ...] = ()
    published: Published | None = None
    counted: str = "images"
    unique_names: bool = True
    has_source: bool = True


_CUHK03_DETECTED = Dataset(
    functools.partial(cuhk03.read, boxes="detected"), published=Published(7365, 1400, 5332, 767, 2)
)

DATASETS = python_types.MappingProxyType(
    {
        "market1501": Dataset(market1501.read, published=Published(12936, 3368, 19732, 751, 6)),
        "dukemtmcreid": Dataset(dukemtmcreid.read, published=Published(16522, 2228, 17661, 702, 8)),
        "cuhk03": _CUHK03_DETECTED,
        "cuhk03_detected": _CUHK03_DETECTED,
        "cuhk03_labelled": Dataset(
            functools.partial(cuhk03.read, boxes="labeled"), published=Published(7368, 1400, 5328, 767, 2)
        ),
        "msmt17": Dataset(msmt17.read, published=Published(32621, 11659, 82161, 1041, 15)),
        "mars": Dataset(mars.read, published=Published(8298, 1980, 9330, 625, 6), counted="tracklets"),
        "dukemtmc_videoreid": Dataset(
            dukemtmc_videoreid.read, published=Published(2196, 702, 2636, 702, 8), counted="tracklets"
        ),
        "cifar10": Dataset(cifar10.read, published=Published(50000, 10000, 50000, 10, 0)),
        "coil100": Dataset(coil100.read, published=Published(3600, 200, 3400, 50, 4)),
        "folder": Dataset(folder.read, options=folder.OPTIONS, unique_names=False),
        "synthetic": Dataset(synthetic.read, options=synthetic.OPTIONS, has_source=False),
        "synthetic_video": Dataset(synthetic.read_video, options=synthetic.VIDEO_OPTIONS, has_source=False),
        "synthetic_source": Dataset(
            functools.partial(synthetic.read, **synthetic.SOURCE_DEFAULTS), options=synthetic.OPTIONS, has_source=False
        ),
    }
)


def summarize(records: list[listing.Record]) -> dict[str, dict[str, int]]:
    """Counts what a data set holds.

    Args:
        records: the images.

    Returns:
        For each split that has images, in the order train, query, gallery: its number of "images", of
        "identities" (distractors and junk are none), of known "cameras", and of "tracklets" if it has any.
    """
    counts = {}
    for split in listing.SPLITS:
        chosen = [record for record in records if record.split == split]
        if chosen:
            counts[split] = {
                "images": len(chosen),
                "identities": len({r.pid for r in chosen} - {identities.UNKNOWN, identities.DISTRACTOR_PID}),
                "cameras": len({r.camid for r in chosen} - {identities.UNKNOWN}),
            }
            tracklets = len({r.tracklet for r in chosen} - {identities.UNKNOWN})
            if tracklets:
                counts[split]["tracklets"] = tracklets
    return counts


def differences(published: Published, records: list[listing.Record], *, counted: str = "images") -> list[str]:
    """Compares a data set with its published sizes.

    Args:
        published: the published sizes.
        records: the images.
        counted: what the published sizes of the splits count, "images" or "tracklets".

    Returns:
        One sentence per difference, naming both numbers.
    """
    counts = summarize(records)
    actual = {f"{split} {counted}": counts.get(split, {}).get(counted, 0) for split in listing.SPLITS}
    actual["training identities"] = counts.get("train", {}).get("identities", 0)
    actual["cameras"] = len({record.camid for record in records} - {identities.UNKNOWN})
    return [
        f"{actual[what]} {what}, the published data set has {number}"
        for what, number in zip(actual, published, strict=True)
        if actual[what] != number
    ]
