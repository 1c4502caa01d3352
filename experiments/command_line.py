"""The command line that the script of every method has: --config and --workdir."""

import functools
import importlib
import pathlib
from collections.abc import Callable
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from data_prep import cli
from reid_jax import logs, types

_CONFIGS = pathlib.Path(__file__).parent / "configs"


def run(method: str, run_method: Callable[[ConfigDict, str], Any], *, variant_field: str | None = None) -> None:
    """Runs a method as the command line says; does not return.

    Args:
        method: its name, that of its config file experiments/configs/METHOD.py.
        run_method: (config, workdir) -> anything.
        variant_field: a field of config.train whose value is part of the run directory's default name.
    """

    def main() -> None:
        config, workdir = flags.FLAGS.config, flags.FLAGS.workdir
        _check_method(config, method)
        variant = [config.train[variant_field]] if variant_field else []
        run_method(config, workdir or str(pathlib.Path("runs", "_".join([method, *variant, config.data.dataset]))))

    variant = f"_{variant_field.upper()}" if variant_field else ""
    cli.run(main, functools.partial(_define_flags, method, f"runs/{method}{variant}_DATASET"))


def _check_method(config: ConfigDict, method: str) -> None:
    """Checks that a config has all fields of the method's own.

    Raises:
        UserError: it is another method's.
    """
    own = importlib.import_module(f"experiments.configs.{method}").get_config("folder")
    missing = logs.flatten(own.to_dict()).keys() - logs.flatten(config.to_dict()).keys()
    if missing:
        field = min(missing).replace("/", ".")
        raise types.UserError(
            f"--config: it has no field {field}; it must be a config of {method}, experiments/configs/{method}.py"
        )


def _define_flags(method: str, default_workdir: str) -> None:
    config_flags.DEFINE_config_file(
        "config",
        str(_CONFIGS / f"{method}.py"),
        f"experiments/configs/{method}.py:DATASET; single fields as --config.FIELD=VALUE.",
        lock_config=True,
    )
    flags.DEFINE_string("workdir", None, f"Run directory; {default_workdir} if not given.")
