"""Scores a checkpoint on any prepared data set.

    python experiments/evaluate.py --checkpoint=runs/hct_market1501 --dataset=dukemtmcreid --data_dir=data
"""

from absl import flags
from ml_collections import ConfigDict

from data_prep import cli
from experiments import config_checks, reporting, setup_run, trained_model
from reid_jax import checkpoints, features, logs, sharding, types


def main() -> None:
    """Evaluates as the flags say."""
    given = flags.FLAGS
    if given.checkpoint is None:
        raise types.UserError("checkpoint: give --checkpoint=RUN_DIRECTORY")
    config = trained_model.run_config(given.checkpoint)
    config.data.dataset = given.dataset or config.data.dataset
    config.data.dir = given.data_dir or config.data.dir
    if given.tracklets is not None:
        config.data.tracklets = given.tracklets
    config.data.cache_dir = given.cache_dir or config.data.cache_dir
    config.model.checkpoint = given.checkpoint
    config_checks.check_config(ConfigDict({"data": config.data, "model": config.model}))
    checkpoints.find_model(given.checkpoint)  # before any image is decoded
    mesh = sharding.make_mesh()
    sharding.check_batch_size(mesh, given.batch_size)
    dataset = setup_run.load_dataset(config.data, splits=("query", "gallery"))
    if not dataset.has_queries:
        raise types.UserError(f"dataset: {config.data.dataset!r} has no query and gallery splits to be scored on")
    model = setup_run.build_model(config.model)
    dataset = setup_run.with_images(dataset, config.data)
    images = dataset.images["query"]
    variables = setup_run.initial_variables(config, model, images, batch_size=given.batch_size)
    options = ConfigDict({"batch_size": given.batch_size, "metric": given.metric, "ap_method": given.ap_method})
    embed_step = features.make_embed_step(model, mesh)
    scores = setup_run.evaluate_model(options, embed_step, variables, dataset=dataset, mesh=mesh)
    print(reporting.score_table({config.data.dataset: scores}))
    if given.output:
        result = {"checkpoint": given.checkpoint, "dataset": config.data.dataset, **options.to_dict(), **scores}
        logs.write_json(given.output, result)


def define_flags() -> None:
    """Defines the command line."""
    flags.DEFINE_string(
        "checkpoint", None, "A run directory (its best model), or its folder checkpoints/best or checkpoints/last."
    )
    flags.DEFINE_string("dataset", None, "Prepared data set; the run's own if not given.")
    flags.DEFINE_string("data_dir", None, "Where it was prepared; the run's own if not given.")
    flags.DEFINE_string("cache_dir", None, "Where decoded images are kept; the folder cache in data_dir if not given.")
    flags.DEFINE_bool("tracklets", None, "Rank tracklets, not images; as in the run if not given.")
    flags.DEFINE_integer("batch_size", 256, "Images embedded at a time.", lower_bound=1)
    flags.DEFINE_enum("metric", "cosine", ["cosine", "euclidean", "sqeuclidean"], "Distance to rank by.")
    flags.DEFINE_enum("ap_method", "step", ["step", "trapezoid"], "How average precision is computed.")
    flags.DEFINE_string("output", None, "JSON file to write the scores to.")


if __name__ == "__main__":
    cli.run(main, define_flags)
