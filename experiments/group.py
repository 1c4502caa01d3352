"""Sorts a folder of crops into people, without labels.

    python experiments/group.py --model=runs/shop --source=/path/to/crops --output=sorted_crops
    python experiments/group.py --model=mobilenet_v2 --source=/path/to/crops --output=sorted_crops  # no training at all
    python experiments/group.py --model=shop.zip --source=crops.npz --output=sorted_crops --copies=false

The output folder has groups.csv, a picture of the largest groups, groups.png, and with --copies the folder people, in
it one for each group with copies of its images; the originals stay as they are. Images that resemble no other one enough
are groups of one. Embeddings of published weights, such as mobilenet_v2, are whitened (--postprocess).

How many people there are is found, by DBSCAN on the k-reciprocal Jaccard distance: --eps greater makes fewer and larger
groups, and --k1, the nearest images that are looked at, should be up to twice the number of images of a person. Where
you know how many people there are, --num_groups merges the nearest groups until so many are left (average linkage of
the same distances).
"""

import pathlib
import tempfile

import numpy as np
from absl import flags

from reid_jax import errors
from reid_jax.cli import program, shared_flags
from reid_jax.data import image_folder
from reid_jax.embeddings import l2_normalize
from reid_jax.retrieval import group_folders, groups
from reid_jax.retrieval.collection import Collection, embedded_size, open_collection
from reid_jax.runs import memory_limits

_PEOPLE = "people"  # apart from the other files: it is a folder of people, as search and prepare read it


def check_output(output: str, source: str) -> pathlib.Path:
    """Checks that the output folder can be made new, apart from the source.

    Raises:
        UserError: there is something in it already, or it lies in the source's folder.
    """
    path = pathlib.Path(output).expanduser().resolve()
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise errors.UserError(f"--output: {output!r} must be a new or an empty folder")
    program.check_folder_of(output)
    if pathlib.Path(source).is_dir() and path.is_relative_to(pathlib.Path(source).resolve()):
        raise errors.UserError(f"--output: {output!r} must not lie in --source, whose images would be doubled")
    return path


def find_people(images: Collection, embeddings: np.ndarray, args: flags.FlagValues) -> np.ndarray:
    """Groups the images as the flags say, and says on standard output how.

    Raises:
        UserError: there are fewer images than groups asked for, or too many for all pairs' distances.
    """
    k1 = groups.choose_k1(embeddings) if args.k1 is None else args.k1
    print(
        f"looking at the {min(k1, len(images) - 1)} nearest images of each (--k1: up to twice as many as there are of a "
        "person)"
    )
    if args.num_groups is not None:
        memory_limits.check_distance_matrix(len(images))
    with errors.prefixed("--", ValueError):
        return groups.group(embeddings, eps=args.eps, min_samples=args.min_samples, k1=k1, num_groups=args.num_groups)


def write_groups(
    images: Collection, labels: np.ndarray, from_centre: np.ndarray, output: pathlib.Path, *, copies: bool
) -> int:
    """Writes the output folder, whole or not at all; returns how many images were no longer there to be copied."""
    with tempfile.TemporaryDirectory(prefix=".tmp-group-", dir=output.parent) as temporary:
        folder = pathlib.Path(temporary, "groups")
        folder.mkdir()
        table = group_folders.groups_table(images, labels, from_centre)
        (folder / "groups.csv").write_text(table, encoding="utf-8", errors="replace")
        group_folders.contact_sheet(images, labels, from_centre).save(folder / "groups.png")
        missing = group_folders.copy_images(images, labels, folder / _PEOPLE) if copies else 0
        if output.exists():
            output.rmdir()
        folder.rename(output)
    return missing


def main() -> None:
    """Groups as the flags say."""
    args = flags.FLAGS
    program.require("source", "output")
    shared_flags.check_whiten_dim(args)
    output = check_output(args.output, args.source)
    model = None
    if args.model and args.source.endswith(".npz"):
        model = shared_flags.load_model(args, size=embedded_size(args.source, flag="source"))
    elif args.model:
        model = shared_flags.load_model(args, image_folder.list_images(args.source, flag="source"))
    images = open_collection(
        args.source, flag="source", model=model, batch_size=args.batch_size, on_bad_image=args.on_bad_image
    )
    if len(images) < groups.MIN_IMAGES:
        raise errors.UserError(
            f"--source: there must be at least {groups.MIN_IMAGES} images to group, got {len(images)}"
        )
    fitted = shared_flags.fit_postprocess(args, images, model)
    images = images if fitted is None else images.postprocessed(fitted)
    embeddings = l2_normalize(images.embeddings())  # those of an .npz may have any length
    labels = find_people(images, embeddings, args)
    print(group_folders.describe(images, labels), flush=True)
    from_centre = groups.centre_distances(embeddings, labels)
    missing = write_groups(images, labels, from_centre, output, copies=args.copies)
    if missing:
        print(f"{missing} images are no longer where they were and could not be copied", flush=True)
    there = pathlib.Path(args.output)  # as the user wrote it
    written = [there / "groups.csv", there / "groups.png"] + [there / _PEOPLE] * args.copies
    print(f"written: {', '.join(str(path) for path in written if path.exists())}", flush=True)


def define_flags() -> None:
    """Defines the command line."""
    shared_flags.define_model("not needed for an .npz")
    flags.DEFINE_string("source", None, "A folder of crops, sub-folders included, or an .npz of reid embed.")
    shared_flags.define_postprocess("the source's images", default="auto")
    program.group("Output")
    flags.DEFINE_string("output", None, "A new folder for the groups.")
    flags.DEFINE_bool("copies", True, "Copy every image into its group's sub-folder.")
    program.group("Groups")
    flags.DEFINE_float(
        "eps",
        None,
        "How far apart neighbours in a group may be; greater: fewer, larger groups; 0.6, or 0.5 for k1 up to 4, if not given.",
        0.01,
        0.99,
    )
    flags.DEFINE_integer(
        "min_samples", 2, "Neighbours within eps, itself included, that make an image a group's core.", 1
    )
    flags.DEFINE_integer(
        "k1",
        None,
        "Nearest images that are looked at, up to twice as many as there are of a person; estimated if not given.",
        1,
    )
    flags.DEFINE_integer("num_groups", None, "Number of people, where you know it; holds all pairs' distances.")
    shared_flags.define_embedding()


if __name__ == "__main__":
    program.run(main, define_flags)
