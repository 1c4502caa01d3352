"""Draws what runs logged over their iterations, as in PUL's Fig. 5(b) to (d), or over HCD's levels, as in its Fig. 5.

    python experiments/curves.py --runs=runs/pul_synthetic --fields=selected,mAP --output=curves.png
    python experiments/curves.py --runs=runs/pul_threshold_market1501 --output=curves.png
    python experiments/curves.py --runs=runs/cluster_dynamics_synthetic --over=level --output=levels.png

A run is a run directory or a sweep's folder, several separated by commas; the seeds of a row are one curve, their
range a band around it. A field is a number in the lines of metrics.jsonl; over levels, those of the last iteration.
"""

import os

from absl import flags

from reid_jax import errors
from reid_jax.cli import program
from reid_jax.pictures import plots
from reid_jax.reports import curves


def main() -> None:
    """Draws as the flags say."""
    args = flags.FLAGS
    program.require("runs", "output")
    program.check_folder_of(args.output)
    runs, over = curves.find_runs(args.runs), args.over
    if over == "level":
        runs = curves.by_level(runs)
    panels = {}
    for field in args.fields or curves.default_fields(runs, over=over):
        panels[curves.label_of(field)] = curves.make_curves(runs, field, over=over)
    try:
        plots.save_curves(args.output, panels, over=over, from_zero=over == "level")
    except errors.UserError as error:
        raise errors.UserError(f"--output: {error}") from error
    drawn = [name for name in runs if any(len(run) for panel in panels.values() for run in panel[name])]
    print(f"curves of {', '.join(drawn)}: {os.fspath(args.output)}", flush=True)
    for name in runs.keys() - drawn:
        print(f"not drawn, it has none of these fields: {name}", flush=True)


def define_flags() -> None:
    """Defines the command line."""
    program.group("Input")
    flags.DEFINE_list("runs", [], "Run directories or folders of sweeps, separated by commas.")
    program.group("Picture")
    flags.DEFINE_enum(
        "over",
        "iteration",
        list(curves.DEFAULT_FIELDS),
        "What is drawn over: iterations, or HCD's levels at the last one.",
    )
    flags.DEFINE_list(
        "fields",
        [],
        "Fields of metrics.jsonl, a panel each; if not given, of selected, mAP and loss the first two known. Over "
        "levels named without level1_; if not given, BCubed precision, recall, F and the number of clusters.",
    )
    flags.DEFINE_string("output", None, "The picture; .png, .pdf or .svg.")


if __name__ == "__main__":
    program.run(main, define_flags)
