"""The console command: its help, configs by name, and what it says to words that it does not know."""

import subprocess
import sys

import pytest
from tiny_data import ROOT

from reid_jax import errors
from reid_jax.cli import command_line, main


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["reid", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main.main()
    return stopped.value.code, *capsys.readouterr()


@pytest.mark.parametrize(
    "arguments,words",
    [((), ("reid COMMAND", "search")), (("--help",), ("prepare", "report")), (("train", "--help"), ("hct", "combine"))],
)
def test_help(monkeypatch, capsys, arguments, words):
    status, output, errors = run(monkeypatch, capsys, *arguments)
    assert (status, errors) == (0, "") and all(word in output for word in words)
    assert len(output.splitlines()) <= 24


@pytest.mark.parametrize(
    "arguments,line",
    [
        (("serch",), "error: there is no command 'serch'; did you mean 'search'?"),
        (("train", "htc"), "error: there is no method 'htc'; did you mean 'hct'?"),
    ],
)
def test_misspelt_words(monkeypatch, capsys, arguments, line):
    status, output, errors = run(monkeypatch, capsys, *arguments)
    assert status == 2 and output == "" and errors.startswith(line) and len(errors.splitlines()) == 1


def test_every_command_is_a_script_and_every_script_a_command():
    scripts = {f"experiments.{path.stem}" for path in (ROOT / "experiments").glob("[a-z]*.py")}
    commands = {module for module, _ in main.COMMANDS.values() if module.startswith("experiments.")}
    assert commands | {f"experiments.{method}" for method in main.METHODS} == scripts
    assert {path.stem for path in (ROOT / "experiments/configs").glob("[a-z]*.py")} >= set(main.METHODS) - {"transfer"}


@pytest.mark.parametrize("argument", [["--config=hct:market1501"], ["--config", "hct:market1501"]])
def test_a_config_by_its_name(monkeypatch, argument):
    monkeypatch.setattr(sys, "argv", ["reid train hct", *argument])
    command_line._replace_config_names()
    assert sys.argv[-1].endswith("experiments/configs/hct.py:market1501")


def test_a_config_by_its_path_stays(monkeypatch, tmp_path):
    (tmp_path / "own.py").touch()
    monkeypatch.setattr(sys, "argv", ["reid train hct", f"--config={tmp_path}/own.py:market1501"])
    command_line._replace_config_names()
    assert sys.argv[-1] == f"--config={tmp_path}/own.py:market1501"
    monkeypatch.setattr(sys, "argv", ["reid train hct", f"--config={tmp_path}/none.py:market1501"])
    with pytest.raises(errors.UserError, match="^there is no file '.*none.py'"):
        command_line._replace_config_names()


def test_it_runs_from_any_folder_and_starts_without_jax(tmp_path):
    code = "import sys; sys.argv = ['reid', '--version']; from reid_jax.cli import main\ntry: main.main()\n"
    code += "finally: assert 'jax' not in sys.modules"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert found.stdout.strip() == "0.1.0" and found.returncode == 0, found.stderr
    command = [sys.executable, "-m", "reid_jax.cli.main", "train", "hct", "--config=htc:synthetic"]
    found = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert found.returncode == 2 and "there is no config 'htc'" in found.stderr
    assert len(found.stderr.splitlines()) == 1
