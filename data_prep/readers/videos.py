"""Videos of one person each: their frames are written as image files, to be read like other tracklets.

PyAV (the extra `video`) decodes them. Only the video containers that are listed here are opened, and only the file
itself: a playlist that calls itself .mp4 could make the decoder read other files.
"""

import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from PIL import Image

from reid_jax import errors

DEFAULT_FPS = 5.0
_QUALITY = 95  # of the JPEG files; a video has lost more than that already
_OPEN_OPTIONS = {"format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,avi,matroska,webm", "protocol_whitelist": "file"}
_CONTAINER_UNIT = 1_000_000  # of a container's times, in a second
_LEAST_SHARE = 0.9  # of a video's length: sound may go on for a little longer than the pictures
# How a frame is to be turned to be upright, by degrees counterclockwise.
_TURNS = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}


class Frame(NamedTuple):
    """One frame of a video, or what is wrong where there should be one.

    Attributes:
        number: its place in the video, from 1.
        file: the JPEG file that was written.
        problem: why there is no such file, or None.
    """

    number: int
    file: pathlib.Path
    problem: str | None = None


def write_frames(video: pathlib.Path, folder: pathlib.Path, *, fps: float) -> list[Frame]:
    """Writes a video's frames, upright, as JPEG files of quality 95.

    Args:
        video: the file.
        folder: where to write FOLDER/000001.jpg and so on, by the frame's place in the video; made if need be.
        fps: frames to write of each second, by the frames' own times; 0 writes all. Fewer are written where the video
            has fewer.

    Returns:
        At least one frame. Damaged frames have a problem in place of a file; where the video cannot be decoded further,
        or ends long before its own end, the last frame says so.

    Raises:
        UserError: PyAV is missing.
        OSError: a file cannot be written.
    """
    av = _import_av(video)
    # Before PyAV 19, which has no such argument, a title that is not in UTF-8 would be an error.
    titles = {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}
    folder.mkdir(parents=True, exist_ok=True)
    frames: list[Frame] = []

    def add(number: int, problem: str | None = None) -> pathlib.Path:
        file = folder / f"{number:06d}.jpg"
        frames.append(Frame(number, file, problem))
        return file

    number = 0
    try:
        with av.open(str(video), options=_OPEN_OPTIONS, **titles) as container:
            for number, frame, is_due in _decode(container, fps):
                if frame.is_corrupt:
                    add(number, "this frame of the video is damaged")
                elif is_due:
                    _upright(frame).save(add(number), quality=_QUALITY)
            if not number:
                add(1, "the video has no frames")
            elif early := _ends_early(container, frame):
                add(number + 1, early)
    except av.FFmpegError as error:
        add(
            number + 1, f"the video cannot be decoded {'from this frame on' if number else 'at all'} ({error.strerror})"
        )
    return frames


def _import_av(video: pathlib.Path) -> Any:
    try:
        import av
    except ImportError:
        raise errors.UserError(f"reading the video {video.name} needs PyAV, the extra [video]") from None
    return av


def _decode(container: Any, fps: float) -> Iterator[tuple[int, Any, bool]]:
    """Yields (number from 1, frame, whether it is one of those to write)."""
    if not container.streams.video:
        return
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    rate = _rate(stream)
    due = None
    for number, frame in enumerate(container.decode(stream), start=1):
        # Not every file says when a frame is to be shown.
        time = (number - 1) / rate if frame.time is None else frame.time
        due = time if due is None else due
        # Times are rounded to the file's unit of time, often a millisecond.
        is_due = fps == 0 or time >= due - 0.001
        if fps and is_due and not frame.is_corrupt:
            # From the last due time and not from this frame's, so that the frames written are fps a second on average.
            due += 1 / fps
            due = due if due > time else time + 1 / fps
        yield number, frame, is_due


def _rate(stream: Any) -> float:
    return float(stream.average_rate or stream.guessed_rate or 25)


def _ends_early(container: Any, last: Any) -> str | None:
    """What is wrong if the last frame comes long before the end that the file names: some just end at a damage."""
    if container.duration is None or last.time is None:
        return None
    promised = container.duration / _CONTAINER_UNIT
    # The last frame is shown for a while, too. Where times do not start at 0, lengths may or may not count from there.
    found = last.time + 1 / _rate(container.streams.video[0])
    return f"the video ends after {found:.1f} of {promised:.1f} seconds" if found < _LEAST_SHARE * promised else None


def _upright(frame: Any) -> Image.Image:
    turn = _TURNS.get(round(frame.rotation) % 360)
    image = frame.to_image()
    return image if turn is None else image.transpose(turn)
