"""The colours of each world: what its people wear, how often, and in which light its cameras see them."""

from typing import NamedTuple

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
    "charcoal": (58, 60, 66),
    "cream": (240, 230, 202),
    "orange": (222, 116, 40),
    "maroon": (108, 26, 48),
    "khaki": (142, 134, 88),
    "lime": (158, 196, 70),
    "teal": (18, 112, 138),
    "sky": (132, 182, 222),
    "indigo": (52, 50, 122),
    "purple": (116, 56, 140),
    "lavender": (192, 150, 210),
}

Weights = dict[str, float]  # value -> weight
Range = tuple[float, float]  # least and greatest value


class Light(NamedTuple):
    """From what the cameras' light is drawn; `cameras.Camera` says what each value does.

    Attributes:
        exposure: range of the factor on brightness.
        cast: factors on red, green and blue about which the cameras' own ones lie.
        gamma: range of the exponent on brightness.
        saturation: range of the saturation.
        haze: range of the added brightness.
        noise: range of the noise's standard deviation, in levels.
    """

    exposure: Range
    cast: tuple[float, float, float]
    gamma: Range
    saturation: Range
    haze: Range
    noise: Range


class Palette(NamedTuple):
    """The colours of a world, names in `RGB`, and what is worn in them; all else is the same in every world.

    Attributes:
        top_colors: of tops, their patterns and the shirts under jackets.
        print_colors: of motifs on the chest.
        bottoms: "trousers", "shorts" and "skirt".
        bottom_colors: of these.
        shoe_colors: of shoes.
        bags: "none", "backpack", "shoulder" and "hand".
        bag_colors: of bags.
        hats: "none", "cap" and "beanie".
        hat_colors: of hats.
        light: from what the cameras' light is drawn.
    """

    top_colors: Weights
    print_colors: Weights
    bottoms: Weights
    bottom_colors: Weights
    shoe_colors: Weights
    bags: Weights
    bag_colors: Weights
    hats: Weights
    hat_colors: Weights
    light: Light


# Brighter than real streets: a small network has to learn from a thousand images.
_DAY = Palette(
    top_colors={
        "black": 2, "white": 2, "grey": 1, "navy": 1, "red": 3, "green": 3, "yellow": 3, "beige": 1, "pink": 2,
        "blue": 3,
    },
    print_colors={"white": 3, "black": 2, "red": 2, "yellow": 2, "blue": 2},
    bottoms={"trousers": 7, "shorts": 3, "skirt": 2},
    bottom_colors={"black": 3, "jeans": 3, "grey": 1, "beige": 2, "white": 2, "red": 1.5, "green": 1.5},
    shoe_colors={"black": 4, "white": 3, "brown": 2, "red": 1},
    bags={"none": 6, "backpack": 5, "shoulder": 3, "hand": 2},
    bag_colors={"black": 4, "red": 2, "brown": 2, "blue": 2, "beige": 1},
    hats={"none": 8, "cap": 1.5, "beanie": 1},
    hat_colors={"black": 2, "white": 1, "red": 1, "blue": 1},
    light=Light(
        exposure=(0.97, 1.03),
        cast=(1.0, 1.0, 1.0),
        gamma=(0.97, 1.03),
        saturation=(0.85, 1.0),
        haze=(0.0, 0.02),
        noise=(0.8, 2.0),
    ),
)  # fmt: skip

# No colour of clothes in common with the day, and a low sun through haze: what was learned there fits less here.
_EVENING = Palette(
    top_colors={
        "charcoal": 2, "cream": 2, "khaki": 1, "indigo": 1, "orange": 3, "maroon": 2, "lime": 2, "teal": 3, "sky": 3,
        "purple": 3, "lavender": 2,
    },
    print_colors={"cream": 3, "charcoal": 2, "orange": 2, "sky": 2, "lime": 1},
    bottoms={"trousers": 7, "shorts": 1, "skirt": 3},
    bottom_colors={"charcoal": 3, "indigo": 3, "khaki": 3, "cream": 1.5, "maroon": 1.5, "teal": 1.5, "lavender": 1},
    shoe_colors={"charcoal": 4, "cream": 2, "maroon": 2, "orange": 1},
    bags={"none": 5, "backpack": 2, "shoulder": 5, "hand": 4},
    bag_colors={"charcoal": 3, "khaki": 2, "orange": 2, "purple": 2, "cream": 1},
    hats={"none": 6, "cap": 1, "beanie": 2.5},
    hat_colors={"charcoal": 2, "maroon": 1, "teal": 1, "lime": 1},
    light=Light(
        exposure=(0.74, 0.86),
        cast=(1.10, 0.98, 0.82),
        gamma=(1.02, 1.12),
        saturation=(0.70, 0.85),
        haze=(0.05, 0.10),
        noise=(1.5, 3.0),
    ),
)  # fmt: skip

PALETTES = (_DAY, _EVENING)
