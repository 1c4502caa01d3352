"""Whether a run directory holds the run that a config describes: then it goes on or shows its result."""

import json
import pathlib
from typing import Any

from ml_collections import ConfigDict

from reid_jax import errors, postprocess
from reid_jax.runs import config_rules, logs, settings, start
from reid_jax.runs.dataset import Dataset, load_dataset

# Fields that may differ between starts: they affect where and how long a run works, not its result.
FREE_FIELDS = (
    "num_devices",
    "source.dir",
    "data.dir",
    "data.cache_dir",
    "data.cache_gib",
    "data.num_workers",
    "checkpoint.every_minutes",
    "evaluation.baselines",
    "evaluation.num_probes",
    "data.num_pixels",
    "learned_from",
    "train.num_iterations",
)
# Fields that came after runs were made, with the values that change nothing: those of a config.json that has none.
NEUTRAL = {
    "model.normalization": "imagenet",
    "model.keep_batch_norm": False,
    "model.mirrored": False,
    "data.images_per_identity": 0.0,
    "augment.preset": "person",
    "embedding.postprocess": "none",
    "embedding.shrinkage": postprocess.SHRINKAGE,
    "cluster.eps_gap": 0.0,
    "memory.rule": "each",
    "labels.similar_steps": 0,
    "labels.first_similar": 1.0,
    "loss.levels": "top",
    "loss.singletons": True,
    "loss.normalize": False,
    "train.sampling_level": 0,
    "train.camera_groups": False,
    "train.average_decay": 0.0,
    "train.warmup_steps": 0,
    "train.layer_decay": 1.0,
}
# Of those a run that is finished must have had the last: that is how long it was.
FINISHED_FREE_FIELDS = frozenset(FREE_FIELDS) - {"train.num_iterations"}


def has_checkpoint(workdir: str | pathlib.Path) -> bool:
    """Whether there is a run to resume in a folder, which need not be there; nothing is made or opened."""
    last = pathlib.Path(workdir, "checkpoints", "last")
    return last.is_dir() and any(step.name.isdecimal() for step in last.iterdir())


def is_finished(workdir: str | pathlib.Path, config: ConfigDict) -> bool:
    """Whether the run in a folder, if there is one, has done all that a config asks for and only shows its result."""
    workdir = pathlib.Path(workdir)
    if not (workdir / "result.json").exists():
        return False
    saved = config_rules.flat_fields(logs.read_json(workdir / "config.json"))
    return config.train.num_iterations in (None, saved.get("train.num_iterations"))


def finished_result(workdir: str | pathlib.Path, config: ConfigDict) -> dict[str, Any] | None:
    """Returns the result of the finished run in a folder; None: there is none.

    Raises:
        UserError: it is of a config that computes something else, or on other data than there are now.
    """
    workdir = pathlib.Path(workdir)
    if not (workdir / "result.json").exists():
        return None
    saved = config_rules.flat_fields(logs.read_json(workdir / "config.json"))
    config = settings.with_earlier(config, saved)
    for field, value in config_rules.flat_fields(_as_json(config.to_dict())).items():
        if field not in FINISHED_FREE_FIELDS and not _is_same(field, value, saved):
            raise errors.UserError(
                f"workdir: {str(workdir)!r} holds a finished run with {field} = {saved.get(field, NEUTRAL.get(field))!r}, this one has "
                f"{value!r}; choose another --workdir"
            )
    if "data_fingerprint" in saved and saved["data_fingerprint"] != load_dataset(config.data).fingerprint:
        raise errors.UserError(
            f"workdir: {str(workdir)!r} holds a finished run on other data than data.dir = {config.data.dir!r} has as "
            f"{config.data.dataset!r} now; choose another --workdir"
        )
    return logs.read_json(workdir / "result.json")


def config_record(config: ConfigDict, dataset: Dataset, method: str) -> dict[str, Any]:
    """Returns what config.json holds: the config, and what else says which run it is."""
    record = config.to_dict() | {"method": method, "data_fingerprint": dataset.fingerprint}
    return _as_json(record | {"learned_from": start.describe_run(config, method)})


def check_same_run(workdir: pathlib.Path, record: dict[str, Any]) -> None:
    """Checks that the run in a folder, which has checkpoints, is the one of a record (`config_record`).

    Raises:
        UserError: it is of another config or on other data, or nothing says what it is of.
    """
    path = workdir / "config.json"
    if not path.exists():
        raise errors.UserError(
            f"workdir: {str(workdir)!r} has checkpoints but no config.json that says what they are of; "
            "choose another --workdir"
        )
    saved = config_rules.flat_fields(logs.read_json(path))
    if saved.get("data_fingerprint") not in (None, record["data_fingerprint"]):
        raise errors.UserError(
            f"workdir: {str(workdir)!r} holds a run on other images or labels than data.dataset = "
            f"{record['data']['dataset']!r} has now; choose another --workdir"
        )
    method = saved.setdefault("method", record["method"])  # a run from before it was noted
    if method != record["method"]:
        raise errors.UserError(
            f"workdir: {str(workdir)!r} holds a run of {method}, this one is of {record['method']}; "
            "choose another --workdir"
        )
    for name, value in config_rules.flat_fields(record).items():
        if name not in FREE_FIELDS and not _is_same(name, value, saved):
            raise errors.UserError(
                f"workdir: {str(workdir)!r} holds a run with {name} = {saved.get(name, NEUTRAL.get(name))!r}, this one has "
                f"{value!r}; choose another --workdir"
            )


def _is_same(field: str, value: Any, saved: dict[str, Any]) -> bool:
    """Whether a run's config has a field's value."""
    return saved.get(field, NEUTRAL.get(field)) == value if field in saved or field in NEUTRAL else False


def _as_json(value: Any) -> Any:
    """The value as it will be read back: a tuple as a list."""
    return json.loads(json.dumps(value))
