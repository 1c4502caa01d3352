"""k-means at Market-1501's size against scikit-learn's: a Lloyd iteration, and seeding, on the same cores.

    python benchmarks/kmeans.py
    python benchmarks/kmeans.py --features=coil100_mobilenet_features.npz --clusters=50

Both start from the same centroids and make the same number of iterations; what they end with is compared as well. With
--features, whole runs with seeds of their own are compared by their inertia, on the rows of a file.
"""

import argparse

import jax
import measure
import numpy as np
from sklearn import cluster

from reid_jax import kmeans


def make_rows(num_rows: int, dim: int) -> np.ndarray:
    """Returns [N, D] float32: points around 751 identities that overlap, so that Lloyd does not end at once."""
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((751, dim)).astype(np.float32)
    return centers[rng.integers(0, 751, num_rows)] + 4 * rng.standard_normal((num_rows, dim), dtype=np.float32)


def compare_inertia(path: str, num_clusters: int) -> None:
    """Prints the inertia of whole runs, each with three seeds, on the train rows of an .npz's `embeddings`."""
    with np.load(path, allow_pickle=False) as arrays:
        x = arrays["embeddings"].astype(np.float32)
        if "split" in arrays:
            x = x[arrays["split"] == "train"]
    found = {"scikit-learn": [], "reid_jax": []}
    for seed in range(3):
        found["scikit-learn"].append(cluster.KMeans(num_clusters, n_init=1, random_state=seed, tol=0).fit(x).inertia_)
        found["reid_jax"].append(float(kmeans.kmeans(jax.random.key(seed), x, num_clusters=num_clusters).inertia))
    print(f"inertia on {len(x)} rows of {x.shape[1]}, K = {num_clusters}, seeds 0, 1, 2")
    for name, values in found.items():
        ratio = np.mean(values) / np.mean(found["scikit-learn"])
        print(f"  {name:14} {', '.join(f'{value:.2f}' for value in values)}   mean {ratio:.4f} x scikit-learn's")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=12_936, help="N")
    parser.add_argument("--dim", type=int, default=2_048, help="D")
    parser.add_argument("--clusters", type=int, default=750, help="K")
    parser.add_argument("--iterations", type=int, default=8, help="Lloyd iterations that are timed")
    parser.add_argument("--repeats", type=int, default=3, help="rounds; the best counts")
    parser.add_argument("--features", help=".npz to compare whole runs on, in place of measuring time")
    args = parser.parse_args()
    if args.features:
        compare_inertia(args.features, args.clusters)
        return
    x = make_rows(args.rows, args.dim)
    initial = x[np.random.default_rng(1).permutation(len(x))[: args.clusters]]
    found = {}

    def ours(iterations):
        def call():
            result = kmeans.kmeans(
                jax.random.key(0),
                x,
                num_clusters=args.clusters,
                max_iterations=iterations,
                initial_centroids=initial,
            )
            found["reid_jax", iterations] = result
            return result

        return call

    def theirs(iterations):
        def call():
            model = cluster.KMeans(args.clusters, init=initial, n_init=1, max_iter=iterations, tol=0)
            found["scikit-learn", iterations] = model.fit(x)

        return call

    few, many = 1, 1 + args.iterations
    calls = {(name, n): call(n) for n in (few, many) for name, call in (("scikit-learn", theirs), ("reid_jax", ours))}
    for call in calls.values():  # compiles
        jax.block_until_ready(call())
    seconds = measure.take_turns(calls, repeats=args.repeats)
    print(f"N = {args.rows}, D = {args.dim}, K = {args.clusters}, on {jax.devices()[0].device_kind}")
    per_iteration = {}
    for name in ("scikit-learn", "reid_jax"):
        # The difference leaves out what is done once: copying, centring, the last assignment.
        per_iteration[name] = (seconds[name, many] - seconds[name, few]) / args.iterations
        ratio = per_iteration[name] / per_iteration["scikit-learn"]
        print(f"  Lloyd iteration, {name:14} {per_iteration[name]:8.3f} s   {ratio:5.2f} x scikit-learn")
    theirs_end, ours_end = found["scikit-learn", many], found["reid_jax", many]
    same = np.mean(np.asarray(ours_end.labels) == theirs_end.labels_)
    print(
        f"  after {many} iterations: {100 * same:.2f}% of the labels agree, inertia "
        f"{float(ours_end.inertia) / theirs_end.inertia_:.5f} x scikit-learn's"
    )

    def seed_ours():
        return kmeans.kmeans(jax.random.key(0), x, num_clusters=args.clusters, max_iterations=1)

    def seed_theirs():
        cluster.kmeans_plusplus(x, args.clusters, random_state=0)

    jax.block_until_ready(seed_ours())
    seconds = measure.take_turns({"scikit-learn": seed_theirs, "reid_jax": seed_ours}, repeats=1)
    print(
        f"  seeding, scikit-learn {seconds['scikit-learn']:.1f} s; reid_jax, one Lloyd iteration included, "
        f"{seconds['reid_jax']:.1f} s"
    )
    growth = measure.peak_bytes(ours(2))
    print(f"  peak memory beyond x: {growth / 2**30:.2f} GiB")


if __name__ == "__main__":
    main()
