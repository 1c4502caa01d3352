"""What label-free post-processing is worth: mAP of a model that was not trained on a data set, by kind, size and shrinkage.

    reid weights get mobilenet_v2
    python benchmarks/postprocess.py vehicles,coil100 --data_dir=data [--model=mobilenet_v2 --height=128 --width=128]

For every data set a Markdown table of the kinds, fitted to the train split, to query and gallery, and to all images; and one
of whitening by its two numbers, fitted to the train split.
"""

import argparse

import numpy as np
from ml_collections import ConfigDict

from reid_jax import features, postprocess, sharding
from reid_jax.inference import networks
from reid_jax.runs import base_config, evaluation
from reid_jax.runs import dataset as dataset_lib

_FITS = {"train": ("train",), "query and gallery": ("query", "gallery"), "all": ("train", "query", "gallery")}
_DIMS = (64, 128, 256, 512, 0)
_SHRINKAGES = (0.0, 0.003, 0.01, 0.03, 0.1, 0.3)
_OPTIONS = ConfigDict({"metric": "cosine", "ap_method": "step"})


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("datasets")
    parser.add_argument("--data_dir", default="data")
    parser.add_argument("--model", default="mobilenet_v2")
    parser.add_argument("--height", type=int, default=128)
    parser.add_argument("--width", type=int, default=128)
    args = parser.parse_args()
    network = networks.load_network(args.model, height=args.height, width=args.width)
    mesh = sharding.make_mesh()
    step = features.make_embed_step(network.module, mesh)
    for name in args.datasets.split(","):
        data = base_config.base_config("folder").data
        data.update(dataset=name, dir=args.data_dir, height=args.height, width=args.width)
        dataset = dataset_lib.with_images(dataset_lib.load_dataset(data), data)
        rows = {
            split: evaluation.embed_split(
                step, network.variables, dataset=dataset, split=split, mesh=mesh, batch_size=64
            )
            for split in dataset.samples
        }
        print(f"\n{name}, {args.model} at {args.height} x {args.width}, mAP\n")
        print_kinds(dataset, rows)
        print_whitening(dataset, rows)


def print_kinds(dataset: dataset_lib.Dataset, rows: dict[str, np.ndarray]) -> None:
    """Prints every kind's mAP by what it is fitted to."""
    print(f"| fitted to | {' | '.join(postprocess.KINDS)} |\n|---|{'---|' * len(postprocess.KINDS)}")
    for label, splits in _FITS.items():
        scores = [mean_precision(dataset, rows, splits, kind) for kind in postprocess.KINDS]
        print(f"| {label} | {' | '.join(scores)} |", flush=True)


def print_whitening(dataset: dataset_lib.Dataset, rows: dict[str, np.ndarray]) -> None:
    """Prints pca_whiten's mAP by the numbers that are kept and by shrinkage."""
    print(
        f"\n| kept | {' | '.join(f'shrinkage {value:g}' for value in _SHRINKAGES)} |\n|---|{'---|' * len(_SHRINKAGES)}"
    )
    for dim in _DIMS:
        scores = [
            mean_precision(dataset, rows, ("train",), "pca_whiten", dim=dim, shrinkage=value) for value in _SHRINKAGES
        ]
        print(f"| {dim or 'all'} | {' | '.join(scores)} |", flush=True)


def mean_precision(
    dataset: dataset_lib.Dataset, rows: dict[str, np.ndarray], splits: tuple[str, ...], kind: str, **options: float
) -> str:
    """Returns the mAP in per cent, post-processing fitted to some splits; a dash where cameras are needed and not known."""
    camids = {split: samples.camids for split, samples in dataset.samples.items()}
    fitted = None
    if kind != "none":
        known = np.concatenate([camids[split] for split in splits])
        if kind in postprocess.CAMERA_KINDS and (known < 0).all():
            return "–"
        fitted = postprocess.fit(kind, [rows[split] for split in splits], camids=known, **options)
    query, gallery = (postprocess.apply(fitted, rows[split], camids[split]) for split in ("query", "gallery"))
    return f"{100 * evaluation.score(_OPTIONS, query, gallery, dataset=dataset)['mAP']:.1f}"


if __name__ == "__main__":
    main()
