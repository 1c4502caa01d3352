"""The 10 nearest of a gallery of a million rows for 100 queries, against NumPy by blocks and faiss's IndexFlatIP.

    python benchmarks/gallery_search.py

All rows have length 1, so that the cosine is the inner product. The gallery lies in memory. faiss copies it into its
index, which counts as its memory but not in its seconds; where faiss-cpu is not installed it is left out. faiss 1.15
uses no BLAS for so few queries unless it is told to, which here is several times faster: both are measured.
"""

import argparse
import os
import resource
from collections.abc import Callable, Iterator

import measure
import numpy as np
import threadpoolctl

from reid_jax.retrieval import gallery_search

BLOCK = 65_536  # rows that are made, given and, by NumPy, compared at a time


def blocks_of(rows: np.ndarray) -> Iterator[np.ndarray]:
    """Yields slices."""
    for start in range(0, len(rows), BLOCK):
        yield rows[start : start + BLOCK]


def make_rows(num_queries: int, num_rows: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns query [Q, D] and gallery [G, D] float32, L2-normalised; every query lies near to one gallery row."""
    rng = np.random.default_rng(0)
    gallery = np.empty((num_rows, dim), np.float32)
    for block in blocks_of(gallery):
        rng.standard_normal(out=block, dtype=np.float32)
        block /= np.linalg.norm(block, axis=1, keepdims=True)
    noise = rng.standard_normal((num_queries, dim), np.float32) / np.sqrt(np.float32(dim))
    query = gallery[rng.integers(0, num_rows, num_queries)] + noise
    return query / np.linalg.norm(query, axis=1, keepdims=True), gallery


def numpy_search(query: np.ndarray, gallery: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns similarities [Q, K], descending, and indices: products by blocks, the k best of each by argpartition."""
    similarities, indices = np.empty((len(query), 0), np.float32), np.empty((len(query), 0), np.int64)
    start = 0
    for block in blocks_of(gallery):
        products = query @ block.T
        best = np.argpartition(-products, min(k, len(block)) - 1, axis=1)[:, :k]
        similarities = np.concatenate([similarities, np.take_along_axis(products, best, axis=1)], axis=1)
        indices = np.concatenate([indices, start + best], axis=1)
        start += len(block)
    order = np.argsort(-similarities, axis=1)[:, :k]
    return np.take_along_axis(similarities, order, axis=1), np.take_along_axis(indices, order, axis=1)


def check_same(name: str, found: tuple, expected: tuple) -> None:
    """Prints how many neighbours are the expected ones in the same place, and by how much their similarities differ."""
    same = np.mean(found[1] == expected[1])
    difference = np.abs(found[0] - expected[0]).max()
    print(
        f"  {name:17} {100 * same:.2f}% of the neighbours as NumPy's, similarities differ by at most {difference:.1e}"
    )
    if difference > 1e-5:
        raise SystemExit(f"{name} found others than NumPy")


def import_faiss():
    """Returns faiss, or None where it is not installed; its own OpenBLAS computes for the CPU that NumPy's found."""
    # The OpenBLAS in faiss's wheels takes CPUs that are newer than itself for very old ones.
    for library in threadpoolctl.threadpool_info():
        if library["internal_api"] == "openblas":
            os.environ.setdefault("OPENBLAS_CORETYPE", library["architecture"])
    try:
        import faiss
    except ImportError:
        print("faiss-cpu is not installed: left out")
        return None
    return faiss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=100, help="Q")
    parser.add_argument("--gallery", type=int, default=1_000_000, help="G")
    parser.add_argument("--size", type=int, default=512, help="D")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3, help="rounds; the best counts")
    args = parser.parse_args()
    query, gallery = make_rows(args.queries, args.gallery, args.size)
    found, growth = {}, {}

    def ours():
        ranking = gallery_search.search_gallery(query, blocks_of(gallery), k=args.k)
        found["search_gallery"] = 1 - ranking.distances, ranking.indices

    def plain():
        found["NumPy"] = numpy_search(query, gallery, args.k)

    calls: dict[str, Callable] = {"search_gallery": ours, "NumPy": plain}
    growth["search_gallery"] = measure.peak_bytes(ours)  # compiles, too
    whole = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    growth["NumPy"] = measure.peak_bytes(plain)
    faiss = import_faiss()
    if faiss is not None:
        index = faiss.IndexFlatIP(args.size)
        index_bytes = measure.peak_bytes(lambda: index.add(gallery))
        usual = faiss.cvar.distance_compute_blas_threshold
        for name, threshold in (("faiss", usual), ("faiss, with BLAS", 20)):

            def theirs(name=name, threshold=threshold):
                faiss.cvar.distance_compute_blas_threshold = threshold
                found[name] = index.search(query, args.k)

            calls[name] = theirs
            growth[name] = index_bytes + measure.peak_bytes(theirs)
    seconds = measure.take_turns(calls, repeats=args.repeats)
    print(f"Q = {args.queries}, G = {args.gallery}, D = {args.size}, k = {args.k}")
    for name, value in seconds.items():
        print(
            f"  {name:17} {value:7.2f} s   {value / seconds['NumPy']:5.2f} x NumPy   "
            f"peak memory beyond the gallery {growth[name] / 1e9:.2f} GB"
        )
    print(
        f"  gallery {gallery.nbytes / 1e9:.2f} GB; the whole process after search_gallery, with Python and jax, "
        f"{whole / 1e9:.2f} GB at its peak"
    )
    for name in [name for name in calls if name != "NumPy"]:
        check_same(name, found[name], found["NumPy"])


if __name__ == "__main__":
    main()
