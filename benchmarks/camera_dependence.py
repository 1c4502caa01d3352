"""What camera_nmi is of right and wrong labels, beside plain normalised mutual information: where its threshold comes from.

    python benchmarks/camera_dependence.py

People are made up: each is seen by k of K cameras, unevenly. "One camera each" are clusters of mixed people of one camera.
"""

import numpy as np

from reid_jax import cluster_quality, label_metrics

_WORLDS = ((100, 8, 2), (64, 16, 4), (300, 4, 6), (300, 4, 15))  # people, images of each, cameras


def main() -> None:
    """Prints a Markdown table."""
    print("| people x images, cameras | labels | camera_nmi | plain NMI |\n|---|---|---|---|")
    rng = np.random.default_rng(0)
    for people, images, cameras in _WORLDS:
        for name, labels, camids in cases(rng, people, images, cameras):
            plain = cluster_quality.normalized_mutual_information(labels, camids)
            found = label_metrics.camera_dependence(labels, camids)
            print(f"| {people} x {images}, {cameras} | {name} | {found:.2f} | {plain:.2f} |", flush=True)


def cases(rng: np.random.Generator, people: int, images: int, cameras: int) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Labels of several kinds, each with the cameras [N] that they are compared with."""
    pids, camids = world(rng, people, images, cameras, seen_by=cameras)
    rows = [("random", rng.integers(0, people, len(pids)), camids), ("true, seen by all", pids, camids)]
    for seen_by in sorted({2, min(3, cameras)}):
        pids, camids = world(rng, people, images, cameras, seen_by=seen_by)
        rows.append((f"true, seen by {seen_by}", pids, camids))
    moved = np.where(rng.random(len(camids)) < 0.1, rng.integers(0, cameras, len(camids)), camids)
    parts = rng.integers(0, people // cameras + 1, len(camids))
    rows.append(("one camera each", camids * people + parts, camids))
    rows.append(("the same, 10% of the images elsewhere", moved * people + parts, camids))
    return [(name, np.unique(labels, return_inverse=True)[1], cams) for name, labels, cams in rows]


def world(
    rng: np.random.Generator, people: int, images: int, cameras: int, *, seen_by: int
) -> tuple[np.ndarray, np.ndarray]:
    """Identities [N] and cameras [N] of about so many images of each person, by so many of the cameras."""
    pids = np.repeat(np.arange(people), rng.poisson(images - 2, people) + 2)
    camids = np.empty(len(pids), int)
    for person in range(people):
        own, seen = np.flatnonzero(pids == person), rng.permutation(cameras)[:seen_by]
        camids[own] = rng.choice(seen, len(own), p=rng.dirichlet(np.full(seen_by, 2.0)))
    return pids, camids


if __name__ == "__main__":
    main()
