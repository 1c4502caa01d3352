"""Pictures of runs. The only module that needs matplotlib (the extra `viz`)."""

import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from reid_jax import atomic, types

_PANEL_INCHES = (5.2, 3.8)
_KINDS = ("png", "pdf", "svg")
_NUM_COLORS, _LINES = 10, ("-", "--", ":", "-.")
Curves = Mapping[str, Sequence[np.ndarray]]


def save_curves(path: str | os.PathLike, panels: Mapping[str, Curves], *, over: str = "iteration") -> None:
    """Draws values over iterations: the mean of several runs as a line, their range as a band around it.

    Args:
        path: where to; the ending says as what (.png, .pdf, .svg).
        panels: by the label of its axis, each panel's curves: by name, the runs' [iterations, 2] of iteration and
            value. A mean is of the runs that have a value at that iteration.
        over: what it is over where not iterations, another whole number.

    Raises:
        UserError: matplotlib is not installed, or does not write such a file.
        ValueError: a panel has nothing to draw.
    """
    for label, curves in panels.items():
        if not any(len(run) for runs in curves.values() for run in runs):
            raise ValueError(f"no curve of {label!r} has a value")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise types.UserError("pictures need matplotlib: pip install -e .[viz]") from error
    # Without pyplot: no window system, and no state that is shared.
    width, height = _PANEL_INCHES
    figure = Figure(figsize=(width * len(panels), height), layout="constrained")
    kind = pathlib.Path(path).suffix[1:].lower()
    if kind not in _KINDS:
        raise types.UserError(f"{str(path)!r} must end in one of {', '.join(f'.{name}' for name in _KINDS)}")
    # A name has the same colour in all panels, whether it is in all or not.
    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    styles = {
        name: {"color": f"C{number % _NUM_COLORS}", "linestyle": _LINES[number // _NUM_COLORS % len(_LINES)]}
        for number, name in enumerate(names)
    }
    for axes, (label, curves) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items()):
        for name, runs in curves.items():
            _draw(axes, name, [run for run in runs if len(run)], styles[name])
        axes.set(xlabel=over, ylabel=label)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    with atomic.atomic_path(path) as temporary:
        figure.savefig(temporary, format=kind, dpi=120)


def _draw(axes, name: str, runs: Sequence[np.ndarray], style: Mapping[str, str]) -> None:
    """One curve of a panel."""
    if not runs:
        return
    iterations = np.unique(np.concatenate([run[:, 0] for run in runs]))
    values = [np.concatenate([run[run[:, 0] == iteration, 1] for run in runs]) for iteration in iterations]
    axes.plot(iterations, [found.mean() for found in values], marker="o", markersize=3, label=name, **style)
    lower, upper = ([extreme(found) for found in values] for extreme in (np.min, np.max))
    axes.fill_between(iterations, lower, upper, color=style["color"], alpha=0.15, linewidth=0)
