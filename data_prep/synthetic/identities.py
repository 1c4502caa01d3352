"""Who walks past the cameras: body, hair, clothes and bag, drawn from small palettes so that look-alikes exist."""

from typing import NamedTuple

import numpy as np

from data_prep.synthetic.streams import Stream, generator

RGB = {
    "black": (30, 30, 34),
    "white": (226, 226, 222),
    "grey": (128, 130, 134),
    "navy": (38, 48, 96),
    "blue": (62, 98, 168),
    "jeans": (72, 92, 128),
    "red": (176, 36, 42),
    "green": (46, 112, 66),
    "yellow": (214, 178, 58),
    "beige": (188, 164, 128),
    "pink": (214, 134, 156),
    "brown": (98, 64, 40),
    "blond": (196, 160, 96),
    "pale": (232, 194, 168),
    "tan": (206, 158, 122),
    "olive": (160, 112, 80),
    "dark": (96, 64, 46),
}

# Value -> weight. Brighter than real streets: a small network has to learn from a thousand images.
_SKINS = {"pale": 4, "tan": 4, "olive": 2, "dark": 2}
_HAIR_SHAPES = {"short": 6, "long": 4, "bun": 2, "bald": 1}
_HAIR_COLORS = {"black": 5, "brown": 4, "blond": 2, "grey": 1}
_TOPS = {"tee": 5, "sweater": 4, "jacket": 3, "coat": 1.5}
_TOP_COLORS = {
    "black": 2, "white": 2, "grey": 1, "navy": 1, "red": 3, "green": 3, "yellow": 3, "beige": 1, "pink": 2, "blue": 3
}  # fmt: skip
_PATTERNS = {"plain": 7, "stripes": 2, "checks": 1.5, "yoke": 1.5}
_PRINTS = {"none": 4, "disc": 2, "bar": 2, "square": 2}
_PRINT_COLORS = {"white": 3, "black": 2, "red": 2, "yellow": 2, "blue": 2}
_BOTTOMS = {"trousers": 7, "shorts": 3, "skirt": 2}
_BOTTOM_COLORS = {"black": 3, "jeans": 3, "grey": 1, "beige": 2, "white": 2, "red": 1.5, "green": 1.5}
_SHOE_COLORS = {"black": 4, "white": 3, "brown": 2, "red": 1}
_BAGS = {"none": 6, "backpack": 5, "shoulder": 3, "hand": 2}
_BAG_COLORS = {"black": 4, "red": 2, "brown": 2, "blue": 2, "beige": 1}
_HATS = {"none": 8, "cap": 1.5, "beanie": 1}
_HAT_COLORS = {"black": 2, "white": 1, "red": 1, "blue": 1}

_GIRTHS = (0.80, 0.90, 1.02)
_SHOULDERS = (0.92, 1.0, 1.07)


class Identity(NamedTuple):
    """What one person looks like; colours are names in `RGB`.

    Attributes:
        girth: width of trunk and limbs, 1 the average.
        shoulders: width of the shoulders, 1 the average.
        skin: skin colour.
        hair: "short", "long", "bun" or "bald".
        hair_color: colour of the hair.
        top: "tee", "sweater", "jacket" (open over a shirt) or "coat" (to the middle of the thigh).
        top_color: main colour of the top.
        top_accent: second colour: of the pattern, or of the shirt under a jacket.
        pattern: "plain", "stripes", "checks" or "yoke" (the upper half in the second colour).
        print_shape: motif on the chest, not seen from behind: "none", "disc", "bar" or "square".
        print_color: its colour.
        bottom: "trousers", "shorts" or "skirt".
        bottom_color: its colour.
        shoe_color: colour of the shoes.
        bag: "none", "backpack", "shoulder" or "hand".
        bag_color: its colour.
        bag_side: 1 the person's left, -1 the right; the backpack has none.
        hat: "none", "cap" or "beanie".
        hat_color: its colour.
    """

    girth: float
    shoulders: float
    skin: str
    hair: str
    hair_color: str
    top: str
    top_color: str
    top_accent: str
    pattern: str
    print_shape: str
    print_color: str
    bottom: str
    bottom_color: str
    shoe_color: str
    bag: str
    bag_color: str
    bag_side: int
    hat: str
    hat_color: str


def draw_identities(seed: int, count: int) -> list[Identity]:
    """Draws the world's first people, no two alike in what can be seen of them.

    Args:
        seed: the world's seed, at least 0.
        count: how many.

    Returns:
        `count` identities; the first n are the same whatever `count` is.
    """
    people: list[Identity] = []
    taken = set()
    for number in range(count):
        rng = generator(seed, Stream.IDENTITY, number)
        person = _draw_identity(rng)
        while _outfit(person) in taken:
            person = _draw_identity(rng)
        taken.add(_outfit(person))
        people.append(person)
    return people


def _draw_identity(rng: np.random.Generator) -> Identity:
    top = _pick(rng, _TOPS)
    top_color = _pick(rng, _TOP_COLORS)
    # A coat or an open jacket carries neither pattern nor print, a pattern no print.
    pattern = _pick(rng, _PATTERNS) if top in ("tee", "sweater") else "plain"
    # Under a coat a skirt would not be seen.
    bottom = _pick(rng, {name: _BOTTOMS[name] for name in _BOTTOMS if (top, name) != ("coat", "skirt")})
    plain_shirt = top in ("tee", "sweater") and pattern == "plain"
    return Identity(
        girth=_GIRTHS[rng.integers(len(_GIRTHS))],
        shoulders=_SHOULDERS[rng.integers(len(_SHOULDERS))],
        skin=_pick(rng, _SKINS),
        hair=_pick(rng, _HAIR_SHAPES),
        hair_color=_pick(rng, _HAIR_COLORS),
        top=top,
        top_color=top_color,
        top_accent=_pick(rng, _TOP_COLORS, other_than=top_color),
        pattern=pattern,
        print_shape=_pick(rng, _PRINTS) if plain_shirt else "none",
        print_color=_pick(rng, _PRINT_COLORS, other_than=top_color),
        bottom=bottom,
        bottom_color=_pick(rng, _BOTTOM_COLORS),
        shoe_color=_pick(rng, _SHOE_COLORS),
        bag=_pick(rng, _BAGS),
        bag_color=_pick(rng, _BAG_COLORS, other_than=top_color),
        bag_side=1 if rng.random() < 0.5 else -1,
        hat=_pick(rng, _HATS),
        hat_color=_pick(rng, _HAT_COLORS),
    )


def _outfit(person: Identity) -> tuple[str, ...]:
    """What tells a person from others at any angle: not the build, not what only one side shows."""
    accent = person.top_accent if person.top == "jacket" or person.pattern != "plain" else ""
    bag = (person.bag, person.bag_color) if person.bag != "none" else ()
    return (person.top, person.top_color, accent, person.pattern, person.bottom, person.bottom_color, *bag)


def _pick(rng: np.random.Generator, weights: dict[str, float], *, other_than: str | None = None) -> str:
    names = [name for name in weights if name != other_than]
    bounds = np.cumsum([weights[name] for name in names])
    return names[int(np.searchsorted(bounds, rng.random() * bounds[-1], side="right"))]
