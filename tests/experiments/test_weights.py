"""experiments/weights.py: the list, and weights that are got and imported, as a user sees it."""

import subprocess
import sys

import file_server
import published
import pytest
from absl import flags
from tiny_runs import finish, start_script

from reid_jax import errors
from reid_jax.experiments import weights
from reid_jax.weights import catalog, store


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    published.add_architecture(monkeypatch)
    monkeypatch.setenv("REID_JAX_WEIGHTS", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def options(monkeypatch):
    """The script's flags, alone, with their defaults; a test sets some."""
    own = flags.FlagValues()
    with monkeypatch.context() as patch:
        for define in ("boolean", "string", "enum"):
            function = getattr(flags, f"DEFINE_{define}")
            patch.setattr(flags, f"DEFINE_{define}", lambda *a, define=function, **k: define(*a, flag_values=own, **k))
        patch.setattr(weights.program, "group", lambda title: None)
        weights.define_flags()
    own(["weights"])
    monkeypatch.setattr(weights.flags, "FLAGS", own)
    return own


@pytest.fixture
def server(monkeypatch):
    with file_server.serving() as server:
        server.files["/w"] = published.make_file(1.0)
        entry = published.make_entry("tiny", f"{server.url}/w", server.files["/w"])
        people = entry._replace(name="tiny_people", people_labels=True, labels="identities of people", size=None)
        monkeypatch.setattr(catalog, "CATALOG", {"tiny": entry, "tiny_people": people})
        yield server


def set_options(options, *given):
    options(["weights", *given])


def test_list_get_and_list_again(server, options, capsys):
    weights.main(["list"])
    without, with_people = capsys.readouterr().out.split("Trained with labels of people")
    assert "tiny" in without and "tiny_people" not in without and "tiny_people" in with_people
    assert without.splitlines()[3].split() == ["tiny", "no", "0.7", "MB", "noise", "none", "CC0"]
    assert with_people.splitlines()[3].split()[:3] == ["tiny_people", "no", "?"]

    weights.main(["get", "tiny"])
    said = capsys.readouterr().out
    assert said.startswith(f"getting tiny-published.safetensors, 0.7 MB, from {server.url}/w\n")
    assert f"\n  labels of people  no\n  licence           CC0\n  from              {server.url}/w\n" in said
    assert said.endswith("--config=METHOD:folder --config.model.weights=tiny\n")
    weights.main(["get", "tiny"])
    assert capsys.readouterr().out.startswith("tiny: got already (--overwrite gets it again)\n")
    assert len(server.requests) == 1
    set_options(options, "--overwrite")
    weights.main(["get", "tiny"])
    assert len(server.requests) == 2
    weights.main(["list"])
    assert "tiny         yes  0.7 MB" in capsys.readouterr().out


def test_labels_of_people_are_told(server, options, capsys):
    weights.main(["get", "tiny_people"])
    said = capsys.readouterr().out
    assert "labels of people  yes: it was known who is on each image" in said
    assert said.startswith(f"getting tiny-published.safetensors, from {server.url}/w\n")


def test_own_and_damaged_weights_are_listed(server, options, tmp_path, folder, capsys):
    (tmp_path / "own.safetensors").write_bytes(published.make_file(2.0))
    set_options(
        options, "--name=shop", "--architecture=resnet_tiny", "--people_labels", "--trained_on=our shop, 2024",
        "--normalization=half",
    )  # fmt: skip
    weights.main(["import", str(tmp_path / "own.safetensors")])
    said = capsys.readouterr().out
    assert said.startswith(f"shop: {folder}/shop.safetensors\n") and "resnet_tiny, pixels normalised as half" in said
    (folder / "tiny.safetensors").write_bytes(b"damaged")
    (folder / "foreign.safetensors").write_bytes(b"foreign")
    set_options(options)
    for name in weights._OF_IMPORT:
        options[name].present = 0
    weights.main(["list"])
    without, with_people = capsys.readouterr().out.split("Trained with labels of people")
    assert "tiny         damaged" in without
    assert "shop         yes      0.7 MB  our shop, 2024  identities of people  not said" in with_people
    assert with_people.count("\nwarning: ") == 2 and "foreign.safetensors is damaged" in with_people


def test_import_of_published_weights(server, options, tmp_path, capsys):
    file = tmp_path / "renamed.safetensors"
    file.write_bytes(server.files["/w"])
    weights.main(["import", str(file)])
    assert capsys.readouterr().out.startswith("tiny: ") and store.names() == ["tiny"] and not server.requests


@pytest.mark.parametrize(
    "words, given, match",
    [
        ([], (), "a command is needed: list, get, import"),
        (["gt"], (), "no command weights 'gt'; did you mean 'get'"),
        (["get"], (), "weights get takes NAME, got nothing"),
        (["get", "a", "b"], (), "weights get takes NAME, got a, b"),
        (["list", "all"], (), "weights list takes nothing more, got all"),
        (["get", "tinny"], (), "no published weights 'tinny'; did you mean 'tiny'"),
        (["get", "../tiny"], (), "no published weights '../tiny'"),
        (["get", "tiny"], ("--name=x",), "--name: only weights import takes it"),
        (["import", "w.pth"], (), "no weights file 'w.pth'"),
        (["import", "w.pth"], ("--name=shop",), "--name: 'shop' is not in the list, did you mean .*--architecture"),
        (["import", "w.pth"], ("--architecture=resnet18",), "--name is needed"),
        (["import", "w.pth"], ("--architecture=resnet18", "--name=a/b"), "--name must be up to 100 letters"),
        (["import", "w.pth"], ("--architecture=resnet18", "--name=shop"), "--people_labels must be true or false"),
        (["import", "w.pth"], ("--architecture=x", "--name=shop", "--people_labels"), "--architecture must be one of"),
    ],
)
def test_command_lines_that_are_wrong(server, options, words, given, match):
    set_options(options, *given)
    with pytest.raises(errors.UserError, match=match):
        weights.main(words)


def test_the_script_and_the_console_command():
    console = subprocess.Popen(
        [sys.executable, "-m", "reid_jax.cli.main", "weights"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    script = start_script("weights", "get", "resnet18x", "--overwrite")
    status, said, _ = finish(console)
    # Without words it is the help that is printed.
    assert status == 0 and "\n    reid weights get mobilenet_v2\n" in said and "--people_labels" in said
    status, _, complaint = finish(script)
    assert status == 2 and "did you mean 'resnet18'" in complaint and len(complaint.splitlines()) == 1
