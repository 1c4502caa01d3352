r"""Published weights to start from: lists them, and gets them into the user's cache.

    python experiments/weights.py list
    python experiments/weights.py get mobilenet_v2
    python experiments/weights.py import osnet_x1_0_imagenet.pth
    python experiments/weights.py import model.pth --name=my_osnet --architecture=osnet_x1_0 --people_labels \
        --trained_on="our shop, 2024"

get fetches the weights of a name in the list, checks them, and keeps them in the cache folder (reid_jax/weights in
XDG_CACHE_HOME, or in ~/.cache; REID_JAX_WEIGHTS names another folder). A download that broke off goes on where it was.

import takes a file that was brought here in another way: one of the list, recognised by its sha256 or its name, or
weights of your own, which have a name that is not in the list, and --architecture. .pth, .pt, .bin, .safetensors and .npz
are read as tensors only: nothing in a file is ever run.
"""

import difflib
import pathlib
from collections.abc import Callable, Iterable
from typing import NamedTuple

from absl import flags

from reid_jax import errors
from reid_jax.cli import program
from reid_jax.models import backbones, reid
from reid_jax.weights import catalog, intake, store
from reid_jax.weights.store import Got

_OF_IMPORT = ("name", "architecture", "normalization", "trained_on", "people_labels", "licence")


class Row(NamedTuple):
    """A line of the list."""

    name: str
    got: str
    size: str
    trained_on: str
    labels: str
    licence: str


_HEAD = Row("name", "got", "size", "trained on", "labels", "licence")


def list_weights() -> None:
    """Prints what can be got and what is there, weights that saw who people are apart from all others."""
    damaged = {}
    groups: dict[bool, list[Row]] = {False: [], True: []}
    for name in [*catalog.CATALOG, *(name for name in store.names() if name not in catalog.CATALOG)]:
        entry = catalog.CATALOG.get(name)
        try:
            got = store.find(name)
        except errors.UserError as error:
            damaged[name], got = str(error), None
        what = entry or got
        if what is not None:
            state = "damaged" if name in damaged else "yes" if got else "no"
            size = entry.size if entry else store.path_of(name).stat().st_size
            row = Row(name, state, format_size(size), what.trained_on, what.labels, what.licence)
            groups[what.people_labels].append(row)
    rows = [row for group in groups.values() for row in group]
    widths = [max(len(row[column]) for row in (_HEAD, *rows)) for column in range(len(_HEAD))]
    print("Trained without labels of people\n")
    print_table(groups[False], widths)
    print("\nTrained with labels of people: who is on each image was known\n")
    print_table(groups[True], widths)
    print(f"\nreid weights get NAME gets them into {store.folder()}.")
    print("The licence is the publisher's, of the file; the terms of the images may add to it.")
    for error in damaged.values():
        print(f"warning: {error}")


def print_table(rows: Iterable[Row], widths: list[int]) -> None:
    """Prints lines in columns."""
    for row in (_HEAD, *rows):
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def get(name: str) -> None:
    """Gets published weights, unless they are there.

    Raises:
        UserError: as `catalog.find`, `store.find` and `intake.get`.
    """
    entry = catalog.find(name)
    got = None if flags.FLAGS.overwrite else store.find(name)
    if got is not None:
        print(f"{name}: got already (--overwrite gets it again)")
    else:
        size = f", {format_size(entry.size)}" if entry.size else ""
        print(f"getting {entry.file_name}{size}, from {entry.source}", flush=True)
        got = intake.get(entry)
    describe(got)


def import_file(file: str) -> None:
    """Imports a file of weights: published ones, or with --architecture the user's own.

    Raises:
        UserError: a flag is missing or breaks its rule; or as `intake.import_published` and `intake.import_own`.
    """
    args = flags.FLAGS
    path = pathlib.Path(file).expanduser()
    if args.architecture is None:
        if args.name is not None and args.name not in catalog.CATALOG:
            (nearest,) = difflib.get_close_matches(args.name, catalog.CATALOG, n=1, cutoff=0)
            raise errors.UserError(
                f"--name: {args.name!r} is not in the list, did you mean {nearest!r}? Weights of your own need "
                "--architecture"
            )
        describe(intake.import_published(path, args.name, overwrite=args.overwrite))
        return
    program.require("name")
    with errors.prefixed("--"):
        own = intake.describe_own(
            args.name,
            args.architecture,
            normalization=args.normalization,
            trained_on=args.trained_on,
            people_labels=args.people_labels,
            licence=args.licence,
        )
    describe(intake.import_own(path, own, overwrite=args.overwrite))


def describe(got: Got) -> None:
    """Prints what weights are, and how they are used."""
    print(f"{got.name}: {store.path_of(got.name)}")
    print(f"  architecture      {got.architecture}, pixels normalised as {got.normalization}")
    print(f"  trained on        {got.trained_on}")
    print(f"  labels            {got.labels}")
    print(f"  labels of people  {'yes: it was known who is on each image' if got.people_labels else 'no'}")
    print(f"  licence           {got.licence}")
    print(f"  from              {got.source}")
    print(f"  sha256            {got.sha256}")
    print(
        f"to use it as it is: reid group --model={got.name} --source=FOLDER --output=PEOPLE; or search, embed, evaluate"
    )
    print(f"to train from it: reid train METHOD --config=METHOD:folder --config.model.weights={got.name}", flush=True)


def format_size(size: int | None) -> str:
    """A number of bytes in words, such as "9.1 MB"; "?" for one that is not known."""
    return "?" if size is None else f"{size / 1e6:.1f} MB"


_COMMANDS: dict[str, tuple[Callable[..., None], tuple[str, ...]]] = {
    "list": (list_weights, ()),
    "get": (get, ("NAME",)),
    "import": (import_file, ("FILE",)),
}


def main(words: list[str]) -> None:
    """Does what the command line's words say."""
    if not words:
        raise errors.UserError(f"a command is needed: {', '.join(_COMMANDS)}")
    command, *arguments = words
    if command not in _COMMANDS:
        (nearest,) = difflib.get_close_matches(command, _COMMANDS, n=1, cutoff=0)
        raise errors.UserError(
            f"there is no command weights {command!r}; did you mean {nearest!r}? They are: {', '.join(_COMMANDS)}"
        )
    function, wanted = _COMMANDS[command]
    if len(arguments) != len(wanted):
        given = ", ".join(arguments) or "nothing"
        raise errors.UserError(f"weights {command} takes {', '.join(wanted) or 'nothing more'}, got {given}")
    foreign = [name for name in _OF_IMPORT if command != "import" and flags.FLAGS[name].present]
    if foreign:
        raise errors.UserError(f"--{foreign[0]}: only weights import takes it")
    function(*arguments)


def define_flags() -> None:
    """Defines the command line."""
    program.group("get and import")
    flags.DEFINE_boolean("overwrite", False, "Replace weights of that name that are there.")
    program.group("import")
    known = ", ".join(name for name, architecture in backbones.ARCHITECTURES.items() if architecture.has_weights)
    flags.DEFINE_string("name", None, "Which weights of the list the file is, or a name for weights of your own.")
    flags.DEFINE_string("architecture", None, f"Of weights of your own: {known}.")
    flags.DEFINE_enum(
        "normalization", "imagenet", list(reid.NORMALIZATIONS), "Of weights of your own: of the pixels in training."
    )
    flags.DEFINE_string("trained_on", "not said", "Of weights of your own: the images, in words.")
    flags.DEFINE_boolean(
        "people_labels", None, "Of weights of your own: whether it was known in training who the people are."
    )
    flags.DEFINE_string("licence", "not said", "Of weights of your own.")


if __name__ == "__main__":
    program.run(main, define_flags, takes_words=True)
