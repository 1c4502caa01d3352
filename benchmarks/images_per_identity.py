"""How near the label-free guess of the images per identity is, on subsets of data sets whose identities are known.

    python benchmarks/images_per_identity.py gallery.npz [more.npz ...]

Each file is one of embed's of a data set whose identities are known. Of every identity as many images are drawn as the
column says; the guess is `image_count.estimate_images_per_identity`. Last is what part of the variance one direction holds, of
the embeddings as they are and whitened: it tells the guess whether they are whitened already.
"""

import sys

import numpy as np

from reid_jax import image_count, postprocess
from reid_jax.retrieval import embedding_files

_IMAGES = (2, 4, 8, 16, 32)
_MOST_IDENTITIES = 100


def main() -> None:
    """Prints a Markdown table, a row for each file."""
    print(
        f"| images of an identity | {' | '.join(map(str, _IMAGES))} | one direction |\n|---|---|{'---|' * len(_IMAGES)}"
    )
    for file in sys.argv[1:]:
        opened = embedding_files.open_embeddings(file)
        embeddings, rng = embedding_files.read_embeddings(opened), np.random.default_rng(0)
        guesses = [guess(embeddings, opened.pids, images, rng) for images in _IMAGES]
        whitened = postprocess.apply(postprocess.fit("pca_whiten", embeddings), embeddings)
        shares = " and ".join(f"{image_count.greatest_share(rows):.3f}" for rows in (embeddings, whitened))
        print(f"| {file} | {' | '.join(guesses)} | {shares} |", flush=True)


def guess(embeddings: np.ndarray, pids: np.ndarray, images: int, rng: np.random.Generator) -> str:
    """The guess for so many images of each identity that has as many, or a dash where fewer than ten have."""
    people, counts = np.unique(pids[pids > 0], return_counts=True)
    enough = rng.permutation(people[counts >= images])[:_MOST_IDENTITIES]
    if len(enough) < 10:
        return "–"
    drawn = np.concatenate([rng.permutation(np.flatnonzero(pids == pid))[:images] for pid in enough])
    return f"{image_count.estimate_images_per_identity(embeddings[drawn]):.1f}"


if __name__ == "__main__":
    main()
