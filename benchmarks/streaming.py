"""A video data set of half a million frames, streamed: seconds and memory of what an iteration does with its frames.

    python benchmarks/streaming.py

As many tracklets as MARS has for training, of as many frames each, are prepared from a folder; the pictures are noise.
Then the data set is opened, every frame embedded once by a network that costs nothing, and one epoch's frames drawn
and read. Decoded, the frames would take what the first line says; memory counts worker processes too.
"""

import argparse
import functools
import pathlib
import tempfile
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import measure
import numpy as np
from absl import flags
from PIL import Image

from reid_jax import features, sampling, sharding
from reid_jax.data import batches, images, records, samples
from reid_jax.data_prep import prepare
from reid_jax.embeddings import Features
from reid_jax.progress import ProgressBar

_PATTERNS = 64
_SOURCE_SIZE = (64, 128)  # pixels, width and height of the files


def write_tracklets(folder: pathlib.Path, num_tracklets: int, num_frames: int) -> None:
    """Writes FOLDER/train/TRACKLET/FRAME.jpg; tracklets repeat a few patterns of noise."""
    rng = np.random.default_rng(0)
    patterns = []
    for _ in range(_PATTERNS):
        noise = rng.integers(0, 256, (8, 4, 3), dtype=np.uint8)
        Image.fromarray(noise).resize(_SOURCE_SIZE).save(folder / "pattern.jpg")
        patterns.append((folder / "pattern.jpg").read_bytes())
    (folder / "pattern.jpg").unlink()
    with ProgressBar(num_tracklets, "writing frames", unit="tracklets") as bar:
        for tracklet in range(num_tracklets):
            (folder / "train" / f"{tracklet:05d}").mkdir(parents=True)
            for frame in range(num_frames):
                content = patterns[(tracklet + frame) % _PATTERNS]
                (folder / "train" / f"{tracklet:05d}" / f"{frame:03d}.jpg").write_bytes(content)
            bar.update()


def report(name: str, num_images: int, call: Callable[[], object]) -> None:
    """Prints what a call took."""
    start = time.perf_counter()
    growth = measure.peak_bytes(call)
    seconds = time.perf_counter() - start
    print(
        f"  {name:28} {seconds:8.1f} s   {num_images / seconds:8.0f} frames/s   memory grew by {growth / 2**30:.2f} GiB",
        flush=True,
    )


def main() -> None:
    """Prepares and measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracklets", type=int, default=8_298, help="as many as MARS has for training")
    parser.add_argument("--frames", type=int, default=61, help="of each: 506,178 in all, MARS has 509,914")
    parser.add_argument("--draw", type=int, default=16, help="frames drawn from each tracklet in training")
    parser.add_argument("--height", type=int, default=256, help="decoded, in pixels")
    parser.add_argument("--width", type=int, default=128, help="decoded, in pixels")
    args = parser.parse_args()
    flags.FLAGS.mark_as_parsed()  # grain's workers read absl's flags
    num_frames = args.tracklets * args.frames
    decoded = num_frames * args.height * args.width * 3
    print(f"{num_frames:,} frames of {args.tracklets:,} tracklets, decoded {decoded / 2**30:.1f} GiB")
    mesh = sharding.make_mesh()
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder, "frames")
        source.mkdir()
        write_tracklets(source, args.tracklets, args.frames)
        prepared = {"source": source, "data_dir": folder, "name": "walks", "tracklets": True, "progress": False}
        report("preparing, once", num_frames, functools.partial(prepare.prepare, "folder", **prepared))

        opened = {}

        def open_train():
            split = records.load_records(folder, "walks")["train"]
            size = {"height": args.height, "width": args.width}
            opened["images"] = images.open_images(split, cache_dir=folder, cache_bytes=0, **size)
            opened["samples"] = samples.tracklet_samples(split, max_frames=900)

        report("opening", num_frames, open_train)

        @functools.partial(jax.jit, out_shardings=sharding.batch_sharded(mesh))
        def embed_step(variables, batch):
            del variables
            return Features(batch[:, ::8, ::8].astype(jnp.float32).reshape(len(batch), -1))

        def embed():
            features.embed_samples(embed_step, {}, opened["images"], opened["samples"], mesh, batch_size=256)

        report("embedding every frame", num_frames, embed)

        def train_epoch():
            rng, order = np.random.default_rng(0), np.arange(args.tracklets)
            index_batches = sampling.shuffled_batches(rng, order, batch_size=16)
            frames = sampling.draw_frames(rng, opened["samples"], index_batches, num_frames=args.draw)
            for batch in batches.device_batches(opened["images"], frames, mesh):
                batch.block_until_ready()

        report("reading an epoch's frames", args.tracklets // 16 * 16 * args.draw, train_epoch)


if __name__ == "__main__":
    main()
