"""HCT's merge steps at Market-1501's size against fastcluster's whole average linkage of the same matrix.

python benchmarks/linkage.py
"""

import argparse

import fastcluster
import jax.numpy as jnp
import measure
import numpy as np
from scipy.spatial.distance import squareform

from reid_jax import linkage


def make_embeddings(kind: str, num_items: int) -> np.ndarray:
    """Returns [N, 128] float32: points around 751 identities, or without any structure."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((num_items, 128)).astype(np.float32)
    centers = rng.standard_normal((751, 128)).astype(np.float32)
    return noise if kind == "noise" else centers[rng.integers(0, 751, num_items)] + 0.9 * noise


def euclidean(x: np.ndarray) -> np.ndarray:
    """Returns [N, N] float32 without a second matrix."""
    squares = np.square(x).sum(axis=1)
    distances = x @ x.T
    distances *= -2
    distances += squares
    distances += squares[:, None]
    np.fill_diagonal(np.sqrt(np.maximum(distances, 0, out=distances), out=distances), 0)
    return distances


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=12_936, help="N")
    parser.add_argument("--steps", type=int, default=13, help="s; m is int(0.07 N)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds; the best counts")
    args = parser.parse_args()
    steps = {"num_merges": int(0.07 * args.items), "num_steps": args.steps}
    for kind in ("identities", "noise"):
        distances = euclidean(make_embeddings(kind, args.items))
        growth = measure.peak_bytes(lambda: linkage.agglomerate(distances, **steps))
        on_jax = jnp.asarray(distances)
        condensed = squareform(distances, checks=False).astype(np.float64)

        def overwriting():
            own = condensed.copy()
            return lambda: fastcluster.linkage(own, method="average", preserve_input=False)

        seconds = measure.take_turns(
            {
                "fastcluster, input preserved": lambda: fastcluster.linkage(condensed, method="average"),
                "fastcluster, input overwritten": overwriting,
                "agglomerate, numpy array": lambda: linkage.agglomerate(distances, **steps),
                "agglomerate, jax array": lambda: linkage.agglomerate(on_jax, **steps),
            },
            repeats=args.repeats,
        )
        least = min(seconds[name] for name in seconds if name.startswith("fastcluster"))
        print(f"{kind}: N = {args.items}, {steps['num_steps']} steps of {steps['num_merges']}")
        for name, value in seconds.items():
            print(f"  {name:31} {value:6.2f} s   {value / least:5.2f} x the faster fastcluster")
        print(f"  peak memory, given matrix included: {1 + growth / distances.nbytes:.2f} x N x N float32", flush=True)


if __name__ == "__main__":
    main()
