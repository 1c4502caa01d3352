"""Post-processing of embeddings, fitted without labels: centring, per camera too, and PCA whitening.

Embeddings of one network lie in a narrow cone around their mean, and a few directions, the camera's among them, hold most
of their variance. Taking the mean away and bringing the leading directions to one variance (Jegou and Chum 2012, "Negative
evidences and co-occurrences in image retrieval: the benefit of PCA and whitening") makes cosine similarities tell more.
"""

import hashlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from reid_jax import identities
from reid_jax.embeddings import l2_normalize, unit_vectors

KINDS = ("none", "center", "camera_center", "pca_whiten", "camera_whiten")
CAMERA_KINDS = ("camera_center", "camera_whiten")
WHITENING_KINDS = ("pca_whiten", "camera_whiten")
# Added to every direction's variance, as a part of the greatest one: directions of little variance are mostly noise
# where there are few images. Measured on frozen features of vehicles and COIL-100: docs/results.md.
SHRINKAGE = 0.03
_MOST_CAMERA = np.iinfo(np.int32).max
# The least mean squared distance from the mean, of embeddings of length 1: what is nearer differs by rounding.
_LEAST_SPREAD = 1e-10


class Postprocess(NamedTuple):
    """What was fitted. D: of the embeddings that come in, D': of those that come out.

    Attributes:
        kind: one of `KINDS` but "none".
        mean: [D] float32.
        cameras: [K] int32, cameras with a mean of their own, ascending; empty but for `CAMERA_KINDS`.
        camera_means: [K, D] float32.
        projection: [D, D'] float32 where there is whitening, [0, 0] otherwise: nothing is projected.
    """

    kind: str
    mean: np.ndarray
    cameras: np.ndarray
    camera_means: np.ndarray
    projection: np.ndarray

    @property
    def dim(self) -> int:
        """D'."""
        return self.projection.shape[1] or self.mean.shape[0]


def arrays(fitted: Postprocess) -> dict[str, np.ndarray]:
    """Returns what was fitted by its names, without its kind and what is empty."""
    return {name: value for name, value in fitted._asdict().items() if name != "kind" and value.size}


def from_arrays(kind: str, arrays: dict[str, Any]) -> Postprocess:
    """Returns what `arrays` was given; the arrays may be JAX's."""
    dim = len(arrays["mean"])
    empty = {
        "cameras": np.zeros(0, np.int32),
        "camera_means": np.zeros((0, dim), np.float32),
        "projection": np.zeros((0, 0), np.float32),
    }
    return Postprocess(kind, **(empty | arrays))


def digest(model: str, fitted: Postprocess | None) -> str:
    """Returns what tells embeddings apart: the digest of their model's weights, with that of what was fitted."""
    if fitted is None:
        return model
    hashed = hashlib.sha256(f"{model} {fitted.kind}".encode())
    for array in fitted[1:]:
        hashed.update(np.ascontiguousarray(array).tobytes())
    return hashed.hexdigest()[:16]


def is_spread(embeddings: np.ndarray, camids: np.ndarray | None = None) -> bool:
    """Whether embeddings differ by more than rounding, so that something can be fitted to them.

    Args:
        embeddings: [N, D] float, N >= 1.
        camids: [N] int: whether they differ within a camera; None: at all.
    """
    sums, _ = _add_up([embeddings], camids, with_products=False)
    return bool(_spread(sums) > _LEAST_SPREAD)


class _Sums(NamedTuple):
    """What is known of one camera's embeddings, or of those without a camera: their number, sum and squared norms' sum."""

    count: int = 0
    total: np.ndarray | float = 0.0
    squares: float = 0.0


def fit(
    kind: str,
    blocks: np.ndarray | Iterable[np.ndarray],
    *,
    camids: np.ndarray | None = None,
    dim: int = 0,
    shrinkage: float = SHRINKAGE,
) -> Postprocess:
    """Fits post-processing to embeddings without any label.

    Sums are kept, not embeddings: N may be as large as it likes, D x D numbers in float64 are held.

    Args:
        kind: one of `KINDS` but "none".
        blocks: embeddings [N, D] float, as one array or as arrays [B, D] one after the other; L2-normalised here.
        camids: [N] int, negative where not known; needed by `CAMERA_KINDS`.
        dim: D' of whitening, the directions of most variance, up to D; 0: all D.
        shrinkage: of whitening, added to every direction's variance as a part of the greatest, 0 or more.

    Raises:
        ValueError: another kind, a dim or shrinkage out of range, no embeddings, not as many cameras as embeddings, none
            of them known or one too large, or embeddings that are all the same, or the same within each camera.
    """
    if kind not in KINDS or kind == "none":
        raise ValueError(f"kind must be one of {', '.join(KINDS[1:])}, got {kind!r}")
    if dim < 0 or not shrinkage >= 0:
        raise ValueError(f"dim and shrinkage must be at least 0, got {dim} and {shrinkage}")
    blocks = [blocks] if hasattr(blocks, "shape") else blocks
    sums, products = _add_up(blocks, camids if kind in CAMERA_KINDS else None, with_products=kind in WHITENING_KINDS)
    count = sum(each.count for each in sums.values())
    if count == 0:
        raise ValueError("embeddings must be at least one, got none")
    mean = sum(each.total for each in sums.values()) / count
    if dim > len(mean):
        raise ValueError(f"dim must be at most {len(mean)}, the embeddings' own, got {dim}")
    # The mean of a single image would be all that there is of it.
    cameras = sorted(camera for camera in sums if camera > identities.UNKNOWN and sums[camera].count > 1)
    if kind in CAMERA_KINDS and not cameras:
        raise ValueError(f"kind must be center or pca_whiten where no camera has two images, got {kind!r}")
    if cameras and cameras[-1] > _MOST_CAMERA:
        raise ValueError(f"camids must be at most {_MOST_CAMERA}, int32, got {cameras[-1]}")
    if not _spread(sums) > _LEAST_SPREAD:
        where = " within a camera" if kind in CAMERA_KINDS else ""
        raise ValueError(f"embeddings must differ from each other{where}, these {count} do not")
    projection = np.zeros((0, 0))
    if kind in WHITENING_KINDS:
        within = products - sum(np.outer(each.total, each.total) / each.count for each in sums.values())
        projection = _whitening(within / count, dim or len(mean), shrinkage)
    means = [sums[camera].total / sums[camera].count for camera in cameras]
    return Postprocess(
        kind,
        np.float32(mean),
        np.array(cameras, np.int32),
        np.float32(means).reshape(len(cameras), len(mean)),
        np.float32(projection),
    )


def _add_up(
    blocks: Iterable[np.ndarray], camids: np.ndarray | None, *, with_products: bool
) -> tuple[dict[int, _Sums], np.ndarray | float]:
    """Adds up embeddings by camera, all under one where `camids` is None, and where asked for their outer products."""
    sums: dict[int, _Sums] = {}
    products, start = 0.0, 0
    for block in blocks:
        rows = l2_normalize(np.asarray(block, np.float64))
        own = np.full(len(rows), identities.UNKNOWN) if camids is None else camids[start : start + len(rows)]
        if len(own) < len(rows):
            raise ValueError(f"camids must be [N], one for each embedding, got {len(camids)} of them")
        for camera in np.unique(own).tolist():
            before, seen = sums.get(camera, _Sums()), rows[own == camera]
            sums[camera] = _Sums(
                before.count + len(seen), before.total + seen.sum(axis=0), before.squares + np.square(seen).sum()
            )
        if with_products:
            products = products + rows.T @ rows
        start += len(rows)
    if camids is not None and len(camids) > start:
        raise ValueError(f"camids must be [N], one for each of the {start} embeddings, got {len(camids)} of them")
    return sums, products


def _spread(sums: dict[int, _Sums]) -> float:
    """The mean squared distance of embeddings from the mean of their camera."""
    squares = sum(each.squares - each.total @ each.total / each.count for each in sums.values())
    return squares / sum(each.count for each in sums.values())


def _whitening(covariance: np.ndarray, dim: int, shrinkage: float) -> np.ndarray:
    """[D, D'], the leading eigenvectors, each divided by the root of its variance with what is added to it."""
    variances, vectors = np.linalg.eigh(covariance)
    variances, vectors = np.maximum(variances[::-1], 0), vectors[:, ::-1]
    # Without shrinkage, directions in which only rounding varies would be blown up.
    variances = variances + max(shrinkage, 1e-6) * variances[0]
    # An eigenvector's sign is LAPACK's choice: fixed, so that machines agree.
    signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])])
    return (vectors * signs / np.sqrt(variances))[:, :dim]


def apply(fitted: Postprocess | None, embeddings: np.ndarray, camids: np.ndarray | None = None) -> np.ndarray:
    """Post-processes embeddings.

    Args:
        fitted: by `fit`; None: nothing is done but the normalisation.
        embeddings: [N, D] float; L2-normalised here.
        camids: [N] int; an embedding of a camera without a mean of its own, or of none, takes the mean of all.

    Returns:
        [N, D'] float32, L2-normalised.

    Raises:
        ValueError: D is not that of the embeddings that it was fitted to.
    """
    rows = l2_normalize(np.asarray(embeddings, np.float32))
    if fitted is None:
        return rows
    return np.asarray(l2_normalize(_transformed(np, fitted, rows, camids)))


def traced(fitted: Postprocess | None, embeddings: jax.Array, camids: jax.Array | None = None) -> jax.Array:
    """Does in a traced function what `apply` does; arrays are JAX's, `fitted` is constant."""
    rows = l2_normalize(embeddings)
    return rows if fitted is None else l2_normalize(_transformed(jnp, fitted, rows, camids))


def in_loss(arrays: dict[str, jax.Array], embeddings: jax.Array, camids: jax.Array) -> jax.Array:
    """Does in a loss what `apply` does: the gradient is finite at 0 as well.

    Args:
        arrays: what was fitted (`arrays`).
        embeddings: [B, D] float of norm 1.
        camids: [B] integer.

    Returns:
        [B, D'] float, of norm 1.
    """
    return unit_vectors(_transformed(jnp, from_arrays("", arrays), embeddings, camids))


def known_cameras(camids: np.ndarray) -> np.ndarray:
    """Returns the cameras [K] of two images or more that `fit` finds among camids [N], ascending."""
    cameras, counts = np.unique(camids[camids > identities.UNKNOWN], return_counts=True)
    return cameras[counts > 1]


def _transformed(xp, fitted, rows, camids):
    if rows.shape[-1] != len(fitted.mean):
        raise ValueError(f"embeddings must be [N, {len(fitted.mean)}], as those of the fit, got shape {rows.shape}")
    means = fitted.mean
    if len(fitted.cameras) and camids is not None:
        is_of = camids[:, None] == fitted.cameras  # [N, K]
        own = _product(xp, is_of.astype(np.float32), fitted.camera_means)
        means = xp.where(is_of.any(axis=1, keepdims=True), own, fitted.mean)
    rows = rows - means
    return _product(xp, rows, fitted.projection) if fitted.projection.size else rows


def _product(xp, left, right):
    # At the default precision a GPU would keep three digits.
    return left @ right if xp is np else xp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)
