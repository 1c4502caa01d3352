"""Sorts a folder of crops into people, with a trained model and without labels.

    python experiments/group.py --model=runs/shop --source=/path/to/crops --output=sorted_crops
    python experiments/group.py --model=shop.zip --source=crops.npz --output=sorted_crops --copies=false

The output folder has groups.csv, a picture of the largest groups, groups.png, and with --copies the folder people, in it
one for each group with copies of its images; the originals stay as they are. Images that resemble no other one enough are
groups of one.

How many people there are is found, by DBSCAN on the k-reciprocal Jaccard distance: --eps greater makes fewer and larger
groups, and --k1 should be about the number of images there are of a person. Where you know how many people there are,
--num_groups merges the nearest groups until so many are left (average linkage of the same distances).
"""

import csv
import io
import pathlib
import tempfile

import numpy as np
from absl import flags

from data_prep import cli
from experiments import setup_run, trained_model
from experiments.collection import Collection, open_collection
from reid_jax import cluster_quality, density_clusters, distances, features, image_rows, linkage, types
from reid_jax.image_rows import Row, Tile
from reid_jax.progress import ProgressBar

_PEOPLE = "people"  # apart from the other files: it is a folder of people, as search.py and prepare.py read it
_SHEET_GROUPS, _SHEET_IMAGES = 24, 12
_FEWEST = 3  # images
_LONGEST_NAME = 200  # bytes, of a copy; file systems take 255
# The encodings of an image and of the nearest one are averaged. Over six, as in training, an image that is like no other
# has mostly its neighbours' encodings, and joins them (docs/results.md, "Groups").
_K2 = 2


def choose_k1(num_images: int) -> int:
    """Chooses how many nearest images are looked at where the user does not say: about those of one person.

    Of few images there are few of each person, and among 20 nearest most are somebody else (docs/results.md, "Groups").
    """
    return int(np.clip(round(np.sqrt(num_images) / 1.5), 2, 20))


def find_groups(embeddings: np.ndarray, *, eps: float, min_samples: int, k1: int) -> np.ndarray:
    """Groups embeddings where they lie densely; who is alone is a group of one.

    Args:
        embeddings: [N, D] float32, L2-normalised.
        eps: as in `density_clusters.jaccard_dbscan`.
        min_samples: as there.
        k1: as there; at most N - 1 are used.

    Returns:
        [N] int64, 0..C-1, by size, the largest first.
    """
    k1 = min(k1, len(embeddings) - 1)
    return with_lone(density_clusters.jaccard_dbscan(embeddings, eps=eps, min_samples=min_samples, k1=k1, k2=_K2))


def merge_to(embeddings: np.ndarray, num_groups: int, *, k1: int) -> np.ndarray:
    """Merges the groups nearest on average by the Jaccard distance until so many are left: labels as `find_groups`."""
    k1 = min(k1, len(embeddings) - 1)
    known = distances.jaccard_distances(embeddings, k1=k1, k2=min(_K2, k1)).tocoo()
    matrix = np.ones(known.shape, np.float32)  # what is not stored has nothing in common
    matrix[known.row, known.col] = known.data
    np.fill_diagonal(matrix, 0)
    num_steps = len(embeddings) - num_groups
    return by_size(np.asarray(linkage.agglomerate(matrix, num_merges=1, num_steps=num_steps)))


def with_lone(labels: np.ndarray) -> np.ndarray:
    """Gives each image of a negative label [N] a group of its own, and numbers groups as `by_size`."""
    is_alone = labels < 0
    return by_size(np.where(is_alone, labels.max() + np.cumsum(is_alone), labels))


def by_size(labels: np.ndarray) -> np.ndarray:
    """Numbers groups [N] from 0 by their sizes, the largest first, equally large ones by their first image."""
    _, firsts, groups, counts = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    return np.argsort(np.lexsort((firsts, -counts)))[groups]


def centre_distances(embeddings: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Returns how far each embedding [N, D] is from its group's mean: 1 - cosine, [N]."""
    centres = np.zeros((groups.max() + 1, embeddings.shape[1]), np.float32)
    np.add.at(centres, groups, embeddings)
    centres /= np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-12)
    return np.maximum(1 - np.einsum("nd,nd->n", embeddings, centres[groups]), 0)


def folder_name(group: int, num_groups: int) -> str:
    """The name of a group's sub-folder."""
    return f"person_{group + 1:0{max(4, len(str(num_groups)))}d}"


def groups_table(images: Collection, groups: np.ndarray, from_centre: np.ndarray) -> str:
    """The text of groups.csv: by group, in each the most typical image first."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["group", "images", "distance_to_centre", "path"])
    sizes = np.bincount(groups)
    for index in np.lexsort((from_centre, groups)):
        name = folder_name(groups[index], len(sizes))
        writer.writerow([name, sizes[groups[index]], f"{from_centre[index]:.4f}", images.paths[index]])
    return text.getvalue()


def contact_sheet(images: Collection, groups: np.ndarray, from_centre: np.ndarray):
    """Draws the largest groups, each with its most typical images and the least typical one, and how far they are from
    the group's mean."""
    rows = []
    num_groups = groups.max() + 1
    for group in range(min(_SHEET_GROUPS, num_groups)):
        members = np.flatnonzero(groups == group)
        members = members[np.argsort(from_centre[members], kind="stable")]
        shown = members if len(members) <= _SHEET_IMAGES else [*members[: _SHEET_IMAGES - 1], members[-1]]
        tiles = [Tile(images.thumbnail(index), f"{from_centre[index]:.3f}") for index in shown]
        more = "" if len(shown) == len(members) else ": the most typical ones, and the least typical at the end"
        rows.append(Row(f"{folder_name(group, num_groups)}, {len(members)} images{more}", tiles))
    if num_groups > len(rows):
        rows[-1] = rows[-1]._replace(title=f"{rows[-1].title} ({num_groups - len(rows):,} more groups in groups.csv)")
    return image_rows.draw_rows(rows, max_columns=_SHEET_IMAGES)


def copy_images(images: Collection, groups: np.ndarray, folder: pathlib.Path) -> int:
    """Copies every image into its group's sub-folder; returns how many are no longer there to be copied."""
    missing, num_groups = 0, groups.max() + 1
    with ProgressBar(len(images), "copying", unit="images") as bar:
        for index, group in enumerate(groups):
            data = images.encoded(index)
            missing += data is None
            if data is not None:
                target = folder / folder_name(group, num_groups)
                target.mkdir(parents=True, exist_ok=True)
                (target / _copy_name(str(images.paths[index]), index, target)).write_bytes(data)
            bar.update()
    return missing


def _copy_name(path: str, index: int, folder: pathlib.Path) -> str:
    """The name of a copy in its group's folder: the image's own, with its number where that is taken or too long."""
    name = pathlib.PurePosixPath(path).name
    if not (folder / name).exists() and len(name.encode()) <= _LONGEST_NAME:
        return name
    stem, suffix = pathlib.PurePosixPath(name).stem, pathlib.PurePosixPath(name).suffix[:10]
    return f"{stem.encode()[: _LONGEST_NAME - 50].decode(errors='ignore')}_{index}{suffix}"


def describe(images: Collection, groups: np.ndarray) -> str:
    """What was found, and, where the people are known, how right it is."""
    sizes = np.bincount(groups)
    several = int((sizes > 1).sum())
    text = (
        f"{len(images):,} images: {several:,} group{'s' * (several != 1)} of two images or more, the largest of {sizes[0]:,}, and "
        f"{len(sizes) - several:,} images that are like no other"
    )
    is_known = images.pids > types.DISTRACTOR_PID
    if is_known.any():
        scores = cluster_quality.bcubed(groups[is_known], images.pids[is_known])
        text += f"\nagainst the {len(np.unique(images.pids[is_known])):,} people known: BCubed P/R/F " + "/".join(
            f"{score:.3f}" for score in scores
        )
    return text


def check_output(output: str, source: str) -> pathlib.Path:
    """Checks that the output folder can be made new, apart from the source.

    Raises:
        UserError: there is something in it already, or it lies in the source's folder.
    """
    path = pathlib.Path(output).expanduser().resolve()
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise types.UserError(f"--output: {output!r} must be a new or an empty folder")
    cli.check_folder_of(output)
    if pathlib.Path(source).is_dir() and path.is_relative_to(pathlib.Path(source).resolve()):
        raise types.UserError(f"--output: {output!r} must not lie in --source, whose images would be doubled")
    return path


def main() -> None:
    """Groups as the flags say."""
    given = flags.FLAGS
    cli.require("source", "output")
    output = check_output(given.output, given.source)
    model = trained_model.load(given.model, batch_size=given.batch_size) if given.model else None
    images = open_collection(
        given.source, flag="source", model=model, batch_size=given.batch_size, on_bad_image=given.on_bad_image
    )
    if len(images) < _FEWEST:
        raise types.UserError(f"--source: there must be at least {_FEWEST} images to group, got {len(images)}")
    embeddings = features.l2_normalized(images.embeddings())  # those of an .npz may have any length
    k1 = given.k1 or choose_k1(len(images))
    print(
        f"looking at the {min(k1, len(images) - 1)} nearest images of each (--k1: about as many as there are of a person)"
    )
    if given.num_groups is None:
        groups = find_groups(embeddings, eps=given.eps, min_samples=given.min_samples, k1=k1)
    else:
        if not 1 <= given.num_groups < len(images):
            raise types.UserError(
                f"--num_groups must be in 1..{len(images) - 1}, less than the number of images, got {given.num_groups}"
            )
        setup_run.check_distance_matrix(len(images))
        groups = merge_to(embeddings, given.num_groups, k1=k1)
    from_centre = centre_distances(embeddings, groups)
    print(describe(images, groups), flush=True)
    # All is made beside its place, and there only when it is whole.
    with tempfile.TemporaryDirectory(prefix=".tmp-group-", dir=output.parent) as temporary:
        folder = pathlib.Path(temporary, "groups")
        folder.mkdir()
        table = groups_table(images, groups, from_centre)
        (folder / "groups.csv").write_text(table, encoding="utf-8", errors="replace")
        contact_sheet(images, groups, from_centre).save(folder / "groups.png")
        missing = copy_images(images, groups, folder / _PEOPLE) if given.copies else 0
        if output.exists():
            output.rmdir()
        folder.rename(output)
    if missing:
        print(f"{missing} images are no longer where they were and could not be copied", flush=True)
    there = pathlib.Path(given.output)  # as the user wrote it
    written = [there / "groups.csv", there / "groups.png"] + [there / _PEOPLE] * given.copies
    print(f"written: {', '.join(str(path) for path in written if path.exists())}", flush=True)


def define_flags() -> None:
    """Defines the command line."""
    flags.DEFINE_string(
        "model", None, "A run directory (its best model), or a file of export.py; not needed for an .npz."
    )
    flags.DEFINE_string("source", None, "A folder of crops, sub-folders included, or an .npz of embed.py.")
    flags.DEFINE_string("output", None, "A new folder for the groups.")
    flags.DEFINE_bool("copies", True, "Copy every image into its group's sub-folder.")
    flags.DEFINE_float(
        "eps", 0.6, "How far apart neighbours in a group may be; greater: fewer, larger groups.", 0.01, 0.99
    )
    flags.DEFINE_integer(
        "min_samples", 2, "Neighbours within eps, itself included, that make an image a group's core.", 1
    )
    flags.DEFINE_integer(
        "k1",
        None,
        "Nearest images that are looked at, about as many as there are of a person; by their number if not given.",
        1,
    )
    flags.DEFINE_integer("num_groups", None, "Number of people, where you know it; holds all pairs' distances.")
    flags.DEFINE_integer("batch_size", 64, "Images embedded at a time.", lower_bound=1)
    flags.DEFINE_enum("on_bad_image", "fail", ["fail", "skip"], "What to do with images that cannot be decoded.")


if __name__ == "__main__":
    cli.run(main, define_flags)
