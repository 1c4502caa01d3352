"""How right group.py's groups are, over the options of the Jaccard distance, and whether those who are alone stay alone.

  python benchmarks/grouping.py gallery.npz [more.npz ...]

Each file is one of embed.py's of a data set whose identities are known. F is BCubed's of all images of known people. Then
all but one image of every second person are taken away: `alone` is how many of these last images are in a group of one.
"""

import sys

import numpy as np

from experiments import group
from reid_jax import cluster_quality, density_clusters, embedding_files

_MIN_SAMPLES, _K1 = 2, 20
_OPTIONS = [(6, 0.5), (6, 0.6), (3, 0.5), (3, 0.6), (2, 0.5), (2, 0.6), (1, 0.5), (1, 0.6)]


def main() -> None:
    """Prints a Markdown table for each file."""
    for file in sys.argv[1:]:
        opened = embedding_files.open_embeddings(file)
        known = opened.pids > 0
        embeddings, pids = embedding_files.read_embeddings(opened)[known], opened.pids[known]
        kept = without_half(pids)
        is_last = ~np.isin(pids, np.unique(pids)[::2])[kept]
        print(f"\n{file}: {len(pids):,} images of {len(np.unique(pids))} people\n")
        print("| k2 | eps | groups | precision | recall | F | alone |\n|---|---|---|---|---|---|---|")
        for k2, eps in _OPTIONS:
            groups = grouped(embeddings, k2, eps)
            scores = " | ".join(f"{100 * score:.1f}" for score in cluster_quality.bcubed(groups, pids))
            thinned = grouped(embeddings[kept], k2, eps)
            alone = (np.bincount(thinned)[thinned] == 1)[is_last]
            print(f"| {k2} | {eps} | {groups.max() + 1} | {scores} | {alone.sum()} of {len(alone)} |", flush=True)


def grouped(embeddings: np.ndarray, k2: int, eps: float) -> np.ndarray:
    """Groups as group.py does: [N], with those in no cluster in groups of one."""
    return group.with_lone(
        density_clusters.jaccard_dbscan(embeddings, eps=eps, min_samples=_MIN_SAMPLES, k1=_K1, k2=k2)
    )


def without_half(pids: np.ndarray) -> np.ndarray:
    """Indices of all images of every second person, and of one image of the others."""
    whole = np.isin(pids, np.unique(pids)[::2])
    first = np.zeros(len(pids), bool)
    first[np.unique(pids, return_index=True)[1]] = True
    return np.flatnonzero(whole | first)


if __name__ == "__main__":
    main()
