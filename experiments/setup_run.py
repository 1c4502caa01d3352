"""From a config to the objects a loop works with: data, model, optimizer, start weights."""

import functools
import hashlib
import importlib
import os
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh
from ml_collections import ConfigDict

from data_prep import prepare
from reid_jax import augment, checkpoints, evaluate, features, sampling, types
from reid_jax.data import images as images_lib
from reid_jax.data import records as records_lib
from reid_jax.data import samples as samples_lib
from reid_jax.data.samples import Samples
from reid_jax.models import calibration, pretrained, resnet
from reid_jax.models.reid import ReidModel

_RESNETS = {"resnet18": resnet.resnet18, "resnet34": resnet.resnet34, "resnet50": resnet.resnet50}
_OPTIONAL = ("head", "classifier", "neck")  # parts that a checkpoint may lack, or have for other classes: they start anew
_CALIBRATION_BATCHES = 16
_MADE = ("synthetic", "synthetic_source", "synthetic_video")


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
        is_known = pids > types.DISTRACTOR_PID
        return np.where(is_known, np.searchsorted(np.unique(pids[is_known]), pids), types.UNKNOWN)

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
            removed = set() if camid == types.UNKNOWN else {camid}
            if pid > types.DISTRACTOR_PID and cameras.get(pid, set()) - removed:
                return True
        return False


def load_dataset(data: ConfigDict, *, splits: tuple[str, ...] = ("train", "query", "gallery")) -> Dataset:
    """Loads what is known of config.data, without its images; a synthetic data set is made if it is not there yet.

    Args:
        data: config.data; names joined by "+" are one data set of all of them.
        splits: what is needed. Query and gallery may be missing, as from a folder of crops; the first may not.

    Raises:
        UserError: it is not prepared, lacks the first split, or has no tracklets where data.tracklets asks for them.
    """
    names = data.dataset.split("+")
    if len(set(names)) < len(names) or not all(names):
        raise types.UserError(f"data.dataset: {data.dataset!r} must name different data sets, joined by +")
    parts = [_load_or_make(data.dir, name) for name in names]
    shared = [split for split in parts[0] if all(split in part for part in parts)]
    records = {split: records_lib.join([part[split] for part in parts]) for split in shared} if parts[1:] else parts[0]
    dropped = {split for part in parts for split in part} - set(records)
    if dropped & set(splits):
        print(f"{data.dataset}: not all have {', '.join(sorted(dropped))}, which is left out", flush=True)
    if splits[0] not in records:
        raise types.UserError(
            f"data.dataset: {data.dataset!r} has no {splits[0]} split, only {', '.join(records)}"
        )
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
    return Dataset(records, {}, {split: to_samples(records[split]) for split in records})


def _load_or_make(data_dir: str, name: str) -> dict[str, records_lib.Records]:
    if name in _MADE and records_lib.find_dataset(data_dir, name) is None:
        prepare.prepare(name, source=None, data_dir=data_dir)
    return records_lib.load_records(data_dir, name)


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


def check_start(config: ConfigDict, module: ReidModel, *, resuming: bool) -> None:
    """Checks what a new run starts from, before any image is decoded.

    Args:
        config: the run's.
        module: the model that is trained.
        resuming: a checkpoint will replace what the run started from.

    Raises:
        UserError: the weights or the checkpoint are missing, the checkpoint is of another model, or random weights
            would be frozen.
    """
    model = config.model
    if resuming:
        return
    if model.checkpoint:
        shape = (config.data.height, config.data.width, 3)
        checkpoints.check_variables(model.checkpoint, variable_shapes(config, module, shape), optional=_OPTIONAL)
        return
    if model.weights and not pathlib.Path(model.weights).is_file():
        raise types.UserError(
            f"model.weights: no file {model.weights!r}; make it with python data_prep/port_resnet.py, or "
            "start from random weights: leave it empty"
        )
    if model.frozen_stages and not model.weights:
        raise types.UserError(
            f"model.frozen_stages must be 0 where training starts from random weights, got {model.frozen_stages}"
        )


def check_distance_matrix(num_samples: int) -> None:
    """Checks that the N x N distances fit into the memory of the first device.

    Raises:
        UserError: they do not; names N, what they take and what there is.
    """
    device = jax.devices()[0]
    if device.platform == "cpu":
        there, copies = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), 1
    else:
        there, copies = (device.memory_stats() or {}).get("bytes_limit"), 2  # merging works on a copy
    needed = 4 * num_samples**2 * copies
    if there is not None and needed > there:
        raise types.UserError(
            f"the distances of all pairs of {num_samples:,} samples take {needed / 2**30:,.0f} GiB, the "
            f"{device.platform} has {there / 2**30:,.0f}; experiments/softened.py holds no such matrix"
        )


def check_training(model: nn.Module, data: ConfigDict, *, batch_size: int) -> None:
    """Traces a training step's forward pass, so that what does not fit is found before any work.

    Args:
        model: from `build_model`.
        data: config.data.
        batch_size: images in a batch.

    Raises:
        UserError: from the model, e.g. stripes or batch-norm groups that do not divide.
    """

    def forward(images):
        key = jax.random.key(0)
        variables = model.init(key, images, train=False)
        return model.apply(variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": key})

    jax.eval_shape(forward, jax.ShapeDtypeStruct((batch_size, data.height, data.width, 3), jnp.float32))


def build_model(model: ConfigDict, kind: type[ReidModel] = ReidModel, **fields: Any) -> ReidModel:
    """Builds config.model, without weights; `fields` are what `kind` has more than a ReidModel.

    A backbone of one's own is named as "module:Class": a Flax module whose `__call__(images, *, train)` returns a
    feature map [B, h, w, C].

    Raises:
        UserError: an unknown backbone or option.
    """
    dtypes = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
    if model.dtype not in dtypes:
        raise types.UserError(f"model.dtype must be one of {', '.join(dtypes)}, got {model.dtype!r}")
    if ":" in model.backbone:
        module, _, name = model.backbone.partition(":")
        try:
            network = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise types.UserError(f"model.backbone: cannot import {model.backbone!r}: {error}") from error
        # A config.json may be a stranger's: nothing but a network is ever called.
        if not (isinstance(network, type) and issubclass(network, nn.Module)):
            raise types.UserError(f"model.backbone: {model.backbone!r} is no Flax module class (flax.linen.Module)")
        if model.frozen_stages:
            raise types.UserError(
                f"model.frozen_stages must be 0 for a backbone of one's own, got {model.frozen_stages}"
            )
        try:
            backbone = network()
        except TypeError as error:
            raise types.UserError(
                f"model.backbone: {model.backbone!r} cannot be made without arguments: {error}"
            ) from error
    elif model.backbone in _RESNETS:
        backbone = _RESNETS[model.backbone](
            width=model.width,
            last_stride=model.last_stride,
            stem=model.stem,
            frozen_stages=model.frozen_stages,
            bn_group_size=model.bn_group_size,
            dtype=dtypes[model.dtype],
        )
    else:
        raise types.UserError(
            f"model.backbone must be one of {', '.join(_RESNETS)} or 'module:Class', got {model.backbone!r}"
        )
    return kind(
        backbone=backbone, pooling=model.pooling, neck=model.neck, bn_group_size=model.bn_group_size, **fields
    )


def draw_epoch_frames(
    config: ConfigDict, samples: Samples, epochs: list[np.ndarray], iteration: int, *, first_epoch: int
) -> np.ndarray:
    """Draws the images of an iteration's batches: the samples' own, or config.train.num_frames of each tracklet.

    Args:
        config: the run's.
        samples: of the train split.
        epochs: one array [steps, B] of sample indices per epoch, from `first_epoch` on.
        iteration: the loop's.
        first_epoch: the first one's number; an epoch's draws are its own, wherever a run resumes.

    Returns:
        [all steps, B * T] indices of images.
    """
    return np.concatenate([
        sampling.draw_frames(
            np.random.default_rng([config.seed, iteration, epoch, 1]),
            samples,
            index_batches,
            num_frames=config.train.num_frames,
        )
        for epoch, index_batches in enumerate(epochs, start=first_epoch)
    ])


def rate_factors(model: ConfigDict, *, backbone: float = 1.0) -> dict[str, float]:
    """Returns the learning rate's factors by parameter: 0 for frozen stages, `backbone` for the others of it."""
    frozen = {f"backbone/{prefix}": 0.0 for prefix in resnet.frozen_prefixes(model.frozen_stages)}
    return frozen if backbone == 1 else {"backbone/": backbone} | frozen


def variable_shapes(config: ConfigDict, model: ReidModel, image_shape: tuple[int, int, int]) -> dict[str, Any]:
    """Returns the shapes of a model's variables, as `model.init` gives them on a config's batches."""
    sample = jax.ShapeDtypeStruct(_init_shape(config, image_shape), jnp.float32)
    return jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), sample)


def _init_shape(config: ConfigDict, image_shape: tuple[int, int, int]) -> tuple[int, ...]:
    return ((config.model.bn_group_size or 1) * config.train.num_frames, *image_shape)


def initial_variables(
    config: ConfigDict,
    model: ReidModel,
    images: images_lib.ImageSource,
    *,
    batch_size: int,
    resuming: bool = False,
) -> dict[str, Any]:
    """Returns the variables a run starts from, and says on standard output where they are from.

    Random weights get their batch-norm statistics measured on training images first: with the initial ones
    (mean 0, variance 1) the embeddings of all images would nearly coincide.

    Args:
        config: the run's.
        model: from `build_model`.
        images: what to calibrate on.
        batch_size: images at a time in calibration.
        resuming: a checkpoint will replace the variables: only their shapes matter, and they are zeros.

    Raises:
        UserError: the weights or the checkpoint are missing or of another model.
    """
    init_key, order_key = jax.random.split(jax.random.key(config.seed))
    if resuming:
        shapes = variable_shapes(config, model, images.shape)
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    sample = jnp.zeros(_init_shape(config, images.shape), jnp.float32)
    fresh = jax.jit(functools.partial(model.init, train=False))(init_key, sample)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(order_key)))
    order = np.resize(rng.permutation(len(images)), (_CALIBRATION_BATCHES, batch_size))
    inputs = (augment.normalize(batch) for batch in images.batches(order))
    if not config.model.checkpoint and not config.model.weights:
        used = min(order.size, len(images))
        print(f"starting from random weights; calibrating batch norm on {used} training images", flush=True)
        # A dropout layer comes after the last batch norm, so that its draws do not matter.
        return calibration.calibrate_batch_norm(model, fresh, inputs, rngs={"dropout": order_key})
    if config.model.checkpoint:
        print(f"starting from the checkpoint {config.model.checkpoint}", flush=True)
        # Another method's run has no such head, or one for other classes: then it starts anew.
        variables = checkpoints.restore_variables(config.model.checkpoint, fresh, optional=_OPTIONAL)
    else:
        print(f"starting from the weights {config.model.weights}", flush=True)
        variables = pretrained.load_variables(config.model.weights, fresh)
    embedder = build_model(config.model)
    embed = jax.jit(lambda variables, batch: embedder.apply(variables, batch, train=False).embeddings)
    return calibration.calibrate_neck(embed, variables, inputs)


def evaluate_model(
    options: ConfigDict,
    embed_step: features.EmbedStep,
    variables: dict[str, Any],
    *,
    dataset: Dataset,
    mesh: Mesh,
) -> dict[str, float]:
    """Ranks the gallery for every query, as `options` (config.evaluation) say.

    Returns:
        Nothing where the data set has no queries; else mAP, rank1, rank5, rank10, rank20 and mINP as fractions, and
        the numbers of queries ranked and skipped.
    """
    if not dataset.has_queries:
        return {}
    query, gallery = (
        features.embed_samples(
            embed_step,
            variables,
            dataset.images[split],
            dataset.samples[split],
            mesh,
            batch_size=options.batch_size,
            description=f"embedding {split}",
        ).embeddings
        for split in ("query", "gallery")
    )
    result = evaluate.evaluate_embeddings(
        query,
        gallery,
        dataset.samples["query"].pids,
        dataset.samples["query"].camids,
        dataset.samples["gallery"].pids,
        dataset.samples["gallery"].camids,
        metric=options.metric,
        ap_method=options.ap_method,
    )
    scores = {"mAP": float(result.mAP)}
    for rank in (1, 5, 10, 20):
        scores[f"rank{rank}"] = float(result.cmc[min(rank, len(result.cmc)) - 1])
    return scores | {
        "mINP": float(result.mINP),
        "queries_ranked": int(result.num_valid),
        "queries_skipped": int(result.num_skipped),
    }
