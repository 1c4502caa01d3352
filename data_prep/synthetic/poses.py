"""Walking: where the joints of a person are in a phase of the step."""

from typing import NamedTuple

import numpy as np

from reid_jax.data_prep.synthetic.identities import Identity

# Lengths are in units of the person's height.
KNEE, HIP, WAIST, CHEST, SHOULDER, NECK, HEAD = 0.265, 0.50, 0.60, 0.72, 0.795, 0.835, 0.925
_THIGH, _SHIN, _UPPER_ARM, _FOREARM, _FOOT = 0.235, 0.228, 0.165, 0.145, 0.085
_ANKLE = 0.037  # above the sole

SIDES = (1, -1)  # the person's left and right


class Pose(NamedTuple):
    """How a person moves at one moment.

    Attributes:
        phase: radians in the cycle of two steps; 0 when the left heel strikes.
        stride: length of the step, 0 standing .. 1 walking fast.
        swing: how far the arms swing, 0..1.
        lean: forward lean of the trunk, length per length.
        nod: sideways turn of the head, radians, positive to the left.
        reach: raises the forearm on the side without a bag, as with a telephone, 0..1.
    """

    phase: float
    stride: float
    swing: float
    lean: float
    nod: float
    reach: float


class Leg(NamedTuple):
    """Joints of a leg, [3] float each, in body coordinates: left, up, forward."""

    hip: np.ndarray
    knee: np.ndarray
    ankle: np.ndarray
    heel: np.ndarray
    toe: np.ndarray


class Arm(NamedTuple):
    """Joints of an arm, [3] float each."""

    shoulder: np.ndarray
    elbow: np.ndarray
    hand: np.ndarray


class Skeleton(NamedTuple):
    """Where the joints are.

    Attributes:
        legs: left and right.
        arms: left and right.
        root: height that the walk adds to every point of the trunk; negative with legs spread.
        lean: forward lean of the trunk above the hip, length per length.
        nod: sideways turn of the head, radians.
    """

    legs: tuple[Leg, Leg]
    arms: tuple[Arm, Arm]
    root: float
    lean: float
    nod: float

    def trunk_point(self, x: float, y: float, z: float) -> np.ndarray:
        """Returns where a point of the upright trunk is, [3] float."""
        return np.array([x, y + self.root, z + self.lean * max(0.0, y - HIP)])


def draw_pose(rng: np.random.Generator) -> Pose:
    """Draws a moment of a walk; one person in eight stands."""
    stride = 0.12 * rng.random() if rng.random() < 0.12 else rng.uniform(0.55, 1.0)
    return Pose(
        phase=rng.uniform(0, 2 * np.pi),
        stride=stride,
        swing=stride * rng.uniform(0.5, 1.0),
        lean=rng.uniform(-0.02, 0.10),
        nod=rng.normal(0.0, 0.25),
        reach=rng.uniform(0.6, 1.0) if rng.random() < 0.12 else 0.0,
    )


def pose_skeleton(person: Identity, pose: Pose) -> Skeleton:
    """Places the joints of a person in a pose, the lower foot on the ground at height 0."""
    legs = [_leg(side, pose.phase + (0.0 if side == 1 else np.pi), pose.stride, person.girth) for side in SIDES]
    root = _ANKLE / 2 - min(min(leg.heel[1], leg.toe[1]) for leg in legs)
    lift = np.array([0.0, root, 0.0])
    legs = tuple(Leg(*(joint + lift for joint in leg)) for leg in legs)
    upright = Skeleton(legs, (), root, pose.lean, pose.nod)
    width = 0.101 * person.shoulders * person.girth**0.4
    arms = tuple(
        _arm(upright.trunk_point(side * width, SHOULDER - 0.012, 0.0), side, pose, free=side != person.bag_side)
        for side in SIDES
    )
    return upright._replace(arms=arms)


def _leg(side: int, phase: float, stride: float, girth: float) -> Leg:
    # The hip swings like a pendulum; the knee bends while the leg swings forward, phases pi to 2 pi.
    thigh = 0.46 * stride * np.cos(phase)
    shin = thigh - 0.06 - 0.95 * stride * max(0.0, -np.sin(phase)) ** 1.5
    hip = np.array([side * 0.047 * girth**0.5, HIP, 0.0])
    knee = hip + _THIGH * _direction(-0.04 * side, thigh)
    ankle = knee + _SHIN * _direction(0.01 * side, shin)
    pitch = (0.6 if shin < 0 else 0.8) * shin
    forward = np.array([0.12 * side, np.sin(pitch), np.cos(pitch)])
    sole = ankle - np.array([0.0, _ANKLE / 2 * np.cos(pitch), -_ANKLE / 2 * np.sin(pitch)])
    return Leg(hip, knee, ankle, sole - 0.026 * forward, sole + _FOOT * forward)


def _arm(shoulder: np.ndarray, side: int, pose: Pose, *, free: bool) -> Arm:
    # An arm swings against the leg of its side.
    swing = -0.55 * pose.swing * np.cos(pose.phase + (0.0 if side == 1 else np.pi))
    bend = 0.18 + 0.35 * pose.swing * max(0.0, swing) * 2
    if free and pose.reach > 0:
        swing, bend = 0.25, 0.3 + 1.7 * pose.reach
    elbow = shoulder + _UPPER_ARM * _direction(0.13 * side, swing)
    return Arm(shoulder, elbow, elbow + _FOREARM * _direction(0.02 * side, swing + bend))


def _direction(sideways: float, forward: float) -> np.ndarray:
    """Unit vector [3] that hangs down, turned forward by an angle in radians and leaning sideways."""
    vector = np.array([sideways, -np.cos(forward), np.sin(forward)])
    return vector / np.sqrt(vector @ vector)
