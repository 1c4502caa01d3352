import colorsys
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from reid_jax import augment, errors
from reid_jax.models import reid
from reid_jax.models.color_histogram import ColorHistogram


def embed(backbone, pixels):
    """(map, token) of images [B, H, W, 3] uint8."""
    return jax.jit(lambda images: backbone.apply({}, augment.normalize(images), train=False))(jnp.asarray(pixels))


def hsv(color):
    """colorsys' formulas on fractions, so that the edges of cells are met exactly."""
    red, green, blue = color
    greatest, spread = max(color), max(color) - min(color)
    if not spread:
        return [Fraction(0), Fraction(0), Fraction(greatest, 255)]
    shift, difference = (
        (0, green - blue) if red == greatest else (2, blue - red) if green == greatest else (4, red - green)
    )
    return [(shift + Fraction(difference, spread)) / 6 % 1, Fraction(spread, greatest), Fraction(greatest, 255)]


@pytest.mark.parametrize("bins", [(8, 4, 4), (6, 5, 3)])
def test_cells_are_those_of_colorsys(rng, bins):
    edges = (
        np.array(np.meshgrid(*[[0, 51, 85, 102, 170, 204, 255]] * 3)).reshape(3, -1).T
    )  # grey, pure, simple mixtures
    colors = np.concatenate([edges, rng.integers(0, 256, (300, 3))]).tolist()
    fractions = [hsv(color) for color in colors]
    np.testing.assert_allclose(
        np.float64(fractions), [colorsys.rgb_to_hsv(*np.divide(color, 255)) for color in colors], atol=1e-12
    )
    places = [[min(int(part * count), count - 1) for part, count in zip(each, bins)] for each in fractions]
    expected = np.ravel_multi_index(np.transpose(places), bins)
    # One colour an image: the histogram has a single cell.
    _, token = embed(ColorHistogram(1, bins), np.uint8(colors)[:, None, None])
    np.testing.assert_array_equal(np.asarray(token), np.eye(np.prod(bins))[expected])


@pytest.mark.parametrize("stripes,bins", [(6, (8, 4, 4)), (5, (3, 1, 2))])
def test_histograms_are_numpys(rng, stripes, bins):
    pixels = rng.integers(0, 256, (3, 24, 7, 3), dtype=np.uint8)
    pixels[0, 3] = [255, 255, 255]  # values at the upper edges
    feature_map, token = embed(ColorHistogram(stripes, bins), pixels)
    assert feature_map.shape == (3, stripes, 1, np.prod(bins)) and token.dtype == np.float32
    edges = np.linspace(0, 24, stripes + 1).round().astype(int)
    for image, cells in zip(pixels, np.asarray(feature_map)):
        for stripe, (top, bottom) in enumerate(zip(edges, edges[1:])):
            colors = [colorsys.rgb_to_hsv(*pixel / 255) for pixel in image[top:bottom].reshape(-1, 3)]
            counts, _ = np.histogramdd(np.array(colors), bins, [(0, 1)] * 3)
            np.testing.assert_allclose(cells[stripe, 0], np.sqrt(counts.ravel() / len(colors)), atol=1e-6)
    np.testing.assert_array_equal(token, feature_map.reshape(3, -1))


def test_two_colours_by_hand():
    pixels = np.zeros((1, 2, 4, 3), np.uint8)
    pixels[0, 0, :3] = [255, 0, 0]  # hue 0, full saturation and value; the fourth is black
    pixels[0, 1] = [0, 255, 255]  # hue 1/2
    _, token = embed(ColorHistogram(2, (2, 2, 2)), pixels)
    # Cells by (hue, saturation, value): red (0, 1, 1), black (0, 0, 0), cyan (1, 1, 1).
    np.testing.assert_allclose(token, [[0.5, 0, 0, np.sqrt(0.75), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]], atol=1e-6)


def test_every_stripe_has_length_one(rng):
    pixels = rng.integers(0, 256, (2, 17, 5, 3), dtype=np.uint8)
    feature_map, _ = embed(ColorHistogram(), pixels)
    np.testing.assert_allclose(np.square(feature_map).sum(axis=3), 1, rtol=1e-5)


def test_where_a_colour_is_in_a_stripe_does_not_count(rng):
    pixels = rng.integers(0, 256, (1, 12, 8, 3), dtype=np.uint8)
    _, token = embed(ColorHistogram(), pixels)
    _, mirrored = embed(ColorHistogram(), pixels[:, :, ::-1])
    np.testing.assert_allclose(mirrored, token, atol=1e-6)
    _, turned = embed(ColorHistogram(), pixels[:, ::-1])
    assert np.abs(np.asarray(turned - token)).max() > 0.1


def test_in_a_model_it_is_the_token(rng):
    pixels = rng.integers(0, 256, (2, 12, 8, 3), dtype=np.uint8)
    model = reid.ReidModel(ColorHistogram(), pooling="token")
    variables = model.init(jax.random.key(0), augment.normalize(pixels), train=True)
    assert not jax.tree.leaves(variables)
    embeddings = model.apply(variables, augment.normalize(pixels), train=False).embeddings
    np.testing.assert_allclose(embeddings, embed(ColorHistogram(), pixels)[1], atol=1e-6)


def test_there_is_nothing_to_load():
    backbone = ColorHistogram()
    assert isinstance(backbone, nn.Module) and backbone.frozen_prefixes() == ()
    assert backbone.canonical_state({}, {}) == {} and backbone.torch_name("x/kernel") == "x/kernel"
    # What it has no use for is left in, so that the caller names it.
    assert list(backbone.canonical_state({"fc.weight": np.zeros(1)}, {})) == ["fc.weight"]


@pytest.mark.parametrize(
    "fields,message",
    [
        ({"num_stripes": 0}, r"num_stripes and bins must be at least 1, got 0 and \(8, 4, 4\)"),
        ({"bins": (8, 0, 4)}, r"at least 1, got 6 and \(8, 0, 4\)"),
        ({"frozen_stages": 1}, "frozen_stages must be 0, a colour histogram has none, got 1"),
    ],
)
def test_fields_that_break_a_rule(fields, message):
    with pytest.raises(errors.UserError, match=message):
        ColorHistogram(**fields)


def test_images_with_fewer_rows_than_stripes():
    embed(ColorHistogram(), np.zeros((1, 6, 2, 3), np.uint8))
    with pytest.raises(errors.UserError, match="images must be at least 6 pixels high, one row a stripe, got 5"):
        embed(ColorHistogram(), np.zeros((1, 5, 2, 3), np.uint8))
