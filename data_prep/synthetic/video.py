"""Writes the made-up people as video: each walk past a camera is a tracklet, in DukeMTMC-VideoReID's layout."""

import pathlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from reid_jax.data_prep.readers import listing
from reid_jax.data_prep.synthetic import cameras, dataset, rendering
from reid_jax.data_prep.synthetic.cameras import Camera
from reid_jax.data_prep.synthetic.identities import Identity, draw_identities
from reid_jax.data_prep.synthetic.palettes import PALETTES
from reid_jax.data_prep.synthetic.streams import Stream, generator

_FEWEST_CAMERAS, _MOST_CAMERAS = 2, 4  # that see a person
_TWICE = 2  # cameras that see a person twice
# First numbers of the generators' keys: what is decided.
_WHERE, _WALK, _FRAME = 1, 2, 3
_FRAME_DISTANCE = 2  # frames of the camera from one frame of a tracklet to the next


class _Walk(NamedTuple):
    """One tracklet to render.

    Attributes:
        folder: of the tracklet in the data set.
        pid: the identity in the frames' names; 0 for a distractor.
        person: number of the person in the world.
        camera: number of the camera, from 0.
        passage: which of the person's walks past this camera.
    """

    folder: str
    pid: int
    person: int
    camera: int
    passage: int


def write_synthetic_video(
    root: pathlib.Path | str,
    *,
    seed: int = 0,
    palette: int = 0,
    num_train_ids: int = 64,
    num_test_ids: int = 64,
    frames_per_tracklet: int = 6,
    num_cameras: int = 4,
    height: int = 128,
    width: int = 64,
    num_distractors: int = 20,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Renders tracklets of pedestrians and writes them in DukeMTMC-VideoReID's layout.

    The people and cameras are those of `write_synthetic` with the same seed and palette. Every identity is seen by
    two to four cameras, twice by two of them and once by the others, so has four to six tracklets. In a tracklet the
    person walks on from frame to frame. Of a test identity, the first tracklet of each camera is a query, the
    others are in the gallery.

    A frame depends on the seed, the palette, the image size, the number of cameras and on what its path says, not
    on the other numbers. The same arguments give the same bytes on the same machine with the same versions of numpy
    and Pillow.

    Args:
        root: folder to write to; it must not exist or be empty.
        seed: which world, at least 0: people, cameras and all else.
        palette: 0 for the day's colours, 1 for other clothes in the light of an evening. The seed decides all else:
            the same one makes the same places, and people who walk alike.
        num_train_ids: identities in the training set, 1..3333.
        num_test_ids: identities in query and gallery, 1..3333.
        frames_per_tracklet: frames of each tracklet, 1..9999.
        num_cameras: cameras, at least 2; training and test set share them.
        height: of a frame in pixels, at least 32.
        width: of a frame in pixels, at least 16, at most twice the height.
        num_distractors: gallery tracklets of identity 0, people who are no query; 0..9999.
        progress: called after each frame with the number of frames done and in all.

    Raises:
        UserError: an argument breaks its rule, or there is something in root.
        OSError: a file cannot be written.
    """
    dataset.check_integers(
        {
            "seed": (seed, 0, None),
            "palette": (palette, 0, len(PALETTES) - 1),
            "num_train_ids": (num_train_ids, 1, dataset.MAX_IDS),
            "num_test_ids": (num_test_ids, 1, dataset.MAX_IDS),
            "frames_per_tracklet": (frames_per_tracklet, 1, 9999),
            "num_cameras": (num_cameras, 2, 99),
            "height": (height, 32, None),
            "width": (width, 16, 2 * height),
            "num_distractors": (num_distractors, 0, 9999),
        }
    )
    root = dataset.make_folders(root, listing.SPLITS)
    walks = [
        *_identity_walks(seed, num_train_ids, num_cameras, test=False),
        *_identity_walks(seed, num_test_ids, num_cameras, test=True),
        *_distractor_walks(seed, num_distractors, num_cameras),
    ]
    colors = PALETTES[palette]
    needed = 1 + max(walk.person for walk in walks)
    people = draw_identities(seed, max(needed, 3 * dataset.NUM_PASSERS_BY), colors)
    views = [cameras.draw_camera(seed, number, colors, height=height) for number in range(num_cameras)]
    for done, walk in enumerate(walks):
        (root / walk.folder).mkdir(parents=True)
        start = int(generator(seed, Stream.VIDEO, _WALK, walk.person, walk.camera, walk.passage, 1).integers(1, 70_000))
        for frame in range(frames_per_tracklet):
            number = start + _FRAME_DISTANCE * frame
            name = f"{walk.pid:04d}_C{walk.camera + 1}_F{frame + 1:04d}_X{number:05d}.jpg"
            data = _render(walk, frame, seed, people, views[walk.camera], height=height, width=width)
            (root / walk.folder / name).write_bytes(data)
            if progress is not None:
                progress(done * frames_per_tracklet + frame + 1, len(walks) * frames_per_tracklet)


def _identity_walks(seed: int, num_ids: int, num_cameras: int, *, test: bool) -> list[_Walk]:
    """The tracklets of the training or the test identities: the same people as in `write_synthetic`."""
    walks = []
    for person in range(0 if test else 1, 3 * num_ids, 3):
        counts = _walks_by_camera(generator(seed, Stream.VIDEO, _WHERE, person, 1), num_cameras)
        passages = [(camera, passage) for camera, count in counts.items() for passage in range(count)]
        pid = dataset.pid_of(person)
        for number, (camera, passage) in enumerate(passages, start=1):
            split = "train" if not test else "query" if passage == 0 else "gallery"
            walks.append(_Walk(f"{split}/{pid:04d}/{number:04d}", pid, person, camera, passage))
    return walks


def _walks_by_camera(rng: np.random.Generator, num_cameras: int) -> dict[int, int]:
    """Draws which cameras see a person, and how often each: camera -> 1 or 2, twice in two of them."""
    # Two, so that a query of either has the other's second tracklet to be found in the gallery.
    seen_by = int(rng.integers(_FEWEST_CAMERAS, min(_MOST_CAMERAS, num_cameras) + 1))
    chosen = rng.permutation(num_cameras)[:seen_by].tolist()
    return {camera: 2 if camera in chosen[:_TWICE] else 1 for camera in sorted(chosen)}


def _distractor_walks(seed: int, count: int, num_cameras: int) -> list[_Walk]:
    """Tracklets of identity 0: passers-by."""
    walks = []
    for number in range(count):
        person = 3 * number + 2
        camera = int(generator(seed, Stream.VIDEO, _WHERE, person, 1).integers(num_cameras))
        walks.append(_Walk(f"gallery/0000/{number + 1:04d}", 0, person, camera, 0))
    return walks


def _render(
    walk: _Walk, frame: int, seed: int, people: list[Identity], camera: Camera, *, height: int, width: int
) -> bytes:
    """Renders a frame of a walk; returns a JPEG file's bytes."""
    numbers = (walk.person, walk.camera, walk.passage)
    start = rendering.draw_passage(generator(seed, Stream.VIDEO, _WALK, *numbers, 2), camera)
    rng = generator(seed, Stream.VIDEO, _FRAME, *numbers, frame, 1)
    passage = rendering.walk_on(start, frame)
    image = rendering.render_moment(
        people[walk.person],
        camera,
        passage,
        rendering.draw_crop(rng, passage),
        rng,
        height=height,
        width=width,
        passers_by=people[2 : 3 * dataset.NUM_PASSERS_BY : 3],
    )
    return cameras.encode(image, camera)
