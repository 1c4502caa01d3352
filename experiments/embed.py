"""Embeds images with a model: one vector for each, in an .npz with their paths.

    python experiments/embed.py --model=runs/shop --source=/path/to/crops --output=crops.npz
    python experiments/embed.py --model=mobilenet_v2 --source=/path/to/crops --output=crops.npz  # no training at all
    python experiments/embed.py --model=shop.zip --dataset=market1501 --split=gallery --output=gallery.npz

The model is a run directory, a model folder, a .zip of export, or published weights by their name. The .npz holds
`embeddings` [N, D] float32 of length 1, so that their dot product is the cosine similarity, `paths` [N], `pids` and
`camids` [N] (-1 where not known), and `origin`, JSON that says what made it; plain numpy.load reads it.
"""

import os
import pathlib
import time
from typing import NamedTuple

import numpy as np
from absl import flags

from reid_jax import errors
from reid_jax.cli import program, shared_flags
from reid_jax.data import image_folder
from reid_jax.data_prep import made
from reid_jax.retrieval import embedding_files
from reid_jax.retrieval.embedding_files import Origin
from reid_jax.runs import base_config
from reid_jax.runs import dataset as dataset_lib


class Embedded(NamedTuple):
    """What is written."""

    embeddings: np.ndarray
    paths: np.ndarray
    pids: np.ndarray | None
    camids: np.ndarray | None
    origin: Origin


def embed_folder(args: flags.FlagValues) -> Embedded:
    """Embeds the images of --source."""
    files = image_folder.find_images(args.source, flag="source", on_bad_image=args.on_bad_image)
    model = shared_flags.load_model(args, files)
    embeddings = model.embed_files(files, batch_size=args.batch_size, description=f"embedding {files.name}")
    pids = image_folder.person_numbers(files.paths) if args.people_in_folders else None
    origin = Origin(model.digest, model.height, model.width, folder=str(files.folder.resolve()), about=model.about)
    return Embedded(embeddings, files.paths, pids, None, origin)


def embed_dataset(args: flags.FlagValues) -> Embedded:
    """Embeds a split of --dataset."""
    data = base_config.base_config("folder").data
    data.update(dataset=args.dataset, dir=args.data_dir or data.dir, tracklets=args.tracklets)
    made.prepare_if_made(args.dataset, data.dir)
    dataset = dataset_lib.load_dataset(data, splits=(args.split,))
    samples = dataset.samples[args.split]
    model = shared_flags.load_model(args, dataset.records[args.split])
    data.update(height=model.height, width=model.width)
    images = dataset_lib.with_images(dataset, data).images[args.split]
    embeddings = model.embed_samples(
        images, samples, batch_size=args.batch_size, description=f"embedding {args.dataset}/{args.split}"
    )
    place = (os.path.abspath(data.dir), args.dataset, args.split)
    origin = Origin(model.digest, model.height, model.width, dataset=place, about=model.about)
    return Embedded(embeddings, samples.names, samples.pids, samples.camids, origin)


def main() -> None:
    """Embeds as the flags say."""
    args = flags.FLAGS
    program.require("model", "output")
    if bool(args.source) == bool(args.dataset):
        raise errors.UserError("one of --source (a folder or an image) and --dataset (a prepared data set) is needed")
    check_output(args.output)
    start = time.monotonic()
    embeddings, paths, pids, camids, origin = embed_folder(args) if args.source else embed_dataset(args)
    embedding_files.write_embeddings(args.output, embeddings, paths, origin=origin, pids=pids, camids=camids)
    seconds = time.monotonic() - start
    print(f"{len(paths):,} embeddings of {embeddings.shape[1]} numbers in {seconds:.1f} s: {args.output}", flush=True)


def check_output(output: str) -> None:
    """Checks, before any work, that an .npz can be written there.

    Raises:
        UserError: it cannot.
    """
    path = pathlib.Path(output)
    if path.suffix != ".npz" or path.is_dir():
        raise errors.UserError(f"--output: {output!r} must be a file that ends in .npz")
    program.check_folder_of(output)


def define_flags() -> None:
    """Defines the command line."""
    shared_flags.define_model()
    flags.DEFINE_string("source", None, "A folder of images, sub-folders included, or one image.")
    flags.DEFINE_bool("people_in_folders", False, "Every sub-folder of --source is a person: their numbers are pids.")
    flags.DEFINE_string("dataset", None, "A prepared data set, in place of --source.")
    flags.DEFINE_enum("split", "gallery", ["train", "query", "gallery"], "Of the prepared data set.")
    flags.DEFINE_string("data_dir", None, "Where it was prepared; the folder data if not given.")
    flags.DEFINE_bool("tracklets", False, "A vector for each tracklet of the data set, the mean over its frames.")
    program.group("Output")
    flags.DEFINE_string("output", None, "The .npz to write.")
    shared_flags.define_embedding()


if __name__ == "__main__":
    program.run(main, define_flags)
