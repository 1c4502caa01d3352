"""Runs the scripts of experiments/ as a user would, on the tiny data sets of conftest.py."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np

ROOT = pathlib.Path(__file__).parent.parent
OWN_BACKBONE = ROOT / "tests" / "data"  # own_backbone.py, named in the configs
OVERRIDES = {
    "data.dataset": "tiny",
    "data.height": 24,
    "data.width": 12,
    "model.backbone": "own_backbone:Backbone",
    "evaluation.batch_size": 8,
}
PK_OVERRIDES = OVERRIDES | {"train.num_ids": 4, "train.num_instances": 2, "augment.padding": 2}


def flatten(data_dir, overrides, more):
    """Overrides by dotted field; in `more` a field is written model__width."""
    return overrides | {"data.dir": str(data_dir)} | {key.replace("__", "."): value for key, value in more.items()}


def make_config(get_config, data_dir, overrides, **more):
    config = get_config("synthetic")
    config.update_from_flattened_dict(flatten(data_dir, overrides, more))
    return config


def start(method, data_dir, workdir, overrides, *, dataset="synthetic", **more):
    """Starts experiments/METHOD.py, with its config for `dataset`, on one CPU device."""
    fields = flatten(data_dir, overrides, more)
    config = f"experiments/configs/{method}.py:{dataset}"
    command = [sys.executable, ROOT / "experiments" / f"{method}.py", f"--workdir={workdir}", f"--config={ROOT}/{config}"]
    command += [f"--config.{key}={value}" for key, value in fields.items()]
    # Most of a tiny run's time would go into optimising what it compiles.
    flags = "--xla_backend_optimization_level=0"
    environment = os.environ | {"PYTHONPATH": str(OWN_BACKBONE), "XLA_FLAGS": flags}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=workdir.parent
    )


def start_script(name, *arguments):
    """Starts experiments/NAME.py, which takes no config file, with little time spent in the compiler."""
    environment = {"PYTHONPATH": str(OWN_BACKBONE), "XLA_FLAGS": "", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    return subprocess.Popen(
        [sys.executable, ROOT / "experiments" / f"{name}.py", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )


def finish(process):
    output, errors = process.communicate(timeout=300)
    return process.returncode, output, errors


def run_killed_at(moments, start_run):
    """Kills a run with signal 9 as soon as each of the moments (functions) is true, then lets it end."""
    for moment in moments:
        process = start_run()
        while process.poll() is None and not moment():
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        finish(process)
    status, _, errors = finish(start_run())
    assert status == 0, errors


def metrics(workdir):
    """The lines of metrics.jsonl without the seconds."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("seconds")
    return lines


def comparable(workdir):
    """All that a run leaves but the seconds: metrics, pseudo labels, and all arrays of the last and best states."""
    import orbax.checkpoint as ocp

    labels = {path.name: dict(np.load(path)) for path in sorted((workdir / "pseudo_labels").iterdir())}
    states = []
    for kind in ("last", "best"):
        newest = max((workdir / "checkpoints" / kind).iterdir(), key=lambda path: int(path.name))
        with ocp.StandardCheckpointer() as checkpointer:
            states += [checkpointer.restore(newest / item) for item in ("variables", "optimizer")]
    return metrics(workdir), labels, states


def assert_same(workdir, other):
    """Two runs left the same, bit for bit."""
    import jax

    (lines, labels, states), (other_lines, other_labels, other_states) = comparable(workdir), comparable(other)
    assert lines == other_lines
    assert labels.keys() == other_labels.keys()
    jax.tree.map(np.testing.assert_array_equal, (labels, states), (other_labels, other_states))
