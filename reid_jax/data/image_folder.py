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
    files = list_images(source, flag=flag)
    paths = files.paths.tolist()
    problems, notes = _look_at(files)
    if problems and on_bad_image == "fail":
        advice = "; --on_bad_image=skip leaves such images out" if len(files) > len(problems) else ""
        place, problem = next(iter(problems.items()))
        raise errors.UserError(
            f"--{flag}: {len(problems)} of {len(files)} images cannot be used, the first is {paths[place]!r}: {problem} "
            f"({verification.RULE}){advice}"
        )
    if len(problems) == len(files):
        raise errors.UserError(f"--{flag}: none of the {len(files)} images in {source!r} can be decoded")
    videos = (
        folders.list_videos(files.folder, recursive=True, flag=flag)
        if pathlib.Path(source).expanduser().is_dir()
        else []
    )
    if videos:
        print(f"left out: {len(videos)} videos, which only reid prepare reads (--tracklets)", flush=True)
    for place, problem in problems.items():
        print(f"left out: {paths[place]}: {problem}", flush=True)
    for place, note in notes.items():
        print(f"{paths[place]}: {note}", flush=True)
    return ImageFiles(files.folder, np.delete(files.paths, list(problems)))


def list_images(source: str, *, flag: str) -> ImageFiles:
    """Lists the image files of a folder, sub-folders included, or a single one, without looking into them.

    Args:
        source: a folder or an image file.
        flag: the command line's name for it, for messages.

    Raises:
        UserError: there is no such folder or file, or no image in it.
    """
    path = pathlib.Path(source).expanduser()
    if path.is_file():
        return ImageFiles(path.parent, np.array([path.name], np.str_))
    if not path.is_dir():
        raise errors.UserError(f"--{flag}: there is no folder and no image {source!r}")
    files = folders.list_images(path, recursive=True, flag=flag)
    if not files:
        raise errors.UserError(f"--{flag}: no images in the folder {source!r}, it holds {folders.describe(path)}")
    return ImageFiles(path, np.array([folders.relative_path(file, path) for file in files], np.str_))


def _look_at(files: ImageFiles) -> tuple[dict[int, str], dict[int, str]]:
    """What is wrong with those images that cannot be used, and what of others is not read, by their place."""
    problems, notes = {}, {}
    with (
        verification.quiet_pillow(),
        futures.ThreadPoolExecutor(_THREADS) as pool,
        ProgressBar(len(files), f"checking the images of {files.name}", unit="images") as bar,
    ):
        for place, (problem, note) in enumerate(pool.map(lambda i: _problem_and_note(files, i), range(len(files)))):
            if problem is not None:
                problems[place] = problem
            elif note is not None:
                notes[place] = note
            bar.update()
    return problems, notes


def _problem_and_note(files: ImageFiles, index: int) -> tuple[str | None, str | None]:
    try:
        data = files.encoded(index)
    except OSError as error:
        return f"it cannot be read ({error.strerror})", None
    problem = verification.image_problem(data)
    return problem, None if problem is not None else verification.image_note(data)


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
