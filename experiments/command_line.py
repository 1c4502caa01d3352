"""The command line that the script of every method has: --config and --workdir."""

import functools
import importlib
import os
import pathlib
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from data_prep import cli
from experiments import config_checks
from experiments.configs import shared
from reid_jax import types

_CONFIGS = pathlib.Path(__file__).parent / "configs"
_OVERRIDE = re.compile(r"--?(?:no)?config\.([^=]+)")


def run(method: str, run_method: Callable[[ConfigDict, str], Any], *, variant_fields: Sequence[str] = ()) -> None:
    """Runs a method as the command line says; does not return.

    Args:
        method: its name, that of its config file experiments/configs/METHOD.py.
        run_method: (config, workdir) -> anything.
        variant_fields: "SECTION.FIELD" whose values, where not empty, are parts of the run directory's default name.
    """

    paths = [field.split(".") for field in variant_fields]

    def main() -> None:
        config = flags.FLAGS.config
        _check_method(config, method)
        variant = [(section, config[section][field]) for section, field in paths]
        parts = [f"from_{value}" if section == "source" else value for section, value in variant if value]
        default = pathlib.Path("runs", "_".join([method, *parts, config.data.dataset]))
        workdir = pathlib.Path(flags.FLAGS.workdir or default)
        check_workdir(workdir)
        run_method(config, str(workdir))

    variant = "".join("[_from_SOURCE]" if section == "source" else f"_{field.upper()}" for section, field in paths)
    cli.run(main, functools.partial(_define_flags, method, f"runs/{method}{variant}_DATASET"))


def _check_method(config: ConfigDict, method: str) -> None:
    """Checks that a config has all fields of the method's own.

    Raises:
        UserError: it is another method's.
    """
    own = importlib.import_module(f"experiments.configs.{method}").get_config("folder")
    missing = config_checks.flat_fields(own.to_dict()).keys() - config_checks.flat_fields(config.to_dict()).keys()
    if missing:
        raise types.UserError(
            f"--config: it has no field {min(missing)}; it must be a config of {method}, experiments/configs/{method}.py"
        )


def check_workdir(workdir: pathlib.Path) -> None:
    """Checks that the run directory is a folder or can be made, before the data are read.

    Raises:
        UserError: it, or what it would be made in, is something else.
    """
    there = next(path for path in (workdir, *workdir.parents) if os.path.lexists(path))
    if not there.is_dir():
        raise types.UserError(f"--workdir: {str(there)!r} is not a folder, it must be one")


def _check_overrides(default: str) -> None:
    """Checks the names in --config.NAME=VALUE, of which ml_collections would only tell a part.

    Raises:
        UserError: the config, from --config or the file `default`, has no such field.
    """
    given = [found[1] for argument in sys.argv if (found := _OVERRIDE.match(argument))]
    if not given:
        return
    # By a flag of its own: the real one is parsed together with the overrides.
    alone = flags.FlagValues()
    config_flags.DEFINE_config_file("config", default, flag_values=alone, sys_argv=[])
    alone(sys.argv, known_only=True)
    fields = config_checks.flat_fields(alone.config.to_dict())
    for field in given:
        config_checks.check_field(field, fields)


def _define_flags(method: str, default_workdir: str) -> None:
    default = str(_CONFIGS / f"{method}.py")
    _check_overrides(default)
    config_flags.DEFINE_config_file(
        "config",
        default,
        f"experiments/configs/{method}.py:DATASET, with DATASET one of {', '.join(shared.DATASETS)}; without it "
        "synthetic. A data set of your own that you prepared as NAME: DATASET is folder, and --config.data.dataset=NAME. "
        "Single fields are overridden by --config.FIELD=VALUE, as in --config.train.num_epochs=4; the file and "
        "experiments/configs/shared.py say what each field means.",
        lock_config=True,
    )
    flags.DEFINE_string("workdir", None, f"Run directory; {default_workdir} if not given.")
