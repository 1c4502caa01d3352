"""CMC, mAP and mINP of Market-1501's size from embeddings, against the loop that existing projects evaluate with.

python benchmarks/evaluation.py
"""

import argparse

import measure
import numpy as np

from reid_jax import evaluate


def plain_loop(query, gallery, query_pids, query_camids, gallery_pids, gallery_camids) -> tuple[float, np.ndarray]:
    """Returns (mAP, CMC [50]) by one argsort and a few passes in Python per query."""
    distances = 1 - normalized(query) @ normalized(gallery).T
    aps, cmcs = [], []
    for row, pid, camid in zip(distances, query_pids, query_camids):
        order = np.argsort(row)
        removed = (gallery_pids[order] == pid) & (gallery_camids[order] == camid)
        hits = (gallery_pids[order] == pid)[~removed].astype(np.int32)
        if not hits.any():
            continue
        found = hits.cumsum()
        cmcs.append(np.minimum(found, 1)[:50])
        precision = np.asarray([count / (place + 1.0) for place, count in enumerate(found)]) * hits
        aps.append(precision.sum() / hits.sum())
    return float(np.mean(aps)), np.mean(cmcs, axis=0)


def normalized(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=3368, help="Q")
    parser.add_argument("--gallery", type=int, default=15_913, help="G")
    parser.add_argument("--size", type=int, default=2048, help="D")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((751, args.size)).astype(np.float32)
    pids = [rng.integers(low, 751, count) for low, count in ((1, args.queries), (0, args.gallery))]
    query, gallery = (centers[own] + 4 * rng.standard_normal((len(own), args.size), np.float32) for own in pids)
    camids = [rng.integers(0, 6, len(own)) for own in pids]
    case = (query, gallery, pids[0], camids[0], pids[1], camids[1])

    growth = measure.peak_bytes(lambda: evaluate.evaluate_embeddings(*case).cmc)
    ours = measure.take_turns({"ours": lambda: evaluate.evaluate_embeddings(*case).cmc}, repeats=3)["ours"]
    results = []
    loop = measure.take_turns({"loop": lambda: results.append(plain_loop(*case))}, repeats=1)["loop"]
    result = evaluate.evaluate_embeddings(*case)
    difference = max(abs(result.mAP - results[0][0]), np.abs(result.cmc - results[0][1]).max())
    print(f"Q = {args.queries}, G = {args.gallery}, D = {args.size}, distances included")
    print(f"  plain loop          {loop:6.2f} s")
    print(f"  evaluate_embeddings {ours:6.2f} s   {loop / ours:.0f} x as fast, peak memory {growth / 2**30:.2f} GiB")
    print(f"  mAP {result.mAP:.4f}; mAP and CMC differ by at most {difference:.1e}")


if __name__ == "__main__":
    main()
