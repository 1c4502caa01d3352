"""Adapts models from labelled sources to targets without labels, and prints a table like PUL's Table II.

    python experiments/transfer.py --pairs=synthetic_source:synthetic,synthetic:synthetic
    python experiments/transfer.py --method=pul --pairs=dukemtmcreid:market1501,market1501:dukemtmcreid --seeds=0,1,2
    python experiments/transfer.py --method=hct --pairs=dukemtmcreid+cuhk03_detected:market1501

For every pair SOURCE:TARGET an ID classifier is trained on the source (several joined by "+"), as PUL's original model
is, and the method's config of the target starts from it. The classifiers are rows of the table too, measured on their
own test images: with a target as its own source, that is supervised learning. The same command again skips what is
finished and resumes the rest.
"""

import itertools
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from reid_jax import errors, source_model
from reid_jax.cli import command_line, program
from reid_jax.experiments import sweep
from reid_jax.experiments.configs import pul as pul_config
from reid_jax.experiments.configs.sweeps import Sweep
from reid_jax.runs import base_config, fitting, start
from reid_jax.runs import dataset as dataset_lib
from reid_jax.runs import settings as config_settings
from reid_jax.sweeps import sweep_rows
from reid_jax.sweeps.sweep_rows import Run

_GIVEN = {"model.checkpoint": "--pairs", "source.dataset": "--pairs", "source.num_epochs": "--source_epochs"}
_METHODS = tuple(method for method in sweep.METHODS if method != "supervised")


def parse_pairs(texts: Sequence[str]) -> list[tuple[str, str]]:
    """Reads SOURCE:TARGET pairs.

    Raises:
        UserError: there is none, one is not of that form, or one comes twice.
    """
    pairs = []
    for text in itertools.chain.from_iterable(text.split(",") for text in texts):
        source, _, target = (part.strip() for part in text.partition(":"))
        if not (source and target) or ":" in target:
            raise errors.UserError(f"--pairs: {text!r} is not SOURCE:TARGET")
        if (source, target) in pairs:
            raise errors.UserError(f"--pairs: {text!r} comes twice")
        pairs.append((source, target))
    if not pairs:
        raise errors.UserError("--pairs: give SOURCE:TARGET, several separated by commas")
    return pairs


def original_model_config(config: ConfigDict, source: str, target: str, num_epochs: int) -> ConfigDict:
    """Returns a config that `source_model` trains the original model of a pair by.

    Args:
        config: the method's, for the target: PUL's own serves; of others, PUL's config with their seed, model, images
            and devices.
        source: labelled data sets, joined by "+".
        target: the config's name for its data set; "folder" for one's own.
        num_epochs: of training on the source; 0: as PUL's config has it.
    """
    if source_model.trains_source(config):
        original = config.copy_and_resolve_references()
    else:
        original = pul_config.get_config(target)
        original.update(seed=config.seed, num_devices=config.num_devices)
        for section in ("model", "data", "checkpoint"):
            original[section].update(config[section])
        original.evaluation.batch_size = config.evaluation.batch_size
        original.augment.max_shift = config_settings.max_shift(config.data.width)
    original.source.dataset = source
    original.source.num_epochs = num_epochs or original.source.num_epochs
    return original


def fit_images(config: ConfigDict) -> None:
    """Sets the network and the images' size that a config leaves open: the source's model is to have the same.

    Args:
        config: the method's, for the target; changed in place.

    Raises:
        UserError: the target, whose images decide the size, is not there, or there are no weights of that name.
    """
    config.model = start.with_architecture(config.model)
    has_size = config.data.height and config.data.width
    if not has_size or any(config_settings.is_open(config, name) for name in config_settings.OPEN_BY_SIZE):
        with errors.prefixed("--pairs: "):
            target = dataset_lib.load_dataset(config.data, splits=("train",))
        fitting.fit_size(config, target)


def plan(
    method: str,
    pairs: Sequence[tuple[str, str]],
    *,
    settings: dict[str, Any],
    seeds: Sequence[int],
    workdir: str | pathlib.Path,
    num_epochs: int,
) -> tuple[Sweep, list[Run]]:
    """Returns the table's rows and their runs: one row for every source, and one for every pair.

    Args:
        method: what adapts.
        pairs: (source, target); with a target as its own source there is the source's row alone.
        settings: values by field for the method's configs.
        seeds: every pair is run once with each.
        workdir: holds the run directories of sources and pairs.
        num_epochs: of training on the sources; 0: as PUL's config has it.

    Raises:
        UserError: there is no such field, a setting is what the pairs give, or a target whose images' size is to be
            found out is not there.
    """
    for field in settings:
        if field in _GIVEN:
            raise errors.UserError(f"--set: {field} is what {_GIVEN[field]} gives")
    runs: dict[pathlib.Path, Run] = {}
    for source, target in pairs:
        row = Sweep(method, "", "", {f"{source} to {target}": {}})
        name, own = (target, {}) if target in base_config.DATASETS else ("folder", {"data.dataset": target})
        for run in sweep_rows.plan(row, dataset=name, settings=settings | own, seeds=seeds, workdir=workdir):
            fit_images(run.config)
            original = original_model_config(run.config, source, name, num_epochs)
            config = source_model.source_config(original)
            folder = source_model.source_workdir(config, workdir)
            label = f"supervised on {source}, {config.data.height}x{config.data.width}"
            runs.setdefault(folder, Run(label, "supervised", config, folder))
            if source == target:
                continue
            if source_model.trains_source(run.config):
                run.config.source.update(original.source)
            else:
                run.config.model.checkpoint = str(folder / "checkpoints" / "last")
                if "source" in run.config:  # of which the method goes on to learn besides
                    run.config.source.dataset = source
            runs[run.folder] = run
    rows = {run.label: {} for run in runs.values()}
    return Sweep(method, "Source to target", "PUL (Fan et al., 2017), Table II", rows), list(runs.values())


def check_data(runs: Sequence[Run]) -> None:
    """Checks all data sets: a misspelt target is not to be found after hours of training on a source.

    Raises:
        UserError: a data set is not there, or a source has no labels.
    """
    checked = set()
    for run in runs:
        kind = (run.method == "supervised", run.config.data.dataset)
        if kind in checked:
            continue
        checked.add(kind)
        with errors.prefixed("--pairs: "):
            if run.method == "supervised":
                source_model.check_source(run.config, target="")
            else:
                dataset_lib.load_dataset(run.config.data)


def main() -> None:
    """Runs the pairs as the flags say."""
    args = flags.FLAGS
    pairs = parse_pairs(args.pairs)
    seeds = sweep_rows.parse_seeds(args.seeds)
    workdir = args.workdir or os.path.join("runs", f"transfer_{args.method}")
    command_line.check_workdir(pathlib.Path(workdir))
    settings = sweep_rows.parse_settings(args.set, sweep_rows.load_config(args.method, "folder"))
    rows, runs = plan(
        args.method, pairs, settings=settings, seeds=seeds, workdir=workdir, num_epochs=args.source_epochs
    )
    check_data(runs)
    sweep.report_sweep(rows, runs, workdir)


def define_flags() -> None:
    """Defines the command line."""
    program.group("Rows")
    flags.DEFINE_enum("method", "pul", _METHODS, "What adapts to the target.")
    flags.DEFINE_multi_string(
        "pairs", [], "SOURCE:TARGET,... of prepared data sets, one's own too; a source may be several joined by +."
    )
    program.group("Runs")
    flags.DEFINE_list("seeds", ["0"], "Run every pair once with each of these seeds; the table has mean and deviation.")
    flags.DEFINE_integer(
        "source_epochs", 0, "Epochs of training on a source; 0: as PUL's config has it.", lower_bound=0
    )
    flags.DEFINE_multi_string("set", [], "FIELD=VALUE,FIELD=VALUE... of the method's config, for all pairs.")
    flags.DEFINE_string(
        "workdir", None, "Where the pairs' folders and the table are; runs/transfer_METHOD if not given."
    )


if __name__ == "__main__":
    program.run(main, define_flags)
