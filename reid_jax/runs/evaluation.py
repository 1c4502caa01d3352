"""How good a model is on a data set's query and gallery."""

from typing import Any

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from reid_jax import evaluate, features, postprocess
from reid_jax.distances import Reranking
from reid_jax.postprocess import Postprocess
from reid_jax.runs.dataset import Dataset


def evaluate_model(
    options: ConfigDict,
    embed_step: features.EmbedStep,
    variables: dict[str, Any],
    *,
    dataset: Dataset,
    mesh: Mesh,
    fitted: Postprocess | None = None,
) -> dict[str, float]:
    """Ranks the gallery for every query, as `options` (config.evaluation) say.

    Args:
        options: config.evaluation.
        embed_step: of the model.
        variables: the model's.
        dataset: with images.
        mesh: the devices.
        fitted: post-processing of the embeddings.

    Returns:
        Nothing where the data set has no queries; else mAP, rank1, rank5, rank10, rank20 and mINP as fractions, and
        the numbers of queries ranked and skipped.
    """
    if not dataset.has_queries:
        return {}
    query, gallery = (
        embed_split(embed_step, variables, dataset=dataset, split=split, mesh=mesh, batch_size=options.batch_size)
        for split in ("query", "gallery")
    )
    if fitted is not None:
        camids = {split: samples.camids for split, samples in dataset.samples.items()}
        query = postprocess.apply(fitted, query, camids["query"])
        gallery = postprocess.apply(fitted, gallery, camids["gallery"])
    return score(options, query, gallery, dataset=dataset)


def embed_split(
    embed_step: features.EmbedStep,
    variables: dict[str, Any],
    *,
    dataset: Dataset,
    split: str,
    mesh: Mesh,
    batch_size: int,
) -> np.ndarray:
    """Embeds a split's samples: [N, D] float32, not normalised."""
    return features.embed_samples(
        embed_step,
        variables,
        dataset.images[split],
        dataset.samples[split],
        mesh,
        batch_size=batch_size,
        description=f"embedding {split}",
    ).embeddings


def score(
    options: ConfigDict, query: np.ndarray, gallery: np.ndarray, *, dataset: Dataset, rerank: Reranking | None = None
) -> dict[str, float]:
    """Ranks the gallery for every query.

    Args:
        options: metric and ap_method, of config.evaluation.
        query: [Q, D] float, the query split's embeddings.
        gallery: [G, D] float, the gallery's.
        dataset: whose samples they are.
        rerank: as `evaluate.evaluate_embeddings` takes it.

    Returns:
        As `evaluate_model`, for a data set with queries.
    """
    result = evaluate.evaluate_embeddings(
        query,
        gallery,
        dataset.samples["query"].pids,
        dataset.samples["query"].camids,
        dataset.samples["gallery"].pids,
        dataset.samples["gallery"].camids,
        metric=options.metric,
        ap_method=options.ap_method,
        rerank=rerank,
    )
    scores = {"mAP": float(result.mAP)}
    for rank in (1, 5, 10, 20):
        scores[f"rank{rank}"] = float(result.cmc[min(rank, len(result.cmc)) - 1])
    return scores | {
        "mINP": float(result.mINP),
        "queries_ranked": int(result.num_valid),
        "queries_skipped": int(result.num_skipped),
    }
