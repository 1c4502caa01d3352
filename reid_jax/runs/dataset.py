"""The data of a run: the splits of prepared data sets, and what is trained on, a labelled source included."""

import functools
import hashlib
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from reid_jax import errors, identities, memory
from reid_jax.data import images as images_lib
from reid_jax.data import records as records_lib
from reid_jax.data import samples as samples_lib
from reid_jax.data.samples import Samples


class Dataset(NamedTuple):
    """The splits of a prepared data set.

    Attributes:
        records: by split, what is known about each image.
        images: by split, the decoded images.
        samples: by split, what is clustered and ranked: images, or tracklets of frames.
    """

    records: dict[str, records_lib.Records]
    images: dict[str, images_lib.ImageSource]
    samples: dict[str, Samples]

    @property
    def train_ids(self) -> np.ndarray:
        """[N] int64, the train samples' identities numbered from 0; -1 where not known, and for distractors."""
        pids = self.samples["train"].pids
        is_known = pids > identities.DISTRACTOR_PID
        return np.where(is_known, np.searchsorted(np.unique(pids[is_known]), pids), identities.UNKNOWN)

    @property
    def fingerprint(self) -> str:
        """Hexadecimal digest of all that a result depends on: images, identities, cameras, tracklets, by split."""
        digest = hashlib.sha256()
        for split, records in self.records.items():
            digest.update(f"{split} {records.fingerprint}".encode())
            for values in (records.pids, records.camids, records.tracklets):
                digest.update(np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()[:16]

    @property
    def has_queries(self) -> bool:
        """Whether accuracy can be measured: a query has a match in the gallery, not by its own camera."""
        if not {"query", "gallery"} <= self.samples.keys():
            return False
        query, gallery = self.samples["query"], self.samples["gallery"]
        cameras: dict[int, set[int]] = {}
        for pid, camid in zip(gallery.pids.tolist(), gallery.camids.tolist()):
            cameras.setdefault(pid, set()).add(camid)
        for pid, camid in zip(query.pids.tolist(), query.camids.tolist()):
            removed = set() if camid == identities.UNKNOWN else {camid}
            if pid > identities.DISTRACTOR_PID and cameras.get(pid, set()) - removed:
                return True
        return False


def load_dataset(data: ConfigDict, *, splits: tuple[str, ...] = ("train", "query", "gallery")) -> Dataset:
    """Loads what is known of config.data, without its images.

    Args:
        data: config.data; names joined by "+" are one data set of all of them.
        splits: what is needed. Query and gallery may be missing, as from a folder of crops; the first may not.

    Raises:
        UserError: it is not prepared, lacks the first split, or has no tracklets where data.tracklets asks for them.
    """
    names = data.dataset.split("+")
    if len(set(names)) < len(names) or not all(names):
        raise errors.UserError(f"data.dataset: {data.dataset!r} must name different data sets, joined by +")
    with errors.prefixed("data.dir: "):
        parts = [records_lib.load_records(data.dir, name) for name in names]
    shared = [split for split in parts[0] if all(split in part for part in parts)]
    records = {split: records_lib.join([part[split] for part in parts]) for split in shared} if parts[1:] else parts[0]
    dropped = {split for part in parts for split in part} - set(records)
    if dropped & set(splits):
        print(f"{data.dataset}: not all have {', '.join(sorted(dropped))}, which is left out", flush=True)
    if splits[0] not in records:
        raise errors.UserError(f"data.dataset: {data.dataset!r} has no {splits[0]} split, only {', '.join(records)}")
    records = {split: records[split] for split in splits if split in records}
    if data.tracklets:
        to_samples = functools.partial(samples_lib.tracklet_samples, max_frames=data.max_frames)
    else:
        to_samples = samples_lib.image_samples
        if any((each.tracklets >= 0).any() for each in records.values()):
            print(
                f"{data.dataset} has tracklets; with data.tracklets = false every frame is a sample of its own",
                flush=True,
            )
    with errors.prefixed("data.tracklets: "):
        return Dataset(records, {}, {split: to_samples(records[split]) for split in records})


def with_images(dataset: Dataset, data: ConfigDict) -> Dataset:
    """Opens the images of a data set, decoding them where there is no cache of them yet.

    Raises:
        UserError: an image cannot be decoded, or the cache cannot be written.
    """
    open_split = functools.partial(
        images_lib.open_images,
        height=data.height,
        width=data.width,
        cache_dir=data.cache_dir or pathlib.Path(data.dir, "cache"),
        cache_bytes=int(data.cache_gib * 2**30),
        num_workers=data.num_workers,
    )
    return dataset._replace(images={split: open_split(each) for split, each in dataset.records.items()})


class TrainingData(NamedTuple):
    """What a run learns from: the samples of the labelled source, if there is one, then those of the target.

    Attributes:
        target: the data set that is adapted to and evaluated on.
        joined: the data set of both train splits; the target itself where there is no source.
        num_source: N_s, samples of the source; 0 without one.
    """

    target: Dataset
    joined: Dataset
    num_source: int = 0

    @property
    def samples(self) -> Samples:
        """The N = N_s + N_t training samples."""
        return self.joined.samples["train"]

    @property
    def images(self) -> images_lib.ImageSource:
        """The images that the samples' frames are indices of."""
        return self.joined.images["train"]

    @property
    def num_target(self) -> int:
        """N_t."""
        return len(self.samples) - self.num_source

    @property
    def camids(self) -> np.ndarray:
        """[N] int64: the training samples' cameras; those of the source, which are others, count as unknown."""
        source = np.full(self.num_source, identities.UNKNOWN, np.int64)
        return np.concatenate([source, self.target.samples["train"].camids])

    @property
    def source_labels(self) -> np.ndarray:
        """[N_s] int64: the first sample of a source sample's class."""
        return memory.first_index_labels(self.joined.train_ids[: self.num_source])

    def with_source(self, target_labels: jax.Array) -> jax.Array:
        """Returns the classes of all samples [N_s + N_t], by the target's labels [N_t], 0..N_t-1."""
        return jnp.concatenate([jnp.asarray(self.source_labels, jnp.int32), self.num_source + target_labels])

    def with_images(self, data: ConfigDict) -> "TrainingData":
        """Opens the images; see `with_images`."""
        target = with_images(self.target, data)
        joined = with_images(self.joined, data) if self.num_source else target
        return self._replace(target=target, joined=joined)


def load_training_data(config: ConfigDict, *, joins_source: bool = False) -> TrainingData:
    """Loads config.data and, where a method learns from both in one loss, config.source.dataset; without images.

    Raises:
        UserError: a source that is not there, is the target, or has samples without an identity.
    """
    target = load_dataset(config.data)
    if not joins_source or not config.source.dataset:
        return TrainingData(target, target)
    if config.data.dataset in config.source.dataset.split("+"):
        raise errors.UserError(
            f"source.dataset must not name data.dataset, the target, {config.data.dataset!r}, got {config.source.dataset!r}"
        )
    data = config.data.copy_and_resolve_references()
    with errors.prefixed(f"source.dataset = {config.source.dataset!r}: "):
        data.dataset = config.source.dataset
        source = load_dataset(data, splits=("train",))
        if (source.train_ids < 0).any():
            names = source.samples["train"].names[np.flatnonzero(source.train_ids < 0)[0]]
            raise errors.UserError(f"every train sample must have a known identity, {names} has none")
        data.dataset = f"{config.source.dataset}+{config.data.dataset}"
        joined = load_dataset(data, splits=("train",))
    return TrainingData(target, joined, len(source.samples["train"]))
