"""Turns a raw data set into a prepared one: a TFDS data set at DATA_DIR/NAME/1.0.0.

  python data_prep/prepare.py --dataset=market1501 --source=Market-1501-v15.09.15.zip --data_dir=data
  python data_prep/prepare.py --dataset=folder --name=shop --source=crops --data_dir=data
  python data_prep/prepare.py --dataset=folder --name=door --source=tracks --tracklets --data_dir=data
  python data_prep/prepare.py --dataset=synthetic --data_dir=data

The source is a folder, a zip or a tar archive. A killed run leaves nothing that looks finished; the next one
clears up after it.
"""

import functools
import inspect
import pathlib
import re
import sys
from collections import Counter
from collections.abc import Callable

from absl import flags

from reid_jax import errors, identities
from reid_jax.cli import program
from reid_jax.data import folders
from reid_jax.data_prep import archives, catalog, publishing, writing
from reid_jax.data_prep.readers import listing, synthetic, videos
from reid_jax.data_prep.synthetic import write_synthetic, write_synthetic_video

_ON_BAD_IMAGE = ("fail", "skip")
_READER_OPTIONS = tuple(dict.fromkeys(option for entry in catalog.DATASETS.values() for option in entry.options))
_LISTED = 20  # images named on the terminal


def prepare(
    dataset: str,
    *,
    source: str | pathlib.Path | None = None,
    data_dir: str | pathlib.Path,
    name: str | None = None,
    on_bad_image: str = "fail",
    overwrite: bool = False,
    progress: bool = True,
    **options,
) -> pathlib.Path:
    """Prepares a data set, unless that has been done already.

    Args:
        dataset: one of `catalog.DATASETS`.
        source: the raw data set's folder or archive; None for a data set that is made.
        data_dir: where prepared data sets are; made if need be.
        name: the prepared data set's name, lower-case letters, digits and _; the data set's own without it.
        on_bad_image: "fail" at, or "skip", images that break `verification.RULE`, and damaged videos.
        overwrite: replace a data set of that name which was prepared before.
        progress: whether to report progress and the result; warnings are always printed, to standard error.
        **options: the reader's options; None counts as not given.

    Returns:
        The prepared data set's folder, DATA_DIR/NAME/1.0.0.

    Raises:
        UserError: an argument or the source breaks a rule, or something else has that name already.
        OSError: a file cannot be read or written.
    """
    options = {key: value for key, value in options.items() if value is not None}
    _check_arguments(dataset, source, name, on_bad_image, options)
    name = name or dataset
    if source is not None:
        source = pathlib.Path(source).expanduser().absolute()
    request = publishing.Request(dataset, None if source is None else str(source), on_bad_image, options)
    data_dir = pathlib.Path(data_dir).expanduser()
    target = data_dir / name / writing.VERSION
    publishing.clear_dead_builds(data_dir, name)
    if publishing.is_finished(data_dir, name, request, overwrite=overwrite):
        if progress:
            _report(f"{name} is prepared already, nothing to do (--overwrite prepares it again)", target)
        return target
    if source is not None and not source.exists():
        raise errors.UserError(f"--source: there is no folder or archive {str(source)!r}")
    with publishing.building(data_dir, name) as build:
        records = _read_source(dataset, source, build / "work", progress, options)
        folder = build / name / writing.VERSION
        folder.mkdir(parents=True)
        publishing.check_space(data_dir, records)
        written = writing.write_dataset(folder, name, records, on_bad_image=on_bad_image, progress=progress)
        kept = [record for record in records if record.path not in written.skipped]
        publishing.write_manifest(folder, request, catalog.summarize(kept), written.skipped)
        publishing.publish(build, data_dir, name, request, overwrite=overwrite)
    _warn_differences(dataset, kept)
    _warn_distractors(dataset, kept)
    _warn_images("skipped", written.skipped, f", all in {publishing.MANIFEST}")
    _warn_images("left something out of", written.notes)
    _warn_lost_tracklets(records, kept)
    if progress:
        _report(f"prepared {name}", target)
    return target


def _check_arguments(
    dataset: str, source: str | pathlib.Path | None, name: str | None, on_bad_image: str, options: dict
) -> None:
    if dataset not in catalog.DATASETS:
        known = ", ".join(catalog.DATASETS)
        raise errors.UserError(f"--dataset: there is no data set {dataset!r}, it must be one of {known}")
    entry = catalog.DATASETS[dataset]
    if entry.has_source and not source:
        raise errors.UserError(f"--source: {dataset} needs a folder or an archive to read")
    if not entry.has_source and source:
        raise errors.UserError(f"--source: {dataset} is made, not read; leave it out")
    if name is not None and not re.fullmatch("[a-z][a-z0-9_]*", name):
        raise errors.UserError(f"--name: {name!r} must be lower-case letters, digits and _, a letter first")
    if on_bad_image not in _ON_BAD_IMAGE:
        raise errors.UserError(f"--on_bad_image: {on_bad_image!r} must be one of {', '.join(_ON_BAD_IMAGE)}")
    for option in options:
        if option not in entry.options:
            known = ", ".join(entry.options) or "none"
            raise errors.UserError(f"--{option}: {dataset} has no such option, it has {known}")


def _read_source(
    dataset: str, source: pathlib.Path | None, work: pathlib.Path, progress: bool, options: dict
) -> list[listing.Record]:
    """Returns the records of a source, sorted by split and path."""
    unpacked, scratch = work / "unpacked", work / "scratch"
    unpacked.mkdir(parents=True)
    scratch.mkdir()
    folder = source
    if source is not None and source.is_file():
        if not archives.is_archive(source):
            raise errors.UserError(f"--source: {source.name} is no folder and no zip or tar archive, or it is damaged")
        folder = archives.extract(source, unpacked, progress=progress)
    entry = catalog.DATASETS[dataset]
    records = entry.read(listing.Source(folder, scratch, progress), **options)
    if not records:
        raise errors.UserError(f"--source: no images in it, found {folders.describe(folder)}")
    _check_unique(records, names=entry.unique_names)
    return sorted(records, key=lambda record: (listing.SPLITS.index(record.split), record.path))


def _check_unique(records: list[listing.Record], *, names: bool) -> None:
    """Refuses a path, or where the data set's protocol asks for it a file name, that comes twice in a split."""
    keys = Counter((r.split, pathlib.PurePosixPath(r.path).name if names else r.path) for r in records)
    (split, key), count = max(keys.items(), key=lambda item: item[1])
    if count > 1:
        kind = "file name" if names else "path"
        raise errors.UserError(f"--source: the {kind} {key!r} comes {count} times in the split {split}, not once")


def _warn_differences(dataset: str, records: list[listing.Record]) -> None:
    entry = catalog.DATASETS[dataset]
    if entry.published is None:
        return
    for difference in catalog.differences(entry.published, records, counted=entry.counted):
        print(f"warning: {dataset}: {difference}", file=sys.stderr)


def _warn_distractors(dataset: str, records: list[listing.Record]) -> None:
    """Names the images that a person's own index made distractors; in the other data sets the protocol does."""
    if dataset != "folder":
        return
    counts = Counter(record.split for record in records if record.pid == identities.DISTRACTOR_PID)
    if counts:
        images = ", ".join(f"{counts[split]} in {split}" for split in listing.SPLITS if split in counts)
        print(
            f"warning: images of pid {identities.DISTRACTOR_PID}: {images}; they count as distractors, no identity in "
            "train and no query's match in gallery; if 0 is a person, number from 1",
            file=sys.stderr,
        )


def _warn_images(what: str, remarks: dict[str, str], where_all: str = "") -> None:
    """Lists remarks on images, by path."""
    if not remarks:
        return
    print(f"warning: {what} {len(remarks)} images:", file=sys.stderr)
    for path, remark in list(remarks.items())[:_LISTED]:
        print(f"  {path}: {remark}", file=sys.stderr)
    if len(remarks) > _LISTED:
        print(f"  and {len(remarks) - _LISTED} more{where_all}", file=sys.stderr)


def _warn_lost_tracklets(records: list[listing.Record], kept: list[listing.Record]) -> None:
    """Names the tracklets of which every frame was skipped: a loop will not know that they were there."""
    lost = {(r.split, r.tracklet): r.path for r in records if r.tracklet != identities.UNKNOWN}
    for record in kept:
        lost.pop((record.split, record.tracklet), None)
    for (split, tracklet), path in list(lost.items())[:_LISTED]:
        print(f"warning: no frame is left of tracklet {tracklet} in {split}, with {path}", file=sys.stderr)
    if len(lost) > _LISTED:
        print(f"warning: nor of {len(lost) - _LISTED} more tracklets", file=sys.stderr)


def _report(message: str, target: pathlib.Path) -> None:
    print(f"{message}: {target}")
    for split, counts in publishing.read_manifest(target)["splits"].items():
        print(f"  {split}: {', '.join(f'{number} {what}' for what, number in counts.items())}")


def _define_flags() -> None:
    program.group("Input and output")
    flags.DEFINE_string("dataset", None, f"Which data set: {', '.join(catalog.DATASETS)}.")
    flags.DEFINE_string("source", None, "The raw data set's folder, zip or tar archive.")
    flags.DEFINE_string("data_dir", "data", "Where prepared data sets are.")
    flags.DEFINE_string("name", None, "The prepared data set's name; the data set's own without it.")
    flags.DEFINE_string(
        "on_bad_image", "fail", "fail or skip: what to do with images and videos that cannot be decoded."
    )
    flags.DEFINE_bool("overwrite", False, "Replace a data set of that name which was prepared before.")
    program.group("Folders of images")
    flags.DEFINE_string("csv", None, "folder: a CSV index of the images; index.csv in the source without it.")
    flags.DEFINE_string("camid_from", None, "folder: a regular expression whose group is the camera in a path.")
    flags.DEFINE_bool(
        "tracklets", None, "folder: every innermost folder is a tracklet, its images the frames, and so is every video."
    )
    flags.DEFINE_float(
        "video_fps", None, f"folder: frames taken from a second of video; 0: all (default: {videos.DEFAULT_FPS:g})."
    )
    program.group("Synthetic data sets")
    made = {
        "synthetic": write_synthetic,
        "synthetic_video": write_synthetic_video,
        "synthetic_source": functools.partial(write_synthetic, **synthetic.SOURCE_DEFAULTS),
    }
    for option in dict.fromkeys(synthetic.OPTIONS + synthetic.VIDEO_OPTIONS):
        writers = {name: write for name, write in made.items() if option in catalog.DATASETS[name].options}
        defaults = (
            f"{inspect.signature(write).parameters[option].default} of {name}" for name, write in writers.items()
        )
        meaning = _argument_text(next(iter(writers.values())), option)
        flags.DEFINE_integer(option, None, f"{meaning} (default: {', '.join(defaults)})")


def _argument_text(function: Callable, name: str) -> str:
    """What a function's docstring says of an argument."""
    text = inspect.getdoc(function) or ""
    match = re.search(rf"^    {name}: (.+?)(?=^    \w+: |^\S|\Z)", text, re.MULTILINE | re.DOTALL)
    return " ".join(match[1].split()) if match else ""


def _main() -> None:
    args = flags.FLAGS
    for required in ("dataset", "data_dir"):
        if not args[required].value:
            raise errors.UserError(f"--{required}: it must be given")
    prepare(
        args.dataset,
        source=args.source,
        data_dir=args.data_dir,
        name=args.name,
        on_bad_image=args.on_bad_image,
        overwrite=args.overwrite,
        **{option: args[option].value for option in _READER_OPTIONS},
    )


if __name__ == "__main__":
    program.run(_main, _define_flags)
