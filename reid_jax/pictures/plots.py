"""Pictures of runs. The only module that needs matplotlib (the extra `viz`)."""

import colorsys
import contextlib
import numbers
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from reid_jax import atomic, errors
from reid_jax.label_errors import Outcome
from reid_jax.pictures import palette

_PANEL_INCHES = (5.2, 3.8)
_MAP_INCHES, _LEGEND_INCHES = (7.6, 6.0), 1.2
_DPI = 120
_MOST_IN_ROW = 3  # panels
_KINDS = ("png", "pdf", "svg")
_NUM_COLORS, _LINES, _MARKERS = 10, ("-", "--", ":", "-."), "osD^vP"
_LOG_RANGE = 100
_GREY, _INK = "0.65", "0.15"
# Hues a golden section of the circle apart differ from their neighbours, however many there are.
_SHADES = ((0.9, 0.75), (0.55, 0.95), (0.75, 0.45))  # (saturation, value)
_MOST_UNIT_BINS = 16
_SLANTED = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}  # names of ticks that would touch
_OUTCOMES = {  # marker, its area in points squared, whether it is an error, and what the legend says
    Outcome.TRUE_POSITIVE: ("o", 16, False, "true positive: in its person's main cluster"),
    Outcome.FALSE_POSITIVE: ("X", 46, True, "false positive: in a cluster of another person"),
    Outcome.FALSE_NEGATIVE: ("^", 38, True, "false negative: in a cluster of its person, split off from the main one"),
    Outcome.LEFT_OUT: ("o", 5, False, "left out: not selected for training"),
    Outcome.UNKNOWN: ("D", 7, False, "unknown: which person it is, nobody has said"),
}
# The name of the sizes that `save_cluster_sizes` draws in grey, for comparison.
TRUE_IDENTITIES = "true identities"
Curves = Mapping[str, Sequence[np.ndarray]]


def save_curves(
    path: str | os.PathLike, panels: Mapping[str, Curves], *, over: str = "iteration", from_zero: bool = False
) -> None:
    """Draws values over iterations: the mean of several runs as a line, their range as a band around it.

    The axis of what is counted, whole numbers in all runs, starts at 0. Several panels of the same curves have one
    legend.

    Args:
        path: where to; the ending says as what (.png, .pdf, .svg).
        panels: by the label of its axis, each panel's curves: by name, the runs' [iterations, 2] of iteration and
            value. A mean is of the runs that have a value at that iteration.
        over: what it is over where not iterations, another whole number.
        from_zero: all axes of values start at 0, where nothing is below.

    Raises:
        UserError: matplotlib is not installed, or does not write such a file.
        ValueError: a panel has nothing to draw, or there is none.
    """
    if not panels:
        raise ValueError("panels must have at least one")
    for label, curves in panels.items():
        if not any(len(run) for runs in curves.values() for run in runs):
            raise ValueError(f"no curve of {label!r} has a value")
    # A name has the same colour in all panels, whether it is in all or not.
    styles = _styles([name for curves in panels.values() for name in curves])
    num_rows = -(-len(panels) // _MOST_IN_ROW)
    in_row = -(-len(panels) // num_rows)  # rows as even as can be
    drawn = {label: [name for name, runs in curves.items() if any(map(len, runs))] for label, curves in panels.items()}
    most = max(drawn.values(), key=len)
    is_shared = len(panels) > 1 and all(set(names) <= set(most) for names in drawn.values())
    with _saved_figure(path, (in_row * _PANEL_INCHES[0], num_rows * _PANEL_INCHES[1])) as figure:
        for place, (label, curves) in enumerate(panels.items(), start=1):
            axes = figure.add_subplot(num_rows, in_row, place)
            for name, runs in curves.items():
                _draw_runs(axes, name, runs, styles[name])
            axes.set(xlabel=over, ylabel=label)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.grid(alpha=0.3)
            values = np.concatenate([run[:, 1] for runs in curves.values() for run in runs])
            is_count = np.all(values == np.round(values))
            if np.all(values >= 0) and (from_zero or is_count):
                axes.set_ylim(0, 1.05 * values.max() if values.max() > 0 else 1)
            if not is_shared:
                axes.legend()
            elif drawn[label] == most and not figure.legends:
                # Below the panels, where it covers no line.
                handles, names = axes.get_legend_handles_labels()
                figure.legend(handles, names, loc="outside lower center", ncols=_MOST_IN_ROW, frameon=False)


def save_cmc(path: str | os.PathLike, curves: Curves, *, max_rank: int = 20) -> None:
    """Draws CMC curves: the mean of several runs as a line, their range as a band around it.

    Args:
        path: as in `save_curves`.
        curves: by name, the runs' [R] float, 0..1: entry k - 1 is the part of queries with a match at rank k or
            before. A mean is of the runs that have a value at that rank.
        max_rank: the last rank that is drawn.

    Raises:
        UserError: as in `save_curves`.
        ValueError: max_rank is less than 1, a curve is not of [R] fractions, or there is nothing to draw.
    """
    if max_rank < 1:
        raise ValueError(f"max_rank must be at least 1, got {max_rank}")
    points: dict[str, list[np.ndarray]] = {}
    for name, runs in curves.items():
        for run in map(np.asarray, runs):
            if run.ndim != 1 or not np.all((run >= 0) & (run <= 1)):
                raise ValueError(f"a CMC curve must be [R] of 0..1, got shape {run.shape} for {name!r}: {run}")
        points[name] = [np.stack([np.arange(1, len(run) + 1), 100 * np.asarray(run)], 1)[:max_rank] for run in runs]
    shown = max((len(run) for runs in points.values() for run in runs), default=0)
    if not shown:
        raise ValueError("no CMC curve has a value")
    styles = _styles(points)
    with _saved_figure(path, _PANEL_INCHES) as figure:
        axes = figure.add_subplot()
        for name, runs in points.items():
            first = [run[0, 1] for run in runs if len(run)]
            _draw_runs(axes, f"{name}: {np.mean(first):.1f} % at rank 1" if first else name, runs, styles[name])
        step = 1 if shown <= 10 else 5 * -(-shown // 50)
        axes.set_xticks(sorted({1, *range(step, shown + 1, step)}))
        axes.set(xlabel="rank k", ylabel="matching rate, per cent")
        axes.set_title("queries with a right image among the k nearest of the gallery", fontsize="medium")
        axes.grid(alpha=0.3)
        many = any(len(runs) > 1 for runs in points.values())
        axes.legend(title="line: mean of runs, band: their range" if many else None, alignment="left")


def save_cluster_sizes(path: str | os.PathLike, sizes: Mapping[str, np.ndarray], *, noun: str = "images") -> None:
    """Draws histograms of cluster sizes side by side: how many clusters there are of a size, and what they hold.

    Bins are of one size each, or where there are large clusters end at the powers of 2.

    Args:
        path: as in `save_curves`.
        sizes: by name, the sizes of its clusters: [C] integer, at least 1. `TRUE_IDENTITIES` is drawn in grey.
        noun: what is clustered, in the plural.

    Raises:
        UserError: as in `save_curves`.
        ValueError: sizes are not such, or there are none.
    """
    sizes = {name: np.asarray(values) for name, values in sizes.items()}
    for name, values in sizes.items():
        if values.ndim != 1 or values.dtype.kind not in "iu" or np.any(values < 1):
            raise ValueError(
                f"sizes must be [C] integers of at least 1, got {values} of shape {values.shape}, {values.dtype}, "
                f"for {name!r}"
            )
    largest = max((int(values.max()) for values in sizes.values() if len(values)), default=0)
    if not largest:
        raise ValueError("there are no clusters to draw the sizes of")
    lasts = np.arange(1, largest + 1)
    if largest > _MOST_UNIT_BINS:
        lasts = 2 ** np.arange(int(largest - 1).bit_length() + 1)
    firsts = np.concatenate([[1], lasts[:-1] + 1])
    ticks = [f"{first}" if first == last else f"{first}–{last}" for first, last in zip(firsts, lasts)]
    styles = _styles([name for name in sizes if name != TRUE_IDENTITIES]) | {TRUE_IDENTITIES: {"color": _GREY}}
    with _saved_figure(path, (2 * _PANEL_INCHES[0], _PANEL_INCHES[1])) as figure:
        clusters, contents = figure.subplots(1, 2)
        for number, (name, values) in enumerate(sizes.items()):
            width = 0.8 / len(sizes)
            places = np.arange(len(lasts)) + (number - (len(sizes) - 1) / 2) * width
            bins, color = np.searchsorted(lasts, values), styles[name]["color"]
            counts = np.bincount(bins, minlength=len(lasts))
            clusters.bar(places, counts, width, color=color, label=f"{name}: {len(values):,}")
            parts = 100 * np.bincount(bins, weights=values, minlength=len(lasts)) / max(1, values.sum())
            contents.bar(places, parts, width, color=color)
        clusters.set(ylabel="number of clusters", title="how many clusters have this size")
        contents.set(ylabel=f"{noun}, per cent of all", title=f"how many {noun} are in clusters of this size")
        for axes in (clusters, contents):
            axes.set_xticks(range(len(lasts)), ticks, **(_SLANTED if largest > _MOST_UNIT_BINS else {}))
            axes.set_xlabel(f"size of the cluster: number of its {noun}")
            axes.grid(axis="y", alpha=0.3)
            axes.set_axisbelow(True)
        # Below the panels, where it covers no bar.
        figure.legend(loc="outside lower center", ncols=3, frameon=False, title="number of clusters")


def save_embedding_map(
    path: str | os.PathLike,
    positions: np.ndarray,
    true_ids: np.ndarray,
    outcomes: np.ndarray | None = None,
    *,
    title: str = "",
    noun: str = "images",
    group: str = "person",
) -> None:
    """Draws samples as points of a plane, such as a t-SNE of embeddings (BUC, Fig. 4): a colour for each identity.

    Args:
        path: as in `save_curves`.
        positions: [N, 2] float.
        true_ids: [N] integer; negative: not known, drawn in grey.
        outcomes: [N] values of `label_errors.Outcome`, drawn as the point's shape (HCT, Fig. 3); None: not drawn.
        title: what is seen.
        noun: what the samples are, in the plural.
        group: what has a colour, where not persons.

    Raises:
        UserError: as in `save_curves`.
        ValueError: an argument of another shape or value.
    """
    positions, true_ids = np.asarray(positions), np.asarray(true_ids)
    shapes = np.full(len(positions), Outcome.TRUE_POSITIVE) if outcomes is None else np.asarray(outcomes)
    _check_map(positions, true_ids, shapes)
    colors, num_ids = _identity_colors(true_ids)
    width, height = _MAP_INCHES
    with _saved_figure(path, (width, height if outcomes is None else height + _LEGEND_INCHES)) as figure:
        axes = figure.add_subplot()
        for outcome, (marker, area, is_error, text) in _OUTCOMES.items():
            mine = shapes == outcome
            style = {"marker": marker, "edgecolors": _INK if is_error else "none", "linewidths": 0.8}
            # The few errors are drawn over the many others.
            axes.scatter(*positions[mine].T, s=area, c=colors[mine], zorder=2 + is_error, **style)
            # That there are no errors is worth telling, that all identities are known is not.
            if outcomes is not None and (mine.any() or outcome >= Outcome.TRUE_POSITIVE):
                axes.scatter([], [], s=2 * area, c=_GREY, label=f"{text} ({np.count_nonzero(mine):,})", **style)
        of_groups = "" if not num_ids else f" of {num_ids:,} {group}{'s' * (num_ids > 1)}, a colour for each"
        axes.set_xlabel(f"{len(positions):,} {noun}{of_groups}; what the model finds alike is near")
        axes.set(xticks=[], yticks=[], title=title)
        if outcomes is not None:
            explanation = f"A cluster is of the person that most of its {noun} show."
            figure.legend(loc="outside lower center", frameon=False, title=explanation, alignment="left")


def save_values(
    path: str | os.PathLike,
    values: Sequence[str | float],
    series: Mapping[str, Sequence[tuple[float | None, float | None]]],
    *,
    option: str,
    label: str = "per cent",
) -> None:
    """Draws results over the values of an option, with standard deviations as bars (BUC, Fig. 3a; PUL, Fig. 6).

    Args:
        path: as in `save_curves`.
        values: [V], what the option was set to. All numbers: points on a line; otherwise names, side by side.
        series: by name, [V] of (mean, standard deviation or None); a mean of None: not measured.
        option: what the option is called.
        label: what the results are, such as the unit.

    Raises:
        UserError: as in `save_curves`.
        ValueError: a value is there twice, a series has another length, or there is nothing to draw.
    """
    _check_values(values, series, option)
    numeric = all(isinstance(value, numbers.Real) and not isinstance(value, bool) for value in values)
    places = np.array(values, float) if numeric else np.arange(len(values), dtype=float)
    styles = _styles(series)
    width = np.clip(0.65 * len(values), _PANEL_INCHES[0], 2 * _PANEL_INCHES[0])
    with _saved_figure(path, (width, _PANEL_INCHES[1])) as figure:
        axes = figure.add_subplot()
        for number, (name, points) in enumerate(series.items()):
            style = styles[name] | {"marker": _MARKERS[number % len(_MARKERS)], "markersize": 5, "capsize": 3}
            shift = 0.0
            if not numeric:
                # Names have no order that a line could go along; side by side their bars do not cover each other.
                style["linestyle"] = "none"
                shift = min(0.12, 0.8 / len(series)) * (number - (len(series) - 1) / 2)
            known = [
                (place + shift, mean, np.nan if std is None else std)
                for place, (mean, std) in zip(places, points)
                if mean is not None
            ]
            if known:
                x, means, stds = np.array(sorted(known)).T
                axes.errorbar(x, means, stds, label=name, **style)
        if numeric:
            _scale_numbers(axes, places)
        else:
            names = [str(value) for value in values]
            axes.set_xticks(places, names, **(_SLANTED if sum(map(len, names)) > 10 * width else {}))
            axes.set_xlim(-0.5, len(values) - 0.5)
        axes.set(xlabel=option, ylabel=label)
        axes.grid(alpha=0.3, axis="both" if numeric else "y")
        has_bars = any(mean is not None and std is not None for points in series.values() for mean, std in points)
        axes.legend(title="bars: standard deviation" if has_bars else None, alignment="left")


@contextlib.contextmanager
def _saved_figure(path: str | os.PathLike, inches: tuple[float, float]) -> Iterator:
    """Gives an empty figure, and writes it when it is drawn."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise errors.UserError("pictures need matplotlib, the extra [viz]") from error
    kind = pathlib.Path(path).suffix[1:].lower()
    if kind not in _KINDS:
        raise errors.UserError(f"{str(path)!r} must end in one of {', '.join(f'.{name}' for name in _KINDS)}")
    # Without pyplot: no window system, and no state that is shared.
    # Names are text: a dollar in them begins no formula.
    with rc_context({"text.parse_math": False}):
        figure = Figure(figsize=inches, layout="constrained")
        yield figure
        with atomic.atomic_path(path) as temporary:
            figure.savefig(temporary, format=kind, dpi=_DPI)


def _styles(names: Sequence[str]) -> dict[str, dict[str, str]]:
    """How each name's line looks."""
    return {
        name: {"color": f"C{number % _NUM_COLORS}", "linestyle": _LINES[number // _NUM_COLORS % len(_LINES)]}
        for number, name in enumerate(dict.fromkeys(names))
    }


def _draw_runs(axes, label: str, runs: Sequence[np.ndarray], style: Mapping[str, str]) -> None:
    """One curve of a panel: runs are [iterations, 2] of iteration and value."""
    runs = [run for run in runs if len(run)]
    if not runs:
        return
    iterations = np.unique(np.concatenate([run[:, 0] for run in runs]))
    values = [np.concatenate([run[run[:, 0] == iteration, 1] for run in runs]) for iteration in iterations]
    axes.plot(iterations, [seeds.mean() for seeds in values], marker="o", markersize=3, label=label, **style)
    lower, upper = ([extreme(seeds) for seeds in values] for extreme in (np.min, np.max))
    axes.fill_between(iterations, lower, upper, color=style["color"], alpha=0.15, linewidth=0)


def _identity_colors(true_ids: np.ndarray) -> tuple[np.ndarray, int]:
    """Returns the colours [N, 3] of identities [N], grey where negative, and how many identities there are."""
    ids, identities = np.unique(true_ids[true_ids >= 0], return_inverse=True)
    shades = [colorsys.hsv_to_rgb(palette.hue(i), *_SHADES[i % len(_SHADES)]) for i in range(len(ids))]
    colors = np.full((len(true_ids), 3), float(_GREY))
    colors[true_ids >= 0] = np.array(shades).reshape(-1, 3)[identities]
    return colors, len(ids)


def _scale_numbers(axes, places: np.ndarray) -> None:
    """Makes an option's axis logarithmic where its values are powers apart, and without fractions where it has none."""
    if places.min() > 0 and places.max() >= _LOG_RANGE * places.min():
        axes.set_xscale("log")
        axes.set_xticks(places, [f"{place:g}" for place in places])
        axes.minorticks_off()
    elif np.all(places == np.round(places)):
        axes.xaxis.get_major_locator().set_params(integer=True)


def _check_map(positions: np.ndarray, true_ids: np.ndarray, outcomes: np.ndarray) -> None:
    if positions.ndim != 2 or positions.shape[1] != 2 or not len(positions) or not np.isfinite(positions).all():
        raise ValueError(f"positions must be [N, 2], finite, with N at least 1, got {positions} of {positions.shape}")
    if true_ids.shape != positions.shape[:1] or true_ids.dtype.kind not in "iu":
        raise ValueError(f"true_ids must be [{len(positions)}] integers, got {true_ids.dtype} of {true_ids.shape}")
    if outcomes.shape != true_ids.shape or not np.isin(outcomes, list(Outcome)).all():
        raise ValueError(f"outcomes must be [{len(positions)}] of Outcome, got {outcomes} of {outcomes.shape}")


def _check_values(values: Sequence, series: Mapping[str, Sequence], option: str) -> None:
    if len(set(values)) < len(values):
        raise ValueError(f"values must be different ones, got {list(values)}")
    for name, points in series.items():
        if len(points) != len(values):
            raise ValueError(f"series must be of {len(values)} points as values, got {len(points)} for {name!r}")
    if not any(mean is not None for points in series.values() for mean, _ in points):
        raise ValueError(f"no value of {option!r} has a result")
