"""Cameras: where each looks, in which light, and what its lens, sensor and compression make of a scene."""

import io
from typing import NamedTuple

import numpy as np
from PIL import Image

from reid_jax.data_prep.synthetic import scenes
from reid_jax.data_prep.synthetic.palettes import Palette
from reid_jax.data_prep.synthetic.streams import Stream, generator

SCENE_HEIGHT, _SCENE_WIDTH = 1.5, 6.0  # of a painted scene, in image heights
_SCENE_PIXELS = 1.5  # of the painting per pixel of the image, along each axis: backgrounds are blurred anyway
_LUMA = np.array([0.299, 0.587, 0.114])


class Camera(NamedTuple):
    """One camera; drawn once, the same for all people.

    Attributes:
        scene: what it sees without people, RGB.
        yaw: radians at which most people show themselves: 0 from the front, pi / 2 from their left.
        turned: probability 0..1 that a person walks the other way round.
        pitch: radians by which it looks down.
        light: [3] unit vector towards the light: right, up, towards the camera.
        ambient: light from everywhere, 0..1.
        shadow: darkness of cast shadows, 0..1.
        exposure: factor on brightness.
        cast: factors on red, green and blue.
        gamma: exponent on brightness 0..1.
        saturation: 1 true colours, 0 grey.
        haze: added brightness, 0..1; the range shrinks to keep white.
        sharpness: least and greatest resolution as a fraction of the image's.
        noise: standard deviation of the sensor's noise, in levels.
        quality: of the JPEG compression, Pillow's scale.
    """

    scene: Image.Image
    yaw: float
    turned: float
    pitch: float
    light: tuple[float, float, float]
    ambient: float
    shadow: float
    exposure: float
    cast: tuple[float, float, float]
    gamma: float
    saturation: float
    haze: float
    sharpness: tuple[float, float]
    noise: float
    quality: int


def draw_camera(seed: int, number: int, palette: Palette, *, height: int) -> Camera:
    """Draws a camera.

    Args:
        seed: the world's seed.
        number: which camera, from 0. Each four in a row have four different scenes, and four directions from the
            front to three quarters behind; who walks the other way round shows the rest.
        palette: the world's; only its light counts.
        height: of an image, in pixels.

    Returns:
        The camera.
    """
    habits = generator(seed, Stream.HABITS, number // 4)
    kind = scenes.KINDS[habits.permutation(4)[number % 4]]
    direction = habits.permutation(4)[number % 4]
    rng = generator(seed, Stream.CAMERA, number)
    indoors, light = kind == "corridor", palette.light
    sharpness = rng.uniform(0.5, 0.8)
    return Camera(
        scene=scenes.paint_scene(
            generator(seed, Stream.SCENE, number),
            kind,
            height=round(SCENE_HEIGHT * _SCENE_PIXELS * height),
            width=round(_SCENE_WIDTH * _SCENE_PIXELS * height),
        ),
        yaw=direction * np.pi / 4 + rng.normal(0.0, 0.15),
        turned=rng.uniform(0.1, 0.35),
        pitch=rng.uniform(0.05, 0.35),
        light=_draw_light(rng, indoors),
        ambient=rng.uniform(0.55, 0.65) if indoors else rng.uniform(0.45, 0.6),
        shadow=rng.uniform(0.15, 0.25) if indoors else rng.uniform(0.25, 0.55),
        exposure=rng.uniform(*light.exposure),
        cast=tuple((np.array(light.cast) * rng.uniform(0.98, 1.02, 3)).tolist()),
        gamma=rng.uniform(*light.gamma),
        saturation=rng.uniform(*light.saturation),
        haze=rng.uniform(*light.haze),
        sharpness=(sharpness, sharpness + 0.2),
        noise=rng.uniform(*light.noise),
        quality=int(rng.integers(70, 93)),
    )


def develop(
    image: Image.Image, camera: Camera, rng: np.random.Generator, *, brightness: float, tilt: float, sharpness: float
) -> Image.Image:
    """Turns a scene into what the camera delivers, before compression.

    Args:
        image: RGB, at the final size.
        camera: whose.
        rng: decides the noise.
        brightness: factor on the exposure: the weather, a cloud.
        tilt: light grows by this fraction from the left edge to the right one.
        sharpness: resolution as a fraction of the image's.

    Returns:
        An RGB image of the same size.
    """
    width, height = image.size
    small = (max(4, round(sharpness * width)), max(8, round(sharpness * height)))
    image = image.resize(small, Image.Resampling.BOX).resize((width, height), Image.Resampling.BICUBIC)
    image = image.convert("RGB", _color_matrix(camera)).point(_tone_curve(camera, brightness))
    pixels = np.asarray(image, dtype=np.float32)
    pixels = pixels * np.linspace(1 - tilt / 2, 1 + tilt / 2, width, dtype=np.float32)[:, None]
    # Noise of a sensor is in part the same in all three channels.
    grey = rng.standard_normal((height, width, 1), dtype=np.float32)
    color = rng.standard_normal((height, width, 3), dtype=np.float32)
    pixels = pixels + camera.noise * (0.8 * grey + 0.6 * color)
    return Image.fromarray(np.clip(pixels + 0.5, 0, 255).astype(np.uint8))


def encode(image: Image.Image, camera: Camera) -> bytes:
    """Compresses an image as the camera does; returns a JPEG file's bytes."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=camera.quality)
    return buffer.getvalue()


def _draw_light(rng: np.random.Generator, indoors: bool) -> tuple[float, float, float]:
    side = rng.choice([-1.0, 1.0]) * rng.uniform(0.2, 0.4 if indoors else 0.9)
    light = np.array([side, rng.uniform(0.5, 1.0), rng.uniform(0.3, 0.9)])
    return tuple((light / np.linalg.norm(light)).tolist())


def _color_matrix(camera: Camera) -> tuple[float, ...]:
    """Saturation and cast as Pillow's RGB-to-RGB matrix, row by row with an offset."""
    matrix = camera.saturation * np.eye(3) + (1 - camera.saturation) * _LUMA
    matrix = np.array(camera.cast)[:, None] * matrix
    return tuple(np.concatenate([matrix, np.zeros((3, 1))], axis=1).ravel().tolist())


def _tone_curve(camera: Camera, brightness: float) -> list[int]:
    """Exposure, gamma and haze as Pillow's table of 3 x 256 levels."""
    levels = np.clip(np.arange(256) / 255 * camera.exposure * brightness, 0, 1) ** camera.gamma
    levels = camera.haze + (1 - camera.haze) * levels
    return np.tile(np.round(255 * levels).astype(int), 3).tolist()
