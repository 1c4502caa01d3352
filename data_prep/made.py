"""The data sets that are made, not read, prepared on first use."""

from ml_collections import ConfigDict

from reid_jax.data import records
from reid_jax.data_prep import prepare

NAMES = ("synthetic", "synthetic_source", "synthetic_video")


def prepare_missing(config: ConfigDict) -> None:
    """Prepares the made data sets that a run's config names and that are not there yet.

    Raises:
        UserError: one cannot be written.
    """
    named = [config.data.dataset, config.get("source", {}).get("dataset", "")]
    for name in {part: None for text in named for part in text.split("+")}:
        prepare_if_made(name, config.data.dir)


def prepare_if_made(name: str, data_dir: str) -> None:
    """Prepares a data set that is made and not there yet; others are left alone."""
    if name in NAMES and records.find_dataset(data_dir, name) is None:
        prepare.prepare(name, source=None, data_dir=data_dir)
