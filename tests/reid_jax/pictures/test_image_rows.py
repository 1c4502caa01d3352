"""reid_jax/image_rows.py: where tiles are, what tells their frames apart, and that text stays in its place."""

import itertools

import numpy as np
import pytest

from reid_jax.pictures import image_rows
from reid_jax.pictures.image_rows import Mark, Row, Tile

PAPER = (250, 250, 250)
GREY = (128, 128, 128)
COLOURS = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0), (0, 200, 200), (200, 0, 200), (90, 40, 10)]
ODD_TEXTS = [
    "W" * 500,
    "words " * 100,
    "a" + "\u0301" * 200,
    "日本語.png",
    "\x00\x07\x1b[31m\ud800\udcff\u202e",
    "👩‍👩‍👧 \u0e01\u0e33",
    " \n\t ",
    "jjjj gggg " * 10,
]


def plain(colour, height=32, width=16):
    return np.full((height, width, 3), colour, np.uint8)


def plain_tiles(number):
    return [Tile(plain(colour)) for colour in COLOURS[:number]]


def place(picture, colour):
    """(left, top, right, bottom) of a colour in the picture, right and bottom excluded."""
    rows, columns = np.nonzero((np.asarray(picture) == colour).all(axis=2))
    assert len(rows) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1), "an image is a full rectangle"
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def places(picture, number):
    return np.array([place(picture, colour) for colour in COLOURS[:number]])


def is_paper(picture):
    return (np.asarray(picture) == PAPER).all(axis=2)


def cell(mark, image=None, size=(64, 32)):
    """A single tile's picture, with the paper around it."""
    image = plain(GREY, *size) if image is None else image
    return image_rows.draw_rows([Row("", [Tile(image, mark=mark)])], tile_height=size[0], tile_width=size[1])


def test_tiles_are_side_by_side_in_order():
    picture = image_rows.draw_rows([Row("", plain_tiles(3))])
    assert picture.mode == "RGB" and picture.size == (3 * 76 + 16, 140 + 16)
    assert places(picture, 3).tolist() == [[14, 14, 78, 142], [90, 14, 154, 142], [166, 14, 230, 142]]


def test_a_long_row_goes_on_in_further_lines():
    picture = image_rows.draw_rows([Row("", plain_tiles(7))], tile_height=40, tile_width=20, max_columns=3)
    left, top = places(picture, 7)[:, :2].T
    assert left.tolist() == [14, 46, 78, 14, 46, 78, 14]
    assert [len(set(top[start : start + 3])) for start in (0, 3, 6)] == [1, 1, 1]
    assert top[0] < top[3] < top[6] and top[3] - top[0] == top[6] - top[3] >= 40


def test_titles_and_captions_make_room_in_their_own_lines_only():
    tiles = plain_tiles(7)
    tiles[1] = tiles[1]._replace(caption="a caption of two lines")
    picture = image_rows.draw_rows([Row("", tiles[:4]), Row("title", tiles[4:6]), Row("", tiles[6:])], max_columns=2)
    top = places(picture, 7)[:, 1]
    assert top[0] == top[1] == 14
    assert top[2] == top[3] == top[0] + 140 + 2 * 15 + 6
    assert top[4] == top[5] == top[2] + 140 + 14 + 18 + 3
    assert top[6] == top[4] + 140 + 14


@pytest.mark.parametrize(
    "shape, size", [((400, 800), (64, 32)), ((20, 10), (64, 128)), ((64, 64), (64, 64)), ((1, 900), (64, 1))]
)
def test_an_image_keeps_its_aspect_ratio_in_the_middle_of_its_tile(shape, size):
    left, top, right, bottom = place(cell(None, plain((9, 9, 9), *shape), (128, 64)), (9, 9, 9))
    assert (right - left, bottom - top) == size
    assert abs((left + right) / 2 - (14 + 32)) <= 0.5 and abs((top + bottom) / 2 - (14 + 64)) <= 0.5


def test_an_image_of_the_tile_size_is_kept_as_it_is():
    image = np.random.default_rng(0).integers(0, 256, (64, 3, 32), np.uint8).transpose(0, 2, 1)
    before = image.copy()
    picture = np.asarray(cell(Mark.NEUTRAL, image))
    np.testing.assert_array_equal(picture[14 : 14 + 64, 14 : 14 + 32], before)
    np.testing.assert_array_equal(image, before)


def test_no_mark_is_no_frame():
    picture = np.array(cell(None))
    picture[14 : 14 + 64, 14 : 14 + 32] = PAPER
    assert is_paper(picture).all()


@pytest.mark.parametrize("mark, thickness", [(Mark.QUERY, 5), (Mark.RIGHT, 3), (Mark.WRONG, 3), (Mark.NEUTRAL, 1)])
def test_a_frame_is_around_its_tile_with_paper_between(mark, thickness):
    picture = np.asarray(cell(mark))
    outside = picture[14 + 32]  # along a line through the middle
    colour = tuple(outside[12])
    assert colour != PAPER
    for side in (outside[:14][::-1], outside[14 + 32 :], picture[:14, 30][::-1], picture[14 + 64 :, 30]):
        assert [tuple(pixel) for pixel in side[: thickness + 2]] == [PAPER, *[colour] * thickness, PAPER]


def test_frames_have_their_colours():
    colours = [np.asarray(cell(mark))[46, 12].astype(int) for mark in (Mark.QUERY, Mark.RIGHT, Mark.WRONG)]
    for colour, channel in zip(colours, (2, 1, 0), strict=True):  # blue, green, red
        assert colour.argmax() == channel and colour[channel] > np.delete(colour, channel).max() + 60
    assert colours[0].max() < 128, "the query's is dark"
    assert np.ptp(np.asarray(cell(Mark.NEUTRAL))[46, 12]) == 0


@pytest.mark.parametrize("size", [(64, 32), (16, 16), (256, 128)])
def test_any_two_marks_differ_without_colours(size):
    frames = {mark: np.asarray(cell(mark, size=size).convert("L"), int) for mark in (*Mark, None)}
    for one, other in itertools.combinations(frames, 2):
        assert np.count_nonzero(abs(frames[one] - frames[other]) > 50) >= 40, (one, other)


def test_right_and_wrong_differ_by_the_shape_in_their_corner():
    shapes = []
    for mark in (Mark.RIGHT, Mark.WRONG):
        picture = np.asarray(cell(mark, size=(128, 64)), int)
        frame = picture[64, 12]
        corner = picture[13 : 13 + 16, 79 - 16 : 79]
        assert (corner[:2, :2] == frame).all() and (corner[-2:, -2:] == frame).all(), "it is of the frame's colour"
        assert (picture[14:142, 14:63] == GREY).all() and (picture[29:142, 14:78] == GREY).all(), "no more is covered"
        shapes.append(abs(corner - frame).sum(axis=2) / abs(PAPER - frame).sum())
    tick, cross = shapes
    for mirrored in (cross[::-1], cross[:, ::-1]):
        np.testing.assert_allclose(cross, mirrored, atol=0.35)
    assert tick[:8].sum() < tick[8:].sum() and abs(tick - cross).max() > 0.8


def test_a_dimmed_image_is_faded_and_has_a_dashed_frame():
    picture = np.asarray(cell(Mark.DIMMED))
    faded = np.round(0.3 * np.array(GREY) + 0.7 * np.array(PAPER))
    np.testing.assert_allclose(picture[14 : 14 + 64, 14 : 14 + 32], np.broadcast_to(faded, (64, 32, 3)), atol=1)
    for side in (picture[12, 12:48], picture[14 + 64 + 1, 12:48], picture[12:80, 12], picture[12:80, 14 + 32 + 1]):
        dashes = np.count_nonzero(np.diff(is_paper(side[None])[0].astype(int), prepend=1) < 0)
        assert dashes >= len(side) // 8


def test_an_image_that_is_missing_is_a_grey_tile_with_a_cross():
    tile = np.asarray(image_rows.draw_rows([Row("", [Tile(None)])]), int)[14 : 14 + 128, 14 : 14 + 64]
    assert (np.ptp(tile, axis=2) == 0).all() and tile.max() < 240
    ground = tile[10, 32]
    for row, column in ((32, 16), (64, 32), (32, 47), (96, 16)):
        assert tile[row - 1 : row + 2, column - 1 : column + 2].min() < ground[0] - 20
    framed = np.asarray(image_rows.draw_rows([Row("", [Tile(None, mark=Mark.WRONG)])]))
    assert (framed[46, 12] == np.asarray(cell(Mark.WRONG))[46, 12]).all()


@pytest.mark.parametrize("text", ODD_TEXTS)
@pytest.mark.parametrize("size", [(16, 16), (128, 64)])
def test_captions_stay_under_their_tile(text, size):
    tiles = [Tile(plain(GREY, *size), text), Tile(plain(GREY, *size)), Tile(plain(GREY, *size), text)]
    drawn = image_rows.draw_rows([Row("", tiles)], tile_height=size[0], tile_width=size[1])
    ink = ~is_paper(drawn)
    under = ink[14 + size[0] :]
    columns = np.zeros(ink.shape[1], bool)
    for number in (0, 2):
        columns[14 + number * (size[1] + 12) :][: size[1]] = True
    assert not under[:, ~columns].any() and not ink[:14].any() and not ink[-8:].any()
    assert under[:, columns].any() == bool(text.strip())
    assert ink.shape[0] <= 16 + 12 + size[0] + 2 * 15
    assert (np.asarray(drawn)[14 : 14 + size[0], 14 : 14 + size[1]] == GREY).all()


def test_captions_are_in_the_middle():
    ink = ~is_paper(image_rows.draw_rows([Row("", [Tile(None, "HH")])]))[14 + 128 :]
    columns = np.flatnonzero(ink.any(axis=0))
    assert abs((columns[0] + columns[-1]) / 2 - (14 + 31.5)) <= 1


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_titles_stay_in_the_sheet_above_their_tiles(text):
    drawn = image_rows.draw_rows([Row(text, plain_tiles(2))])
    ink = ~is_paper(drawn)
    assert drawn.width <= 480
    top = place(drawn, COLOURS[0])[1]
    assert top <= 14 + 2 * 18 + 3
    assert not ink[:8].any() and not ink[:, :14].any() and not ink[:, -14:].any()
    assert ink[:top].any() == bool(text.strip())


def test_a_sheet_is_only_as_wide_as_its_titles_need():
    def width(title, tiles=2):
        return image_rows.draw_rows([Row(title, plain_tiles(tiles)), Row("", plain_tiles(1))]).width

    assert width("short") == width("") == 2 * 76 + 16
    assert width("") < width("a title longer than two tiles") < 480
    assert width("a title longer than two tiles " * 9) == 480
    assert width("a title longer than two tiles " * 9, 7) == 7 * 76 + 16


def test_text_is_broken_at_spaces_and_cut_with_an_ellipsis(drawn_texts):
    image_rows.draw_rows([Row("", [Tile(None, text) for text in ("one", "first second", "first  second third", "")])])
    image_rows.draw_rows([Row("", [Tile(None, "0123456789" * 9)])])
    assert drawn_texts[:5] == ["one", "first", "second", "first", "second t…"]
    first, second = drawn_texts[5:]
    assert first + second.removesuffix("…") == ("0123456789" * 9)[: len(first + second) - 1] and second[-1] == "…"
    assert len(first) - len(second) in (0, 1, 2), "both lines are full"


def test_text_that_cannot_be_drawn_is_replaced(drawn_texts):
    titles = "a\nb\tc\r\n\u2028d", "\x00 \ud800 Ren\u00e9 Mu\u0308ller x\u0338 \u2260"
    image_rows.draw_rows([Row(title, plain_tiles(4)) for title in titles])
    assert drawn_texts == ["a b c d", "? ? Rene Muller x \u2260"]


def test_the_legend_explains_the_marks_that_occur(drawn_texts):
    tiles = [Tile(plain(GREY), mark=mark) for mark in (Mark.WRONG, None, Mark.QUERY, Mark.WRONG)]
    without = image_rows.draw_rows([Row("", tiles)])
    assert not drawn_texts
    picture = image_rows.draw_rows([Row("", tiles)], legend=True)
    assert drawn_texts[-2:] == ["query", "wrong"]
    assert picture.height == without.height + 14 + 36 and picture.width == without.width
    image_rows.draw_rows([Row("", tiles)], legend={Mark.WRONG: "another identity", Mark.RIGHT: "the same"})
    assert drawn_texts[-2:] == ["query", "another identity"]
    samples = np.asarray(picture)[without.height + 14 - 8 :]
    names = np.flatnonzero((samples.max(axis=2) < 60).any(axis=1))  # ink
    assert abs((names[0] + names[-1]) / 2 - 18) <= 2, "names are beside the middle of their samples"
    for mark in (Mark.QUERY, Mark.WRONG):
        assert (samples == np.asarray(cell(mark))[46, 12]).all(axis=2).any()
    assert image_rows.draw_rows([Row("", plain_tiles(2))], legend=True).height == 156


def test_a_long_legend_goes_on_in_further_lines():
    tiles = [Tile(None, mark=mark) for mark in Mark]
    picture = image_rows.draw_rows([Row("", tiles)], legend={mark: "what this frame says of an image" for mark in Mark})
    assert picture.width == 480 and picture.height == 156 + 14 + 3 * 36
    assert not (~is_paper(picture))[:, -8:].any()
    long = image_rows.draw_rows([Row("", tiles)], legend={Mark.QUERY: "W" * 500})
    assert long.width == 480 and not (~is_paper(long))[:, -8:].any()


def test_rows_errors():
    with pytest.raises(ValueError, match="rows must"):
        image_rows.draw_rows([])
    with pytest.raises(ValueError, match=r"rows\[1\].tiles must"):
        image_rows.draw_rows([Row("", plain_tiles(1)), Row("", [])])
    with pytest.raises(TypeError, match=r"rows\[0\].title must"):
        image_rows.draw_rows([Row(None, plain_tiles(1))])


@pytest.mark.parametrize(
    "image",
    [plain(GREY)[..., 0], plain(GREY)[..., :2], plain(GREY) / 255, plain(GREY, 0, 5), plain(GREY)[None]],
    ids=lambda image: f"{image.shape}",
)
def test_image_errors(image):
    with pytest.raises(ValueError, match=r"rows\[0\].tiles\[1\].image must"):
        image_rows.draw_rows([Row("", [Tile(None), Tile(image)])])


def test_tile_errors():
    with pytest.raises(TypeError, match=r"tiles\[0\].caption must"):
        image_rows.draw_rows([Row("", [Tile(None, 3)])])
    with pytest.raises(TypeError, match=r"tiles\[0\].mark must"):
        image_rows.draw_rows([Row("", [Tile(None, mark="right")])])


@pytest.mark.parametrize("option, least", [("tile_height", 16), ("tile_width", 16), ("max_columns", 1)])
def test_size_errors(option, least):
    image_rows.draw_rows([Row("", plain_tiles(2))], **{option: least})
    with pytest.raises(ValueError, match=f"{option} must"):
        image_rows.draw_rows([Row("", plain_tiles(2))], **{option: least - 1})
