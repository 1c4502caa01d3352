"""Runs the scripts of experiments/ as a user would, on the tiny data sets of tiny_data.py."""

import contextlib
import gc
import io
import json
import os
import signal
import subprocess
import sys
import time

import compiler_flags
import numpy as np
from tiny_data import DATA, ROOT

OWN_BACKBONE = DATA  # own_backbone.py, named in the configs
OVERRIDES = {
    "data.dataset": "tiny",
    "data.height": 24,
    "data.width": 12,
    "model.backbone": "own_backbone:Backbone",
    "evaluation.batch_size": 8,
    "evaluation.baselines": False,  # a second a run
    "evaluation.num_probes": 0,  # likewise
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
    """Starts experiments/METHOD.py, with its config for `dataset`, on one of the tests' eight devices.

    Their number is the processor's share for XLA's threads, which sum in another order where there are more of them:
    what this process computes with num_devices=1 is the same, bit for bit.
    """
    fields = flatten(data_dir, overrides, {"num_devices": 1} | more)
    config = f"experiments/configs/{method}.py:{dataset}"
    command = [
        sys.executable,
        ROOT / "experiments" / f"{method}.py",
        f"--workdir={workdir}",
        f"--config={ROOT}/{config}",
    ]
    command += [f"--config.{key}={value}" for key, value in fields.items()]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(OWN_BACKBONE)},
        cwd=workdir.parent,
    )


def start_script(name, *arguments):
    """Starts experiments/NAME.py, which takes no config file, with little time spent in the compiler."""
    environment = {"PYTHONPATH": str(OWN_BACKBONE), "XLA_FLAGS": compiler_flags.QUICK}
    return subprocess.Popen(
        [sys.executable, ROOT / "experiments" / f"{name}.py", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )


def run(run_method, config, workdir):
    """Runs a method in this process: (run directory, what it printed)."""
    if str(OWN_BACKBONE) not in sys.path:  # fixtures that live longer than a test come before `own_backbone`
        sys.path.append(str(OWN_BACKBONE))
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        run_method(config, workdir)
    return workdir, printed.getvalue()


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


def interrupt(run_method, monkeypatch):
    """Runs a method in this process until its first checkpoint within an iteration is written."""
    from reid_jax.runs import checkpoints

    class InterruptedRunError(BaseException):
        pass

    save_last = checkpoints.Checkpoints.save_last

    def save_and_stop(self, state, progress):
        save_last(self, state, progress)
        if progress["epoch"]:
            self.close()
            raise InterruptedRunError

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.Checkpoints, "save_last", save_and_stop)
        try:
            run_method()
        except InterruptedRunError:
            gc.collect()  # the run directory's lock goes with the run
            return
    raise AssertionError("no checkpoint within an iteration")


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


def record_train_steps(monkeypatch):
    """The train steps that sessions make from now on."""
    from reid_jax.runs import opening

    steps, make_train_step = [], opening.make_train_step

    def recording(*args, **options):
        steps.append(make_train_step(*args, **options))
        return steps[-1]

    monkeypatch.setattr(opening, "make_train_step", recording)
    return steps


def write_run(workdir, data_dir, *, method="hct", labels=None, num_iterations=3, seed=0, **more):
    """Writes a run directory as experiments/METHOD.py leaves it, of an untrained own_backbone, in no time.

    Its best model is the last iteration's; `labels` are that one's pseudo labels; `more` overrides the config.
    """
    import importlib

    import jax
    import jax.numpy as jnp

    from reid_jax.runs import checkpoints, logs
    from reid_jax.runs.dataset import load_dataset
    from reid_jax.runs.models import build_model
    from reid_jax.training.train_step import TrainState

    # Fixtures that live longer than a test come before `own_backbone`.
    if str(OWN_BACKBONE) not in sys.path:
        sys.path.append(str(OWN_BACKBONE))
    get_config = importlib.import_module(f"reid_jax.experiments.configs.{method}").get_config
    config = make_config(get_config, data_dir, OVERRIDES | {"seed": seed, "evaluation.batch_size": 8}, **more)
    (workdir / "pseudo_labels").mkdir(parents=True)
    model = build_model(config.model)
    variables = model.init(jax.random.key(seed), jnp.zeros((1, config.data.height, config.data.width, 3)), train=False)
    records = [
        {
            "iteration": i,
            "mAP": 0.1 * i,
            "rank1": 0.2 * i,
            "rank5": 0.5,
            "rank10": 0.6,
            "mINP": 0.01,
            "seconds": {"train": 1.0},
        }
        for i in range(num_iterations + 1)
    ]
    for record in records[1:]:
        record |= {"num_clusters": 4, "agreement": 0.1 * record["iteration"], "loss": 1.0 / record["iteration"]}
        record |= {"bcubed_precision": 0.5, "bcubed_recall": 0.6, "bcubed_f": 0.55}
    # supervised.py's results have its loss in their name.
    name = f"supervised {config.train.loss}" if method == "supervised" else method
    kept = checkpoints.Checkpoints(workdir)
    state = TrainState(step=jnp.int32(num_iterations), opt_state={"count": jnp.int32(0)}, **variables)
    kept.save_best(state, {"record": records[-1]})
    kept.close()
    logs.write_json(workdir / "config.json", json.loads(json.dumps(config.to_dict() | {"method": name})))
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    logs.write_json(workdir / "result.json", {"method": name})
    if labels is not None:
        names = load_dataset(config.data).samples["train"].names
        logs.write_arrays(
            workdir / "pseudo_labels" / f"iteration_{num_iterations:03d}.npz", pseudo_labels=labels, paths=names
        )
    return workdir


def made(vectors, *, pids=None, paths=None, model="m", folder="/nowhere", source="made"):
    """A collection (experiments/collection.py) of these vectors, L2-normalised."""
    from reid_jax.retrieval.collection import Collection
    from reid_jax.retrieval.embedding_files import Origin

    vectors = np.asarray(vectors, np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    unknown = np.full(len(vectors), -1)
    pids = unknown if pids is None else np.asarray(pids)
    paths = np.array([f"{i}.jpg" for i in range(len(vectors))] if paths is None else paths)
    return Collection(source, vectors.shape, paths, pids, unknown, Origin(model, 24, 12, folder), vectors)
