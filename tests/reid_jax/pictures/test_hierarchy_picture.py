"""reid_jax/hierarchy_picture.py: which items are chosen, their order, and where the bars over them are."""

import colorsys

import numpy as np
import pytest
from PIL import Image

from reid_jax.data.images import CachedImages
from reid_jax.data.samples import Samples
from reid_jax.pictures import hierarchy_picture

PAPER = (250, 250, 250)
# 14 items: at the top clusters of 9, 4 and 1; below them of 5, 4 | 4 | 1; at the bottom of 3, 2, 2, 2 | 2, 1, 1 | 1.
LABELS = np.array([
    [0, 0, 0, 3, 3, 5, 5, 7, 7, 9, 9, 11, 12, 13],
    [0, 0, 0, 0, 0, 5, 5, 5, 5, 9, 9, 9, 9, 13],
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 9, 9, 9, 13],
])  # fmt: skip


def plain_images(number, height=32, width=16):
    """Images of one colour each, a different one."""
    colours = [[round(255 * part) for part in colorsys.hls_to_rgb(i / number, 0.4, 1)] for i in range(number)]
    return np.broadcast_to(np.array(colours, np.uint8)[:, None, None], (number, height, width, 3))


def places(picture, images):
    """By image, the (left, top, right, bottom) of its colour in the picture, right and bottom excluded."""
    pixels, boxes = np.asarray(picture), []
    for image in images:
        rows, columns = np.nonzero((pixels == image[0, 0]).all(axis=2))
        assert len(rows) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1), "an image is a full rectangle"
        boxes.append((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
    return boxes


def bar_colours(picture, x, top, num_levels):
    """The colours of the bars over an image whose top is given, along the column x, the lowest level first."""
    colours, y = [], top
    while len(colours) < num_levels:
        y -= 1
        if picture.getpixel((x, y)) != PAPER:
            colours.append(picture.getpixel((x, y)))  # a bar's lowest line, under its text
            while picture.getpixel((x, y)) != PAPER:
                y -= 1
    return colours


def blocks(values):
    """How many runs of equal values there are."""
    return 1 + np.count_nonzero(np.diff(values))


def test_the_order_keeps_clusters_together_at_every_level():
    rng = np.random.default_rng(0)
    low = rng.integers(0, 40, 200)
    middle = rng.integers(0, 15, 40)[low]
    labels = np.stack([low, middle, rng.integers(0, 5, 15)[middle]])
    order = hierarchy_picture.cluster_order(labels)
    assert sorted(order) == list(range(200))
    for level in labels:
        assert blocks(level[order]) == len(np.unique(level))


def test_larger_clusters_come_first_then_lower_labels_and_indices():
    labels = np.array([[1, 4, 4, 0, 2, 2, 7], [1, 4, 4, 4, 2, 2, 2]])
    assert hierarchy_picture.cluster_order(labels).tolist() == [4, 5, 6, 1, 2, 3, 0]


def test_the_sizes_are_those_of_the_items_clusters():
    assert hierarchy_picture.cluster_sizes(np.array([[5, 1, 5, 5], [0, 0, 0, 0]])).tolist() == [[3, 1, 3, 3], [4] * 4]


@pytest.mark.parametrize(
    "low,top,true_ids,chosen",
    [
        # Of identity 3 three clusters became one, of identity 2 two.
        ([0, 0, 2, 3, 4, 5], [0, 0, 0, 3, 3, 3], [2, 2, 2, 3, 3, 3], [3, 4, 5]),
        # Of both one less; identity 5 is in fewer clusters at the top.
        ([0, 1, 2, 3, 4], [0, 0, 2, 3, 3], [1, 1, 1, 5, 5], [3, 4]),
        # All is equal: the lowest identity.
        ([0, 1, 2, 3], [0, 0, 2, 2], [8, 8, 6, 6], [2, 3]),
        # Unknown ones do not count, however much is united.
        ([0, 1, 2, 3, 4], [0, 0, 0, 3, 4], [-1, -1, -1, 9, 9], [3, 4]),
        # None is known: the top level's cluster with the most below it.
        ([0, 1, 1, 3, 4, 5], [0, 0, 0, 3, 3, 3], [-1] * 6, [3, 4, 5]),
    ],
)
def test_the_identity_whose_hierarchy_says_the_most(low, top, true_ids, chosen):
    assert hierarchy_picture.choose_group([low, top], true_ids).tolist() == chosen


def test_of_a_large_identity_some_are_kept_evenly_in_the_pictures_order():
    # In the picture's order 3, 4, 5, 6, 0, 1, 2: the larger cluster first.
    labels, true_ids = np.array([[0, 0, 2, 3, 3, 3, 3], [0, 0, 0, 3, 3, 3, 3]]), np.zeros(7, int)
    for most, chosen in ((7, list(range(7))), (3, [2, 3, 6]), (2, [2, 3]), (1, [3])):
        assert hierarchy_picture.choose_group(labels, true_ids, max_images=most).tolist() == chosen


@pytest.mark.parametrize("number", [1, 12])
def test_images_of_one_row_and_their_bars(number):
    images, labels = plain_images(number), LABELS[:, :number]
    sizes = hierarchy_picture.cluster_sizes(labels)
    picture = hierarchy_picture.hierarchy_picture(images, labels, sizes=sizes)
    boxes = places(picture, images)
    assert {box[1] for box in boxes} == {boxes[0][1]}
    assert all((right - left, bottom - top) == (64, 128) for left, top, right, bottom in boxes)
    assert all(after[0] - before[2] == 4 for before, after in zip(boxes, boxes[1:]))
    assert picture.height == boxes[0][3] + 12 and picture.width >= boxes[-1][2] + 12
    for left, top, right, _ in boxes:
        for x in (left, right - 1):
            assert bar_colours(picture, x, top, 3) == bar_colours(picture, left, top, 3)
    colours = np.array([bar_colours(picture, left, top, 3) for left, top, *_ in boxes])
    # At every level as many colours as the top level has clusters, but other ones, the lower the lighter.
    for level in range(3):
        assert len(np.unique(colours[:, level], axis=0)) == len(np.unique(labels[2]))
    assert (colours[:, :-1].sum(axis=2) > colours[:, 1:].sum(axis=2)).all()
    # Between two images there is a bar where they are of one cluster, and else a gap.
    height = {level: boxes[0][1] - 5 - 24 * level for level in range(3)}
    for place, box in enumerate(boxes[1:]):
        for level in range(3):
            filled = [picture.getpixel((x, height[level])) != PAPER for x in range(box[0] - 4, box[0])]
            assert filled == [labels[level, place] == labels[level, place + 1]] * 4


def test_items_are_sorted_into_their_clusters():
    images, shuffled = plain_images(12), np.random.default_rng(1).permutation(12)
    labels = LABELS[:, :12]
    sizes = hierarchy_picture.cluster_sizes(labels)
    picture = hierarchy_picture.hierarchy_picture(images[shuffled], labels[:, shuffled], sizes=sizes[:, shuffled])
    by_place = np.argsort([box[0] for box in places(picture, images)])
    assert [blocks(level[by_place]) for level in labels] == [6, 3, 2]


def test_a_cluster_goes_on_in_the_next_row(drawn_texts):
    texts = drawn_texts
    images, sizes = plain_images(14), hierarchy_picture.cluster_sizes(LABELS)
    picture = hierarchy_picture.hierarchy_picture(images, LABELS, sizes=sizes)
    boxes = places(picture, images)
    tops = [top for _, top, *_ in boxes]
    assert tops == [tops[0]] * 7 + [tops[7]] * 7 and tops[7] > boxes[0][3] + 3 * 24
    assert [box[0] for box in boxes[:7]] == [box[0] for box in boxes[7:]]
    colours = [bar_colours(picture, left, top, 3) for left, top, *_ in boxes]
    # The cluster of 9 at the top spans all of the first row, and has its colour in the second one.
    assert colours[6] == colours[7] == colours[8] != colours[9]
    # Its bar points to the right, where the cluster of 2 at the bottom ends, and begins further left in the second.
    right, left = boxes[6][2], boxes[7][0]
    assert picture.getpixel((right + 3, tops[0] - 4 - 48 - 10)) == colours[6][2]
    assert picture.getpixel((left - 6, tops[7] - 4 - 48 - 2)) == colours[7][2]
    assert picture.getpixel((right + 3, tops[0] - 4 - 10)) == picture.getpixel((left - 6, tops[7] - 4 - 2)) == PAPER
    assert [text for text in texts if text.startswith("level")] == [f"level {i}" for i in (1, 1, 2, 2, 3, 3)]
    assert "9 images" in texts and "9 images, continued" in texts and "1 image" in texts
    assert texts[:2] == [
        "one identity, 14 images: clusters at each level",
        "A cluster whose bar ends in a point goes on in the next row of images.",
    ]


def test_what_is_not_shown_of_a_cluster_is_told(drawn_texts):
    texts = drawn_texts
    sizes = np.array([[3, 3, 200000], [7, 7, 4000000000]])
    hierarchy_picture.hierarchy_picture(plain_images(3), [[0, 0, 2], [0, 0, 2]], sizes=sizes)
    # The last bar is too short for "1/4000000000".
    assert texts == [
        "one identity, 3 images: clusters at each level (2 of 7: the cluster has 7 images, 2 of them shown)",
        *("2 of 3", "level 1", "1/200000", "2 of 7", "level 2", ""),
    ]


def test_one_level_and_images_of_any_size():
    for height, width, tile_height in ((8, 16, 32), (300, 100, 192), (1, 200, 1)):
        images = plain_images(2, height, width)
        picture = hierarchy_picture.hierarchy_picture(images, [[4, 4]], sizes=[[2, 2]])
        (left, top, right, bottom), _ = places(picture, images)
        assert (right - left, bottom - top) == (64, tile_height)
        assert len({tuple(bar_colours(picture, x, top, 1)) for x in range(left, left + 132)}) == 1


@pytest.mark.parametrize(
    "change,message",
    [
        ({"images": np.zeros((2, 4, 4, 3), np.uint8)}, r"images must be \[3, h, w, 3\] uint8 as labels, .*\(2, 4, 4"),
        ({"images": np.zeros((3, 4, 4, 3))}, r"images must be .* got shape \(3, 4, 4, 3\) of float64"),
        ({"images": np.zeros((3, 0, 4, 3), np.uint8)}, r"images must be .* got shape \(3, 0, 4, 3\)"),
        ({"labels": [0, 0, 1]}, r"labels must be \[H, N\] integers with H and N at least 1, got shape \(3,\) of int64"),
        ({"labels": np.zeros((1, 3))}, r"labels must be .* got shape \(1, 3\) of float64"),
        ({"labels": np.zeros((2, 0), int)}, r"labels must be .* got shape \(2, 0\)"),
        ({"labels": [[0, 7, 7], [0, 0, 2]]}, "labels must be nested: cluster 7 of level 1 lies in 2 clusters"),
        ({"sizes": [[3, 3, 1]]}, r"sizes must be \[2, 3\] integers, got shape \(1, 3\) of int64"),
        ({"sizes": [[9, 9, 9], [9, 1, 9]]}, "sizes must be at least the images shown .* got 1 for one of 2 at level 2"),
    ],
)
def test_what_cannot_be_drawn(change, message):
    given = {"images": plain_images(3), "labels": [[0, 1, 2], [0, 0, 2]], "sizes": [[1, 1, 1], [2, 2, 1]]} | change
    with pytest.raises(ValueError, match=message):
        hierarchy_picture.hierarchy_picture(given["images"], given["labels"], sizes=given["sizes"])


def test_what_cannot_be_chosen_from():
    with pytest.raises(ValueError, match=r"true_ids must"):
        hierarchy_picture.choose_group(LABELS, np.zeros(13, int))
    with pytest.raises(ValueError, match="true_ids must"):
        hierarchy_picture.choose_group(LABELS, np.zeros(14))
    with pytest.raises(ValueError, match="max_images must"):
        hierarchy_picture.choose_group(LABELS, np.zeros(14, int), max_images=0)
    with pytest.raises(ValueError, match="labels must"):
        hierarchy_picture.choose_group(LABELS[::-1], np.zeros(14, int))


def test_a_file_is_whole_or_not_there(tmp_path, monkeypatch):
    images, sizes, path = plain_images(14), hierarchy_picture.cluster_sizes(LABELS), tmp_path / "hierarchy.png"

    def killed(self, file, **options):
        file.write_bytes(b"half")
        raise RuntimeError("killed")

    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="killed"):
        patched.setattr(Image.Image, "save", killed)
        hierarchy_picture.save_hierarchy(path, images, LABELS, sizes=sizes)
    assert not list(tmp_path.iterdir())
    hierarchy_picture.save_hierarchy(path, images, LABELS, sizes=sizes)
    drawn = hierarchy_picture.hierarchy_picture(images, LABELS, sizes=sizes)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(drawn))
    assert list(tmp_path.iterdir()) == [path]


def tracklets(counts):
    """Samples of so many frames each, whose frames' indices descend."""
    starts = np.concatenate([[0], np.cumsum(counts)])
    unknown = np.full(len(counts), -1)
    return Samples(np.arange(starts[-1])[::-1], starts, unknown, unknown, np.full(len(counts), ""))


def test_an_experiments_picture_has_middle_frames_of_one_identity(tmp_path, drawn_texts):
    texts, path = drawn_texts, tmp_path / "hierarchy.png"
    images, samples = plain_images(9), tracklets([3, 1, 4, 1])  # frames 8 7 6 | 5 | 4 3 2 1 | 0
    labels = np.array([[0, 1, 2, 3], [0, 0, 2, 0]])
    hierarchy_picture.draw_hierarchy(path, CachedImages(images), samples, labels, np.array([5, 5, 5, -1]))
    with Image.open(path) as picture:
        assert len(places(picture, images[[7, 5, 2]])) == 3
        seen = {colour for _, colour in picture.getcolors(1 << 16)}
    colours = [tuple(image[0, 0].tolist()) for image in images]
    assert seen & set(colours) == {colours[7], colours[5], colours[2]}
    assert texts[0] == (
        "one identity, 3 tracklets: clusters at each level (2 of 3: the cluster has 3 tracklets, 2 of them shown)"
    )


def test_an_experiments_picture_says_how_many_it_leaves_out(tmp_path, drawn_texts):
    texts, images, samples = drawn_texts, CachedImages(plain_images(14)), tracklets([1] * 14)
    for true_ids in (np.full(14, -1), np.where(np.arange(14) < 9, 2, 3)):
        hierarchy_picture.draw_hierarchy(tmp_path / "x.png", images, samples, LABELS, true_ids, max_images=6)
    told = [text.partition(":")[0] for text in texts if "at each level" in text]
    assert told == ["one cluster of level 3, 6 of 9 images", "one identity, 6 of 9 images"]
