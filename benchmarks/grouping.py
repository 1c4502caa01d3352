"""How right group.py's groups are, over the options of the Jaccard distance, and whether those who are alone stay alone.

  python benchmarks/grouping.py [--whiten] gallery.npz [more.npz ...]

Each file is one of embed.py's of a data set whose identities are known. F is BCubed's of all images of known people. Then
all but one image of every second person are taken away: `alone` is how many of these last images are in a group of one.
Then come folders of few images, with k1 = 20 and with the k1 that group.py chooses, and merging to the true number of
people, by the distances of group.py and by the cosine. With --whiten embeddings are whitened first, as group.py does those
of published weights.
"""

import sys

import numpy as np

from reid_jax import cluster_quality, density_clusters, distances, linkage, postprocess
from reid_jax.retrieval import embedding_files, groups

_MIN_SAMPLES, _K1 = 2, 20
_FOLDERS = [(12, 2), (40, 2), (200, 2), (12, 4), (12, 8), (12, 24), (40, 6)]  # people, images of each
_OPTIONS = [(6, 0.5), (6, 0.6), (3, 0.5), (3, 0.6), (2, 0.5), (2, 0.6), (1, 0.5), (1, 0.6)]


def main() -> None:
    """Prints a Markdown table for each file."""
    whitens = "--whiten" in sys.argv
    for file in (argument for argument in sys.argv[1:] if argument != "--whiten"):
        opened = embedding_files.open_embeddings(file)
        known = opened.pids > 0
        raw, pids = embedding_files.read_embeddings(opened)[known], opened.pids[known]
        embeddings = prepared(raw, whitens)
        kept = without_half(pids)
        is_last = ~np.isin(pids, np.unique(pids)[::2])[kept]
        print(f"\n{file}: {len(pids):,} images of {len(np.unique(pids))} people\n")
        print("| k2 | eps | groups | precision | recall | F | alone |\n|---|---|---|---|---|---|---|")
        for k2, eps in _OPTIONS:
            labels = grouped(embeddings, k2, eps)
            scores = " | ".join(f"{100 * score:.1f}" for score in cluster_quality.bcubed(labels, pids))
            thinned = grouped(embeddings[kept], k2, eps)
            alone = (np.bincount(thinned)[thinned] == 1)[is_last]
            print(f"| {k2} | {eps} | {labels.max() + 1} | {scores} | {alone.sum()} of {len(alone)} |", flush=True)
        print(
            "\n| people x images | F, k1 = 20 | k1 of group.py | F, eps = 0.5 | F, eps = 0.6 |\n|---|---|---|---|---|"
        )
        for people, images in _FOLDERS:
            if np.sort(np.bincount(pids))[-people:].min() < images:
                continue
            chosen = some_images(pids, people, images)
            few = prepared(raw[chosen], whitens)
            k1 = groups.choose_k1(few)
            scores = [
                f_of(groups.find_groups(few, eps=eps, min_samples=2, k1=k), pids[chosen])
                for k, eps in ((20, 0.6), (k1, 0.5), (k1, 0.6))
            ]
            print(f"| {people} x {images} | {scores[0]:.1f} | {k1} | {scores[1]:.1f} | {scores[2]:.1f} |", flush=True)
        num_people = len(np.unique(pids))
        merged = groups.merge_to(embeddings, num_people, k1=_K1)
        cosine = np.array(distances.pairwise_distances(embeddings, metric="cosine"))
        by_cosine = linkage.agglomerate(cosine, num_merges=1, num_steps=len(pids) - num_people)
        print(
            f"\nmerged to {num_people}: F {f_of(merged, pids):.1f}, by the cosine {f_of(np.asarray(by_cosine), pids):.1f}"
        )


def prepared(embeddings: np.ndarray, whitens: bool) -> np.ndarray:
    """Embeddings as group.py groups them: L2-normalised, and whitened by themselves where asked for."""
    return postprocess.apply(postprocess.fit("pca_whiten", embeddings) if whitens else None, embeddings)


def f_of(groups: np.ndarray, pids: np.ndarray) -> float:
    """BCubed F in per cent."""
    return 100 * cluster_quality.bcubed(groups, pids)[2]


def some_images(pids: np.ndarray, people: int, images: int) -> np.ndarray:
    """Indices of so many images of so many people, drawn at random."""
    rng = np.random.default_rng(0)
    drawn = rng.permutation(np.unique(pids))[:people]
    return np.concatenate([rng.permutation(np.flatnonzero(pids == pid))[:images] for pid in drawn])


def grouped(embeddings: np.ndarray, k2: int, eps: float) -> np.ndarray:
    """Groups as group.py does: [N], with those in no cluster in groups of one."""
    return groups.with_singletons(
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
