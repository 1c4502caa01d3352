"""One image: a person walks past a camera, is cropped by an imperfect detector, perhaps half hidden."""

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from reid_jax.data_prep.synthetic import cameras, figures, meshes, poses, scenes
from reid_jax.data_prep.synthetic.cameras import Camera
from reid_jax.data_prep.synthetic.identities import Identity

_SUPERSAMPLING = 3  # pixels painted per pixel of the image, along each axis
# A detector's box is about 2.55 times as high as wide, and is stretched to the image's shape.
_BOX_ASPECT = 2.55
# Between two frames of a walk: radians of the step's cycle, of the body's turn against the camera as it comes and
# goes, and the part of the scene's width that the walk covers.
_PHASE_STEP, _TURN_STEP, _PLACE_STEP = 0.45, 0.02, 0.009


class Crop(NamedTuple):
    """Where a person lies in a detector's box.

    Attributes:
        scale: height of the person over the box's.
        center: column of the person over the box's width, 0..1.
        feet: row of the feet over the box's height.
    """

    scale: float
    center: float
    feet: float


class Passage(NamedTuple):
    """What the images of one walk past a camera share: they were taken within seconds of each other.

    Attributes:
        yaw: radians from the person's direction to the camera.
        place: where in the scene, 0 left .. 1 right.
        brightness: factor on the camera's exposure.
        tilt: how much light grows from left to right, as a fraction.
        sharpness: resolution as a fraction of the image's: how far away the person is.
        crop: the detector's box, about right.
        pose: the way of walking, at one moment.
        surroundings: seed of what else is seen: the ground, other people, what stands before the person.
    """

    yaw: float
    place: float
    brightness: float
    tilt: float
    sharpness: float
    crop: Crop
    pose: poses.Pose
    surroundings: int


def draw_passage(rng: np.random.Generator, camera: Camera) -> Passage:
    """Draws a walk past a camera, most often in the camera's habitual direction."""
    turn = np.pi if rng.random() < camera.turned else 0.0
    return Passage(
        yaw=camera.yaw + turn + rng.normal(0.0, 0.35),
        place=rng.random(),
        brightness=rng.uniform(0.94, 1.06),
        tilt=rng.uniform(-0.1, 0.1),
        sharpness=rng.uniform(*camera.sharpness),
        crop=Crop(
            scale=rng.uniform(0.87, 0.96),
            center=0.5 + float(np.clip(rng.normal(0.0, 0.03), -0.08, 0.08)),
            feet=0.96 + float(np.clip(rng.normal(0.0, 0.012), -0.03, 0.03)),
        ),
        pose=poses.draw_pose(rng),
        surroundings=int(rng.integers(2**31)),
    )


def walk_on(passage: Passage, frames: float) -> Passage:
    """Returns the same walk some frames later: a few steps on, a little more of the back in sight."""
    # At a yaw of 0 the person comes straight on, at pi / 2 walks to the left of the image.
    aside = np.sin(passage.yaw)
    return passage._replace(
        yaw=passage.yaw + frames * _TURN_STEP * aside,
        place=passage.place - frames * _PLACE_STEP * passage.pose.stride * aside,
        pose=passage.pose._replace(phase=passage.pose.phase + frames * _PHASE_STEP),
    )


def draw_crop(rng: np.random.Generator, passage: Passage) -> Crop:
    """Draws the box of one image of a passage: the detector wavers."""
    return Crop(
        scale=passage.crop.scale + rng.normal(0.0, 0.01),
        center=passage.crop.center + rng.normal(0.0, 0.012),
        feet=passage.crop.feet + rng.normal(0.0, 0.005),
    )


def draw_bad_crop(rng: np.random.Generator) -> Crop:
    """Draws a box that missed most of the person: to one side, a part of the body only, or far too large."""
    mistake = rng.integers(4)
    if mistake == 0:
        side = rng.choice([-1.0, 1.0])
        return Crop(rng.uniform(0.85, 1.0), 0.5 + side * rng.uniform(0.45, 0.65), rng.uniform(0.92, 1.0))
    if mistake == 1:
        return Crop(rng.uniform(1.8, 2.6), 0.5 + rng.normal(0, 0.15), rng.uniform(1.9, 2.4))
    if mistake == 2:
        return Crop(rng.uniform(1.8, 2.6), 0.5 + rng.normal(0, 0.15), rng.uniform(0.85, 1.1))
    return Crop(rng.uniform(0.3, 0.45), rng.uniform(0.1, 0.9), rng.uniform(0.6, 0.95))


def render_person(
    person: Identity,
    camera: Camera,
    passage: Passage,
    crop: Crop,
    rng: np.random.Generator,
    *,
    height: int,
    width: int,
    passers_by: list[Identity],
) -> Image.Image:
    """Renders an image of a person at any moment of a passage.

    Args:
        person: who.
        camera: which camera.
        passage: how the person walks past it.
        crop: where the person lies in the image.
        rng: decides the moment: how the person moves and turns, and the noise.
        height: of the image, in pixels.
        width: of the image, in pixels.
        passers_by: who else may be seen.

    Returns:
        An RGB image [height, width].
    """
    step = passage.pose._replace(phase=passage.pose.phase + rng.uniform(-0.6, 0.6), nod=rng.normal(0.0, 0.15))
    moment = passage._replace(pose=step, yaw=passage.yaw + rng.normal(0.0, 0.1))
    return render_moment(person, camera, moment, crop, rng, height=height, width=width, passers_by=passers_by)


def render_moment(
    person: Identity,
    camera: Camera,
    passage: Passage,
    crop: Crop,
    rng: np.random.Generator,
    *,
    height: int,
    width: int,
    passers_by: list[Identity],
) -> Image.Image:
    """Renders an image of a person at exactly the moment that the passage describes; `rng` decides the noise.

    The arguments are otherwise those of `render_person`.
    """
    scenery = np.random.default_rng(passage.surroundings)
    canvas = _background(scenery, camera, passage, height, width)
    if scenery.random() < 0.2:
        other = passers_by[scenery.integers(len(passers_by))]
        behind = Crop(scenery.uniform(0.5, 0.75), scenery.uniform(-0.1, 1.1), scenery.uniform(0.7, 0.85))
        _paint_stranger(canvas, other, camera, behind, scenery)
    _paint_person(canvas, person, passage.pose, camera, passage.yaw, crop, rng)
    if scenery.random() < 0.12:
        _occlude(canvas, camera, scenery, passers_by)
    return _finish(canvas, camera, passage, rng)


def render_background(
    camera: Camera, passage: Passage, rng: np.random.Generator, *, height: int, width: int
) -> Image.Image:
    """Renders an image without anybody: a detector's false alarm."""
    return _finish(_background(rng, camera, passage, height, width), camera, passage, rng)


def _background(rng: np.random.Generator, camera: Camera, passage: Passage, height: int, width: int) -> Image.Image:
    """Cuts a window from the camera's scene so that people's feet come to lie on the ground."""
    size = (width * _SUPERSAMPLING, height * _SUPERSAMPLING)
    window_height = rng.uniform(0.75, 0.95) / cameras.SCENE_HEIGHT * camera.scene.height
    window_width = window_height * width / height
    left = np.clip(passage.place + rng.normal(0, 0.02), 0, 1) * (camera.scene.width - window_width)
    # The ground then begins above the middle of the window.
    top = scenes.GROUND * camera.scene.height - rng.uniform(0.25, 0.5) * window_height
    top = min(max(top, 0.0), camera.scene.height - window_height)
    box = (left, top, left + window_width, top + window_height)
    # The canvas is reduced later, which smooths what NEAREST leaves.
    return camera.scene.resize(size, Image.Resampling.NEAREST, box=box)


def _paint_stranger(
    canvas: Image.Image, person: Identity, camera: Camera, crop: Crop, rng: np.random.Generator
) -> None:
    """Paints somebody else, walking anywhere."""
    _paint_person(canvas, person, poses.draw_pose(rng), camera, rng.uniform(0, 2 * np.pi), crop, rng)


def _paint_person(
    canvas: Image.Image,
    person: Identity,
    pose: poses.Pose,
    camera: Camera,
    yaw: float,
    crop: Crop,
    rng: np.random.Generator,
) -> None:
    skeleton = poses.pose_skeleton(person, pose)
    view = meshes.View(yaw, camera.pitch, camera.light, camera.ambient)
    origin = (crop.center * canvas.width, crop.feet * canvas.height)
    scale = crop.scale * np.array([_BOX_ASPECT * canvas.width, canvas.height])
    _cast_shadow(canvas, skeleton, camera, view, origin, scale)
    mesh = figures.build_figure(person, skeleton)
    folds = 1 + 0.03 * rng.standard_normal(len(mesh.quads))
    meshes.paint(ImageDraw.Draw(canvas), mesh, view, origin=origin, scale=scale, folds=folds)


def _cast_shadow(
    canvas: Image.Image,
    skeleton: poses.Skeleton,
    camera: Camera,
    view: meshes.View,
    origin: tuple[float, float],
    scale: np.ndarray,
) -> None:
    """Darkens the ground where the limbs keep the light away; painted small, then enlarged: its edge is soft."""
    coarse = 2 * _SUPERSAMPLING
    bones = [*((leg.ankle, leg.knee, leg.hip) for leg in skeleton.legs), *(tuple(arm) for arm in skeleton.arms)]
    spine = (skeleton.legs[0].hip, skeleton.trunk_point(0.0, poses.HEAD, 0.0))
    mask = Image.new("L", (max(1, canvas.width // coarse), max(1, canvas.height // coarse)))
    draw, darkness = ImageDraw.Draw(mask), round(255 * camera.shadow)
    right, up, towards = camera.light
    for bone, thickness in [*((bone, 0.06) for bone in bones), (spine, 0.16)]:
        points = meshes.project(np.array(bone), view._replace(pitch=0.0))
        # Along the light onto the ground; seen from above, what is nearer lies lower.
        reach = np.minimum(points[:, 1] / up, 1.5)
        across, near = points[:, 0] - reach * right, points[:, 2] - reach * towards
        down = near * np.sin(camera.pitch + 0.1)
        pixels = (np.array(origin) + scale * np.stack([across, down], axis=1)) / coarse
        draw.line(pixels.ravel().tolist(), fill=darkness, width=max(1, round(thickness * scale[0] / coarse)))
    mask = mask.filter(ImageFilter.GaussianBlur(1))
    box = mask.getbbox()
    if box is not None:
        mask = mask.crop(box)
        mask = mask.resize((coarse * mask.width, coarse * mask.height), Image.Resampling.BILINEAR)
        canvas.paste((20, 20, 30), (coarse * box[0], coarse * box[1]), mask=mask)


def _occlude(canvas: Image.Image, camera: Camera, rng: np.random.Generator, passers_by: list[Identity]) -> None:
    """Puts something before the person: a pole, a box on the ground, or another person at the edge."""
    width, height = canvas.size
    kind = rng.integers(3)
    color = tuple(int(level) for level in rng.uniform(40, 150) * rng.uniform(0.92, 1.08, 3))
    if kind == 0:
        left, thick = rng.uniform(0.1, 0.85) * width, rng.uniform(0.05, 0.14) * width
        _paint_column(ImageDraw.Draw(canvas), left, thick, 0, height, color)
    elif kind == 1:
        left, across = rng.uniform(-0.2, 0.5) * width, rng.uniform(0.4, 0.9) * width
        _paint_column(ImageDraw.Draw(canvas), left, across, rng.uniform(0.62, 0.85) * height, height, color)
    else:
        side = rng.choice([-0.08, 1.08]) + rng.uniform(-0.12, 0.12)
        crop = Crop(rng.uniform(0.95, 1.15), side, rng.uniform(1.02, 1.12))
        other = passers_by[rng.integers(len(passers_by))]
        _paint_stranger(canvas, other, camera, crop, rng)


def _paint_column(
    draw: ImageDraw.ImageDraw, left: float, thick: float, top: float, bottom: float, color: tuple[int, int, int]
) -> None:
    """An upright thing in five stripes, lighter on one side."""
    for stripe, shade in enumerate((0.95, 1.1, 1.0, 0.85, 0.7)):
        start = left + stripe * thick / 5
        fill = tuple(min(255, int(shade * level)) for level in color)
        draw.rectangle((start, top, start + thick / 5, bottom), fill=fill)


def _finish(canvas: Image.Image, camera: Camera, passage: Passage, rng: np.random.Generator) -> Image.Image:
    return cameras.develop(
        canvas.reduce(_SUPERSAMPLING),
        camera,
        rng,
        brightness=passage.brightness,
        tilt=passage.tilt,
        sharpness=passage.sharpness,
    )
