"""Heads: face, hair and hats, which look different from every side."""

import numpy as np

from reid_jax.data_prep.synthetic.identities import Identity
from reid_jax.data_prep.synthetic.meshes import Mesh, tube
from reid_jax.data_prep.synthetic.palettes import RGB
from reid_jax.data_prep.synthetic.poses import HEAD, NECK, Skeleton

_SECTORS = 16
_RINGS = 11
_HALF_HEIGHT, _HALF_WIDTH, _HALF_DEPTH = 0.068, 0.046, 0.056


def head(person: Identity, skeleton: Skeleton) -> list[Mesh]:
    """Builds neck, head, hair and hat.

    Args:
        person: whose.
        skeleton: the joints; its nod turns the head.

    Returns:
        Meshes in body coordinates.
    """
    center = skeleton.trunk_point(0.0, HEAD, 0.014)
    base = skeleton.trunk_point(0.0, NECK - 0.02, 0.0)
    rise = np.linspace(0, 1, 3)[:, None]
    neck = _colored(tube(base + rise * (center - base), np.full((3, 2), 0.029), sectors=8), RGB[person.skin])
    parts = [_skull(person, center), *_loose_hair(person, center)]
    if person.hat == "cap":
        visor = np.array([[0.0, 0.026, 0.030], [0.0, 0.020, 0.065], [0.0, 0.012, 0.095]])
        radii = np.array([[0.040, 0.006], [0.038, 0.005], [0.022, 0.003]])
        parts.append(_colored(tube(center + visor, radii, sectors=8), RGB[person.hat_color]))
    return [neck, *(Mesh(_turned(part.quads, center, skeleton.nod), part.colors) for part in parts)]


def _skull(person: Identity, center: np.ndarray) -> Mesh:
    levels = np.linspace(-1, 1, _RINGS)
    girth = np.sqrt(np.maximum(0.02, 1 - levels**2))
    # The jaw is narrower than the forehead.
    girth = girth * np.where(levels < 0, 1 + 0.18 * levels, 1.0)
    path = center + np.outer(levels * _HALF_HEIGHT, [0.0, 1.0, 0.0])
    quads = tube(path, girth[:, None] * np.array([_HALF_WIDTH, _HALF_DEPTH]), sectors=_SECTORS)
    level = ((levels[:-1] + levels[1:]) / 2)[:, None]
    angles = (np.arange(_SECTORS) + 0.5) * 2 * np.pi / _SECTORS
    from_front = np.abs(np.arctan2(np.cos(angles), -np.sin(angles)))[None, :]
    hair, hat = _hair_mask(person, level, from_front), _hat_mask(person, level)
    eyes = (np.abs(level - 0.1) < 0.08) & (np.abs(from_front - 0.55) < 0.2)
    mouth = (np.abs(level + 0.5) < 0.08) & (from_front < 0.4)
    skin = np.asarray(RGB[person.skin], dtype=float)
    colors = np.broadcast_to(skin, (_RINGS - 1, _SECTORS, 3))
    layers = (
        (eyes, 0.45 * skin),
        (mouth, np.array([0.8, 0.55, 0.55]) * skin),
        (hair, RGB[person.hair_color]),
        (hat, RGB[person.hat_color]),
    )
    for mask, color in layers:
        colors = np.where(mask[..., None], np.asarray(color, dtype=float), colors)
    # Hair and hat stand off the skull.
    bulge = np.where(hat, 1.15, np.where(hair, 1.09, 1.0))[..., None, None]
    quads = center + bulge * (quads - center)
    return Mesh(quads.reshape(-1, 4, 3), colors.reshape(-1, 3))


def _hat_mask(person: Identity, level: np.ndarray) -> np.ndarray:
    """Where the hat is [R, 1], at levels [R, 1] from chin -1 to crown 1."""
    brim = {"none": 2.0, "cap": 0.3, "beanie": 0.2}[person.hat]
    return level > brim


def _hair_mask(person: Identity, level: np.ndarray, from_front: np.ndarray) -> np.ndarray:
    """Where hair grows [R, S], at levels [R, 1] from chin -1 to crown 1 and angles [1, S] from the front."""
    if person.hair == "bald":
        return np.zeros((1, 1), dtype=bool)
    crown = level > 0.55
    sides = (from_front > 1.1) & (level > 0.1)
    nape = (from_front > (1.2 if person.hair == "long" else 1.8)) & (level > -0.6)
    return crown | sides | nape


def _loose_hair(person: Identity, center: np.ndarray) -> list[Mesh]:
    """Hair that hangs down to the shoulders, or is tied in a bun."""
    color = RGB[person.hair_color]
    if person.hair == "long":
        path = center + np.array([[0.0, 0.03, -0.03], [0.0, -0.03, -0.04], [0.0, -0.09, -0.05], [0.0, -0.135, -0.05]])
        radii = np.array([[0.046, 0.030], [0.052, 0.032], [0.054, 0.028], [0.036, 0.012]])
        return [_colored(tube(path, radii, sectors=10), color)]
    if person.hair == "bun" and person.hat != "beanie":
        up = np.linspace(-1, 1, 5)
        path = center + np.array([0.0, 0.035, -0.072]) + np.outer(0.028 * up, [0.0, 1.0, 0.0])
        radii = np.repeat(0.028 * np.sqrt(np.maximum(0.05, 1 - up**2))[:, None], 2, axis=1)
        return [_colored(tube(path, radii, sectors=8), color)]
    return []


def _colored(quads: np.ndarray, color: tuple[int, int, int]) -> Mesh:
    facets = quads.reshape(-1, 4, 3)
    return Mesh(facets, np.broadcast_to(np.asarray(color, dtype=float), (len(facets), 3)))


def _turned(points: np.ndarray, center: np.ndarray, angle: float) -> np.ndarray:
    """Turns points [..., 3] about the upright axis through center [3], towards the left by an angle in radians."""
    cos, sin = np.cos(angle), np.sin(angle)
    rotation = np.array([[cos, 0.0, -sin], [0.0, 1.0, 0.0], [sin, 0.0, cos]])
    return center + (points - center) @ rotation
