"""What the command lines of all scripts say to --help, to misspelt or wrong flags and to impossible run directories."""

import pathlib
import re
import runpy
import sys

import commands
import pytest
from absl import app, flags
from tiny_data import ROOT

from reid_jax import errors
from reid_jax.cli import command_line
from reid_jax.runs import base_config

# ml_collections', where it loads a config file.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

METHODS = ("hct", "buc", "pul", "softened", "supervised")
# By script, the file that defines its flags.
DEFINED_IN = {f"experiments/{method}.py": "reid_jax/cli/command_line.py" for method in METHODS} | {
    path: path
    for path in ("experiments/sweep.py", "experiments/transfer.py", "experiments/curves.py", "experiments/evaluate.py")
    + ("data_prep/prepare.py", "data_prep/port_resnet.py", "data_prep/contact_sheet.py")
}


@pytest.fixture
def run_script(monkeypatch, capsys):
    """Runs a script's command line in this process: (path, *arguments) -> (status, output, errors)."""
    foreign = set(flags.FLAGS)
    # absl's own would change this process's logging.
    monkeypatch.setattr(app, "run", lambda main, *, flags_parser: main(flags_parser(sys.argv)))

    def run(path, *arguments):
        monkeypatch.setattr(sys, "argv", [path, *arguments])
        try:
            with pytest.raises(SystemExit) as stopped:
                runpy.run_path(str(ROOT / path), run_name="__main__")
        finally:
            for name in set(flags.FLAGS) - foreign:
                delattr(flags.FLAGS, name)
        return stopped.value.code, *capsys.readouterr()

    return run


@pytest.mark.parametrize("path", DEFINED_IN)
def test_help_is_the_docstring_and_the_scripts_own_flags(path, run_script):
    status, output, errors = run_script(path, "--help")
    assert (status, errors) == (0, "")
    docstring = (ROOT / path).read_text().lstrip("r").removeprefix('"""').partition('"""')[0].strip()
    assert re.match(r"\n\n[A-Z][\w ]+:\n\n  --", output.removeprefix(docstring))
    shown = set(re.findall(r"^  --(\w+)  \S", output, re.MULTILINE))
    aliases = set(re.findall(r'DEFINE_alias\("(\w+)"', (ROOT / DEFINED_IN[path]).read_text()))
    assert shown >= set(re.findall(r'flags\.DEFINE_\w+\(\s*"(\w+)"', (ROOT / DEFINED_IN[path]).read_text())) - aliases
    assert len(shown) >= 2 and shown.isdisjoint(flags.FLAGS)


def test_help_has_defaults_choices_and_how_a_config_is_changed(run_script):
    _, output, _ = run_script("experiments/buc.py", "-h")
    text = " ".join(output.split())
    assert (
        f"buc:DATASET, or the path of a config file of your own, FILE.py:DATASET, with DATASET one of {', '.join(base_config.DATASETS)}; "
        in text
    )
    assert "--config.data.dataset=NAME" in text and "--config.FIELD=VALUE" in text
    assert "runs/buc_DATASET if not given" in text
    _, output, _ = run_script("experiments/evaluate.py", "--helpshort")
    assert "--metric  <cosine|euclidean|sqeuclidean>: Distance to rank by." in output
    assert "(default: 256)" in output
    _, output, _ = run_script("data_prep/prepare.py", "--name=x", "--help")
    text = " ".join(output.split())
    assert "Where prepared data sets are. (default: data)" in text
    assert "and backgrounds. (default: 100 of synthetic, 20 of synthetic_video" in text


@pytest.mark.parametrize(
    ("path", "arguments", "line"),
    [
        (
            "experiments/hct.py",
            ["--config.train.nonsense=3"],
            "--config: the config has no field 'train.nonsense'; did you mean 'train.",
        ),
        (
            "experiments/hct.py",
            ["--workdir", "x", f"--config={ROOT}/experiments/configs/hct.py:cifar10", "--config.trian.num_epochs", "3"],
            "--config: the config has no field 'trian.num_epochs'; did you mean 'train.num_epochs'?\n",
        ),
        (
            "experiments/buc.py",
            ["--noconfig.train.nestorov"],
            "--config: the config has no field 'train.nestorov'; did you mean 'train.nesterov'?\n",
        ),
        (
            "experiments/hct.py",
            ["--config.train.num_epochs=abc"],
            "flag --config.train.num_epochs=abc: it must be an integer\n",
        ),
        (
            "experiments/hct.py",
            [f"--config={ROOT}/experiments/configs/hct.py", "--config.loss.margin=a: b"],
            "flag --config.loss.margin=a: b: it must be a number\n",
        ),
        (
            "experiments/buc.py",
            ["--config.train.nesterov=maybe"],
            "flag --config.train.nesterov=maybe: it must be true or false\n",
        ),
        (
            "experiments/buc.py",
            ["--config.augment.sized_crop_area[0]=0.5"],
            "--config: the config has no field 'augment.sized_crop_area[0]'; did you mean 'augment.sized_crop_area'?\n",
        ),
        ("experiments/evaluate.py", ["--batch_size=0"], "flag --batch_size=0: it must be a positive integer\n"),
        (
            "experiments/evaluate.py",
            ["--metric=l1"],
            "flag --metric=l1: value should be one of <cosine|euclidean|sqeuclidean>\n",
        ),
        ("experiments/hct.py", ["--confg=hct.py"], "Unknown command line flag 'confg'. Did you mean: config ?\n"),
        ("experiments/hct.py", ["--config.train.num_epochs"], "Missing value for flag --config.train.num_epochs\n"),
        (
            "experiments/hct.py",
            [f"--config={ROOT}/experiments/configs/hct.py:shop", "--config.seed=1"],
            f"flag --config={ROOT}/experiments/configs/hct.py:shop: no config for data set 'shop'; choose one of ",
        ),
    ],
)
def test_wrong_flags_end_in_one_line_with_the_rule(path, arguments, line, run_script):
    status, output, errors = run_script(path, *arguments)
    assert (status, output, errors.count("\n")) == (2, "", 1)
    assert errors.startswith(f"error: {line}")


def test_a_data_set_of_ones_own_is_shown_the_config_it_takes():
    with pytest.raises(
        ValueError, match="choose one of synthetic.*; .* takes folder's or folder_small's, with data.dataset=shop$"
    ):
        base_config.base_config("shop")


def test_fields_are_those_of_the_config_that_is_given(tmp_path, run_script):
    own = "from ml_collections import ConfigDict\n\ndef get_config():\n    return ConfigDict({'own': 1})\n"
    (tmp_path / "own.py").write_text(own)
    arguments = ["--workdir", "x", "--config", str(tmp_path / "own.py"), "--config.own=3"]
    # Its own fields are taken; what is missed comes after them.
    status, _, errors = run_script("experiments/hct.py", *arguments)
    assert status == 2 and "must be a config of hct" in errors
    _, _, errors = run_script("experiments/hct.py", *arguments, "--config.seed=3")
    assert errors.startswith("error: --config: the config has no field 'seed'; did you mean ")


@pytest.mark.parametrize("below", [".", "run", "runs/hct"])
def test_a_file_is_no_run_directory(below, tmp_path, run_script):
    (tmp_path / "file").write_text("")
    status, output, errors = run_script("experiments/hct.py", f"--workdir={tmp_path}/file/{below}")
    assert (status, output) == (2, "")
    assert errors == f"error: --workdir: '{tmp_path}/file' is not a folder, it must be one\n"


def test_a_run_directory_is_a_folder_or_is_made_in_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for workdir in (tmp_path, tmp_path / "a" / "b", pathlib.Path("a"), pathlib.Path("a/b")):
        command_line.check_workdir(workdir)
    pathlib.Path("nowhere").symlink_to("gone")
    with pytest.raises(errors.UserError, match="--workdir: 'nowhere' is not a folder"):
        command_line.check_workdir(pathlib.Path("nowhere/a"))


@pytest.fixture
def configured(monkeypatch, tmp_path):
    """Runs a method's command line with a method that does nothing: (method, *arguments) -> its config, or the error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REID_JAX_WEIGHTS", str(tmp_path / "weights"))

    def run(method, *arguments):
        configs = []
        start = lambda: command_line.run(method, lambda config, workdir: configs.append(config))
        status, _, error = commands.call(start, f"{method}.py", *arguments)
        assert status == (0 if configs else 2), error
        return configs[0] if configs else error

    return run


def test_a_preset_sets_what_is_not_given(configured):
    config = configured("hct", "--config=hct:market1501", "--config.augment.preset=shapes")
    assert (config.augment.flip_probability, config.augment.erasing_probability) == (0, 0)
    config = configured(
        "hct", "--config=hct:market1501", "--config.augment.preset", "shapes", "--config.augment.flip_probability=0.5"
    )
    assert (config.augment.flip_probability, config.augment.erasing_probability) == (0.5, 0)
    assert configured("hct", "--config=hct:market1501").augment.erasing_probability == 0.5
    error = configured("hct", "--config=hct:market1501", "--config.augment.presets=rigid")
    assert "did you mean 'augment.preset'?" in error


def test_a_number_of_images_opens_what_is_not_given(configured, tmp_path):
    arguments = ["--config.data.images_per_identity=3", "--config.train.num_ids=9"]
    config = configured("hct", "--config=hct:market1501", *arguments)
    assert (config.cluster.num_steps, config.train.num_ids, config.train.num_instances) == (None, 9, None)
    assert configured("hct", "--config=hct:folder", *arguments).cluster.num_steps is None
    assert configured("hct", "--config=hct:market1501", arguments[1]).cluster.num_steps == 13
    # Stages are BUC's merges, iterations of training elsewhere.
    assert configured("buc", "--config=buc:market1501", arguments[0]).train.num_iterations is None
    # Fields in a file of one's own count as given.
    (tmp_path / "own.py").write_text("from reid_jax.experiments.configs.hct import get_config as get_config\n")
    assert configured("hct", "--config=own.py:market1501", *arguments).cluster.num_steps == 13


def test_a_backbone_that_is_not_the_weights(configured):
    error = configured(
        "hct", "--config=hct:market1501", "--config.model.weights=mobilenet_v2", "--config.model.backbone=resnet50"
    )
    assert error == (
        "error: model.backbone must be 'mobilenet_v2', that of mobilenet_v2, or not be given, got 'resnet50'\n"
    )
    config = configured("hct", "--config=hct:market1501", "--config.model.weights=mobilenet_v2")
    assert config.model.backbone == "resnet50"  # what the weights decide is set when the run starts
    assert configured("hct", "--config=hct:market1501", "--config.model.backbone=resnet18").model.backbone == "resnet18"
    error = configured("hct", "--config=hct:folder", "--config.model.backbone=resnet18")
    assert error.startswith("error: model.backbone must be 'mobilenet_v2'")
