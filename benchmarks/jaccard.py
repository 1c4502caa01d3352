"""The k-reciprocal Jaccard distance at Market-1501's size against a dense NumPy one like the published code.

    python benchmarks/jaccard.py

Both are given the same rows and the same neighbours. The dense one runs once.
"""

import argparse
import itertools
import multiprocessing
import time

import jax.numpy as jnp
import measure
import numpy as np

from reid_jax import distances
from reid_jax.distances import k_reciprocal


def make_rows(num_rows: int, dim: int, noise: float) -> np.ndarray:
    """Returns [N, D] float32, L2-normalised: points around 751 identities."""
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((751, dim)).astype(np.float32)
    x = centers[rng.integers(0, 751, num_rows)] + noise * rng.standard_normal((num_rows, dim), dtype=np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def dense_jaccard(x: np.ndarray, ranking: np.ndarray, k1: int, k2: int) -> np.ndarray:
    """Returns [N, N] float32 row by row: dense encodings, and for each of a row's members the rows that share it."""

    def reciprocal(row, k):
        forward = ranking[row, : k + 1]
        return forward[(ranking[forward, : k + 1] == row).any(axis=1)]

    num_rows, half = len(x), int(np.around(k1 / 2))
    near, nearer = ([reciprocal(row, k) for row in range(num_rows)] for k in (k1, half))
    encodings = np.zeros((num_rows, num_rows), np.float32)
    for row, own in enumerate(near):
        added = [nearer[q] for q in own if len(np.intersect1d(nearer[q], own)) > 2 / 3 * len(nearer[q])]
        members = np.unique(np.concatenate([own, *added]))
        weights = np.exp(2 * (x[members] @ x[row]) - 2)
        encodings[row, members] = weights / weights.sum()
    if k2 > 1:
        means = np.empty_like(encodings)
        for row in range(num_rows):
            means[row] = encodings[ranking[row, :k2]].mean(axis=0)
        encodings = means
    sharing = [np.flatnonzero(encodings[:, column]) for column in range(num_rows)]
    result = np.empty((num_rows, num_rows), np.float32)
    for row in range(num_rows):
        common = np.zeros(num_rows, np.float32)
        for column in np.flatnonzero(encodings[row]):
            others = sharing[column]
            common[others] += np.minimum(encodings[row, column], encodings[others, column])
        result[row] = 1 - common / (2 - common)
    return np.maximum(result, 0, out=result)


def greatest_difference(result, dense: np.ndarray) -> float:
    """Returns the greatest difference to a dense [N, N], where what is not stored is 1."""
    greatest = 0.0
    for row, expected in enumerate(dense):
        own = slice(result.indptr[row], result.indptr[row + 1])
        found = np.ones(len(dense), np.float32)
        found[result.indices[own]] = result.data[own]
        greatest = max(greatest, float(np.abs(found - expected).max()))
    return greatest


def compare(args: argparse.Namespace, noise: float, k1: int) -> None:
    """Measures and prints one noise and k1."""
    x = make_rows(args.rows, args.dim, noise)
    on_jax = jnp.asarray(x)
    _, others = distances.nearest_neighbors(on_jax, k=k1, metric="sqeuclidean")
    neighbors = np.column_stack([np.arange(args.rows), others])
    calls = {
        "nearest": lambda: distances.nearest_neighbors(on_jax, k=k1, metric="sqeuclidean"),
        "from neighbours": lambda: k_reciprocal.jaccard_from_neighbors(x, neighbors, k1=k1, k2=args.k2),
        "whole": lambda: distances.jaccard_distances(on_jax, k1=k1, k2=args.k2),
    }
    # Memory first: what a process has once had it may keep, and then a call seems to need less.
    growth = measure.peak_bytes(calls["whole"])
    seconds = measure.take_turns(calls, repeats=args.repeats)
    result = calls["from neighbours"]()
    found = {}

    def dense():
        start = time.perf_counter()
        found["result"] = dense_jaccard(x, neighbors, k1, args.k2)
        found["seconds"] = time.perf_counter() - start

    dense_growth = measure.peak_bytes(dense)
    print(f"N = {args.rows}, D = {args.dim}, noise {noise:g}, k1 = {k1}, k2 = {args.k2}")
    print(f"  nearest_neighbors       {seconds['nearest']:6.2f} s")
    for name, ours, theirs in (
        ("jaccard_from_neighbors", seconds["from neighbours"], found["seconds"]),
        ("jaccard_distances", seconds["whole"], found["seconds"] + seconds["nearest"]),
    ):
        print(f"  {name:23} {ours:6.2f} s   NumPy, same neighbours {theirs:6.2f} s   {ours / theirs:.2f} x NumPy")
    print(
        f"  peak memory beyond x    {growth / 2**30:6.2f} GiB NumPy {dense_growth / 2**30:21.2f} GiB "
        f"{growth / dense_growth:.2f} x NumPy"
    )
    size = result.data.nbytes + result.indices.nbytes + result.indptr.nbytes
    print(
        f"  {result.nnz / args.rows:.0f} of {args.rows} columns stored on average, {size / 2**30:.2f} GiB; "
        f"greatest difference to NumPy {greatest_difference(result, found['result']):.1e}",
        flush=True,
    )


def main() -> None:
    """Measures each noise and k1 in a process of its own, so that memory is measured from zero."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=12_936, help="N")
    parser.add_argument("--dim", type=int, default=2_048, help="D")
    parser.add_argument("--noise", type=float, nargs="+", default=[2, 4], help="2: identities apart; 4: they overlap")
    parser.add_argument("--k1", type=int, nargs="+", default=[20, 30])
    parser.add_argument("--k2", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3, help="rounds; the best counts; NumPy runs once")
    args = parser.parse_args()
    for noise, k1 in itertools.product(args.noise, args.k1):
        process = multiprocessing.get_context("spawn").Process(target=compare, args=(args, noise, k1))
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(process.exitcode)


if __name__ == "__main__":
    main()
