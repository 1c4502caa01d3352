"""Embeds images with a trained model: one vector for each, in an .npz with their paths.

    python experiments/embed.py --model=runs/shop --source=/path/to/crops --output=crops.npz
    python experiments/embed.py --model=shop.zip --dataset=market1501 --split=gallery --data_dir=data --output=gallery.npz

The model is a run directory or a file of export.py. The .npz holds `embeddings` [N, D] float32 of length 1, so that
their dot product is the cosine similarity, `paths` [N], `pids` and `camids` [N] (-1 where not known), and `origin`,
JSON that says what made it; plain numpy.load reads it.
"""

import os
import pathlib
import time

from absl import flags

from data_prep import cli
from experiments import image_folder, setup_run, trained_model
from experiments.configs import shared
from reid_jax import embedding_files, types


def main() -> None:
    """Embeds as the flags say."""
    given = flags.FLAGS
    cli.require("model", "output")
    if bool(given.source) == bool(given.dataset):
        raise types.UserError("one of --source (a folder or an image) and --dataset (a prepared data set) is needed")
    check_output(given.output)
    start = time.monotonic()
    if given.source:
        files = image_folder.find_images(given.source, flag="source", on_bad_image=given.on_bad_image)
        model = trained_model.load(given.model, batch_size=given.batch_size)
        embeddings = trained_model.embed_files(
            model, files, batch_size=given.batch_size, description=f"embedding {files.name}"
        )
        pids = image_folder.identities(files.paths) if given.people_in_folders else None
        paths, camids = files.paths, None
        where = {"folder": str(files.folder.resolve())}
    else:
        model = trained_model.load(given.model, batch_size=given.batch_size)
        data = shared.base_config("folder").data
        data.update(
            dataset=given.dataset,
            dir=given.data_dir or data.dir,
            height=model.height,
            width=model.width,
            tracklets=given.tracklets,
        )
        dataset = setup_run.load_dataset(data, splits=(given.split,))
        samples = dataset.samples[given.split]
        images = setup_run.with_images(dataset, data).images[given.split]
        embeddings = trained_model.embed(
            model, images, samples, batch_size=given.batch_size, description=f"embedding {given.dataset}/{given.split}"
        )
        paths, pids, camids = samples.names, samples.pids, samples.camids
        where = {"dataset": (os.path.abspath(data.dir), given.dataset, given.split)}
    origin = embedding_files.Origin(model.digest, model.height, model.width, **where)
    embedding_files.write_embeddings(given.output, embeddings, paths, origin=origin, pids=pids, camids=camids)
    seconds = time.monotonic() - start
    print(f"{len(paths):,} embeddings of {embeddings.shape[1]} numbers in {seconds:.1f} s: {given.output}", flush=True)


def check_output(output: str) -> None:
    """Checks, before any work, that an .npz can be written there.

    Raises:
        UserError: it cannot.
    """
    path = pathlib.Path(output)
    if path.suffix != ".npz" or path.is_dir():
        raise types.UserError(f"--output: {output!r} must be a file that ends in .npz")
    cli.check_folder_of(output)


def define_flags() -> None:
    """Defines the command line."""
    flags.DEFINE_string("model", None, "A run directory (its best model), or a file that export.py wrote.")
    flags.DEFINE_string("source", None, "A folder of images, sub-folders included, or one image.")
    flags.DEFINE_bool("people_in_folders", False, "Every sub-folder of --source is a person: their numbers are pids.")
    flags.DEFINE_string("dataset", None, "A prepared data set, in place of --source.")
    flags.DEFINE_enum("split", "gallery", ["train", "query", "gallery"], "Of the prepared data set.")
    flags.DEFINE_string("data_dir", None, "Where it was prepared; the folder data if not given.")
    flags.DEFINE_bool("tracklets", False, "A vector for each tracklet of the data set, the mean over its frames.")
    flags.DEFINE_string("output", None, "The .npz to write.")
    flags.DEFINE_integer("batch_size", 64, "Images embedded at a time.", lower_bound=1)
    flags.DEFINE_enum("on_bad_image", "fail", ["fail", "skip"], "What to do with images that cannot be decoded.")


if __name__ == "__main__":
    cli.run(main, define_flags)
