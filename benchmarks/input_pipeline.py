"""Input pipeline: decoding, and reading from the cache, against what a train step consumes; images per second.

python benchmarks/input_pipeline.py
"""

import io
import os
import tempfile
import time

import jax
import numpy as np
from absl import app, flags

from reid_jax import sharding
from reid_jax.data import batches, images, records
from reid_jax.data_prep import prepare

_HEIGHT = flags.DEFINE_integer("height", 128, "Image height.")
_IMG_WIDTH = flags.DEFINE_integer("img_width", 64, "Image width.")
_BATCH = flags.DEFINE_integer("batch_size", 64, "Images per batch.")
_STEPS = flags.DEFINE_integer("steps", 60, "Batches per measurement.")


def plain_pillow(split: records.Records) -> float:
    """What one process of a loader without cache does: decode, resize, normalise to floats on the host."""
    from PIL import Image

    start = time.perf_counter()
    for index in range(len(split)):
        image = Image.open(io.BytesIO(split.encoded(index))).convert("RGB")
        image = image.resize((_IMG_WIDTH.value, _HEIGHT.value), Image.Resampling.BILINEAR)
        _ = (np.asarray(image, np.float32) / 255 - np.float32(0.45)) / np.float32(0.22)
    return len(split) / (time.perf_counter() - start)


def device_rate(source: images.ImageSource) -> float:
    """Images per second that arrive on the devices, in random batches."""
    mesh = sharding.make_mesh()
    index_batches = np.random.default_rng(0).integers(0, len(source), (_STEPS.value, _BATCH.value))
    iterator = batches.device_batches(source, index_batches, mesh)
    next(iterator)  # starts workers
    start = time.perf_counter()
    for batch in iterator:
        batch.block_until_ready()
    return (_STEPS.value - 1) * _BATCH.value / (time.perf_counter() - start)


def main(argv: list[str]) -> None:
    """Measures on the synthetic data set."""
    del argv
    with tempfile.TemporaryDirectory() as folder:
        prepare.prepare("synthetic", data_dir=folder, progress=False)
        split = records.load_records(folder, "synthetic")["train"]
        options = {"height": _HEIGHT.value, "width": _IMG_WIDTH.value, "cache_dir": os.path.join(folder, "cache")}
        baseline = plain_pillow(split)
        start = time.perf_counter()
        cached = images.open_images(split, cache_bytes=2**40, **options)
        filling = len(split) / (time.perf_counter() - start)
        rates = {"cache": device_rate(cached)}
        for workers in (0, os.cpu_count()):
            streamed = images.open_images(split, cache_bytes=0, num_workers=workers, **options)
            rates[f"streamed, {workers} worker processes"] = device_rate(streamed)
    print(f"images of {_HEIGHT.value}x{_IMG_WIDTH.value}, batches of {_BATCH.value}, {jax.devices()[0].device_kind}")
    print(f"  {'one process, Pillow + float normalisation':44}{baseline:10.0f} images/s")
    print(f"  {'filling the cache, once':44}{filling:10.0f} images/s   x{filling / baseline:.1f}")
    for name, rate in rates.items():
        print(f"  {name:44}{rate:10.0f} images/s   x{rate / baseline:.1f}")
    print("what a train step consumes: python benchmarks/train_step.py")


if __name__ == "__main__":
    app.run(main)
