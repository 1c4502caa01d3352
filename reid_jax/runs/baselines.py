"""What a run is compared with: label-free baselines of the same images, each seconds of work and kept for the data set."""

import hashlib
import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from reid_jax import features, postprocess
from reid_jax.runs import checkpoints, evaluation, logs, models
from reid_jax.runs.dataset import Dataset

COLOR_HISTOGRAM, START = "color_histogram", "direct transfer"
_FOLDER = "baselines"
_VERSION = 1  # of what is measured


def measure_baselines(
    config: ConfigDict,
    dataset: Dataset,
    mesh: Mesh,
    *,
    embed_step: features.EmbedStep,
    variables: dict[str, Any],
) -> dict[str, dict[str, float]]:
    """Measures the colour histogram, and what a run starts from with every post-processing.

    Post-processing is fitted to the train split. Scores are kept in the cache of images, by all that they depend on.

    Args:
        config: the run's.
        dataset: with queries and images.
        mesh: the devices.
        embed_step: of the run's model.
        variables: of the model before training.

    Returns:
        Scores as `evaluation.score` gives them, of "color_histogram" and of "direct transfer, KIND" for the best kind;
        without the latter where the start's embeddings do not differ.
    """
    model = config.model.copy_and_resolve_references()
    model.update(
        backbone=COLOR_HISTOGRAM,
        pooling="token",
        normalization="imagenet",
        neck="none",
        mirrored=False,
        frozen_stages=0,
    )
    colors_step = features.make_embed_step(models.build_model(model), mesh)

    def embedder(step: features.EmbedStep, own: dict[str, Any]) -> Callable[[str], np.ndarray]:
        return lambda split: evaluation.embed_split(
            step, own, dataset=dataset, split=split, mesh=mesh, batch_size=config.evaluation.batch_size
        )

    colors = _kept(config, dataset, [COLOR_HISTOGRAM], ("none",), embedder(colors_step, {}))
    kinds = postprocess.KINDS[1:]
    if (dataset.samples["train"].camids < 0).all():
        kinds = tuple(kind for kind in kinds if kind not in postprocess.CAMERA_KINDS)
    # The same weights make other embeddings in a network of another stride or pooling.
    network = [checkpoints.digest(_embedding(variables)), *(config.model[field] for field in models.NETWORK_FIELDS)]
    start = _kept(config, dataset, network, kinds, embedder(embed_step, variables))
    best = {f"{START}, {kind}": start[kind] for kind in sorted(start, key=lambda kind: -start[kind]["mAP"])[:1]}
    return {COLOR_HISTOGRAM: colors["none"]} | best


def _embedding(variables: dict[str, Any]) -> dict[str, Any]:
    """A model's variables without the heads that embeddings do not depend on, which are new in every run."""
    return {
        collection: {name: part for name, part in parts.items() if name not in models.HEADS}
        for collection, parts in variables.items()
    }


def _kept(
    config: ConfigDict, dataset: Dataset, network: list[Any], kinds: tuple[str, ...], embed: Callable[[str], np.ndarray]
) -> dict[str, dict[str, float]]:
    """Returns a network's scores by kind of post-processing, from the file that keeps them where there is one."""
    data, options = config.data, config.evaluation
    samples = [data.height, data.width, data.max_frames if data.tracklets else 0]
    known_by = json.dumps([_VERSION, postprocess.SHRINKAGE, samples, options.metric, options.ap_method, kinds, network])
    cache = pathlib.Path(data.cache_dir or pathlib.Path(data.dir, "cache"), _FOLDER)
    file = cache / f"{dataset.fingerprint}_{hashlib.sha256(known_by.encode()).hexdigest()[:16]}.json"
    if not file.is_file():
        scores = _measure(config, dataset, kinds, embed)
        cache.mkdir(parents=True, exist_ok=True)
        logs.write_json(file, scores)
    return logs.read_json(file)


def _measure(
    config: ConfigDict, dataset: Dataset, kinds: tuple[str, ...], embed: Callable[[str], np.ndarray]
) -> dict[str, dict[str, float]]:
    camids = {split: samples.camids for split, samples in dataset.samples.items()}
    rows = {split: embed(split) for split in (("query", "gallery") if kinds == ("none",) else camids)}
    scores = {}
    for kind in kinds:
        query, gallery = rows["query"], rows["gallery"]
        if kind != "none":
            cameras = camids["train"] if kind in postprocess.CAMERA_KINDS else None
            if not postprocess.is_spread(rows["train"], cameras):
                continue  # such as one image of each camera: nothing can be fitted
            fitted = postprocess.fit(kind, [rows["train"]], camids=camids["train"])
            query, gallery = (postprocess.apply(fitted, rows[split], camids[split]) for split in ("query", "gallery"))
        scores[kind] = evaluation.score(config.evaluation, query, gallery, dataset=dataset)
    return scores
