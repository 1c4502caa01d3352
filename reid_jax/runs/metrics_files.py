"""What runs logged, read back: run directories found in folders, and the lines of their metrics.jsonl."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

from reid_jax import errors

NAME = "metrics.jsonl"


def find_folders(folders: Sequence[str], *, flag: str = "runs") -> dict[str, list[pathlib.Path]]:
    """Finds the run directories in folders.

    Args:
        folders: run directories, or folders of sweeps.
        flag: the command line's name for them, for messages.

    Returns:
        By name, the run directories, one for each seed. Original models' (`source_...`) are left out of folders that
        hold others.

    Raises:
        UserError: a folder has no runs or is given twice.
    """
    places_of: dict[tuple[str, str], list[pathlib.Path]] = {}
    if len({pathlib.Path(folder).resolve() for folder in folders}) < len(folders):
        raise errors.UserError(f"--{flag}: a folder is given twice: {', '.join(folders)}")
    for folder in map(pathlib.Path, folders):
        paths = sorted(folder.rglob(NAME))
        inside = [path for path in paths if path.parent == folder or not path.parent.name.startswith("source_")]
        paths = inside or paths
        if not paths:
            raise errors.UserError(
                f"--{flag}: no {NAME} in {str(folder)!r}; it must be a run directory or a sweep's folder"
            )
        for path in paths:
            row = path.parent.relative_to(folder)
            parts = [part for part in row.parts if not part.startswith("seed_")]
            name = " ".join([folder.resolve().name] * (len(folders) > 1 or not parts) + parts)
            places_of.setdefault((name, " ".join([str(folder), *parts])), []).append(path.parent)
    short = [name for name, _ in places_of]
    # Folders of the same name at different places are told apart by their paths.
    return {name if short.count(name) == 1 else path: places for (name, path), places in places_of.items()}


def read_records(path: pathlib.Path, *, flag: str = "runs") -> list[dict[str, Any]]:
    """Reads a metrics.jsonl, without a last line that a killed run left half written.

    Raises:
        UserError: a line is no JSON object.
    """
    records = []
    text = path.read_text()
    for number, line in enumerate(text[: text.rfind("\n") + 1].splitlines(), start=1):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise errors.UserError(f"--{flag}: line {number} of {str(path)!r} is not JSON") from error
        if not isinstance(records[-1], dict):
            raise errors.UserError(f"--{flag}: line {number} of {str(path)!r} is no JSON object")
    return records
