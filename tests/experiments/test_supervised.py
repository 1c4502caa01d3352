"""The supervised baselines and experiments/evaluate.py, run on tiny data."""

import json
import os
import subprocess
import sys

import compiler_flags
import numpy as np
import pytest
import tiny_runs
from tiny_data import DATA
from tiny_runs import ROOT

from reid_jax import errors
from reid_jax.experiments import supervised
from reid_jax.experiments.configs import supervised as supervised_config
from reid_jax.runs import dataset as dataset_lib
from reid_jax.runs.dataset import TrainingData

OVERRIDES = tiny_runs.PK_OVERRIDES | {"train.num_iterations": 2, "train.num_epochs": 3}
pytestmark = pytest.mark.usefixtures("own_backbone")


def make_config(data_dir, **more):
    return tiny_runs.make_config(supervised_config.get_config, data_dir, OVERRIDES, **more)


@pytest.fixture(scope="module")
def classifier_run(prepared, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("supervised") / "classifier"
    sys.path.insert(0, str(DATA))
    return workdir, supervised.run_supervised(make_config(prepared, train__loss="classifier"), workdir)


def test_the_classifier_learns_and_can_be_evaluated_without_it(classifier_run, prepared):
    workdir, result = classifier_run
    losses = [json.loads(line)["loss"] for line in (workdir / "metrics.jsonl").read_text().splitlines()[1:]]
    assert losses[0] == pytest.approx(np.log(4), abs=0.3) and losses[-1] < losses[0]
    output = workdir / "scores.json"
    command = [sys.executable, ROOT / "experiments/evaluate.py", f"--checkpoint={workdir}", f"--output={output}"]
    environment = os.environ | {"PYTHONPATH": str(DATA), "XLA_FLAGS": compiler_flags.QUICK}
    found = subprocess.run(
        [*command, f"--data_dir={prepared}", "--batch_size=8"], capture_output=True, text=True, env=environment
    )
    assert found.returncode == 0, found.stderr
    assert json.loads(output.read_text())["mAP"] == pytest.approx(result["best"]["mAP"], abs=1e-6)
    assert "tiny" in found.stdout


def test_the_triplet_baseline_runs_on_eight_devices(prepared, tmp_path):
    result = supervised.run_supervised(make_config(prepared, train__num_iterations=1), tmp_path)
    assert result["num_devices"] == 8 and result["method"] == "supervised triplet" and result["last"]["iteration"] == 1
    assert result["label_free_choice"] is None


def test_errors(prepared):
    dataset = dataset_lib.load_dataset(make_config(prepared).data)
    with pytest.raises(errors.UserError, match="has 4 known train identities; .* at least 5 .train.num_ids."):
        supervised.check(make_config(prepared, train__num_ids=5), TrainingData(dataset, dataset))
    with pytest.raises(errors.UserError, match="= 28 must be at most the 24 labelled images"):
        supervised.check(
            make_config(prepared, train__loss="classifier", train__num_instances=7), TrainingData(dataset, dataset)
        )


def test_evaluate_says_what_is_missing(tmp_path):
    command = [sys.executable, ROOT / "experiments/evaluate.py"]
    for arguments, message in (([], "--model is needed"), ([f"--checkpoint={tmp_path}"], "no model at")):
        found = subprocess.run([*command, *arguments], capture_output=True, text=True)
        assert found.returncode == 2 and found.stderr.startswith("error: ") and message in found.stderr
        assert len(found.stderr.strip().splitlines()) == 1
