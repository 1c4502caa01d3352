"""Writes the made-up data set: who is seen where, and the files in Market-1501's layout and names."""

import pathlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from reid_jax import errors
from reid_jax.data_prep.synthetic import cameras, rendering
from reid_jax.data_prep.synthetic.cameras import Camera
from reid_jax.data_prep.synthetic.identities import Identity, draw_identities
from reid_jax.data_prep.synthetic.palettes import PALETTES
from reid_jax.data_prep.synthetic.streams import Stream, generator

_TRAIN, _QUERY, _GALLERY = "bounding_box_train", "query", "bounding_box_test"
_PASSAGE_LENGTH = 2  # images of one walk past a camera
NUM_PASSERS_BY = 20  # who walks through the background
MAX_IDS = 3333  # so that every pid has four digits


class _Job(NamedTuple):
    """One image to render.

    Attributes:
        path: of the file in the data set.
        person: number of the person in the world, None for a background.
        camera: number of the camera, from 0.
        index: which of the person's images in this camera.
        stream: PASSAGE for an ordinary image, JUNK or DISTRACTOR.
    """

    path: str
    person: int | None
    camera: int
    index: int
    stream: Stream


def write_synthetic(
    root: pathlib.Path | str,
    *,
    seed: int = 0,
    palette: int = 0,
    num_train_ids: int = 64,
    num_test_ids: int = 64,
    images_per_id: int = 16,
    num_cameras: int = 4,
    height: int = 128,
    width: int = 64,
    num_distractors: int = 100,
    num_junk: int = 50,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Renders a data set of pedestrians and writes it in Market-1501's layout.

    An image depends on the seed, the palette, the image size and on what its file name says, not on the other
    numbers: a larger data set holds a smaller one of the same seed and palette as far as the same people are seen by
    the same cameras. The same arguments give the same bytes on the same machine with the same versions of numpy and
    Pillow.

    Every identity is seen by at least two cameras and at least twice by each. Of a test identity, the first
    image of each camera is a query, the others are in the gallery.

    Args:
        root: folder to write to; it must not exist or be empty.
        seed: which world, at least 0: people, cameras and all else.
        palette: 0 for the day's colours, 1 for other clothes in the light of an evening. The seed decides all else:
            the same one makes the same places, and people who walk alike.
        num_train_ids: identities in the training set, 1..3333.
        num_test_ids: identities in query and gallery, 1..3333.
        images_per_id: images of each, at least 4.
        num_cameras: cameras, at least 2; training and test set share them.
        height: of an image in pixels, at least 32.
        width: of an image in pixels, at least 16, at most twice the height.
        num_distractors: gallery images of identity 0: people who are no query, and backgrounds.
        num_junk: gallery images of identity -1: test identities, badly cropped.
        progress: called after each image with the number of images done and in all.

    Raises:
        UserError: an argument breaks its rule, or there is something in root.
        OSError: a file cannot be written.
    """
    limits = {
        "seed": (seed, 0, None),
        "palette": (palette, 0, len(PALETTES) - 1),
        "num_train_ids": (num_train_ids, 1, MAX_IDS),
        "num_test_ids": (num_test_ids, 1, MAX_IDS),
        "images_per_id": (images_per_id, 4, None),
        "num_cameras": (num_cameras, 2, 99),
        "height": (height, 32, None),
        "width": (width, 16, 2 * height),
        "num_distractors": (num_distractors, 0, None),
        "num_junk": (num_junk, 0, None),
    }
    check_integers(limits)
    root = make_folders(root, (_TRAIN, _QUERY, _GALLERY))
    jobs = [
        *_identity_jobs(seed, num_train_ids, images_per_id, num_cameras, test=False),
        *_identity_jobs(seed, num_test_ids, images_per_id, num_cameras, test=True),
        *_distractor_jobs(seed, num_distractors, num_cameras),
        *_junk_jobs(seed, num_junk, num_test_ids, num_cameras),
    ]
    colors = PALETTES[palette]
    needed = 1 + max(job.person for job in jobs if job.person is not None)
    people = draw_identities(seed, max(needed, 3 * NUM_PASSERS_BY), colors)
    views = [cameras.draw_camera(seed, number, colors, height=height) for number in range(num_cameras)]
    for done, job in enumerate(jobs, start=1):
        data = _render(job, seed, people, views[job.camera], height=height, width=width)
        (root / job.path).write_bytes(data)
        if progress is not None:
            progress(done, len(jobs))


def check_integers(limits: dict[str, tuple[int, int, int | None]]) -> None:
    """Refuses arguments that break their rule.

    Args:
        limits: by an argument's name its value, the least and the greatest one allowed, None for no greatest.

    Raises:
        UserError: a value is no integer or not within its limits.
    """
    for name, (value, low, high) in limits.items():
        rule = f"at least {low}" if high is None else f"in {low}..{high}"
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise errors.UserError(f"{name} must be an integer {rule}, got {value!r}")
        if value < low or (high is not None and value > high):
            raise errors.UserError(f"{name} must be {rule}, got {value}")


def make_folders(root: pathlib.Path | str, names: tuple[str, ...]) -> pathlib.Path:
    """Makes a data set's folders inside `root`, which must not exist or be empty, else a UserError; returns it."""
    root = pathlib.Path(root)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise errors.UserError(f"root must be an empty folder or a new one, got {str(root)!r}")
    for folder in names:
        (root / folder).mkdir(parents=True)
    return root


def pid_of(person: int) -> int:
    """Returns the identity, from 1, of a person of the world, counted from 0."""
    return person + 1


def _identity_jobs(seed: int, num_ids: int, images_per_id: int, num_cameras: int, *, test: bool) -> list[_Job]:
    """The images of the training or the test identities."""
    jobs = []
    # Every third person of the world each: test, training, passer-by. Growing one group leaves the others alone.
    for person in range(0 if test else 1, 3 * num_ids, 3):
        counts = _images_by_camera(generator(seed, Stream.ALLOCATION, person), images_per_id, num_cameras)
        for camera, count in counts.items():
            for index in range(count):
                is_query = test and index == 0
                folder = _QUERY if is_query else _GALLERY if test else _TRAIN
                passage = index // _PASSAGE_LENGTH
                frame = int(generator(seed, Stream.PASSAGE, person, camera, passage).integers(1, 99_000))
                frame += 25 * (index % _PASSAGE_LENGTH)
                # In Market-1501 a box numbered 00 was drawn by hand: the queries.
                name = f"{pid_of(person):04d}_c{camera + 1}s{passage + 1}_{frame:06d}_{0 if is_query else 1:02d}.jpg"
                jobs.append(_Job(f"{folder}/{name}", person, camera, index, Stream.PASSAGE))
    return jobs


def _images_by_camera(rng: np.random.Generator, images: int, num_cameras: int) -> dict[int, int]:
    """Draws which cameras see a person, and how often each: camera -> at least 2."""
    most = min(num_cameras, images // 2)
    seen_by = most if rng.random() < 0.6 else int(rng.integers(2, most + 1))
    chosen = rng.permutation(num_cameras)[:seen_by]
    counts = 2 + rng.multinomial(images - 2 * seen_by, np.full(seen_by, 1 / seen_by))
    return {int(camera): int(count) for camera, count in sorted(zip(chosen, counts, strict=True))}


def _distractor_jobs(seed: int, count: int, num_cameras: int) -> list[_Job]:
    """Images of identity 0: by turns a passer-by and a background."""
    jobs = []
    for number in range(count):
        camera = int(generator(seed, Stream.ALLOCATION, number, 0).integers(num_cameras))
        person = 3 * (number // 2) + 2 if number % 2 == 0 else None
        path = f"{_GALLERY}/0000_c{camera + 1}s1_{number + 1:06d}_01.jpg"
        jobs.append(_Job(path, person, camera, number, Stream.DISTRACTOR))
    return jobs


def _junk_jobs(seed: int, count: int, num_test_ids: int, num_cameras: int) -> list[_Job]:
    """Bad detections of the test identities, one of each in turn."""
    jobs = []
    for number in range(count):
        index, test_id = divmod(number, num_test_ids)
        person = 3 * test_id
        camera = int(generator(seed, Stream.ALLOCATION, person, index, 1).integers(num_cameras))
        path = f"{_GALLERY}/-1_c{camera + 1}s1_{pid_of(person):06d}_{index + 1:02d}.jpg"
        jobs.append(_Job(path, person, camera, index, Stream.JUNK))
    return jobs


def _render(job: _Job, seed: int, people: list[Identity], camera: Camera, *, height: int, width: int) -> bytes:
    """Renders a job; returns a JPEG file's bytes."""
    person = job.index if job.person is None else job.person
    rng = generator(seed, Stream.IMAGE, int(job.stream), person, job.camera, job.index)
    passage_rng = rng
    if job.stream is Stream.PASSAGE:
        passage_rng = generator(seed, Stream.PASSAGE, person, job.camera, job.index // _PASSAGE_LENGTH, 1)
    passage = rendering.draw_passage(passage_rng, camera)
    crop = rendering.draw_bad_crop(rng) if job.stream is Stream.JUNK else rendering.draw_crop(rng, passage)
    if job.person is None:
        image = rendering.render_background(camera, passage, rng, height=height, width=width)
    else:
        image = rendering.render_person(
            people[person],
            camera,
            passage,
            crop,
            rng,
            height=height,
            width=width,
            passers_by=people[2 : 3 * NUM_PASSERS_BY : 3],
        )
    return cameras.encode(image, camera)
