"""The command line that every method has: --config and --workdir."""

import functools
import importlib
import importlib.util
import itertools
import os
import pathlib
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from reid_jax import errors
from reid_jax.cli import program
from reid_jax.data_prep import made
from reid_jax.runs import base_config, config_rules, settings, start

_CONFIGS = pathlib.Path(importlib.util.find_spec("reid_jax.experiments.configs").submodule_search_locations[0])
_OVERRIDE = re.compile(r"--?(?:no)?config\.([^=]+)")
_NAME = re.compile(r"(--?config=)([a-z_]+)(:\w+)?")
_CONFIG_FLAGS = ("--config", "-config")
_PATH = re.compile(r"--?config=(.+\.py)(?::\w+)?")


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
        made.prepare_missing(config)
        given = _given_fields()
        start.check_backbone(config.model, given=given)
        settings.follow(config, given=given, method=method, is_own_file=_is_own_file())
        try:
            run_method(config, str(workdir))
        except KeyboardInterrupt as error:
            raise KeyboardInterrupt("the same command goes on from the last checkpoint") from error

    variant = "".join("[_from_SOURCE]" if section == "source" else f"_{field.upper()}" for section, field in paths)
    define_flags = functools.partial(_define_flags, method, f"runs/{method}{variant}_DATASET")
    program.run(main, define_flags, more_help=functools.partial(_describe_fields, method))


def _given_fields() -> set[str]:
    """The config's fields that the command line gives, by their dotted names."""
    return {match[1] for argument in sys.argv if (match := _OVERRIDE.match(argument))}


def _is_own_file() -> bool:
    """Whether the config is a file of the user's own, whose fields all count as given."""
    # Names have been replaced by paths, and both forms are one: --config=FILE and --config FILE.
    given = [f"--config={argument}" for before, argument in itertools.pairwise(sys.argv) if before in _CONFIG_FLAGS]
    paths = [match[1] for argument in (*sys.argv, *given) if (match := _PATH.fullmatch(argument))]
    return any(pathlib.Path(path).resolve().parent != _CONFIGS.resolve() for path in paths)


def _describe_fields(method: str) -> str:
    """The fields of the method's config, by section, with the values for the synthetic data set."""
    lines = [f"\nFields of the config, --config.SECTION.FIELD=VALUE, as {method}:synthetic has them:\n"]
    config = importlib.import_module(f"reid_jax.experiments.configs.{method}").get_config("synthetic").to_dict()
    sections = {"": {name: value for name, value in config.items() if not isinstance(value, dict)}}
    sections |= {f"{name}.": value for name, value in config.items() if isinstance(value, dict)}
    for prefix, fields in sections.items():
        text = "  ".join(f"{field}={_as_given(value)}" for field, value in fields.items())
        lines.append(
            textwrap.fill(f"{prefix or 'config.'}  {text}", 118, initial_indent="  ", subsequent_indent="      ")
        )
    return "\n".join(lines)


def _as_given(value: Any) -> str:
    return "" if value is None else str(value).replace(" ", "")


def _check_method(config: ConfigDict, method: str) -> None:
    """Checks that a config has all fields of the method's own.

    Raises:
        UserError: it is another method's.
    """
    own = importlib.import_module(f"reid_jax.experiments.configs.{method}").get_config("folder")
    missing = config_rules.flat_fields(own.to_dict()).keys() - config_rules.flat_fields(config.to_dict()).keys()
    if missing:
        raise errors.UserError(
            f"--config: it has no field {min(missing)}; it must be a config of {method}, such as {_CONFIGS / method}.py"
        )


def check_workdir(workdir: pathlib.Path) -> None:
    """Checks that the run directory is a folder or can be made, before the data are read.

    Raises:
        UserError: it, or what it would be made in, is something else.
    """
    existing = next(path for path in (workdir, *workdir.parents) if os.path.lexists(path))
    if not existing.is_dir():
        raise errors.UserError(f"--workdir: {str(existing)!r} is not a folder, it must be one")


def _replace_config_names() -> None:
    """Replaces a config's name on the command line, as in --config=hct:market1501, by its file's path."""
    for place, argument in enumerate(sys.argv[1:], start=1):
        named = _NAME.fullmatch(argument)
        if named is None and sys.argv[place - 1] in _CONFIG_FLAGS:
            named = _NAME.fullmatch(f"--config={argument}")
            named = named and re.fullmatch(r"()([a-z_]+)(:\w+)?", argument)
        if named and not pathlib.Path(named[2]).is_file():
            sys.argv[place] = f"{named[1]}{_config_file(named[2])}{named[3] or ''}"
        elif (path := _PATH.fullmatch(argument)) and not pathlib.Path(path[1]).is_file():
            raise errors.UserError(f"there is no file {path[1]!r}")


def _config_file(name: str) -> pathlib.Path:
    """Returns the file of a config by its name.

    Raises:
        UserError: there is none of that name.
    """
    file = _CONFIGS / f"{name}.py"
    if not file.is_file():
        names = sorted(path.stem for path in _CONFIGS.glob("[a-z]*.py") if "def get_config" in path.read_text())
        raise errors.UserError(f"there is no config {name!r}, it must be a file or one of {', '.join(names)}")
    return file


def _check_overrides(default: str) -> None:
    """Checks the names in --config.NAME=VALUE, of which ml_collections would only tell a part.

    Raises:
        UserError: the config, from --config or the file `default`, has no such field.
    """
    given = _given_fields()
    if not given:
        return
    # By a flag of its own: the real one is parsed together with the overrides.
    separate = flags.FlagValues()
    config_flags.DEFINE_config_file("config", default, flag_values=separate, sys_argv=[])
    separate(sys.argv, known_only=True)
    fields = config_rules.flat_fields(separate.config.to_dict())
    for field in given:
        config_rules.check_field(field, fields)


def _define_flags(method: str, default_workdir: str) -> None:
    _replace_config_names()
    default = str(_CONFIGS / f"{method}.py")
    _check_overrides(default)
    program.group("Config")
    config_flags.DEFINE_config_file(
        "config",
        default,
        f"{method}:DATASET, or the path of a config file of your own, FILE.py:DATASET, with DATASET one of "
        f"{', '.join(base_config.DATASETS)}; without it synthetic. A data set of your own that you prepared as NAME: "
        f"use DATASET=folder and --config.data.dataset=NAME. "
        "Single fields are overridden by --config.FIELD=VALUE, as in --config.train.num_epochs=4; "
        f"{default} says what each field means.",
        lock_config=True,
    )
    program.group("Output")
    flags.DEFINE_string("workdir", None, f"Run directory; {default_workdir} if not given.")
