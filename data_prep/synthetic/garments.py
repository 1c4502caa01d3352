"""The trunk with what is worn on it: top, pattern, print, straps, skirt, coat and bags."""

import numpy as np

from reid_jax.data_prep.synthetic.identities import Identity
from reid_jax.data_prep.synthetic.meshes import Mesh, tube
from reid_jax.data_prep.synthetic.palettes import RGB
from reid_jax.data_prep.synthetic.poses import CHEST, HIP, KNEE, SHOULDER, WAIST, Skeleton

_SECTORS = 24
_RINGS = 17
# In heights of the person.
_LOWEST, _HIGHEST = 0.455, 0.842  # of the trunk
_SKIRT_WAIST, _SKIRT_HEM, _COAT_HEM = 0.57, 0.31, 0.36

# Half width and half depth of the trunk by height.
_HEIGHTS = (0.455, 0.48, HIP, 0.54, WAIST, 0.66, CHEST, 0.77, SHOULDER, 0.815, 0.842)
_WIDTHS = (0.052, 0.080, 0.088, 0.086, 0.078, 0.083, 0.092, 0.099, 0.098, 0.074, 0.034)
_DEPTHS = (0.042, 0.064, 0.068, 0.064, 0.057, 0.061, 0.066, 0.060, 0.052, 0.044, 0.034)


def trunk(person: Identity, skeleton: Skeleton) -> Mesh:
    """Builds the trunk from the crotch to the neck, with everything that lies flat on it."""
    # What a skirt or a coat hides is left out: facets are sorted by their centres, hidden ones would show through.
    lowest = _LOWEST if covered_height(person) is None else _SKIRT_WAIST - 0.02
    heights = np.linspace(lowest, _HIGHEST, _RINGS)
    path = np.stack([skeleton.trunk_point(0.0, height, 0.0) for height in heights])
    quads = tube(path, _radii(person, heights), sectors=_SECTORS)
    middle = (heights[:-1] + heights[1:]) / 2
    azimuths = _azimuths(_SECTORS)
    return Mesh(quads.reshape(-1, 4, 3), _trunk_colors(person, middle[:, None], azimuths[None, :]).reshape(-1, 3))


def covered_height(person: Identity) -> float | None:
    """Returns the hem of a skirt or coat in heights of the person, None with neither."""
    if person.bottom == "skirt":
        return _SKIRT_HEM
    return _COAT_HEM if person.top == "coat" else None


def skirt(person: Identity, skeleton: Skeleton) -> Mesh:
    """Builds the skirt, or the tails of the coat, that give way to the legs."""
    coat = person.top == "coat"
    hem, flare = (_COAT_HEM, 0.018) if coat else (_SKIRT_HEM, 0.035)
    heights = np.linspace(hem, _SKIRT_WAIST, 7)
    down = np.clip((HIP - heights) / (HIP - KNEE), 0, 1)
    thighs = [leg.hip + down[:, None] * (leg.knee - leg.hip) for leg in skeleton.legs]
    body = _radii(person, np.maximum(heights, 0.51)) + 0.006
    # Where the legs part, the cloth is as deep as they are apart.
    apart = np.abs(thighs[0][:, 2] - thighs[1][:, 2]) / 2
    body[:, 0] += flare * down
    body[:, 1] = np.maximum(body[:, 1], apart + 0.045) + flare * down
    path = np.stack([skeleton.trunk_point(0.0, height, 0.0) for height in heights])
    path[:, 2] += (thighs[0][:, 2] + thighs[1][:, 2]) / 2
    quads = tube(path, body, sectors=16)
    color = np.asarray(RGB[person.top_color if coat else person.bottom_color], dtype=float)
    return Mesh(quads.reshape(-1, 4, 3), np.broadcast_to(color, (6 * 16, 3)))


def bag(person: Identity, skeleton: Skeleton) -> Mesh:
    """Builds the bag; its straps are part of the trunk's colours."""
    wide = person.girth
    side = person.bag_side
    if person.bag == "backpack":
        return _box(person, skeleton.trunk_point(0.0, 0.685, -0.062 * wide - 0.042), (0.078, 0.115, 0.046))
    if person.bag == "shoulder":
        return _box(person, skeleton.trunk_point(side * (0.098 * wide + 0.026), 0.475, -0.01), (0.030, 0.065, 0.078))
    hand = skeleton.arms[0 if side == 1 else 1].hand
    return _box(person, hand - np.array([0.0, 0.115, 0.0]), (0.026, 0.062, 0.070))


def _box(person: Identity, center: np.ndarray, half: tuple[float, float, float]) -> Mesh:
    """A box with rounded edges around center [3]; half: its half width, height and depth."""
    across = np.array([0.15, 0.9, 1.0, 1.0, 1.0, 0.92, 0.15])
    up = np.array([-1.0, -0.96, -0.6, 0.1, 0.6, 0.94, 1.0])
    path = center + np.outer(up * half[1], [0.0, 1.0, 0.0])
    quads = tube(path, across[:, None] * np.array([half[0], half[2]]), sectors=12, boxiness=0.5)
    # The lower half is a pocket, a little darker.
    shade = np.array([0.8, 0.8, 0.8, 1.0, 1.0, 1.0])
    colors = shade[:, None, None] * np.asarray(RGB[person.bag_color], dtype=float)
    return Mesh(quads.reshape(-1, 4, 3), np.broadcast_to(colors, (6, 12, 3)).reshape(-1, 3))


def _radii(person: Identity, heights: np.ndarray) -> np.ndarray:
    """Half width and half depth [R, 2] of the trunk at heights [R]."""
    widths, depths = np.interp(heights, _HEIGHTS, _WIDTHS), np.interp(heights, _HEIGHTS, _DEPTHS)
    upper = np.clip((heights - WAIST) / (CHEST - WAIST), 0, 1)
    widths = widths * person.girth ** (1 - 0.6 * upper) * person.shoulders**upper
    thick = 0.0 if person.top == "tee" else 0.006
    return np.stack([widths + thick, depths * person.girth + thick], axis=1)


def _azimuths(sectors: int) -> np.ndarray:
    """Radians [sectors] from the front to the person's left at which the facets of an upright tube lie."""
    angles = (np.arange(sectors) + 0.5) * 2 * np.pi / sectors
    return np.arctan2(np.cos(angles), -np.sin(angles))


def _trunk_colors(person: Identity, height: np.ndarray, azimuth: np.ndarray) -> np.ndarray:
    """RGB [R, S, 3] of the trunk at heights [R, 1] and azimuths [1, S]; later layers lie over earlier ones."""
    hem = 0.53 if person.top == "tee" else 0.505
    layers = [
        (height > hem, person.top_color),
        (_has_accent(person, height, azimuth), person.top_accent),
        (_in_print(person, height, azimuth), person.print_color),
        (_in_neckline(person, height, azimuth), person.skin),
        (_under_strap(person, height, azimuth), person.bag_color),
    ]
    shape = (height.shape[0], azimuth.shape[1])
    colors = np.broadcast_to(np.asarray(RGB[person.bottom_color], dtype=float), (*shape, 3))
    for mask, color in layers:
        mask = np.broadcast_to(mask & (height > hem), shape)[..., None]
        colors = np.where(mask, np.asarray(RGB[color], dtype=float), colors)
    return colors


def _has_accent(person: Identity, height: np.ndarray, azimuth: np.ndarray) -> np.ndarray:
    if person.top == "jacket":
        return np.abs(azimuth) < 0.3 + 2.0 * np.maximum(0, height - 0.70)
    band, column = np.floor(height / 0.0485).astype(int), np.floor((azimuth + np.pi) / (np.pi / 6)).astype(int)
    if person.pattern == "stripes":
        return band % 2 == 0
    if person.pattern == "checks":
        return (band + column) % 2 == 0
    if person.pattern == "yoke":
        return height > 0.71
    return np.zeros((1, 1), dtype=bool)


def _in_print(person: Identity, height: np.ndarray, azimuth: np.ndarray) -> np.ndarray:
    across, up = np.abs(azimuth) / 0.68, np.abs(height - 0.695) / 0.062
    if person.print_shape == "disc":
        return across**2 + up**2 < 1
    if person.print_shape == "bar":
        return (across < 1.3) & (up < 0.4)
    if person.print_shape == "square":
        return (across < 0.7) & (up < 1)
    return np.zeros((1, 1), dtype=bool)


def _in_neckline(person: Identity, height: np.ndarray, azimuth: np.ndarray) -> np.ndarray:
    return (height > 0.818) & (np.abs(azimuth) < 1.0) & (person.top in ("tee", "jacket"))


def _under_strap(person: Identity, height: np.ndarray, azimuth: np.ndarray) -> np.ndarray:
    if person.bag == "backpack":
        return (np.abs(np.abs(azimuth) - 0.72) < 0.16) & (height > 0.65)
    if person.bag == "shoulder":
        # From the far shoulder across chest and back down to the bag.
        across = 0.085 * np.sin(azimuth) * person.bag_side
        return np.abs(across - (-0.055 + 0.14 * (0.815 - height) / 0.30)) < 0.014
    return np.zeros((1, 1), dtype=bool)
