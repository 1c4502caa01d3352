"""Videos of one person each: written with PyAV, read as tracklets."""

import pathlib
import re
import sys

import av
import numpy as np
import pytest
from PIL import Image

from reid_jax import errors
from reid_jax.data import records as records_lib
from reid_jax.data_prep import prepare, publishing
from reid_jax.data_prep.readers import folder, listing, videos

CODECS = {"mp4": "libx264", "mov": "mpeg4", "avi": "mpeg4", "mkv": "libx264", "webm": "libvpx"}
HEIGHT, WIDTH = 64, 32
RATE = 20  # frames a second of the films that are made here


def write_film(
    file, *, frames=8, rate=RATE, codec="mpeg4", rotation=None, start=0, title="", options=None
) -> pathlib.Path:
    """Writes a film that is red above, blue below, and gets lighter from frame to frame; returns its path."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(file), "w", options=options or {}) as container:
        container.metadata["title"] = title
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = WIDTH, HEIGHT, "yuv420p", 4_000_000
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for number in range(frames):
            pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
            pixels[: HEIGHT // 2, :, 0] = pixels[HEIGHT // 2 :, :, 2] = level(number)
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            picture.pts = start + number
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return file


def level(number: int) -> int:
    """How light a film's frame is, counted from 0."""
    return 60 + 20 * (number % 9)


def pixels_of(frame: videos.Frame) -> np.ndarray:
    with Image.open(frame.file) as image:
        assert image.format == "JPEG"
        return np.asarray(image).astype(int)


def is_frame(pixels: np.ndarray, number: int) -> bool:
    above, below = pixels[:20, :, :].mean((0, 1)), pixels[-20:, :, :].mean((0, 1))
    return np.abs(above - (level(number), 0, 0)).max() < 9 and np.abs(below - (0, 0, level(number))).max() < 9


def numbers(frames: list[videos.Frame]) -> list[int]:
    assert not any(frame.problem for frame in frames)
    return [frame.number for frame in frames]


@pytest.mark.parametrize("ending", CODECS)
def test_every_frame_of_every_kind_of_file(tmp_path, ending):
    film = write_film(tmp_path / f"film.{ending}", codec=CODECS[ending])
    frames = videos.write_frames(film, tmp_path / "out", fps=0)
    assert numbers(frames) == list(range(1, 9))
    assert [frame.file.name for frame in frames] == [f"{number:06d}.jpg" for number in range(1, 9)]
    for frame in frames:
        assert pixels_of(frame).shape == (HEIGHT, WIDTH, 3) and is_frame(pixels_of(frame), frame.number - 1)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [frame.file.name for frame in frames]


@pytest.mark.parametrize(
    ("fps", "expected"),
    [
        (5, [1, 5, 9, 13, 17]),
        (20, list(range(1, 21))),
        (100, list(range(1, 21))),
        (0.5, [1]),
        (8, [1, 4, 6, 9, 11, 14, 16, 19]),
    ],
)
def test_frames_are_chosen_by_their_times(tmp_path, fps, expected):
    film = write_film(tmp_path / "film.mkv", frames=20)
    assert numbers(videos.write_frames(film, tmp_path / "out", fps=fps)) == expected


def test_the_first_frame_is_taken_whenever_it_is_shown(tmp_path):
    film = write_film(tmp_path / "film.mkv", frames=8, start=1000)
    assert numbers(videos.write_frames(film, tmp_path / "out", fps=5)) == [1, 5]


class Timed:
    """A container of one video stream whose frames are shown at given times."""

    def __init__(self, times, *, damaged=()):
        Stream = type("Stream", (), {"average_rate": 10, "guessed_rate": None})
        self.streams = type("Streams", (), {"video": [Stream()]})
        frame = type("Frame", (), {"is_corrupt": False})
        self._frames = [frame() for _ in times]
        for number, (each, time) in enumerate(zip(self._frames, times)):
            each.time, each.is_corrupt = time, number in damaged

    def decode(self, stream):
        return iter(self._frames)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([0, 0.1, 0.4, 2.0, 2.1, 2.2, 2.6], [0, 2.0, 2.6]),  # a gap does not make up for what it lacks
        ([0, 0.5, 1.0, 1.5], [0, 0.5, 1.0, 1.5]),
        ([0, 0.499, 0.998, 1.5], [0, 0.499, 1.5]),  # rounded times are near enough, by a millisecond
        ([None] * 11, [0, 0.5, 1.0]),  # by the rate, ten a second
    ],
)
def test_uneven_times(times, expected):
    written = [n - 1 for n, _, is_due in videos._decode(Timed(times), 2.0) if is_due]
    assert [n / 10 if times[n] is None else times[n] for n in written] == expected


def test_a_damaged_frame_is_made_up_for_by_the_next():
    decoded = list(videos._decode(Timed([0, 0.1, 0.5, 0.6, 0.7, 1.0], damaged=(2,)), 2.0))
    assert [number for number, frame, is_due in decoded if is_due and not frame.is_corrupt] == [1, 4, 6]


@pytest.mark.parametrize("rotation", [90, -90, 180])
def test_frames_are_turned_as_the_file_says(tmp_path, rotation):
    film = write_film(tmp_path / "film.mp4", rotation=rotation)
    pixels = pixels_of(videos.write_frames(film, tmp_path / "out", fps=0)[0])
    stored = np.rot90(pixels, -rotation // 90)
    assert stored.shape == (HEIGHT, WIDTH, 3) and is_frame(stored, 0)
    assert pixels.shape == ((HEIGHT, WIDTH, 3) if rotation == 180 else (WIDTH, HEIGHT, 3))


def cut(film: pathlib.Path, share: float) -> pathlib.Path:
    data = film.read_bytes()
    film.write_bytes(data[: int(len(data) * share)])
    return film


def test_a_film_that_is_cut_keeps_what_was_before(tmp_path):
    film = cut(write_film(tmp_path / "film.mp4", frames=10, options={"movflags": "faststart"}), 0.8)
    *whole, damaged, end = videos.write_frames(film, tmp_path / "out", fps=0)
    assert 1 <= len(whole) < 9 and numbers(whole) == list(range(1, len(whole) + 1))
    assert all(is_frame(pixels_of(frame), frame.number - 1) for frame in whole)
    assert damaged.number == len(whole) + 1 and damaged.problem == "this frame of the video is damaged"
    assert end.number == len(whole) + 2 and re.match(r"the video ends after 0.\d of 0.5 seconds$", end.problem)
    assert not damaged.file.exists() and not end.file.exists()


@pytest.mark.parametrize(
    ("ending", "problem"),
    [("mov", "the video cannot be decoded from this frame on"), ("mkv", "the video ends after 0.2 of 0.5 seconds")],
)
def test_a_film_with_noise_in_it_says_from_where_on(tmp_path, ending, problem):
    film = write_film(tmp_path / f"film.{ending}", frames=10)
    with av.open(str(film)) as container:
        sixth = [packet.pos for packet in container.demux(video=0) if packet.size][5]
    data = bytearray(film.read_bytes())
    data[sixth : sixth + 100] = b"\xff" * 100
    film.write_bytes(data)
    *whole, last = videos.write_frames(film, tmp_path / "out", fps=0)
    assert numbers(whole) == list(range(1, last.number))
    assert last.problem.startswith(problem) and not last.file.exists()


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", r"the video cannot be decoded at all \(Invalid data found when processing input\)"),
        (b"no film", r"the video cannot be decoded at all \(Invalid data"),
        (b"#EXTM3U\n#EXTINF:1,\nother.ts\n#EXT-X-ENDLIST\n", "the video cannot be decoded at all"),
        (b"ffconcat version 1.0\nfile other.mp4\n", "the video cannot be decoded at all"),
        (None, r"the video cannot be decoded at all \(No such file or directory\)"),
    ],
)
def test_what_is_no_film_has_one_frame_that_says_so(tmp_path, data, problem):
    write_film(tmp_path / "other.mp4")
    film = tmp_path / "film.mp4"
    if data is not None:
        film.write_bytes(data)
    (frame,) = videos.write_frames(film, tmp_path / "out", fps=0)
    assert frame.number == 1 and not frame.file.exists()
    assert re.match(problem, frame.problem)


def test_a_title_need_not_be_utf8(tmp_path):
    film = write_film(tmp_path / "film.mkv", title="caf_")
    film.write_bytes(film.read_bytes().replace(b"caf_", b"caf\xe9"))
    assert len(numbers(videos.write_frames(film, tmp_path / "out", fps=0))) == 8


def test_sound_without_pictures(tmp_path):
    with av.open(str(tmp_path / "film.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    (frame,) = videos.write_frames(tmp_path / "film.mkv", tmp_path / "out", fps=0)
    assert frame.problem == "the video has no frames"


def test_without_pyav_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(errors.UserError, match=r"^reading the video a.mp4 needs PyAV, the extra \[video\]$"):
        videos.write_frames(tmp_path / "a.mp4", tmp_path, fps=0)


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> pathlib.Path:
    """Train: three films of unknown people; query and gallery: a film and a folder of frames each."""
    root = tmp_path_factory.mktemp("films") / "films"
    for name in ("Train/c1_b.mp4", "Train/c2_a.avi", "query/zoe/c2_1.webm", "gallery/ann/c3_1.MOV"):
        write_film(root / name, codec=CODECS[name.rpartition(".")[2].lower()])
    for name in ("Train/c3_folder/1.jpg", "gallery/zoe/c1_2/1.jpg", "gallery/zoe/c1_2/2.jpg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT), (level(0), 0, 0)).save(root / name)
    return root


def source(root: pathlib.Path, scratch: pathlib.Path) -> listing.Source:
    return listing.Source(root, scratch, progress=False)


def test_films_are_tracklets_like_folders_of_frames(films, tmp_path):
    records = folder.read(source(films, tmp_path), camid_from=r"/c(\d)_", tracklets=True)
    assert [tuple(record)[:5] for record in records] == [
        ("train", "Train/c1_b.mp4/000001.jpg", -1, 1, 0),
        ("train", "Train/c1_b.mp4/000005.jpg", -1, 1, 0),
        ("train", "Train/c2_a.avi/000001.jpg", -1, 2, 1),
        ("train", "Train/c2_a.avi/000005.jpg", -1, 2, 1),
        ("train", "Train/c3_folder/1.jpg", -1, 3, 2),
        ("gallery", "gallery/ann/c3_1.MOV/000001.jpg", 1, 3, 0),
        ("gallery", "gallery/ann/c3_1.MOV/000005.jpg", 1, 3, 0),
        ("gallery", "gallery/zoe/c1_2/1.jpg", 2, 1, 1),
        ("gallery", "gallery/zoe/c1_2/2.jpg", 2, 1, 1),
        ("query", "query/zoe/c2_1.webm/000001.jpg", 2, 2, 0),
        ("query", "query/zoe/c2_1.webm/000005.jpg", 2, 2, 0),
    ]
    assert all(record.file.is_file() and record.problem is None for record in records)
    (tmp_path / "all").mkdir()
    assert len(folder.read(source(films, tmp_path / "all"), tracklets=True, video_fps=0)) == 3 + 4 * 8


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["ann/a.mp4"], {}, "--source: ann/a.mp4 is a video; --tracklets reads videos, each as the tracklet of one"),
        (["1.jpg", "b/deep/a.mkv"], {}, "--source: b/deep/a.mkv is a video; --tracklets reads"),
        (["1.jpg"], {"video_fps": 2}, "--video_fps: videos are read only with --tracklets"),
        (["a.mp4"], {"tracklets": True, "video_fps": -1}, r"--video_fps: -1 must be .* at least 0 \(all frames\)"),
        (["a.mp4"], {"tracklets": True, "video_fps": float("inf")}, "--video_fps: inf must be frames a second"),
        (["a.mp4", "ann/b.mp4"], {"tracklets": True}, r"holds both a tracklet \(a.mp4\) and an identity .* \(ann/\)"),
        (["ann/b.mp4", "ann/1.jpg"], {"tracklets": True}, "the image ann/1.jpg must be in the folder of a tracklet"),
        (["ann/t/1.jpg", "ann/t/b.mp4"], {"tracklets": True}, "the folder ann/t/ holds b.mp4; tracklets must lie in"),
        (["train/t/1.jpg", "b.mp4"], {"tracklets": True}, "b.mp4 lies beside train/; with such folders"),
    ],
)
def test_folder_names_what_is_wrong_with_videos(tmp_path, names, options, message):
    for name in names:
        (tmp_path / "f" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "f" / name).write_bytes(b"")
    with pytest.raises(errors.UserError, match=message):
        folder.read(source(tmp_path / "f", tmp_path), **options)


def test_an_index_reads_no_videos(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"")
    (tmp_path / "index.csv").write_text("path\na.mp4\n")
    with pytest.raises(errors.UserError, match="line 2: 'a.mp4' is a video; only --tracklets without an index reads"):
        folder.read(source(tmp_path, tmp_path))


def run(films: pathlib.Path, data_dir: pathlib.Path, **options) -> pathlib.Path:
    options = {"name": "door", "tracklets": True, "progress": False} | options
    return prepare.prepare("folder", source=films, data_dir=data_dir, **options)


def test_prepared_films(films, tmp_path):
    manifest = publishing.read_manifest(run(films, tmp_path))
    assert manifest["splits"]["train"] == {"images": 5, "identities": 0, "cameras": 0, "tracklets": 3}
    train = records_lib.load_records(tmp_path, "door")["train"]
    assert train.tracklets.tolist() == [0, 0, 1, 1, 2]
    assert train.encoded(0).startswith(b"\xff\xd8")
    assert [path.name for path in tmp_path.iterdir()] == ["door"]
    manifest = publishing.read_manifest(run(films, tmp_path, name="all", video_fps=0.0))
    assert manifest["splits"]["train"]["images"] == 17 and manifest["request"]["options"]["video_fps"] == 0


def test_damaged_films_follow_on_bad_image(films, tmp_path, capsys):
    root = tmp_path / "films"
    for file in (films / "Train").glob("*.*"):
        (root / "ann").mkdir(parents=True, exist_ok=True)
        (root / "ann" / file.name).write_bytes(file.read_bytes())
    (root / "ann" / "c3_none.mp4").write_bytes(b"")
    cut(write_film(root / "ann" / "c4_cut.mp4", frames=10, options={"movflags": "faststart"}), 0.8)
    path = "ann/c3_none.mp4/000001.jpg: the video cannot be decoded at all"
    with pytest.raises(
        errors.UserError, match=rf"^{path} \(Invalid .*\) \(--on_bad_image=skip leaves such images out\)$"
    ):
        run(root, tmp_path / "data")
    run(root, tmp_path / "data", on_bad_image="skip")
    train = records_lib.load_records(tmp_path / "data", "door")["train"]
    assert set(train.tracklets.tolist()) == {0, 1, 3} and set(train.pids.tolist()) == {1}
    printed = capsys.readouterr().err
    assert printed.startswith(f"warning: skipped 3 images:\n  {path}")
    assert "ann/c4_cut.mp4/00000" in printed and "this frame of the video is damaged" in printed
    assert "warning: no frame is left of tracklet 2 in train, with ann/c3_none.mp4/000001.jpg" in printed
