"""Scores a model on any prepared data set.

    python experiments/evaluate.py --model=runs/hct_market1501 --dataset=dukemtmcreid --data_dir=data
    python experiments/evaluate.py --model=mobilenet_v2 --dataset=vehicles --data_dir=data --postprocess=pca_whiten

The second needs no run: published weights (reid weights list), or color_histogram. What --postprocess does to
embeddings is fitted without labels, on the train split unless --fit_on says otherwise; "all" lists every kind.
"""

from typing import Any, NamedTuple

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from reid_jax import errors, features, postprocess, sharding
from reid_jax.cli import program, shared_flags
from reid_jax.data_prep import made
from reid_jax.distances import Reranking
from reid_jax.inference import networks
from reid_jax.inference.networks import Network
from reid_jax.postprocess import Postprocess
from reid_jax.runs import config_rules, evaluation, logs, results
from reid_jax.runs import dataset as dataset_lib
from reid_jax.runs.dataset import Dataset

_FIT_ON = {"train": ("train",), "test": ("query", "gallery"), "all": ("train", "query", "gallery")}


class Embedded(NamedTuple):
    """The splits' embeddings and what they are post-processed by.

    Attributes:
        rows: by split, [N, D] float32, with the post-processing that belongs to the model.
        camids: by split, [N] int64, the cameras of its samples.
        fitted_on: the splits that post-processing is fitted on.
    """

    rows: dict[str, np.ndarray]
    camids: dict[str, np.ndarray]
    fitted_on: tuple[str, ...]


def data_config(args: flags.FlagValues, own: ConfigDict) -> ConfigDict:
    """Returns what is ranked: the model's own data section, changed as the flags say.

    Raises:
        UserError: a field breaks its rule, or no data set is named where the model has none of its own.
    """
    if not own.dataset:
        program.require("dataset")
    data = own.copy_and_resolve_references()
    data.dataset = args.dataset or data.dataset
    data.dir = args.data_dir or data.dir
    data.cache_dir = args.cache_dir or data.cache_dir
    if args.tracklets is not None:
        data.tracklets = args.tracklets
    config_rules.check_config(ConfigDict({"data": data}))
    return data


def load(args: flags.FlagValues) -> tuple[Network, Dataset]:
    """Loads the model and the data set, and checks that it can be scored.

    Raises:
        UserError: one is not there, or there is nothing to be scored on.
    """
    height, width = args.height or 0, args.width or 0
    with errors.prefixed("--model: "):
        is_published = networks.find_model(args.model) is None
    if is_published:
        dataset = load_splits(args, data_config(args, networks.published_data()))
        height, width = networks.auto_size(args.model, dataset.records["gallery"], height=height, width=width)
    with errors.prefixed("--model: "):
        network = networks.load_network(args.model, height=height, width=width)
    if network.fitted is not None and args.postprocess != "none":
        raise errors.UserError(
            f"--postprocess: it must be none, the model has {network.fitted.kind} already, got {args.postprocess}"
        )
    data = data_config(args, network.config.data)
    if not is_published:
        dataset = load_splits(args, data)
    return network, dataset_lib.with_images(dataset, data)


def load_splits(args: flags.FlagValues, data: ConfigDict) -> Dataset:
    """Loads what is known of a data set that can be scored, with its train split where something is fitted to it.

    Raises:
        UserError: it is not there, or has no queries.
    """
    made.prepare_if_made(data.dataset, data.dir)
    fits_train = args.postprocess != "none" and "train" in _FIT_ON[args.fit_on]
    dataset = dataset_lib.load_dataset(data, splits=("query", "gallery", *(["train"] if fits_train else [])))
    if not dataset.has_queries:
        raise errors.UserError(f"dataset: {data.dataset!r} has no query and gallery splits to be scored on")
    return dataset


def embed(args: flags.FlagValues, network: Network, dataset: Dataset) -> Embedded:
    """Embeds query and gallery, and what post-processing is fitted on: query and gallery, too, without a train split."""
    mesh = sharding.make_mesh()
    step = features.make_embed_step(network.module, mesh)
    fitted_on = tuple(split for split in _FIT_ON[args.fit_on] if split in dataset.samples) or _FIT_ON["test"]
    splits = dict.fromkeys(("query", "gallery", *(fitted_on if args.postprocess != "none" else ())))
    camids = {split: dataset.samples[split].camids for split in splits}
    rows = {
        split: evaluation.embed_split(
            step, network.variables, dataset=dataset, split=split, mesh=mesh, batch_size=args.batch_size
        )
        for split in splits
    }
    if network.fitted is not None:
        rows = {split: postprocess.apply(network.fitted, rows[split], camids[split]) for split in splits}
    return Embedded(rows, camids, fitted_on)


def fit(args: flags.FlagValues, kind: str, embedded: Embedded) -> Postprocess | None:
    """Fits post-processing.

    Raises:
        UserError: it cannot be fitted to these embeddings.
    """
    if kind == "none":
        return None
    rows = [embedded.rows[split] for split in embedded.fitted_on]
    camids = np.concatenate([embedded.camids[split] for split in embedded.fitted_on])
    shared_flags.check_whiten_dim(args, rows[0].shape[1])
    with errors.prefixed("--postprocess: ", ValueError):
        return postprocess.fit(kind, rows, camids=camids, dim=args.whiten_dim)


def main() -> None:
    """Evaluates as the flags say."""
    args = flags.FLAGS
    program.require("model")
    shared_flags.check_whiten_dim(args)
    sharding.check_batch_size(sharding.make_mesh(), args.batch_size)
    network, dataset = load(args)
    data = network.config.data
    name = args.dataset or data.dataset
    print(f"model: {network.about}; images of {data.height} x {data.width} pixels (height x width)", flush=True)
    embedded = embed(args, network, dataset)
    if args.postprocess != "none":
        print(f"post-processing is fitted without labels on {' and '.join(embedded.fitted_on)}", flush=True)
    options = ConfigDict({"metric": args.metric, "ap_method": args.ap_method})
    num_ranked = sum(len(embedded.rows[split]) for split in ("query", "gallery"))
    rerank = Reranking().within(num_ranked) if args.rerank else None
    table: dict[str, dict[str, Any]] = {}
    for kind in postprocess.KINDS if args.postprocess == "all" else [args.postprocess]:
        if args.postprocess == "all" and not _can_fit(kind, embedded):
            continue
        fitted = fit(args, kind, embedded)
        query, gallery = (
            postprocess.apply(fitted, embedded.rows[split], embedded.camids[split]) if fitted else embedded.rows[split]
            for split in ("query", "gallery")
        )
        row = f"{name}, {kind}" if args.postprocess != "none" else name
        table[row] = evaluation.score(options, query, gallery, dataset=dataset, rerank=rerank)
    print(results.score_table(table))
    skipped = next(iter(table.values()))["queries_skipped"]
    if skipped:
        print(f"{skipped} queries without a match in another camera were skipped")
    if args.json:
        _write_json(args, name, network, table)


def _can_fit(kind: str, embedded: Embedded) -> bool:
    """Whether there are the cameras that a kind of post-processing needs."""
    return kind not in postprocess.CAMERA_KINDS or any(
        (embedded.camids[split] >= 0).any() for split in embedded.fitted_on
    )


def _write_json(args: flags.FlagValues, name: str, network: Network, table: dict[str, dict[str, Any]]) -> None:
    record = {
        "model": args.model,
        "about": network.about,
        "dataset": name,
        "batch_size": args.batch_size,
        "metric": args.metric,
        "ap_method": args.ap_method,
        "rerank": args.rerank,
        "height": network.config.data.height,
        "width": network.config.data.width,
        "postprocess": args.postprocess,
        "fit_on": args.fit_on,
        "whiten_dim": args.whiten_dim,
    }
    if len(table) == 1:
        record |= next(iter(table.values()))
    else:
        record["scores"] = {row.rpartition(", ")[2]: scores for row, scores in table.items()}
    logs.write_json(args.json, record)


def define_flags() -> None:
    """Defines the command line."""
    shared_flags.define_model(takes_exported=False)
    flags.DEFINE_alias("checkpoint", "model")
    flags.DEFINE_string("dataset", None, "Prepared data set; the run's own if not given.")
    flags.DEFINE_string("data_dir", None, "Where it was prepared; the run's own if not given.")
    flags.DEFINE_string("cache_dir", None, "Where decoded images are kept; the folder cache in data_dir if not given.")
    flags.DEFINE_bool("tracklets", None, "Rank tracklets, not images; as in the run if not given.")
    shared_flags.define_postprocess("the data set's train split", also="all")
    flags.DEFINE_enum(
        "fit_on",
        "train",
        list(_FIT_ON),
        "The images it is fitted on; test: query and gallery, which is what a user's own images are.",
    )
    program.group("Scores")
    flags.DEFINE_integer("batch_size", 256, "Images embedded at a time.", lower_bound=1)
    flags.DEFINE_enum("metric", "cosine", ["cosine", "euclidean", "sqeuclidean"], "Distance to rank by.")
    flags.DEFINE_enum("ap_method", "step", ["step", "trapezoid"], "How average precision is computed.")
    flags.DEFINE_bool("rerank", False, "Rank anew by k-reciprocal neighbours (Zhong et al. 2017).")
    program.group("Output")
    flags.DEFINE_string("json", None, "JSON file to write the scores to, as fractions.")
    flags.DEFINE_alias("output", "json")


if __name__ == "__main__":
    program.run(main, define_flags)
