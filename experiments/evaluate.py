"""Scores a model on any prepared data set.

python experiments/evaluate.py --model=runs/hct_market1501 --dataset=dukemtmcreid --data_dir=data
"""

from absl import flags
from ml_collections import ConfigDict

from reid_jax import errors, features, sharding
from reid_jax.cli import program, shared_flags
from reid_jax.data_prep import made
from reid_jax.inference import trained_model
from reid_jax.runs import config_rules, evaluation, logs, results
from reid_jax.runs import dataset as dataset_lib


def data_config(args: flags.FlagValues, own: ConfigDict) -> ConfigDict:
    """Returns what is ranked: the model's own data section, changed as the flags say.

    Raises:
        UserError: a field breaks its rule.
    """
    data = own.copy_and_resolve_references()
    data.dataset = args.dataset or data.dataset
    data.dir = args.data_dir or data.dir
    data.cache_dir = args.cache_dir or data.cache_dir
    if args.tracklets is not None:
        data.tracklets = args.tracklets
    config_rules.check_config(ConfigDict({"data": data}))
    return data


def main() -> None:
    """Evaluates as the flags say."""
    args = flags.FLAGS
    program.require("model")
    with errors.prefixed("--model: "):
        model, variables, config = trained_model.load_network(args.model)
    data = data_config(args, config.data)
    mesh = sharding.make_mesh()
    sharding.check_batch_size(mesh, args.batch_size)
    made.prepare_if_made(data.dataset, data.dir)
    dataset = dataset_lib.load_dataset(data, splits=("query", "gallery"))
    if not dataset.has_queries:
        raise errors.UserError(f"dataset: {data.dataset!r} has no query and gallery splits to be scored on")
    dataset = dataset_lib.with_images(dataset, data)
    options = ConfigDict({"batch_size": args.batch_size, "metric": args.metric, "ap_method": args.ap_method})
    embed_step = features.make_embed_step(model, mesh)
    scores = evaluation.evaluate_model(options, embed_step, variables, dataset=dataset, mesh=mesh)
    print(results.score_table({data.dataset: scores}))
    if args.output:
        logs.write_json(args.output, {"model": args.model, "dataset": data.dataset, **options.to_dict(), **scores})


def define_flags() -> None:
    """Defines the command line."""
    shared_flags.define_model()
    flags.DEFINE_alias("checkpoint", "model")
    flags.DEFINE_string("dataset", None, "Prepared data set; the run's own if not given.")
    flags.DEFINE_string("data_dir", None, "Where it was prepared; the run's own if not given.")
    flags.DEFINE_string("cache_dir", None, "Where decoded images are kept; the folder cache in data_dir if not given.")
    flags.DEFINE_bool("tracklets", None, "Rank tracklets, not images; as in the run if not given.")
    program.group("Scores")
    flags.DEFINE_integer("batch_size", 256, "Images embedded at a time.", lower_bound=1)
    flags.DEFINE_enum("metric", "cosine", ["cosine", "euclidean", "sqeuclidean"], "Distance to rank by.")
    flags.DEFINE_enum("ap_method", "step", ["step", "trapezoid"], "How average precision is computed.")
    program.group("Output")
    flags.DEFINE_string("output", None, "JSON file to write the scores to.")


if __name__ == "__main__":
    program.run(main, define_flags)
