"""reid_jax/report.py: what the pictures show. `save_curves` with its files and errors is in test_curves.py."""

import sys

import numpy as np
import pytest
from PIL import Image

from reid_jax import errors
from reid_jax.label_errors import Outcome
from reid_jax.pictures import plots

ONE_RUN = [np.array([[1.0, 2.5]])]


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved from now on."""
    from matplotlib.figure import Figure

    saved, savefig = [], Figure.savefig

    def noted(self, *arguments, **options):
        saved.append(self)
        savefig(self, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", noted)
    return saved


def legend_texts(owner):
    (legend,) = [owner.get_legend()] if hasattr(owner, "get_legend") else owner.legends
    return [legend.get_title().get_text(), *(text.get_text() for text in legend.get_texts())]


def tick_texts(axes):
    return [label.get_text() for label in axes.get_xticklabels()]


def save_any(kind, path):
    """Saves one of the new pictures."""
    if kind == "cmc":
        plots.save_cmc(path, {"a": [np.array([0.5, 0.75])]})
    elif kind == "sizes":
        plots.save_cluster_sizes(path, {"a": np.array([3, 1])})
    elif kind == "map":
        plots.save_embedding_map(path, np.eye(2), np.array([0, 1]))
    else:
        plots.save_values(path, [1, 2], {"mAP": [(50.0, None), (60.0, 1.0)]}, option="k")


KINDS = ("cmc", "sizes", "map", "values")


@pytest.mark.parametrize("kind", KINDS)
def test_files_are_whole_or_not_there(kind, tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    def killed(self, file, **options):
        file.write_bytes(b"half")
        raise RuntimeError("killed")

    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="killed"):
        patched.setattr(Figure, "savefig", killed)
        save_any(kind, tmp_path / "x.png")
    assert not list(tmp_path.iterdir())
    save_any(kind, tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.format == "PNG" and picture.width >= 600 and picture.height >= 450
    assert [file.name for file in tmp_path.iterdir()] == ["x.png"]


@pytest.mark.parametrize("kind", KINDS)
def test_other_endings_and_no_matplotlib(kind, tmp_path, monkeypatch):
    with pytest.raises(errors.UserError, match=r"x.doc' must end in one of \.png, \.pdf, \.svg"):
        save_any(kind, tmp_path / "x.doc")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(errors.UserError, match=r"pictures need matplotlib, the extra \[viz\]"):
        save_any(kind, tmp_path / "x.png")


@pytest.mark.parametrize("number,shape", [(1, (1, 1)), (2, (1, 2)), (3, (1, 3)), (4, (2, 2)), (5, (2, 3)), (7, (3, 3))])
def test_at_most_three_panels_are_in_a_row(number, shape, tmp_path, figures):
    plots.save_curves(tmp_path / "x.svg", {f"panel {i}": {"a": ONE_RUN} for i in range(number)})
    axes = figures[0].axes
    assert [one.get_ylabel() for one in axes] == [f"panel {i}" for i in range(number)]
    assert {one.get_subplotspec().get_gridspec().get_geometry() for one in axes} == {shape}
    assert tuple(figures[0].get_size_inches()) == pytest.approx((shape[1] * 5.2, shape[0] * 3.8))
    with pytest.raises(ValueError, match="panels must"):
        plots.save_curves(tmp_path / "x.svg", {})


def test_the_axis_of_a_count_starts_at_0(tmp_path, figures):
    levels = np.arange(1.0, 6.0)
    counts = [np.stack([levels, 900 - 40 * levels + seed], axis=1) for seed in (0, 1)]
    shares = [np.stack([levels, 80.25 + levels], axis=1)]
    losses = [np.stack([levels, -levels], axis=1)]
    plots.save_curves(tmp_path / "x.svg", {"n": {"a": counts}, "F": {"a": shares}, "l": {"a": losses}}, over="level")
    limits = [axes.get_ylim() for axes in figures[0].axes]
    assert limits[0] == (0, pytest.approx(1.05 * 861)) and limits[1][0] > 80 and limits[2][0] < -5


def test_cmc_is_the_mean_of_runs_in_per_cent_up_to_a_rank(tmp_path, figures, monkeypatch):
    from matplotlib.axes import Axes

    bands = []
    monkeypatch.setattr(Axes, "fill_between", lambda self, *band, **options: bands.append([list(b) for b in band]))
    curves = {"two": [np.array([0.5, 0.75, 1.0, 1.0]), np.array([0.25, 0.5])], "none": [np.zeros(0)], "one": [[0.0, 1]]}
    plots.save_cmc(tmp_path / "x.svg", curves, max_rank=3)
    (axes,) = figures[0].axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert lines == {
        "two: 37.5 % at rank 1": [[1, 37.5], [2, 62.5], [3, 100]],
        "one: 0.0 % at rank 1": [[1, 0], [2, 100]],
    }
    assert bands == [[[1, 2, 3], [25, 50, 100], [50, 75, 100]], [[1, 2], [0, 100], [0, 100]]]
    assert legend_texts(axes) == ["line: mean of runs, band: their range", *lines]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("rank k", "matching rate, per cent")


@pytest.mark.parametrize(
    "length,max_rank,ticks",
    [(50, 20, [1, 5, 10, 15, 20]), (4, 20, [1, 2, 3, 4]), (60, 60, [1, *range(10, 61, 10)])],
)
def test_ranks_that_are_told(length, max_rank, ticks, tmp_path, figures):
    plots.save_cmc(tmp_path / "x.svg", {"a": [np.linspace(0.1, 1, length)]}, max_rank=max_rank)
    (axes,) = figures[0].axes
    assert axes.get_xticks().tolist() == ticks and legend_texts(axes) == ["", "a: 10.0 % at rank 1"]


@pytest.mark.parametrize("curve", [np.array([0.5, 1.01]), np.array([-0.1]), np.array([np.nan]), np.zeros((2, 2))])
def test_no_cmc(curve, tmp_path):
    with pytest.raises(ValueError, match=r"a CMC curve must"):
        plots.save_cmc(tmp_path / "x.png", {"a": [curve]})


def test_no_cmc_at_all(tmp_path):
    for curves in ({}, {"a": []}, {"a": [np.zeros(0)]}):
        with pytest.raises(ValueError, match="no CMC curve has a value"):
            plots.save_cmc(tmp_path / "x.png", curves)
    with pytest.raises(ValueError, match="max_rank must"):
        plots.save_cmc(tmp_path / "x.png", {"a": [np.ones(1)]}, max_rank=0)


def bar_heights(axes):
    """By colour, the heights of the bars from left to right."""
    return [(container[0].get_facecolor(), [bar.get_height() for bar in container]) for container in axes.containers]


def test_small_sizes_have_a_bin_each(tmp_path, figures):
    from matplotlib import colors

    sizes = {"true identities": np.array([2, 2]), "a": np.array([4, 1, 1, 1, 1]), "b": np.array([1])}
    plots.save_cluster_sizes(tmp_path / "x.svg", sizes)
    clusters, contents = figures[0].axes
    expected = [colors.to_rgba(name) for name in ("0.65", "C0", "C1")]
    assert [color for color, _ in bar_heights(clusters)] == [color for color, _ in bar_heights(contents)] == expected
    assert [heights for _, heights in bar_heights(clusters)] == [[0, 2, 0, 0], [4, 0, 0, 1], [1, 0, 0, 0]]
    assert [heights for _, heights in bar_heights(contents)] == [[0, 100, 0, 0], [50, 0, 0, 50], [100, 0, 0, 0]]
    assert tick_texts(clusters) == tick_texts(contents) == ["1", "2", "3", "4"]
    assert legend_texts(figures[0]) == ["number of clusters", "true identities: 2", "a: 5", "b: 1"]
    # Side by side: no bar covers another one's.
    bars = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for group in clusters.containers for bar in group)
    assert len(bars) == 12 and all(left[1] <= right[0] + 1e-9 for left, right in zip(bars, bars[1:]))


def test_large_sizes_are_in_bins_that_end_at_powers_of_2(tmp_path, figures):
    sizes = np.array([1, 2, 3, 4, 5, 8, 9, 16, 17, 32, 33, 1024, 1025, 1025])
    plots.save_cluster_sizes(tmp_path / "x.svg", {"a": sizes, "nothing": np.zeros(0, int)}, noun="tracklets")
    clusters, contents = figures[0].axes
    ticks = "1 2 3–4 5–8 9–16 17–32 33–64 65–128 129–256 257–512 513–1024 1025–2048".split()
    assert tick_texts(clusters) == ticks
    (_, counts), (_, nothing) = bar_heights(clusters)
    assert counts == [1, 1, 2, 2, 2, 2, 1, 0, 0, 0, 1, 2] and not any(nothing)
    (_, parts), (_, nothing) = bar_heights(contents)
    assert sum(parts) == pytest.approx(100) and parts[-1] == pytest.approx(205000 / sizes.sum()) and not any(nothing)
    assert contents.get_ylabel() == "tracklets, per cent of all"


@pytest.mark.parametrize("largest,last", [(16, "16"), (17, "17–32"), (32, "17–32"), (33, "33–64")])
def test_the_last_bin_holds_the_largest(largest, last, tmp_path, figures):
    plots.save_cluster_sizes(tmp_path / "x.svg", {"a": np.array([largest])})
    assert tick_texts(figures[0].axes[0])[-1] == last and bar_heights(figures[0].axes[0])[0][1][-1] == 1


def test_no_sizes(tmp_path):
    for sizes in (np.array([0, 1]), np.array([1.0]), np.ones((1, 1), int)):
        with pytest.raises(ValueError, match=r"sizes must"):
            plots.save_cluster_sizes(tmp_path / "x.png", {"a": sizes})
    for sizes in ({}, {"a": np.zeros(0, int)}):
        with pytest.raises(ValueError, match="there are no clusters"):
            plots.save_cluster_sizes(tmp_path / "x.png", sizes)


def drawn_points(axes):
    """The scattered points, without those of the legend: position, colour, marker's path length, layer."""
    found = {}
    for points in axes.collections:
        for place, color in zip(points.get_offsets().tolist(), points.get_facecolors().tolist()):
            found[tuple(place)] = (tuple(color[:3]), len(points.get_paths()[0].vertices), points.get_zorder())
    return found


def test_colours_are_identities_and_shapes_outcomes(tmp_path, figures):
    positions, true_ids = np.arange(12.0).reshape(6, 2), np.array([5, 5, 5, 8, -1, 8])
    outcomes = np.array([0, 2, 1, 0, -1, 0], np.int8)
    plots.save_embedding_map(tmp_path / "x.svg", positions, true_ids, outcomes, title="of a run", noun="tracklets")
    (axes,) = figures[0].axes
    points = drawn_points(axes)
    colors, shapes, layers = zip(*(points[tuple(place)] for place in positions.tolist()))
    assert len(points) == 6 and colors[0] == colors[1] == colors[2] and colors[3] == colors[5] != colors[0]
    assert colors[4] == (0.65, 0.65, 0.65) and len(set(colors)) == 3
    assert shapes[0] == shapes[3] == shapes[5] and len(set(shapes)) == 4
    assert min(layers[1], layers[2]) > max(layers[0], layers[3], layers[4])
    assert legend_texts(figures[0]) == [
        "A cluster is of the person that most of its tracklets show.",
        "true positive: in its person's main cluster (3)",
        "false positive: in a cluster of another person (1)",
        "false negative: in a cluster of its person, split off from the main one (1)",
        "unknown: which person it is, nobody has said (1)",
    ]
    assert axes.get_title() == "of a run"
    assert axes.get_xlabel().startswith("6 tracklets of 2 persons, a colour for each;")
    assert not len(axes.get_xticks()) and not len(axes.get_yticks())


def test_the_legend_tells_of_no_errors_but_not_of_no_unknown(tmp_path, figures):
    plots.save_embedding_map(tmp_path / "x.svg", np.eye(2), np.zeros(2, int), [Outcome.TRUE_POSITIVE] * 2)
    counts = [text.rpartition(" ")[2] for text in legend_texts(figures[0])[1:]]
    assert counts == ["(2)", "(0)", "(0)"] and figures[0].axes[0].get_xlabel().startswith(
        "2 images of 1 person, a colour for each;"
    )


def test_without_outcomes_only_colours(tmp_path, figures):
    positions = np.random.default_rng(0).normal(size=(100, 2))
    plots.save_embedding_map(tmp_path / "x.svg", positions, np.arange(100))
    points = drawn_points(figures[0].axes[0])
    colors, shapes, _ = zip(*points.values())
    assert len(set(colors)) == 100 and len(set(shapes)) == 1 and not figures[0].legends


@pytest.mark.parametrize(
    "change,message",
    [
        ({"positions": np.zeros((2, 3))}, r"positions must be \[N, 2\], finite"),
        ({"positions": np.zeros((0, 2))}, r"positions must be .* with N at least 1"),
        ({"positions": np.array([[0, np.nan], [0, 0]])}, r"positions must be \[N, 2\], finite"),
        ({"true_ids": np.zeros(3, int)}, r"true_ids must be \[2\] integers, got int64 of \(3,\)"),
        ({"true_ids": np.zeros(2)}, r"true_ids must be \[2\] integers, got float64"),
        ({"outcomes": np.zeros(3, int)}, r"outcomes must be \[2\] of Outcome, got .* of \(3,\)"),
        ({"outcomes": np.array([0, 3])}, r"outcomes must be \[2\] of Outcome, got \[0 3\]"),
    ],
)
def test_no_map(change, message, tmp_path):
    given = {"positions": np.zeros((2, 2)), "true_ids": np.zeros(2, int), "outcomes": None} | change
    with pytest.raises(ValueError, match=message):
        plots.save_embedding_map(tmp_path / "x.png", **given)


def drawn_bars(axes):
    """By name, the points of a series and how far their bars go up, nan where there is none."""
    found = {}
    for container in axes.containers:
        line, _, (bars,) = container.lines
        reach = [segment[1][1] if len(segment) else np.nan for segment in bars.get_segments()]
        found[container.get_label()] = line.get_xydata().tolist(), reach
    return found


def test_numbers_are_points_of_a_line_in_their_order(tmp_path, figures):
    series = {"mAP": [(30.0, 1.0), (10.0, None), (20.0, 2.0)], "rank-1": [(None, None), (50.0, 0.0), (60.0, None)]}
    plots.save_values(tmp_path / "x.svg", [0.5, 0, 2], series, option="lambda", label="accuracy")
    (axes,) = figures[0].axes
    (maps, reach), (rank1, reach1) = drawn_bars(axes).values()
    assert maps == [[0, 10], [0.5, 30], [2, 20]] and rank1 == [[0, 50], [2, 60]]
    np.testing.assert_array_equal(reach, [np.nan, 31, 22])
    np.testing.assert_array_equal(reach1, [50, np.nan])
    assert {container.lines[0].get_linestyle() for container in axes.containers} == {"-"}
    assert legend_texts(axes) == ["bars: standard deviation", "mAP", "rank-1"]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_xscale()) == ("lambda", "accuracy", "linear")


def test_powers_are_on_a_logarithmic_axis(tmp_path, figures):
    plots.save_values(tmp_path / "x.svg", [1, 0.01, 0.1], {"mAP": [(1, None)] * 3}, option="lambda")
    (axes,) = figures[0].axes
    assert axes.get_xscale() == "log" and sorted(tick_texts(axes)) == ["0.01", "0.1", "1"]
    assert legend_texts(axes) == ["", "mAP"]


def test_names_are_side_by_side_without_a_line(tmp_path, figures):
    series = {"mAP": [(30.0, 1.0), (10.0, 1.0), (20.0, 1.0)], "rank-1": [(40.0, None), (None, None), (60.0, None)]}
    plots.save_values(tmp_path / "x.svg", ["single", 3, True], series, option="linkage")
    (axes,) = figures[0].axes
    (maps, _), (rank1, _) = drawn_bars(axes).values()
    assert tick_texts(axes) == ["single", "3", "True"] and axes.get_xlim() == (-0.5, 2.5)
    np.testing.assert_allclose(maps, [[-0.06, 30], [0.94, 10], [1.94, 20]])
    np.testing.assert_allclose(rank1, [[0.06, 40], [2.06, 60]])
    assert {container.lines[0].get_linestyle() for container in axes.containers} == {"None"}


def test_no_values(tmp_path):
    def save(values, points):
        plots.save_values(tmp_path / "x.png", values, {"mAP": points}, option="k")

    with pytest.raises(ValueError, match=r"values must"):
        save([1, 2, 1.0], [(1, None)] * 3)
    with pytest.raises(ValueError, match="series must"):
        save([1, 2], [(1, None)])
    with pytest.raises(ValueError, match="no value of 'k' has a result"):
        save([1, 2], [(None, None)] * 2)
