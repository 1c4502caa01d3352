"""Zip and tar archives as sources: every member is checked before the first one is written."""

import contextlib
import gzip
import io
import lzma
import pathlib
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

from reid_jax import errors
from reid_jax.data import folders
from reid_jax.data_prep.readers import listing
from reid_jax.progress import ProgressBar

_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    gzip.BadGzipFile,
    EOFError,
    NotImplementedError,
    UnicodeError,
)


class _Member(NamedTuple):
    name: str
    size: int  # bytes once unpacked
    kind: str  # "file", "folder", or what makes it unacceptable
    open: Callable[[], BinaryIO]


def is_archive(path: pathlib.Path) -> bool:
    """Returns whether a file is a zip or tar archive (plain, gzip, bzip2 or xz), by its content."""
    return tarfile.is_tarfile(path) or zipfile.is_zipfile(path)


def extract(archive: pathlib.Path, folder: pathlib.Path, *, progress: bool = True) -> pathlib.Path:
    """Unpacks an archive.

    Args:
        archive: the zip or tar file.
        folder: an empty folder to unpack into.
        progress: whether to show how far it is.

    Returns:
        The folder that holds the content: `folder`, or the archive's only top folder, unless that is called
        train, query or gallery (in small or capital letters) and so says something about its images.

    Raises:
        UserError: the archive is damaged or encrypted, does not fit on the disk, or has a member that is
            a link or a device, lies outside of the archive's own folder, or comes twice. In all these cases
            but damage nothing has been written.
    """
    try:
        with _open(archive) as members:
            checked = _checked(archive, members)
            _check_space(archive, checked, folder)
            _write(checked, folder, f"unpacking {archive.name}", progress)
    except (*_DAMAGE, FileExistsError, NotADirectoryError) as error:
        raise errors.UserError(f"--source: the archive {archive.name} is damaged: {error}") from error
    except OSError as error:
        # Only the file system's errors have a number; bzip2's for damage have none.
        if error.errno is not None:
            raise
        raise errors.UserError(f"--source: the archive {archive.name} is damaged: {error}") from error
    except RuntimeError as error:
        # What zipfile raises for a member it has no password for.
        raise errors.UserError(f"--source: cannot read the archive {archive.name}: {error}") from error
    top = folders.list_folders(folder)
    if len(top) == 1 and len(list(folder.iterdir())) == 1 and top[0].name.lower() not in listing.SPLITS:
        return top[0]
    return folder


@contextlib.contextmanager
def _open(archive: pathlib.Path) -> Iterator[list[_Member]]:
    if tarfile.is_tarfile(archive):
        with tarfile.open(archive) as tar:
            yield [_tar_member(tar, info) for info in tar]
    else:
        with zipfile.ZipFile(archive) as file:
            yield [_zip_member(file, info) for info in file.infolist()]


def _tar_member(tar: tarfile.TarFile, info: tarfile.TarInfo) -> _Member:
    if info.issym() or info.islnk():
        kind = "a link"
    else:
        kind = "file" if info.isreg() else "folder" if info.isdir() else "a device"
    return _Member(info.name, info.size, kind, lambda: tar.extractfile(info))


def _zip_member(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    # The upper half holds the Unix mode, 0 in archives made elsewhere.
    if stat.S_ISLNK(info.external_attr >> 16):
        kind = "a link"
    elif info.flag_bits & 1:
        kind = "encrypted"
    else:
        kind = "folder" if info.is_dir() else "file"
    return _Member(info.filename, info.file_size, kind, lambda: file.open(info))


def _checked(archive: pathlib.Path, members: list[_Member]) -> dict[pathlib.PurePosixPath, _Member]:
    """Returns the files to write by their path inside the archive."""
    files: dict[pathlib.PurePosixPath, _Member] = {}
    for member in members:
        where = f"--source: the archive {archive.name} has the member {member.name!r}"
        path = pathlib.PurePosixPath(member.name)
        # A backslash or a drive letter is an absolute or parent path to the program that wrote it.
        if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", member.name) or "\\" in member.name:
            raise errors.UserError(f"{where}, which would be written outside of its folder; nothing was unpacked")
        if member.kind not in ("file", "folder"):
            raise errors.UserError(f"{where}, which is {member.kind}; only files and folders are unpacked")
        if member.kind == "folder" or any(part == "__MACOSX" or part.startswith("._") for part in path.parts):
            continue
        if path in files:
            raise errors.UserError(f"{where} twice; every name must come once")
        files[path] = member
    if not files:
        raise errors.UserError(f"--source: the archive {archive.name} holds no files")
    return files


def _check_space(archive: pathlib.Path, files: dict[pathlib.PurePosixPath, _Member], folder: pathlib.Path) -> None:
    needed, free = sum(member.size for member in files.values()), shutil.disk_usage(folder).free
    if needed > free:
        raise errors.UserError(
            f"--data_dir: unpacking {archive.name} needs {needed / 1e6:.1f} MB there, {free / 1e6:.1f} MB are free"
        )


def _write(files: dict[pathlib.PurePosixPath, _Member], folder: pathlib.Path, description: str, progress: bool) -> None:
    stream = None if progress else io.StringIO()
    with ProgressBar(len(files), description, unit="files", stream=stream) as bar:
        for path, member in files.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with member.open() as source, open(target, "xb") as copy:
                shutil.copyfileobj(source, copy)
            bar.update()
