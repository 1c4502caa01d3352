"""The rows of a sweep: what its command line says they are, and the config and run directory of each."""

import hashlib
import importlib
import itertools
import math
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from reid_jax import errors, source_model
from reid_jax.experiments.configs.sweeps import Sweep
from reid_jax.runs import config_rules, start
from reid_jax.runs import settings as config_settings

_SLUG_LENGTH = 80  # characters; file systems take 255 bytes


class Run(NamedTuple):
    """One row with one seed: the method that runs, its config, and the run directory it works in."""

    label: str
    method: str
    config: ConfigDict
    folder: pathlib.Path


def load_config(method: str, dataset: str) -> ConfigDict:
    """Returns a method's config for one data set.

    Raises:
        UserError: the method has none for that data set.
    """
    try:
        return importlib.import_module(f"reid_jax.experiments.configs.{method}").get_config(dataset).lock()
    except ValueError as error:
        raise errors.UserError(f"--dataset: {error}") from error


def split_values(text: str) -> list[str]:
    """Splits at the commas that are not inside brackets."""
    return [part.strip() for part in re.split(r",(?![^()\[\]]*[)\]])", text)]


def parse_value(field: str, text: str, current: Any) -> Any:
    """Reads a field's new value as the type of its current one.

    Raises:
        UserError: the text is not of that type.
    """
    try:
        match current:
            case bool():
                rule = "true or false"
                return {"true": True, "false": False}[text.lower()]
            case int():
                rule = "a whole number"
                return int(text)
            case float() | None:  # a number that the method derives where none is given
                rule = "a finite number"
                value = float(text)
                if math.isfinite(value):
                    return value
            case str():
                return text
            case [first, *_]:
                rule = f"values like {current!r}"
                items = text.strip("()[] ").rstrip(",").split(",")
                return type(current)(parse_value(field, item.strip(), first) for item in items)
            case _:
                rule = "left as it is: its type cannot be given on a command line"
    except (KeyError, ValueError):
        pass  # the same message as below
    raise errors.UserError(f"{field} must be {rule}, got {text!r}")


def parse_assignment(flag: str, text: str, config: ConfigDict) -> tuple[str, Any, str]:
    """Takes FIELD=TEXT apart and returns (field, its current value, text).

    Raises:
        UserError: it is not of that form, or the config has no such field.
    """
    field, equals, value = text.partition("=")
    if not equals:
        raise errors.UserError(f"--{flag}: {text!r} is not FIELD=VALUE")
    fields = config_rules.flat_fields(config.to_dict())
    config_rules.check_field(field.strip(), fields)
    return field.strip(), _current(config, field.strip()), value


def _current(config: ConfigDict, field: str) -> Any:
    """A field's value; where it is open, one of its type."""
    *sections, name = field.split(".")
    for section in sections:
        config = config[section]
    return {int: 0, tuple: (0.0,)}.get(config.get_type(name)) if config[name] is None else config[name]


def parse_settings(texts: Sequence[str], config: ConfigDict) -> dict[str, Any]:
    """Reads --set flags, each FIELD=VALUE,FIELD=VALUE..., into the values by field."""
    settings = {}
    for text in itertools.chain.from_iterable(split_values(text) for text in texts):
        field, current, value = parse_assignment("set", text, config)
        if field in settings:
            raise errors.UserError(f"--set: {field} is given twice")
        settings[field] = parse_value(field, value, current)
    return settings


def grid_rows(texts: Sequence[str], config: ConfigDict) -> dict[str, dict[str, Any]]:
    """Reads --grid flags, each FIELD=VALUE,VALUE..., into rows: all combinations, the last field fastest."""
    axes: dict[str, list[Any]] = {}
    for text in texts:
        field, current, values = parse_assignment("grid", text, config)
        if field in axes:
            raise errors.UserError(f"--grid: {field} is given twice")
        axes[field] = [parse_value(field, value, current) for value in split_values(values)]
        if any(value in axes[field][:i] for i, value in enumerate(axes[field])):
            raise errors.UserError(f"--grid: {text!r} has a value twice")
    combinations = [dict(zip(axes, values)) for values in itertools.product(*axes.values())]
    return {", ".join(f"{field}={value}" for field, value in row.items()) or "default": row for row in combinations}


def parse_seeds(texts: Sequence[str]) -> list[int]:
    """Reads the seeds.

    Raises:
        UserError: they are not different whole numbers from 0.
    """
    seeds = [int(text) for text in texts if text.isdecimal()]
    if len(set(seeds)) < len(texts):
        raise errors.UserError(f"--seeds must be different whole numbers from 0, got {','.join(texts)!r}")
    return seeds


def slug(label: str) -> str:
    """Makes a label a folder name of letters, digits and ._- that does not start with a dot."""
    name = re.sub(r"[^A-Za-z0-9.-]+", "_", label).strip("._-")
    # What is lost or cut is told apart by a hash; spaces and signs between words say nothing.
    if not name or len(name) > _SLUG_LENGTH or re.search(r"[^A-Za-z0-9.,=+ _-]", label):
        name = f"{name[:_SLUG_LENGTH]}_{hashlib.sha256(label.encode()).hexdigest()[:8]}".strip("_")
    return name


def plan(
    sweep: Sweep, *, dataset: str, settings: Mapping[str, Any], seeds: Sequence[int], workdir: str | pathlib.Path
) -> list[Run]:
    """Builds and checks every run of a sweep.

    Args:
        sweep: the rows.
        dataset: of the method's config.
        settings: values by field for all rows.
        seeds: each row is run once with each; none: once with the config's.
        workdir: holds the rows' folders.

    Raises:
        UserError: a field that does not exist or breaks its rule, is given twice, or two rows share a folder.
    """
    runs: list[Run] = []
    for label, overrides in sweep.rows.items():
        for field in overrides:
            if field in settings:
                raise errors.UserError(f"--set: {field} is what the rows differ in")
        if seeds and "seed" in (settings | overrides):
            raise errors.UserError("--seeds: the seed is given by --set or --grid as well")
        for seed in seeds or [None]:
            config = load_config(sweep.method, dataset)
            values = dict(settings) | overrides | ({} if seed is None else {"seed": seed})
            for field in values:
                config_rules.check_field(field, config_rules.flat_fields(config.to_dict()))
            config.update_from_flattened_dict(values)
            config_settings.follow(config, given=values, method=sweep.method)
            if source_model.trains_source(config) and not config.source.dir:
                config.source.dir = str(workdir)  # rows share what they start from
            try:
                config_rules.check_config(config, may_be_open=config_settings.ALL_OPEN)
                start.check_backbone(config.model, given=values)
            except errors.UserError as error:
                raise errors.UserError(f"row {label!r}: {error}") from error
            folder = pathlib.Path(workdir, slug(label), "" if seed is None else f"seed_{seed}")
            # Some file systems do not tell small letters from capitals.
            if any(str(folder).lower() == str(other.folder).lower() for other in runs):
                raise errors.UserError(f"row {label!r}: another row has the folder {str(folder)!r} too")
            runs.append(Run(label, sweep.method, config, folder))
    return runs
