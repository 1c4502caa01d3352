"""A person's images, files in a folder: found, and looked at before any work is done on them."""

import pathlib
from collections.abc import Sequence
from concurrent import futures

import numpy as np

from reid_jax import errors, identities
from reid_jax.data import folders, verification
from reid_jax.data.image_files import ImageFiles
from reid_jax.progress import ProgressBar

_THREADS = 4


def find_images(source: str, *, flag: str, on_bad_image: str = "fail") -> ImageFiles:
    """Lists the images of a folder, sub-folders included, or a single one, without those that cannot be decoded.

    Args:
        source: a folder or an image file.
        flag: the command line's name for it, for messages.
        on_bad_image: "fail", or "skip" to leave such images out and list them on standard output.

    Returns:
        At least one image, sorted by path.

    Raises:
        UserError: there is no such folder or file, no image in it, or one that cannot be decoded.
    """
    path = pathlib.Path(source).expanduser()
    if path.is_dir():
        files = folders.list_images(path, recursive=True, flag=flag)
        folder, paths = path, [folders.relative_path(file, path) for file in files]
        if not paths:
            raise errors.UserError(f"--{flag}: no images in the folder {source!r}, it holds {folders.describe(path)}")
    elif path.is_file():
        folder, paths = path.parent, [path.name]
    else:
        raise errors.UserError(f"--{flag}: there is no folder and no image {source!r}")
    files = ImageFiles(folder, np.array(paths, np.str_))
    problems = _problems(files)
    if problems and on_bad_image == "fail":
        advice = "; --on_bad_image=skip leaves such images out" if len(files) > len(problems) else ""
        place, problem = next(iter(problems.items()))
        raise errors.UserError(
            f"--{flag}: {len(problems)} of {len(files)} images cannot be used, the first is {paths[place]!r}: {problem} "
            f"({verification.RULE}){advice}"
        )
    if len(problems) == len(files):
        raise errors.UserError(f"--{flag}: none of the {len(files)} images in {source!r} can be decoded")
    for place, problem in problems.items():
        print(f"left out: {paths[place]}: {problem}", flush=True)
    return ImageFiles(folder, np.delete(files.paths, list(problems)))


def _problems(files: ImageFiles) -> dict[int, str]:
    """What is wrong with those images that cannot be used, by their place."""
    problems = {}
    with (
        verification.quiet_pillow(),
        futures.ThreadPoolExecutor(_THREADS) as pool,
        ProgressBar(len(files), f"checking the images of {files.name}", unit="images") as bar,
    ):
        for place, problem in enumerate(pool.map(lambda i: _problem(files, i), range(len(files)))):
            if problem is not None:
                problems[place] = problem
            bar.update()
    return problems


def _problem(files: ImageFiles, index: int) -> str | None:
    try:
        return verification.image_problem(files.encoded(index))
    except OSError as error:
        return f"it cannot be read ({error.strerror})"


def person_numbers(paths: Sequence[str]) -> np.ndarray:
    """Numbers the identities of images from 1 where every one lies in a sub-folder, one for each person.

    Args:
        paths: N paths inside the folder.

    Returns:
        [N] int64; all -1 if an image lies in the folder itself.
    """
    folders = [path.partition("/")[0] if "/" in path else None for path in paths]
    if None in folders:
        return np.full(len(paths), identities.UNKNOWN)
    return np.unique(folders, return_inverse=True)[1] + identities.DISTRACTOR_PID + 1
