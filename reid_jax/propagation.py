"""Label propagation on small graphs: affinity, its normalisation, the closed form, and the anchors it starts from.

Every function works on one graph of n units and is made to be mapped (`jax.vmap`) over many of the same size; units
that only fill a graph up to that size are marked as not valid and are connected with nothing.
"""

from functools import partial

import jax
import jax.numpy as jnp

from reid_jax.distances import pairwise_distances

_EPSILON = 1e-12


def mutual_neighbors(similarities: jax.Array, *, k: int, valid: jax.Array | None = None) -> jax.Array:
    """Finds the pairs of units that are among each other's k most similar.

    Args:
        similarities: [n, n] float, symmetric; the diagonal does not count.
        k: at least 1; n - 1 or more: every pair. Static.
        valid: [n] bool; others are nobody's neighbour. None: all.

    Returns:
        [n, n] bool, symmetric, False on the diagonal. Units as similar as the k-th are neighbours too.

    Raises:
        ValueError: k is less than 1.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    num_units = len(similarities)
    others = ~jnp.eye(num_units, dtype=bool)
    if valid is not None:
        others &= valid[:, None] & valid
    if k >= num_units - 1:
        return others
    candidates = jnp.where(others, similarities, -jnp.inf)
    near = (candidates >= jax.lax.top_k(candidates, k)[0][:, -1:]) & others
    return near & near.T


def mutual_neighbor_affinity(centers: jax.Array, *, k: int) -> jax.Array:
    """Computes the affinity of HCD eq. (3): the cosine of units that are each other's k nearest, else 0.

    Args:
        centers: [n, D] float, the units' features; any norm.
        k: as in `mutual_neighbors`. Static.

    Returns:
        [n, n] float32, symmetric, 0 on the diagonal. Negative cosines, which no walk on a graph could take, are 0.

    Raises:
        ValueError: centers is not [n, D], or k is less than 1.
    """
    if centers.ndim != 2:
        raise ValueError(f"centers must be [n, D], got shape {centers.shape}")
    cosines = 1 - pairwise_distances(centers, metric="cosine")
    return jnp.where(mutual_neighbors(cosines, k=k), jnp.maximum(cosines, 0), 0)


def normalize_affinity(affinity: jax.Array, *, self_loop: float = 0.0) -> jax.Array:
    """Normalises an affinity by its degrees: S = D^-1/2 A D^-1/2 (Liu et al. 2019, eq. 3).

    Args:
        affinity: [n, n] float, symmetric, >= 0, 0 on the diagonal.
        self_loop: added to every degree, though not to S: the walk loses that share at each step, so that what it
            reaches falls off with the number of steps. 0: nothing is lost.

    Returns:
        [n, n] float32; the eigenvalues are in -1..1. A unit without any affinity has a row of 0.

    Raises:
        ValueError: affinity is not [n, n].
    """
    _check_square("affinity", affinity)
    degrees = self_loop + jnp.sum(affinity, axis=1)
    scale = jnp.where(degrees > 0, jax.lax.rsqrt(jnp.maximum(degrees, _EPSILON)), 0)
    return affinity * scale[:, None] * scale


def propagate_labels(affinity: jax.Array, initial_labels: jax.Array, *, alpha: float = 0.99) -> jax.Array:
    """Propagates labels to the end: P = (I - alpha S)^-1 Y (HCD eq. 2; Zhou et al. 2004).

    Args:
        affinity: [n, n] float, from `normalize_affinity`.
        initial_labels: [n, K] float, Y.
        alpha: the share that a step passes on, 0 <= alpha < 1.

    Returns:
        [n, K] float32: row i is how much of each label unit i has; not normalised.

    Raises:
        ValueError: wrong shapes, or alpha out of its range.
    """
    _check_square("affinity", affinity)
    if initial_labels.ndim != 2 or len(initial_labels) != len(affinity):
        raise ValueError(f"initial_labels must be [n, K] with n = {len(affinity)}, got {initial_labels.shape}")
    if not 0 <= alpha < 1:
        raise ValueError(f"alpha must be at least 0 and less than 1, got {alpha}")
    affinity = affinity.astype(jnp.float32)
    return _solve(jnp.eye(len(affinity)) - alpha * affinity, initial_labels.astype(jnp.float32))  # HCD eq. (2)


@jax.custom_batching.custom_vmap
def _solve(matrix, right_side):
    return jnp.linalg.solve(matrix, right_side)


@_solve.def_vmap
def _solve_all(axis_size, is_batched, matrices, right_sides):
    """Solves many systems, on a CPU one after another.

    LAPACK's batched factorisation waits inside the thread pool for threads of that pool: two at a time, as on two
    virtual devices, wait for each other for ever (jaxlib 0.10 on two cores).
    """
    matrices, right_sides = (
        array if batched else jnp.broadcast_to(array, (axis_size, *array.shape))
        for array, batched in zip((matrices, right_sides), is_batched)
    )
    one_by_one = partial(jax.lax.map, lambda system: _solve(*system))
    solved = jax.lax.platform_dependent(
        (matrices, right_sides), cpu=one_by_one, default=lambda systems: jnp.linalg.solve(*systems)
    )
    return solved, True


def density_peaks(centers: jax.Array, *, num_anchors: int) -> jax.Array:
    """Chooses units of high density that are far from any denser one (Rodriguez and Laio 2014).

    The density is rho_i = sum over the others of exp(-|c_i - c_j|^2), delta_i the distance to the nearest denser unit
    (of the densest: the greatest distance); those with the greatest rho delta are chosen.

    Args:
        centers: [n, D] float, of the norm 1 that the kernel's width 1 is meant for.
        num_anchors: 1..n. Static.

    Returns:
        [num_anchors] int32 indices, from the greatest rho delta on; of equal ones the lower index first.

    Raises:
        ValueError: centers is not [n, D], or num_anchors is out of its range.
    """
    _check_anchors(centers, num_anchors)
    distances = pairwise_distances(centers)
    density = jnp.sum(jnp.exp(-jnp.square(distances)), axis=1)
    prominence, _ = peak_prominence(1 - jnp.square(distances) / 2, density)
    return jax.lax.top_k(prominence, num_anchors)[1]


def peak_prominence(
    similarities: jax.Array, density: jax.Array, *, valid: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Computes rho delta, by which units are density peaks (Rodriguez and Laio 2014), from any density.

    Args:
        similarities: [n, n] float, s_ij = 1 - |c_i - c_j|^2 / 2: the cosines, where the norms are 1.
        density: [n] float, rho; of equal ones the lower index is the denser.
        valid: [n] bool; others are nobody's denser unit, and what they get means nothing. None: all.

    Returns:
        (rho delta [n], infinite for the densest; [n], the similarity to the nearest denser unit, -inf for the densest).
    """
    valid = jnp.ones(len(density), bool) if valid is None else valid
    order = jnp.arange(len(density))
    denser = (density > density[:, None]) | ((density == density[:, None]) & (order < order[:, None]))
    denser &= valid
    nearest = jnp.max(jnp.where(denser, similarities, -jnp.inf), axis=1)
    delta = jnp.sqrt(jnp.maximum(2 - 2 * nearest, 0))
    return jnp.where(jnp.any(denser, axis=1), density * delta, jnp.inf), nearest


def farthest_points(
    similarities: jax.Array, *, num_anchors: int, start: jax.Array | int = 0, valid: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Chooses units one after another, each the least similar to all chosen before (Eldar et al. 1997).

    Args:
        similarities: [n, n] float.
        num_anchors: 1..n. Static.
        start: the first.
        valid: [n] bool; others are not chosen. None: all.

    Returns:
        [num_anchors] int32 indices and [num_anchors] bool: False where the valid units are used up.

    Raises:
        ValueError: similarities is not [n, n], or num_anchors is out of its range.
    """
    _check_square("similarities", similarities)
    _check_anchors(similarities, num_anchors)
    valid = jnp.ones(len(similarities), bool) if valid is None else valid

    def step(index, carry):
        anchors, is_anchor, nearest, left = carry
        farthest = jnp.argmin(jnp.where(left, nearest, jnp.inf)).astype(jnp.int32)
        farthest = jnp.where(index == 0, start, farthest)
        anchors, is_anchor = anchors.at[index].set(farthest), is_anchor.at[index].set(left[farthest])
        return anchors, is_anchor, jnp.maximum(nearest, similarities[farthest]), left.at[farthest].set(False)

    nothing = jnp.zeros(num_anchors, jnp.int32), jnp.zeros(num_anchors, bool)
    nearest = jnp.full(len(similarities), -jnp.inf, similarities.dtype)
    anchors, is_anchor, _, _ = jax.lax.fori_loop(0, num_anchors, step, (*nothing, nearest, valid))
    return anchors, is_anchor


def _check_square(name: str, matrix: jax.Array) -> None:
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"{name} must be [n, n], got shape {matrix.shape}")


def _check_anchors(units: jax.Array, num_anchors: int) -> None:
    if units.ndim != 2:
        raise ValueError(f"centers must be [n, D], got shape {units.shape}")
    if not 1 <= num_anchors <= len(units):
        raise ValueError(f"num_anchors must be in 1..{len(units)}, the number of units, got {num_anchors}")
