r"""Finds a person again: ranks the images of a gallery by how alike they are to each query image.

    python experiments/search.py --model=runs/shop --query=person.jpg --gallery=/path/to/crops
    python experiments/search.py --model=mobilenet_v2 --query=person.jpg --gallery=/path/to/crops --rerank
    python experiments/search.py --model=shop.zip --query=people --gallery=crops.npz --output=runs/found \
        --false_alarms=0.05 --calibration=runs/shop_people/people

A query is an image, a folder of them, or an .npz of embed; a gallery is a folder or an .npz, which for more than a
few thousand images spares embedding them each time. Published weights, such as mobilenet_v2, need no training; their
embeddings are whitened by the gallery's (--postprocess). --rerank ranks by whom images have in common among their
nearest, which takes longer and finds more where there are several images of a person. The output folder has results.csv
and a contact sheet, results.png.

There is always a nearest image, also of a person who is not in the gallery. --max_distance rejects matches beyond it
("not in the gallery"); --false_alarms chooses it: that share of such people may be taken for someone. That is measured
on images whose people are known: --calibration is a folder with a sub-folder for each person, or an .npz with pids.
"""

import pathlib

import numpy as np
from absl import flags

from reid_jax import atomic, errors
from reid_jax.cli import program, shared_flags
from reid_jax.data import image_folder
from reid_jax.distances import Reranking
from reid_jax.inference.trained_model import TrainedModel
from reid_jax.retrieval import ranking, search_results
from reid_jax.retrieval.collection import Collection, check_comparable, embedded_size, open_collection

_SHOWN_QUERIES = 10  # on standard output
_SHOWN_MATCHES = 20
_RESULTS = ("results.csv", "results.png")


def check_flags(args: flags.FlagValues) -> None:
    """Checks the flags that depend on each other.

    Raises:
        UserError: one is missing, or two of which one follows from the other.
    """
    program.require("query", "gallery", "output")
    shared_flags.check_whiten_dim(args)
    if args.max_distance is not None and args.false_alarms is not None:
        raise errors.UserError("--max_distance and --false_alarms: give one of them, the other follows")
    if args.rerank and (args.max_distance is not None or args.false_alarms is not None):
        raise errors.UserError(
            "--rerank: it has distances of its own, which no limit fits; leave out --max_distance and --false_alarms"
        )
    if args.calibration and args.false_alarms is None:
        raise errors.UserError("--calibration: --false_alarms is needed with it, such as 0.05")


def check_output(args: flags.FlagValues) -> pathlib.Path:
    """Checks that the output folder is new, or one of earlier results, and apart from the images.

    Raises:
        UserError: it is not.
    """
    output = pathlib.Path(args.output).expanduser()
    if output.exists() and not output.is_dir():
        raise errors.UserError(f"--output: {args.output!r} must be a folder, it is a file")
    others = [path.name for path in output.iterdir() if path.name not in _RESULTS] if output.is_dir() else []
    if others:
        raise errors.UserError(
            f"--output: {args.output!r} must be a new folder or one of earlier results, it holds {others[0]!r}"
        )
    for flag in ("query", "gallery"):
        source = pathlib.Path(args[flag].value)
        if source.is_dir() and output.resolve().is_relative_to(source.resolve()):
            raise errors.UserError(
                f"--output: {args.output!r} must not lie in --{flag}, whose images would be added to"
            )
    return output


def open_collections(args: flags.FlagValues) -> dict[str, Collection]:
    """Opens what the flags name, embedding what is not embedded yet, and checks that it can be compared."""
    model = load_model(args) if args.model else None
    opened = {
        flag: open_collection(
            args[flag].value,
            flag=flag,
            model=model,
            batch_size=args.batch_size,
            on_bad_image=args.on_bad_image,
            people_in_folders=flag == "calibration",
        )
        for flag in ("query", "gallery", "calibration")
        if args[flag].value
    }
    check_comparable(opened.items())
    fitted = shared_flags.fit_postprocess(args, opened["gallery"], model)
    if fitted is None:
        return opened
    return {flag: images.postprocessed(fitted) for flag, images in opened.items()}


def load_model(args: flags.FlagValues) -> TrainedModel:
    """Loads --model; published weights see images of the size of an .npz, else of the shape that the gallery's have."""
    files = [flag for flag in ("gallery", "query", "calibration") if (args[flag].value or "").endswith(".npz")]
    if files:
        return shared_flags.load_model(args, size=embedded_size(args[files[0]].value, flag=files[0]))
    return shared_flags.load_model(args, image_folder.list_images(args.gallery, flag="gallery"))


def choose_limit(args: flags.FlagValues, opened: dict[str, Collection]) -> float:
    """Returns the distance beyond which a match is none; infinite where there is no limit.

    Raises:
        UserError: it is to be calibrated, and no people are known.
    """
    if args.false_alarms is None:
        return np.inf if args.max_distance is None else args.max_distance
    gallery = opened["gallery"]
    if "calibration" not in opened and not (gallery.pids >= 0).any():
        raise errors.UserError(
            "--calibration is needed with --false_alarms: the people in the gallery are not known; give a folder "
            "with a sub-folder for each person, or an .npz with pids"
        )
    with errors.prefixed("--calibration: "):
        return ranking.calibrate(opened.get("calibration", gallery), gallery, false_alarms=args.false_alarms)


def print_matches(queries: Collection, gallery: Collection, ranked: list[list[ranking.Match]], limit: float) -> None:
    """Prints the first queries' ranked lists."""
    for query, matches in enumerate(ranked[:_SHOWN_QUERIES]):
        print(f"{queries.paths[query]}: {search_results.verdict(matches, limit)}")
        for place, match in enumerate(matches[:_SHOWN_MATCHES], start=1):
            beyond = "" if match.is_near else "  beyond the limit"
            print(f"  {place:3d}  {match.distance:.3f}  {gallery.paths[match.index]}{beyond}")
    if len(ranked) > _SHOWN_QUERIES:
        print(
            f"... and {len(ranked) - _SHOWN_QUERIES} more queries in results.csv, the first "
            f"{search_results.SHEET_QUERIES} in results.png"
        )


def main() -> None:
    """Searches as the flags say."""
    args = flags.FLAGS
    check_flags(args)
    output = check_output(args)
    opened = open_collections(args)
    queries, gallery = opened["query"], opened["gallery"]
    limit = choose_limit(args, opened)
    rerank = Reranking().within(len(queries) + len(gallery)) if args.rerank else None
    ranked = ranking.rank(queries, gallery, top=args.top, max_distance=limit, rerank=rerank)

    output.mkdir(parents=True, exist_ok=True)
    with atomic.atomic_path(output / "results.csv") as temporary:
        table = search_results.results_table(queries, gallery, ranked, limit)
        temporary.write_text(table, encoding="utf-8", errors="replace")
    with atomic.atomic_path(output / "results.png") as temporary:
        search_results.contact_sheet(queries, gallery, ranked, limit).save(temporary)
    print_matches(queries, gallery, ranked, limit)
    print(f"written: {output / 'results.csv'}, {output / 'results.png'}", flush=True)


def define_flags() -> None:
    """Defines the command line."""
    shared_flags.define_model("not needed for two .npz")
    flags.DEFINE_string("query", None, "An image, a folder of them, or an .npz of reid embed.")
    flags.DEFINE_string("gallery", None, "A folder of images, sub-folders included, or an .npz of reid embed.")
    program.group("Matches")
    flags.DEFINE_integer("top", 10, "Matches listed for each query.", lower_bound=1, upper_bound=1000)
    flags.DEFINE_float("max_distance", None, "Reject matches beyond this distance (1 - cosine, 0..2).", 0.0, 2.0)
    flags.DEFINE_float(
        "false_alarms",
        None,
        "Accepted share of people not in the gallery who are taken for someone; chooses --max_distance.",
        0.0,
        0.99,
    )
    flags.DEFINE_string(
        "calibration", None, "Images of known people to choose it on; the gallery if its people are known."
    )
    flags.DEFINE_bool("rerank", False, "Rank anew by k-reciprocal neighbours (Zhong et al. 2017).")
    shared_flags.define_postprocess("the gallery", default="auto")
    program.group("Output")
    flags.DEFINE_string("output", "runs/search", "Folder for results.csv and results.png.")
    shared_flags.define_embedding()


if __name__ == "__main__":
    program.run(main, define_flags)
