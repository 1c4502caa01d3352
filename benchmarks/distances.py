"""Euclidean distances of Market-1501's training set against NumPy, and its 20 nearest neighbours.

python benchmarks/distances.py
"""

import argparse

import jax.numpy as jnp
import measure
import numpy as np

from reid_jax import distances


def numpy_euclidean(x: np.ndarray) -> np.ndarray:
    """Returns [N, N] float32: one BLAS product, everything else in place."""
    squares = np.square(x).sum(axis=1)
    result = x @ x.T
    result *= -2
    result += squares
    result += squares[:, None]
    np.sqrt(np.maximum(result, 0, out=result), out=result)
    np.fill_diagonal(result, 0)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=12_936, help="N")
    parser.add_argument("--size", type=int, default=2048, help="D")
    parser.add_argument("--repeats", type=int, default=3, help="rounds; the best counts")
    args = parser.parse_args()
    x = np.random.default_rng(0).standard_normal((args.items, args.size)).astype(np.float32)
    on_jax = jnp.asarray(x)
    calls = {
        "NumPy": lambda: numpy_euclidean(x),
        "pairwise_distances": lambda: distances.pairwise_distances(on_jax),
        "pairwise_distances, blocks of 1,024": lambda: distances.pairwise_distances(on_jax, block_size=1024),
        "nearest_neighbors, k = 20": lambda: distances.nearest_neighbors(on_jax, k=20),
    }
    # These first calls compile, too.
    growth = {name: measure.peak_bytes(call) for name, call in calls.items()}
    seconds = measure.take_turns(calls, repeats=args.repeats)
    print(f"N = {args.items}, D = {args.size}")
    for name, value in seconds.items():
        memory = growth[name] / (4 * args.items**2)
        print(f"  {name:36} {value:6.2f} s   {value / seconds['NumPy']:5.2f} x NumPy   {memory:.2f} x N x N float32")


if __name__ == "__main__":
    main()
