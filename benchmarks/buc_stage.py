"""One merge stage of BUC at Market-1501's size, distances included, against the stage's definition in plain NumPy.

    python benchmarks/buc_stage.py

The definition is how the published reference does it: the distances of all pairs, lambda (|A| + |B|) added, all N^2
of them sorted, and labels rewritten pair by pair until m clusters are gone.
"""

import argparse

import jax
import measure
import numpy as np

from reid_jax import linkage
from reid_jax.distances import dissimilarity
from reid_jax.embeddings import Features


def make_embeddings(num_items: int, dim: int) -> np.ndarray:
    """Returns [N, D] float32, L2-normalised: points around 751 identities."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((num_items, dim)).astype(np.float32)
    centers = rng.standard_normal((751, dim)).astype(np.float32)
    embeddings = centers[rng.integers(0, 751, num_items)] + noise
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


def stage(embeddings: np.ndarray, labels: np.ndarray, num_merges: int, size_penalty: float) -> np.ndarray:
    """Our stage, as experiments/buc.py has it."""
    distances = dissimilarity.dissimilarities(Features(embeddings))
    return linkage.agglomerate(
        distances,
        num_merges=num_merges,
        num_steps=1,
        linkage="single",
        size_penalty=size_penalty,
        initial_labels=labels,
    )


def plain_stage(embeddings: np.ndarray, labels: np.ndarray, num_merges: int, size_penalty: float) -> np.ndarray:
    """BUC eq. (4), (6) over all pairs of samples: a pair of clusters comes first at its least distance."""
    squares = np.square(embeddings).sum(axis=1)
    distances = squares[:, None] + squares - 2 * (embeddings @ embeddings.T)
    distances = np.sqrt(np.maximum(distances, 0))
    sizes = np.bincount(labels)[labels].astype(np.float32)
    distances += np.float32(size_penalty) * (sizes[:, None] + sizes)
    distances[np.tril_indices(len(labels))] = np.inf
    distances[labels[:, None] == labels] = np.inf
    first, second = np.unravel_index(np.argsort(distances, axis=None), distances.shape)
    labels, left = labels.copy(), num_merges
    for a, b in zip(first, second):
        if labels[a] != labels[b]:
            labels[labels == max(labels[a], labels[b])] = min(labels[a], labels[b])
            left -= 1
        if not left:
            break
    return np.unique(labels, return_inverse=True)[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=12_936, help="N")
    parser.add_argument("--dim", type=int, default=2_048, help="D")
    parser.add_argument("--stages", type=int, nargs="*", default=[0, 8, 16], help="stages to measure at")
    parser.add_argument("--size_penalty", type=float, default=0.003, help="lambda")
    parser.add_argument("--repeats", type=int, default=2, help="rounds; the best counts")
    args = parser.parse_args()
    embeddings, num_merges = make_embeddings(args.items, args.dim), int(0.05 * args.items)
    labels = np.arange(args.items, dtype=np.int32)
    growth = measure.peak_bytes(lambda: stage(embeddings, labels, num_merges, args.size_penalty))
    for number in range(max(args.stages) + 1):
        if number in args.stages:
            results = {}

            def keeping(name, function, labels=labels):
                def call():
                    results[name] = function(embeddings, labels, num_merges, args.size_penalty)

                return call

            calls = {"plain NumPy": keeping("plain", plain_stage), "this library": keeping("ours", stage)}
            seconds = measure.take_turns(calls, repeats=args.repeats)
            same = np.mean(results["plain"] == results["ours"])
            print(
                f"N = {args.items}, D = {args.dim}, stage {number}: {len(np.unique(labels))} clusters, "
                f"m = {num_merges}, on {jax.devices()[0].device_kind}"
            )
            for name, value in seconds.items():
                print(f"  {name:14} {value:7.2f} s   {seconds['plain NumPy'] / value:5.1f} x as fast as plain NumPy")
            print(f"  labels that agree: {100 * same:.2f}%", flush=True)
        labels = stage(embeddings, labels, num_merges, args.size_penalty)
        growth = max(growth, measure.peak_bytes(lambda: stage(embeddings, labels, num_merges, args.size_penalty)))
    print(f"peak memory beyond the features, of stages 0..{max(args.stages) + 1}: {growth / 2**30:.2f} GiB")


if __name__ == "__main__":
    main()
