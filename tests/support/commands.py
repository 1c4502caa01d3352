"""Runs commands in this process, which spares the start of another: for what they print, not for signals."""

import contextlib
import io
import runpy
import sys

import pytest
from absl import app, flags
from tiny_data import ROOT


def run(name, *arguments):
    """Runs experiments/NAME.py as its command line would: (exit status, standard output, standard error)."""
    path = str(ROOT / "experiments" / f"{name}.py")
    return call(lambda: runpy.run_path(path, run_name="__main__"), path, *arguments)


def call(function, *argv):
    """Calls a function that reads the command line and exits: (exit status, standard output, standard error)."""
    foreign, output, errors = set(flags.FLAGS), io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        # absl's own would change this process's logging.
        patch.setattr(app, "run", lambda main, *, flags_parser: main(flags_parser(sys.argv)))
        patch.setattr(sys, "argv", list(map(str, argv)))
        try:
            with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
                function()
            status = 0
        except SystemExit as stopped:
            status = stopped.code or 0
        finally:
            for flag in set(flags.FLAGS) - foreign:
                delattr(flags.FLAGS, flag)
    return status, output.getvalue(), errors.getvalue()
