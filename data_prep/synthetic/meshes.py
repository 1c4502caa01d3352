"""Solids made of tubes, seen by a camera: facets [F, 4, 3] with colours, shaded and painted back to front."""

import functools
from typing import NamedTuple

import numpy as np
from PIL import ImageDraw


class Mesh(NamedTuple):
    """Four-cornered facets with one colour each.

    Attributes:
        quads: [F, 4, 3] float, corners (x, y, z); counter-clockwise seen from outside.
        colors: [F, 3] float, RGB 0..255 in white light.
    """

    quads: np.ndarray
    colors: np.ndarray


class View(NamedTuple):
    """How a camera sees a person, and what light there is.

    Attributes:
        yaw: radians from the direction in which the person faces to the camera; 0 from the front, pi / 2 from
            the person's left, pi from behind.
        pitch: radians by which the camera looks down.
        light: [3] unit vector towards the light, in camera coordinates: right, up, towards the camera.
        ambient: light from everywhere, 0..1; the rest comes from the light.
    """

    yaw: float
    pitch: float
    light: tuple[float, float, float]
    ambient: float


def tube(path: np.ndarray, radii: np.ndarray, *, sectors: int, boxiness: float = 1.0) -> np.ndarray:
    """Makes the facets of a tube around a path that is close to straight.

    Args:
        path: [R, 3] float, centres of the rings.
        radii: [R, 2] float, half widths of the rings: along the person's x axis as far as it is at right angles
            to the path, and along the third direction.
        sectors: facets around the tube.
        boxiness: 1 for ellipses; smaller values pull the rings towards rectangles.

    Returns:
        [R - 1, sectors, 4, 3] float, outward facets.
    """
    along = path[-1] - path[0]
    along = along / np.sqrt(along @ along)
    across = np.array([1.0, 0.0, 0.0]) - along[0] * along
    across /= np.sqrt(across @ across)
    third = np.array(
        [
            along[1] * across[2] - along[2] * across[1],
            along[2] * across[0] - along[0] * across[2],
            along[0] * across[1] - along[1] * across[0],
        ]
    )
    offsets = (radii[:, None, :] * _circle(sectors, boxiness)) @ np.stack([across, third])
    rings = path[:, None, :] + offsets
    return np.stack([rings[:-1, :-1], rings[:-1, 1:], rings[1:, 1:], rings[1:, :-1]], axis=2)


@functools.cache
def _circle(sectors: int, boxiness: float) -> np.ndarray:
    """Corners [sectors + 1, 2] around the unit circle, or what boxiness makes of it; the last is the first."""
    angles = np.linspace(0, 2 * np.pi, sectors + 1)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    return np.sign(circle) * np.abs(circle) ** boxiness


def join(meshes: list[Mesh]) -> Mesh:
    """Puts meshes together into one."""
    return Mesh(np.concatenate([mesh.quads for mesh in meshes]), np.concatenate([mesh.colors for mesh in meshes]))


def project(points: np.ndarray, view: View) -> np.ndarray:
    """Turns body coordinates into camera coordinates.

    Args:
        points: [..., 3] float: to the person's left, up, forward.
        view: the camera.

    Returns:
        [..., 3] float: right, up, towards the camera; without perspective, the camera being far away.
    """
    cos_yaw, sin_yaw = np.cos(view.yaw), np.sin(view.yaw)
    cos_pitch, sin_pitch = np.cos(view.pitch), np.sin(view.pitch)
    rotation = np.array(
        [
            [cos_yaw, -sin_yaw * sin_pitch, sin_yaw * cos_pitch],
            [0.0, cos_pitch, sin_pitch],
            [-sin_yaw, -cos_yaw * sin_pitch, cos_yaw * cos_pitch],
        ]
    )
    return points @ rotation


def paint(
    draw: ImageDraw.ImageDraw,
    mesh: Mesh,
    view: View,
    *,
    origin: tuple[float, float],
    scale: np.ndarray,
    folds: np.ndarray,
) -> None:
    """Paints a mesh, far facets first.

    Args:
        draw: the image to paint on.
        mesh: [F] facets in body coordinates.
        view: the camera and the light.
        origin: pixel (column, row) where the body's origin comes to lie.
        scale: [2] float, pixels per unit of length, across and down.
        folds: [F] float, brightness of each facet, 1 unchanged: folds and dirt.
    """
    corners = project(mesh.quads, view)
    first, second = corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1]
    normals = np.cross(first, second)
    seen = np.flatnonzero(normals[:, 2] > 0)
    normals = normals[seen] / np.linalg.norm(normals[seen], axis=1, keepdims=True)
    lit = view.ambient + (1 - view.ambient) * np.maximum(0, normals @ np.array(view.light))
    colors = np.clip(mesh.colors[seen] * (lit * folds[seen])[:, None], 0, 255).astype(np.uint8)
    corners = corners[seen]
    pixels = np.array(origin) + corners[..., :2] * (scale * np.array([1, -1]))
    order = np.argsort(corners[..., 2].mean(axis=1), kind="stable")
    polygons, fills = pixels.reshape(-1, 8)[order].tolist(), colors[order].tolist()
    for polygon, fill in zip(polygons, fills, strict=True):
        draw.polygon(polygon, fill=tuple(fill))
