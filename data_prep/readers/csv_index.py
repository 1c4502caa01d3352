"""A CSV index of images: the columns path[,pid][,camid][,tracklet][,split], in any order, one image a row.

path is relative to the source folder, with forward slashes. pid, camid and tracklet are whole numbers of at
least -1; an empty cell, -1 or a missing column means not known. split is train, query or gallery; an empty
cell or a missing column means train. In a split either all rows have a tracklet or none, and all rows of a tracklet
have the same pid and camid.
"""

import csv
import pathlib

from reid_jax import errors, identities
from reid_jax.data import folders
from reid_jax.data_prep.readers import listing

DEFAULT_NAME = "index.csv"
_NUMBERS = ("pid", "camid", "tracklet")
_COLUMNS = ("path", *_NUMBERS, "split")


def find(folder: pathlib.Path, name: str | None) -> pathlib.Path | None:
    """Returns the index to use.

    Args:
        folder: the source.
        name: a file inside the source or any path; None for index.csv inside the source, if there is one.

    Returns:
        The index file, or None if none was named and there is no index.csv.

    Raises:
        UserError: the named file does not exist.
    """
    if name is None:
        default = folder / DEFAULT_NAME
        return default if default.is_file() else None
    for path in (folder / name, pathlib.Path(name)):
        if path.is_file():
            return path
    raise errors.UserError(f"--csv: there is no file {name!r}, neither in the source nor as a path of its own")


def read(folder: pathlib.Path, index: pathlib.Path) -> list[listing.Record]:
    """Reads an index.

    Args:
        folder: the folder that the paths are relative to.
        index: the CSV file, UTF-8.

    Returns:
        One record per row.

    Raises:
        UserError: a column is missing or not known, a cell breaks the rule of its column, an image is missing,
            a path is listed twice, or the tracklets break a rule.
    """
    lines: dict[str, int] = {}
    records = []
    try:
        # Excel writes a byte order mark, which utf-8-sig drops.
        with open(index, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            _check_columns(index.name, reader.fieldnames or [])
            for row in reader:
                where = f"--csv: {index.name} line {reader.line_num}"
                record = _record(folder, row, where)
                if record.path in lines:
                    first = lines[record.path]
                    raise errors.UserError(f"{where}: {record.path!r} is listed twice, first in line {first}")
                lines[record.path] = reader.line_num
                records.append(record)
    except (UnicodeDecodeError, csv.Error) as error:
        raise errors.UserError(f"--csv: {index.name} is no UTF-8 CSV file: {error}") from error
    if not records:
        raise errors.UserError(f"--csv: {index.name} lists no images")
    _check_tracklets(index.name, records, lines)
    return records


def _check_columns(name: str, columns: list[str]) -> None:
    names = ", ".join(repr(column) for column in columns) or "none"
    if "path" not in columns:
        raise errors.UserError(f"--csv: {name} must have a column 'path', found {names}")
    unknown = [column for column in columns if column not in _COLUMNS]
    # Refused and not ignored: a typing error in a header would make a labelled data set an unlabelled one.
    if unknown or len(set(columns)) < len(columns):
        raise errors.UserError(f"--csv: {name} may have the columns {', '.join(_COLUMNS)}, each once, found {names}")


def _record(folder: pathlib.Path, row: dict[str, str | None], where: str) -> listing.Record:
    # DictReader gives None for cells that are missing, and cells without a column under the key None.
    if None in row or None in row.values():
        raise errors.UserError(f"{where}: the row must have as many cells as the header has columns")
    path = pathlib.PurePosixPath(row["path"].strip())
    if not path.parts or path.is_absolute() or ".." in path.parts:
        raise errors.UserError(f"{where}: the path {row['path']!r} must lie inside the source folder")
    file = folder / path
    if not file.is_file():
        raise errors.UserError(f"{where}: there is no image {str(path)!r} in the source folder")
    if folders.is_video_name(path.name):
        raise errors.UserError(f"{where}: {str(path)!r} is a video; only --tracklets without an index reads videos")
    pid, camid, tracklet = (_number(row, column, where) for column in _NUMBERS)
    split = row.get("split", "").strip() or "train"
    if split not in listing.SPLITS:
        raise errors.UserError(f"{where}: split is {split!r}, it must be one of {', '.join(listing.SPLITS)}")
    return listing.Record(split, str(path), pid, camid, tracklet, file)


def _number(row: dict[str, str], column: str, where: str) -> int:
    text = row.get(column, "").strip()
    try:
        number = int(text) if text else identities.UNKNOWN
    except ValueError:
        raise errors.UserError(f"{where}: {column} is {text!r}, it must be a whole number") from None
    # 2**63 would not fit the int64 feature.
    if not identities.UNKNOWN <= number < 2**63:
        raise errors.UserError(f"{where}: {column} is {number}, it must be at least -1 (not known) and below 2**63")
    return number


def _check_tracklets(name: str, records: list[listing.Record], lines: dict[str, int]) -> None:
    splits: dict[str, listing.Record] = {}
    tracklets: dict[tuple[str, int], listing.Record] = {}
    for record in records:
        where = f"--csv: {name} line {lines[record.path]}"
        first = splits.setdefault(record.split, record)
        if (record.tracklet == identities.UNKNOWN) != (first.tracklet == identities.UNKNOWN):
            has = "no tracklet" if record.tracklet == identities.UNKNOWN else "a tracklet"
            raise errors.UserError(
                f"{where} has {has}, unlike line {lines[first.path]}; all rows of the split {record.split} must have "
                f"one, or none"
            )
        if record.tracklet == identities.UNKNOWN:
            continue
        first = tracklets.setdefault((record.split, record.tracklet), record)
        for column in ("pid", "camid"):
            here, before = getattr(record, column), getattr(first, column)
            if here != before:
                raise errors.UserError(
                    f"{where}: {column} is {here}, but {before} in line {lines[first.path]} of the same tracklet "
                    f"{record.tracklet} in {record.split}"
                )
