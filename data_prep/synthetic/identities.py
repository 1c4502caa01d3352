"""Who walks past the cameras: body, hair, clothes and bag, drawn from few values so that look-alikes exist."""

from typing import NamedTuple

import numpy as np

from reid_jax.data_prep.synthetic.palettes import Palette, Weights
from reid_jax.data_prep.synthetic.streams import Stream, generator

# Value -> weight; the rest of what is drawn is the palette's.
_SKINS = {"pale": 4, "tan": 4, "olive": 2, "dark": 2}
_HAIR_SHAPES = {"short": 6, "long": 4, "bun": 2, "bald": 1}
_HAIR_COLORS = {"black": 5, "brown": 4, "blond": 2, "grey": 1}
_TOPS = {"tee": 5, "sweater": 4, "jacket": 3, "coat": 1.5}
_PATTERNS = {"plain": 7, "stripes": 2, "checks": 1.5, "yoke": 1.5}
_PRINTS = {"none": 4, "disc": 2, "bar": 2, "square": 2}

_GIRTHS = (0.80, 0.90, 1.02)
_SHOULDERS = (0.92, 1.0, 1.07)


class Identity(NamedTuple):
    """What one person looks like; colours are names in `palettes.RGB`.

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


def draw_identities(seed: int, count: int, palette: Palette) -> list[Identity]:
    """Draws the world's first people, no two alike in what can be seen of them.

    Args:
        seed: the world's seed, at least 0.
        count: how many.
        palette: what they wear, in which colours.

    Returns:
        `count` identities; the first n are the same whatever `count` is.
    """
    people: list[Identity] = []
    taken = set()
    for number in range(count):
        rng = generator(seed, Stream.IDENTITY, number)
        person = _draw_identity(rng, palette)
        while _outfit(person) in taken:
            person = _draw_identity(rng, palette)
        taken.add(_outfit(person))
        people.append(person)
    return people


def _draw_identity(rng: np.random.Generator, palette: Palette) -> Identity:
    top = _pick(rng, _TOPS)
    top_color = _pick(rng, palette.top_colors)
    # A coat or an open jacket carries neither pattern nor print, a pattern no print.
    pattern = _pick(rng, _PATTERNS) if top in ("tee", "sweater") else "plain"
    # Under a coat a skirt would not be seen.
    bottom = _pick(rng, palette.bottoms, other_than="skirt" if top == "coat" else None)
    plain_shirt = top in ("tee", "sweater") and pattern == "plain"
    return Identity(
        girth=_GIRTHS[rng.integers(len(_GIRTHS))],
        shoulders=_SHOULDERS[rng.integers(len(_SHOULDERS))],
        skin=_pick(rng, _SKINS),
        hair=_pick(rng, _HAIR_SHAPES),
        hair_color=_pick(rng, _HAIR_COLORS),
        top=top,
        top_color=top_color,
        top_accent=_pick(rng, palette.top_colors, other_than=top_color),
        pattern=pattern,
        print_shape=_pick(rng, _PRINTS) if plain_shirt else "none",
        print_color=_pick(rng, palette.print_colors, other_than=top_color),
        bottom=bottom,
        bottom_color=_pick(rng, palette.bottom_colors),
        shoe_color=_pick(rng, palette.shoe_colors),
        bag=_pick(rng, palette.bags),
        bag_color=_pick(rng, palette.bag_colors, other_than=top_color),
        bag_side=1 if rng.random() < 0.5 else -1,
        hat=_pick(rng, palette.hats),
        hat_color=_pick(rng, palette.hat_colors),
    )


def _outfit(person: Identity) -> tuple[str, ...]:
    """What tells a person from others at any angle: not the build, not what only one side shows."""
    accent = person.top_accent if person.top == "jacket" or person.pattern != "plain" else ""
    bag = (person.bag, person.bag_color) if person.bag != "none" else ()
    return (person.top, person.top_color, accent, person.pattern, person.bottom, person.bottom_color, *bag)


def _pick(rng: np.random.Generator, weights: Weights, *, other_than: str | None = None) -> str:
    names = [name for name in weights if name != other_than]
    bounds = np.cumsum([weights[name] for name in names])
    return names[int(np.searchsorted(bounds, rng.random() * bounds[-1], side="right"))]
