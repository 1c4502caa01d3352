"""Position embeddings of vision transformers, from the grid of patches in a published file to that of other images."""

import math

import numpy as np

from reid_jax import errors

RESIZINGS = ("antialiased", "offset")
_OFFSET = 0.1  # DINOv2's interpolate_offset
# The parameter "a" of Keys' cubic kernel: torch has Pillow's with antialiasing and another one without.
_ANTIALIASED_CUBIC, _PLAIN_CUBIC = -0.5, -0.75


def split(positions: np.ndarray, *, has_class: bool, grid: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Splits a published position embedding into that of the class token and that of the patches.

    A file does not say how its patches lie. A square number of them is taken as a square, as everything published is;
    any other number must be the one of the model's own grid.

    Args:
        positions: [1, N, C] or [N, C] float, the class token first, then the patches row by row.
        has_class: whether the class token is in it; otherwise its embedding is 0.
        grid: (h, w) of the model's patches.

    Returns:
        [C] of the class token and [h', w', C] of the patches, h' and w' those of the file.

    Raises:
        UserError: the number of patches is neither a square nor the model's, or the array of another kind.
    """
    table = positions[0] if positions.ndim == 3 and len(positions) == 1 else positions
    if table.ndim != 2 or len(table) <= has_class:
        raise errors.UserError(f"the position embedding must be [1, N, C] or [N, C], got shape {list(positions.shape)}")
    of_class = table[0] if has_class else np.zeros(table.shape[1], np.float32)
    of_patches = table[1:] if has_class else table
    count, side = len(of_patches), math.isqrt(len(of_patches))
    if side**2 != count:
        if count != math.prod(grid):
            raise errors.UserError(
                f"the position embedding must have a square number of patches, or the {grid[0]} x {grid[1]} of the "
                f"model, got {count}"
            )
        return of_class, of_patches.reshape(*grid, -1)
    return of_class, of_patches.reshape(side, side, -1)


def resize(positions: np.ndarray, grid: tuple[int, int], *, resizing: str) -> np.ndarray:
    """Interpolates the position embedding of patches bicubically to another grid.

    "antialiased" is what timm does, DINOv2 with registers, and open_clip. "offset" is DINOv2 without registers: no
    antialiasing, and the step between samples that of a grid larger by 0.1, which once kept rounding from losing a row
    and has been part of that model since.

    Args:
        positions: [h, w, C] float.
        grid: (h', w') that is wanted.
        resizing: one of `RESIZINGS`.

    Returns:
        [h', w', C]: float32, or `positions` where the grid is the same.
    """
    if positions.shape[:2] == tuple(grid):
        return positions
    rows, columns = (_weights(size, wanted, resizing) for size, wanted in zip(positions.shape[:2], grid))
    return np.einsum("ih,jw,hwc->ijc", rows, columns, positions.astype(np.float64), optimize=True).astype(np.float32)


def _weights(size: int, wanted: int, resizing: str) -> np.ndarray:
    """[wanted, size]: the weights with which each value is a mean of the given ones, in one direction."""
    if resizing == "antialiased":
        scale = size / wanted
        centers = (np.arange(wanted) + 0.5) * scale
        places = np.arange(size) + 0.5
        # Wider where the grid shrinks; cut off at the borders.
        weights = _cubic((places - centers[:, None]) / max(scale, 1.0), _ANTIALIASED_CUBIC)
        return weights / weights.sum(axis=1, keepdims=True)
    centers = (np.arange(wanted) + 0.5) * size / (wanted + _OFFSET) - 0.5
    weights = np.zeros((wanted, size))
    for tap in range(-1, 3):
        places = np.floor(centers) + tap
        # The outermost values go on beyond the borders.
        inside = np.clip(places, 0, size - 1).astype(int)
        np.add.at(weights, (np.arange(wanted), inside), _cubic(places - centers, _PLAIN_CUBIC))
    return weights


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
    x = np.abs(x)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
