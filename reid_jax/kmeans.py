"""k-means: greedy k-means++ seeding and exact Lloyd iterations, split over devices by rows."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from reid_jax import distances, sharding
from reid_jax.progress import ProgressBar

_STEPS = 8  # seeds or Lloyd iterations between two looks at how far it is
_SAME = 1e-10  # squared distance, against the rows' variance, up to which a row lies on its centroid
_BLOCK = 1024  # rows whose distances to all centroids are held at a time, on every device


class KMeans(NamedTuple):
    """A clustering by k-means.

    Attributes:
        labels: [N] int32, the nearest centroid of every row; of equally near ones the lowest.
        centroids: [K, D] float32, the mean of each cluster's rows.
        inertia: scalar float32, the sum of the squared distances of all rows to their centroids.
        num_iterations: scalar int32, Lloyd iterations of the run that is kept.
        converged: scalar bool, whether its last iteration changed no label.
    """

    labels: jax.Array
    centroids: jax.Array
    inertia: jax.Array
    num_iterations: jax.Array
    converged: jax.Array


class _State(NamedTuple):
    """Between two Lloyd iterations: the centroids are the means that the labels give."""

    labels: jax.Array
    centroids: jax.Array
    num_iterations: jax.Array
    converged: jax.Array


def kmeans(
    key: jax.Array,
    x: jax.Array | np.ndarray,
    *,
    num_clusters: int,
    max_iterations: int = 300,
    num_init: int = 1,
    initial_centroids: jax.Array | np.ndarray | None = None,
    mesh: Mesh | None = None,
) -> KMeans:
    """Clusters rows by Lloyd's algorithm from k-means++ seeds (Arthur and Vassilvitskii, SODA 2007).

    The seeding is greedy: of 2 + log K rows drawn by their squared distance to the seeds so far, the one that leaves
    the least inertia is the next seed. A cluster that loses all its rows is put onto the row farthest from its
    centroid. Only where x has fewer than K different rows can clusters stay empty; their numbers are then in no label.

    Args:
        key: jax PRNG key.
        x: [N, D] float, finite.
        num_clusters: K, 1..N. Static.
        max_iterations: of Lloyd, at least 1; stops earlier where no label changes.
        num_init: seedings to run; the result of least inertia is kept.
        initial_centroids: [K, D] to start from in place of seeds.
        mesh: devices to split the rows over; None: one device.

    Returns:
        The clustering; `converged` says whether max_iterations were enough. On other numbers of devices sums are
        rounded in another order.

    Raises:
        ValueError: x is not [N, D], initial_centroids not [K, D], or an option is out of its range.
    """
    if x.ndim != 2:
        raise ValueError(f"x must be [N, D], got shape {x.shape}")
    if not 1 <= num_clusters <= len(x):
        raise ValueError(f"num_clusters must be in 1..{len(x)}, the number of rows, got {num_clusters}")
    if max_iterations < 1 or num_init < 1:
        raise ValueError(f"max_iterations and num_init must be at least 1, got {max_iterations} and {num_init}")
    if initial_centroids is not None and initial_centroids.shape != (num_clusters, x.shape[1]):
        raise ValueError(
            f"initial_centroids must be [{num_clusters}, {x.shape[1]}], as num_clusters and x are, got shape "
            f"{initial_centroids.shape}"
        )
    mesh = mesh or sharding.make_mesh(1)
    num_rows = len(x)
    filled = np.zeros((-(-num_rows // mesh.size) * mesh.size, x.shape[1]), np.float32)
    filled[:num_rows] = x
    # Distances are exacter near the origin, and do not change with it.
    mean = filled[:num_rows].mean(axis=0, dtype=np.float64).astype(np.float32)
    filled[:num_rows] -= mean
    rows = sharding.put_batch(mesh, filled)
    runs = []
    for seed_key in jax.random.split(key, num_init if initial_centroids is None else 1):
        if initial_centroids is None:
            seeds = _seed(seed_key, rows, num_rows=num_rows, num_clusters=num_clusters)
        else:
            seeds = jnp.asarray(initial_centroids, jnp.float32) - mean
        state = _lloyd(rows, seeds, num_rows=num_rows, max_iterations=max_iterations, mesh=mesh)
        runs.append(_judge(rows, state, num_rows=num_rows, mesh=mesh))
    best = min(runs, key=lambda run: float(run.inertia))
    return best._replace(labels=best.labels[:num_rows], centroids=best.centroids + mean)


def _lloyd(rows: jax.Array, seeds: jax.Array, *, num_rows: int, max_iterations: int, mesh: Mesh) -> _State:
    """Lloyd's iterations; rows [N', D] are filled up with zeros from row N on, which count nowhere."""
    state = _State(jnp.full(len(rows), -1, jnp.int32), seeds, jnp.int32(0), jnp.bool_(False))
    done = 0
    with ProgressBar(max_iterations, "k-means, at most", unit="iterations") as bar:
        while done < max_iterations and not bool(state.converged):
            limit = min(done + _STEPS, max_iterations)
            state = _iterate(rows, state, limit, num_rows=num_rows, mesh=mesh)
            before, done = done, int(state.num_iterations)
            bar.update(done - before)
    return state


@partial(jax.jit, static_argnames=("num_rows", "mesh"))
def _iterate(rows: jax.Array, state: _State, limit: jax.Array, *, num_rows: int, mesh: Mesh) -> _State:
    """Goes on until no label changes, or `limit` iterations are done."""
    is_row = jnp.arange(len(rows)) < num_rows

    def step(state: _State) -> _State:
        labels, sq_distances = _assign(rows, state.centroids, mesh)
        centroids = _means(rows, is_row, labels, sq_distances, state.centroids, mesh=mesh)
        # The same labels have the same means.
        is_same = jnp.all((labels == state.labels) | ~is_row)
        return _State(labels, centroids, state.num_iterations + 1, is_same)

    return jax.lax.while_loop(lambda state: ~state.converged & (state.num_iterations < limit), step, state)


@partial(jax.jit, static_argnames=("num_rows", "mesh"))
def _judge(rows: jax.Array, state: _State, *, num_rows: int, mesh: Mesh) -> KMeans:
    """Returns the clustering around the last centroids; the state's labels are of those before where it was cut off."""
    is_row = jnp.arange(len(rows)) < num_rows
    labels, _ = _assign(rows, state.centroids, mesh)
    # Term by term: from the expanded squares of the assignment the small ones would have few digits left.
    inertia = jnp.sum(jnp.where(is_row[:, None], jnp.square(rows - state.centroids[labels]), 0))
    return KMeans(labels, state.centroids, inertia, state.num_iterations, state.converged)


def _seed(key: jax.Array, rows: jax.Array, *, num_rows: int, num_clusters: int) -> jax.Array:
    """Draws the K first centroids [K, D] among the N first rows by greedy k-means++."""
    first = jax.random.randint(jax.random.fold_in(key, 0), (1,), 0, num_rows)
    seeds = jnp.zeros(num_clusters, jnp.int32).at[0].set(first[0])
    sq_norms = jnp.sum(jnp.square(rows), axis=1)
    nearest = _sq_distances_to(rows, sq_norms, first, num_rows)[:, 0]
    with ProgressBar(num_clusters, "k-means++", unit="seeds") as bar:
        for start in range(1, num_clusters, _STEPS):
            stop = min(start + _STEPS, num_clusters)
            seeds, nearest = _add_seeds(key, rows, sq_norms, seeds, nearest, start, stop, num_rows=num_rows)
            bar.update(stop - start)
    return rows[seeds]


@partial(jax.jit, static_argnames="num_rows")
def _sq_distances_to(rows: jax.Array, sq_norms: jax.Array, chosen: jax.Array, num_rows: int) -> jax.Array:
    """Squared distances [N', C] of the rows to the rows chosen [C]; 0 to filled-up rows."""
    products = jnp.matmul(rows, rows[chosen].T, precision=jax.lax.Precision.HIGHEST)
    sq_distances = jnp.maximum(sq_norms[:, None] + sq_norms[chosen] - 2 * products, 0)
    return jnp.where((jnp.arange(len(rows)) < num_rows)[:, None], sq_distances, 0)


@partial(jax.jit, static_argnames="num_rows")
def _add_seeds(
    key: jax.Array,
    rows: jax.Array,
    sq_norms: jax.Array,
    seeds: jax.Array,
    nearest: jax.Array,
    start: jax.Array,
    stop: jax.Array,
    *,
    num_rows: int,
) -> tuple[jax.Array, jax.Array]:
    """Draws the seeds start..stop - 1; nearest [N'] are the rows' squared distances to the nearest seed so far."""
    num_candidates = 2 + int(np.log(len(seeds)))

    def add(index, carry):
        seeds, nearest = carry
        # Where all rows lie on seeds, any row is as good.
        weights = jnp.where(jnp.any(nearest > 0), nearest, jnp.arange(len(rows)) < num_rows)
        candidates = jax.random.choice(
            jax.random.fold_in(key, index), len(rows), (num_candidates,), p=weights / jnp.sum(weights)
        )
        nearer = jnp.minimum(nearest[:, None], _sq_distances_to(rows, sq_norms, candidates, num_rows))
        best = jnp.argmin(jnp.sum(nearer, axis=0))
        return seeds.at[index].set(candidates[best]), nearer[:, best]

    return jax.lax.fori_loop(start, stop, add, (seeds, nearest))


def _assign(rows: jax.Array, centroids: jax.Array, mesh: Mesh) -> tuple[jax.Array, jax.Array]:
    """Returns the nearest centroid of every row [N'] int32, and the squared distances [N'] to it."""
    split, whole = PartitionSpec(sharding.BATCH_AXIS), PartitionSpec()

    @partial(jax.shard_map, mesh=mesh, in_specs=(split, whole), out_specs=split, check_vma=False)
    def assign(own, centroids):
        sq_norms = jnp.sum(jnp.square(centroids), axis=1)

        def block(start, size):
            part = jax.lax.dynamic_slice_in_dim(own, start, size)
            products = jnp.matmul(part, centroids.T, precision=jax.lax.Precision.HIGHEST)
            # The row's own norm is the same for all centroids: it comes in only where the distance itself is wanted.
            scores = sq_norms - 2 * products
            labels = jnp.argmin(scores, axis=1).astype(jnp.int32)
            least = jnp.take_along_axis(scores, labels[:, None], axis=1)[:, 0]
            return labels, jnp.maximum(least + jnp.sum(jnp.square(part), axis=1), 0)

        return distances.by_row_blocks(block, len(own), _BLOCK)

    return assign(rows, centroids)


def _means(
    rows: jax.Array, is_row: jax.Array, labels: jax.Array, sq_distances: jax.Array, before: jax.Array, *, mesh: Mesh
) -> jax.Array:
    """Returns the clusters' means [K, D]; empty ones get the rows farthest from their centroids `before`, in order.

    Rows that lie on their centroids are not taken: then there are fewer different rows than clusters, and an empty
    cluster keeps its centroid.
    """
    split, whole = PartitionSpec(sharding.BATCH_AXIS), PartitionSpec()
    num_clusters = len(before)

    @partial(jax.shard_map, mesh=mesh, in_specs=(split, split, split), out_specs=(whole, whole), check_vma=False)
    def add_up(own, is_own, labels):
        # Filled-up rows are zeros, so that only counting must leave them out.
        sums = jax.ops.segment_sum(own, labels, num_clusters)
        counts = jax.ops.segment_sum(is_own.astype(jnp.float32), labels, num_clusters)
        return jax.lax.psum((sums, counts), sharding.BATCH_AXIS)

    sums, counts = add_up(rows, is_row, labels)

    def move(sums, counts):
        empty = counts == 0
        _, farthest = jax.lax.top_k(jnp.where(is_row, sq_distances, -1), num_clusters)
        taken = farthest[jnp.cumsum(empty) - 1]  # [K], of use where the cluster is empty
        # Term by term, as the expanded squares do not tell what is 0.
        apart = jnp.sum(jnp.square(rows[taken] - before[labels[taken]]), axis=1)
        moves = empty & (apart > _SAME * jnp.mean(jnp.sum(jnp.square(rows), axis=1)))
        moved = jnp.where(moves[:, None], rows[taken], 0)
        sources = jnp.where(moves, labels[taken], num_clusters)  # out of range where nothing is taken
        sums = sums.at[sources].add(-moved, mode="drop") + moved
        counts = counts.at[sources].add(-1.0, mode="drop") + moves
        return sums, counts

    sums, counts = jax.lax.cond(jnp.any(counts == 0), move, lambda *unchanged: unchanged, sums, counts)
    return jnp.where((counts > 0)[:, None], sums / jnp.maximum(counts, 1)[:, None], before)
