"""Re-ranking with k-reciprocal neighbours against a dense NumPy one like the published code.

    python benchmarks/reranking.py

The dense one holds several arrays of all N x N numbers, N = Q + G, and runs once, where they fit into memory.
"""

import argparse
import multiprocessing
import time

import jaccard
import measure
import numpy as np

from reid_jax import distances

_MOST_DENSE_ROWS = 20_000  # N, of which the dense one still fits into 24 GiB


def dense_reranking(query: np.ndarray, gallery: np.ndarray, rerank: distances.Reranking) -> np.ndarray:
    """Returns [Q, G] float32 from all N x N distances, their full ranking, and dense encodings."""
    x, num_queries = np.concatenate([query, gallery]), len(query)
    original = 2 - 2 * x @ x.T
    np.maximum(original, 0, out=original)
    np.fill_diagonal(original, 0)
    original /= original.max(axis=1, keepdims=True)
    ranking = np.argsort(original, axis=1).astype(np.int32)

    def reciprocal(row, k):
        forward = ranking[row, : k + 1]
        return forward[(ranking[forward, : k + 1] == row).any(axis=1)]

    encodings = np.zeros_like(original)
    for row in range(len(x)):
        own = reciprocal(row, rerank.k1)
        halves = [reciprocal(candidate, int(np.around(rerank.k1 / 2))) for candidate in own]
        added = [half for half in halves if len(np.intersect1d(half, own)) > 2 / 3 * len(half)]
        members = np.unique(np.concatenate([own, *added]))
        weights = np.exp(-original[row, members])
        encodings[row, members] = weights / weights.sum()
    means = np.empty_like(encodings)
    for row in range(len(x)):
        means[row] = encodings[ranking[row, : rerank.k2]].mean(axis=0)
    sharing = [np.flatnonzero(means[:, column]) for column in range(len(x))]
    result = np.empty((num_queries, len(x)), np.float32)
    for row in range(num_queries):
        common = np.zeros(len(x), np.float32)
        for column in np.flatnonzero(means[row]):
            others = sharing[column]
            common[others] += np.minimum(means[row, column], means[others, column])
        result[row] = 1 - common / (2 - common)
    result *= 1 - rerank.original_weight
    result += rerank.original_weight * original[:num_queries]
    return result[:, num_queries:]


def compare(args: argparse.Namespace, num_gallery: int) -> None:
    """Measures and prints one size of the gallery."""
    x = jaccard.make_rows(args.queries + num_gallery, args.size, args.noise)
    query, gallery = x[: args.queries], x[args.queries :]
    rerank = distances.Reranking()

    def ours():
        for _ in distances.reranked_distances(query, gallery, **rerank._asdict()):
            pass

    print(f"Q = {args.queries}, G = {num_gallery}, D = {args.size}, {rerank}")
    # Memory first: what a process has once had it may keep, and then a call seems to need less.
    growth = measure.peak_bytes(ours)
    seconds = measure.take_turns({"ours": ours}, repeats=args.repeats)["ours"]
    print(f"  reranked_distances {seconds:7.2f} s   peak memory beyond the rows {growth / 2**30:5.2f} GiB", flush=True)
    if len(x) > _MOST_DENSE_ROWS:
        print(f"  one array of the dense one, N x N float32, has {4 * len(x) ** 2 / 2**30:.0f} GiB", flush=True)
        return
    found = {}

    def dense():
        start = time.perf_counter()
        found["result"] = dense_reranking(query, gallery, rerank)
        found["seconds"] = time.perf_counter() - start

    growth = measure.peak_bytes(dense)
    print(f"  NumPy, dense       {found['seconds']:7.2f} s   peak memory beyond the rows {growth / 2**30:5.2f} GiB")
    difference, same = 0.0, []
    for start, block in distances.reranked_distances(query, gallery, **rerank._asdict()):
        expected = found["result"][start : start + len(block)]
        difference = max(difference, float(np.abs(block - expected).max()))
        nearest = (np.argsort(rows, axis=1)[:, :10] for rows in (block, expected))
        same.append(np.equal(*nearest).mean(axis=1))
    print(
        f"  greatest difference {difference:.1e}; {100 * np.concatenate(same).mean():.2f}% of the first 10 in the same place",
        flush=True,
    )


def main() -> None:
    """Measures each gallery in a process of its own, so that memory is measured from zero."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=1_000, help="Q")
    parser.add_argument("--gallery", type=int, nargs="+", default=[10_000, 100_000], help="G")
    parser.add_argument("--size", type=int, default=256, help="D")
    parser.add_argument("--noise", type=float, default=2, help="2: identities apart; 4: they overlap")
    parser.add_argument("--repeats", type=int, default=1, help="rounds; the best counts; NumPy runs once")
    args = parser.parse_args()
    for num_gallery in args.gallery:
        process = multiprocessing.get_context("spawn").Process(target=compare, args=(args, num_gallery))
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(process.exitcode)


if __name__ == "__main__":
    main()
