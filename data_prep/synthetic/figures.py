"""A clothed person in a pose as one mesh."""

import numpy as np

from reid_jax.data_prep.synthetic import garments, heads
from reid_jax.data_prep.synthetic.identities import Identity
from reid_jax.data_prep.synthetic.meshes import Mesh, join, tube
from reid_jax.data_prep.synthetic.palettes import RGB
from reid_jax.data_prep.synthetic.poses import HIP, KNEE, Arm, Leg, Skeleton

_LIMB_SECTORS = 8


def build_figure(person: Identity, skeleton: Skeleton) -> Mesh:
    """Builds the mesh of a person.

    Args:
        person: body and clothes.
        skeleton: the joints, from `poses.pose_skeleton`.

    Returns:
        Facets in body coordinates: left, up, forward; lengths in units of the person's height.
    """
    parts = [garments.trunk(person, skeleton), *heads.head(person, skeleton)]
    for leg in skeleton.legs:
        parts.extend(_leg(person, leg))
    for arm in skeleton.arms:
        parts.extend(_arm(person, arm))
    if garments.covered_height(person) is not None:
        parts.append(garments.skirt(person, skeleton))
    if person.bag != "none":
        parts.append(garments.bag(person, skeleton))
    return join(parts)


def _leg(person: Identity, leg: Leg) -> list[Mesh]:
    skin, cloth, shoe = RGB[person.skin], RGB[person.bottom_color], RGB[person.shoe_color]
    upper = skin if person.bottom == "skirt" else cloth
    lower = cloth if person.bottom == "trousers" else skin
    loose = {"trousers": 0.005, "shorts": 0.009, "skirt": 0.0}[person.bottom]
    calf = 0.008 if person.bottom == "trousers" else 0.0
    wide = person.girth**0.7
    thigh = wide * (np.array([0.045, 0.054, 0.046, 0.036]) + loose)
    shin = wide * (np.array([0.036, 0.037, 0.028, 0.021]) + calf)
    foot = np.array([0.002, 0.021, 0.026, 0.025, 0.020, 0.002])
    start = leg.hip + np.array([0.0, 0.02, 0.0])
    hem = garments.covered_height(person)
    if hem is not None:
        # Only what shows below the skirt: see garments.trunk.
        start = leg.knee + np.clip((hem + 0.035 - KNEE) / (HIP - KNEE), 0, 1) * (leg.hip - leg.knee)
        thigh = wide * np.array([0.042, 0.036])
    return [
        _limb(start, leg.knee, thigh, upper),
        _limb(leg.knee, leg.ankle, shin, lower),
        _limb(leg.heel, leg.toe, foot, shoe, flat=0.85),
    ]


def _arm(person: Identity, arm: Arm) -> list[Mesh]:
    skin, cloth = RGB[person.skin], RGB[person.top_color]
    accent = RGB[person.top_accent]
    loose = 0.0 if person.top == "tee" else 0.005
    wide = person.girth**0.6
    upper = wide * (np.array([0.018, 0.030, 0.033, 0.029, 0.026]) + loose)
    lower = wide * (np.array([0.026, 0.026, 0.023, 0.019, 0.016]) + loose)
    hand = np.array([0.010, 0.019, 0.018, 0.004])
    sleeve = [cloth, accent] * 2 if person.pattern == "stripes" else [accent if person.pattern == "yoke" else cloth] * 4
    upper_colors = [*sleeve[:3], skin] if person.top == "tee" else sleeve
    lower_colors = skin if person.top == "tee" else sleeve if person.pattern == "stripes" else cloth
    forward = (arm.hand - arm.elbow) / np.linalg.norm(arm.hand - arm.elbow)
    return [
        _limb(arm.shoulder + np.array([0.0, 0.012, 0.0]), arm.elbow, upper, upper_colors),
        _limb(arm.elbow, arm.hand, lower, lower_colors),
        _limb(arm.hand, arm.hand + 0.05 * forward, hand, skin),
    ]


def _limb(start: np.ndarray, end: np.ndarray, radii: np.ndarray, colors: object, *, flat: float = 1.0) -> Mesh:
    """A round tube with radii [R]; colors: one RGB, or one per segment [R - 1]; flat: height by width.

    Rounded ends reach over the joints, or a bent limb would gape.
    """
    steps = np.linspace(0, 1, len(radii))
    over = 0.6 * radii[[0, -1]] / np.linalg.norm(end - start)
    steps = np.concatenate([[-over[0]], steps, [1 + over[1]]])
    radii = np.concatenate([[0.7 * radii[0]], radii, [0.7 * radii[-1]]])
    path = start + steps[:, None] * (end - start)
    quads = tube(path, np.stack([radii, flat * radii], axis=1), sectors=_LIMB_SECTORS)
    per_segment = np.broadcast_to(np.asarray(colors, dtype=float), (len(radii) - 3, 3))
    per_segment = np.concatenate([per_segment[:1], per_segment, per_segment[-1:]])
    return Mesh(quads.reshape(-1, 4, 3), np.repeat(per_segment, _LIMB_SECTORS, axis=0))
