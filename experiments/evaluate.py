"""Scores a checkpoint on any prepared data set.

    python experiments/evaluate.py --checkpoint=runs/hct_market1501 --dataset=dukemtmcreid --data_dir=data
"""

import os
import pathlib

from absl import flags
from ml_collections import ConfigDict

from data_prep import cli
from experiments import reporting, setup_run
from experiments.configs import shared
from reid_jax import checkpoints, features, logs, sharding, types

_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "A run directory (its best model), or its folder checkpoints/best or checkpoints/last."
)
_DATASET = flags.DEFINE_string("dataset", None, "Prepared data set; the run's own if not given.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Where it was prepared; the run's own if not given.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 256, "Images embedded at a time.", lower_bound=1)
_METRIC = flags.DEFINE_enum("metric", "cosine", ["cosine", "euclidean", "sqeuclidean"], "Distance to rank by.")
_AP_METHOD = flags.DEFINE_enum("ap_method", "step", ["step", "trapezoid"], "How average precision is computed.")
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write the scores to.")


def run_config(checkpoint: str) -> ConfigDict:
    """Reads the config of the run that a checkpoint belongs to.

    Raises:
        UserError: there is no config.json in or above the folder.
    """
    for folder in (pathlib.Path(checkpoint), *pathlib.Path(checkpoint).absolute().parents[:2]):
        if (folder / "config.json").is_file():
            return ConfigDict(logs.read_json(folder / "config.json"))
    raise types.UserError(f"checkpoint: no run directory at {checkpoint!r}: neither it nor its parents hold config.json")


def main() -> None:
    """Evaluates as the flags say."""
    if _CHECKPOINT.value is None:
        raise types.UserError("checkpoint: give --checkpoint=RUN_DIRECTORY")
    config = run_config(_CHECKPOINT.value)
    config.data.dataset = shared.ALIASES.get(_DATASET.value, _DATASET.value) or config.data.dataset
    config.data.dir = _DATA_DIR.value or config.data.dir
    mesh = sharding.make_mesh()
    sharding.check_batch_size(mesh, _BATCH_SIZE.value)
    dataset = setup_run.open_dataset(config.data, splits=("query", "gallery"))
    model = setup_run.build_model(config.model)
    config.model.checkpoint = _CHECKPOINT.value
    images = dataset.images["query"]
    variables = setup_run.initial_variables(config, model, images, batch_size=_BATCH_SIZE.value)
    options = ConfigDict({"batch_size": _BATCH_SIZE.value, "metric": _METRIC.value, "ap_method": _AP_METHOD.value})
    embed_step = features.make_embed_step(model, mesh)
    if not dataset.has_queries:
        raise types.UserError(f"dataset: {config.data.dataset!r} has no query and gallery splits to be scored on")
    scores = setup_run.evaluate_model(options, embed_step, variables, dataset=dataset, mesh=mesh)
    print(reporting.score_table({config.data.dataset: scores}))
    if _OUTPUT.value:
        result = {"checkpoint": _CHECKPOINT.value, "dataset": config.data.dataset, **options.to_dict(), **scores}
        logs.write_json(_OUTPUT.value, result)


if __name__ == "__main__":
    cli.run(main)
