"""The made-up data set: the same from the same seed, in Market-1501's layout, and people who look like themselves."""

import hashlib
import itertools
import math
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageDraw

from reid_jax import errors
from reid_jax.data import folders
from reid_jax.data_prep import contact_sheet, synthetic
from reid_jax.data_prep.readers import dukemtmc_videoreid, listing, market1501
from reid_jax.data_prep.synthetic import (
    cameras,
    dataset,
    figures,
    identities,
    meshes,
    palettes,
    poses,
    rendering,
    scenes,
    streams,
    video,
)

DAY, EVENING = palettes.PALETTES

SMALL = {
    "seed": 3,
    "num_train_ids": 4,
    "num_test_ids": 5,
    "images_per_id": 7,
    "num_cameras": 3,
    "height": 64,
    "width": 32,
    "num_distractors": 6,
    "num_junk": 7,
}


SMALL_VIDEO = {
    "seed": 3,
    "num_train_ids": 3,
    "num_test_ids": 4,
    "frames_per_tracklet": 4,
    "num_cameras": 3,
    "height": 64,
    "width": 32,
    "num_distractors": 3,
}


# By what a person wears, where the palette says from what it is drawn.
DRAWN_FROM = {
    "top_color": "top_colors", "top_accent": "top_colors", "print_color": "print_colors", "bottom": "bottoms",
    "bottom_color": "bottom_colors", "shoe_color": "shoe_colors", "bag": "bags", "bag_color": "bag_colors",
    "hat": "hats", "hat_color": "hat_colors",
}  # fmt: skip


def files_of(root: pathlib.Path) -> dict[str, bytes]:
    """Path in the data set -> bytes."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*.jpg")}


def read_market(root: pathlib.Path, scratch: pathlib.Path) -> list[listing.Record]:
    return market1501.read(listing.Source(root, scratch, False))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A small data set, written once."""
    folder = tmp_path_factory.mktemp("synthetic") / "new" / "folder"
    synthetic.write_synthetic(folder, **SMALL)
    return folder


@pytest.fixture(scope="module")
def video_root(tmp_path_factory):
    """A small data set of tracklets, written once."""
    folder = tmp_path_factory.mktemp("synthetic_video")
    synthetic.write_synthetic_video(folder, **SMALL_VIDEO)
    return folder


@pytest.fixture(scope="module")
def plain_person():
    """A thin man in white and grey without anything that only one side shows."""
    return identities.draw_identities(0, 1, DAY)[0]._replace(
        skin="pale", hair="short", hair_color="black", hat="none", bag="none", top="tee", top_color="white",
        pattern="plain", print_shape="none", bottom="trousers", bottom_color="grey", shoe_color="black", girth=0.9,
    )  # fmt: skip


def paint(person: identities.Identity, yaw: float, *, phase: float = 0.3) -> np.ndarray:
    """A person alone on violet, [120, 60, 3] int, lit from everywhere."""
    canvas = Image.new("RGB", (60, 120), (255, 0, 255))
    skeleton = poses.pose_skeleton(person, poses.Pose(phase, 0.6, 0.5, 0.0, 0.0, 0.0))
    mesh = figures.build_figure(person, skeleton)
    view = meshes.View(yaw, 0.1, (0.0, 0.0, 1.0), 1.0)
    folds = np.ones(len(mesh.quads))
    meshes.paint(ImageDraw.Draw(canvas), mesh, view, origin=(30.0, 116.0), scale=np.array([110.0, 110.0]), folds=folds)
    return np.asarray(canvas).astype(int)


def count(image: np.ndarray, color: str) -> int:
    return int((np.abs(image - np.array(palettes.RGB[color])) <= 2).all(axis=-1).sum())


def test_market_reader_reads_it(root, tmp_path):
    records = read_market(root, tmp_path)
    by_split = {split: [r for r in records if r.split == split] for split in listing.SPLITS}
    assert len(by_split["train"]) == 4 * 7
    assert len(by_split["query"]) + len(by_split["gallery"]) == 5 * 7 + 6 + 7
    assert sum(r.pid == 0 for r in by_split["gallery"]) == 6
    assert sum(r.pid == -1 for r in by_split["gallery"]) == 7
    assert {r.pid for r in by_split["train"]} == {2, 5, 8, 11}
    assert {r.pid for r in by_split["query"]} == {1, 4, 7, 10, 13} == {r.pid for r in by_split["gallery"]} - {0, -1}
    assert {r.camid for r in records} == {1, 2, 3}


def test_names_and_images_are_like_market(root):
    name = re.compile(r"(-1|\d{4})_c[1-6]s\d+_\d{6}_\d{2}\.jpg")
    paths = sorted(root.rglob("*.*"))
    assert len({path.name for path in paths}) == len(paths) == 4 * 7 + 5 * 7 + 6 + 7
    for path in paths:
        assert name.fullmatch(path.name), path.name
        with Image.open(path) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (32, 64))


def test_every_query_has_a_match_from_another_camera(root, tmp_path):
    records = read_market(root, tmp_path)
    gallery = {(r.pid, r.camid) for r in records if r.split == "gallery"}
    queries = [(r.pid, r.camid) for r in records if r.split == "query"]
    assert len(queries) == len(set(queries))
    for pid, camid in queries:
        assert any(other == pid and camera != camid for other, camera in gallery)
        # Market's rule "same camera, same identity: left out" has something to leave out.
        assert (pid, camid) in gallery
    assert {pair for pair in gallery if pair[0] > 0} == set(queries)


def test_same_arguments_give_the_same_bytes(root, tmp_path):
    calls = []
    synthetic.write_synthetic(tmp_path, **SMALL, progress=lambda done, total: calls.append((done, total)))
    assert files_of(tmp_path) == files_of(root)
    total = len(files_of(root))
    assert calls == [(done, total) for done in range(1, total + 1)]


@pytest.mark.parametrize(
    ("name", "levels"),
    [
        ("bounding_box_test/-1_c1s1_000001_01.jpg", [[87, 86], [118, 58], [129, 64], [145, 63]]),
        ("bounding_box_test/0004_c3s2_051048_01.jpg", [[120, 124], [112, 121], [101, 120], [130, 130]]),
        ("query/0013_c3s1_073708_00.jpg", [[123, 127], [130, 107], [117, 128], [132, 131]]),
    ],
)
def test_images_stay_as_they_were(root, name, levels):
    # Reduced, because the bytes are those of one version of numpy and Pillow.
    with Image.open(root / name) as image:
        np.testing.assert_allclose(np.asarray(image.convert("L").reduce(16)), levels, atol=2)


@pytest.mark.parametrize(
    ("name", "levels"),
    [
        ("gallery/0000/0001/0000_C3_F0002_X48647.jpg", [[135, 116], [102, 52], [131, 104], [150, 123]]),
        ("query/0007/0003/0007_C3_F0001_X07975.jpg", [[123, 127], [101, 101], [97, 96], [107, 106]]),
        ("train/0008/0004/0008_C3_F0004_X24405.jpg", [[133, 123], [121, 107], [128, 106], [132, 125]]),
    ],
)
def test_frames_stay_as_they_were(video_root, name, levels):
    with Image.open(video_root / name) as image:
        np.testing.assert_allclose(np.asarray(image.convert("L").reduce(16)), levels, atol=2)


@pytest.mark.parametrize(
    ("palette", "digest", "light"),
    [
        (
            DAY,
            "ffb73fb73c69f4846cb4c5020c5b35880f262b8f3fc387f7105c26f328708bb4",
            [0.9921, 1.0115, 0.9915, 0.9923, 1.019, 0.9366, 0.0178, 1.3503],
        ),
        (
            EVENING,
            "f5eabdcea244dfb2793def7c6752ac1db23b0b7998629bdbcf3bde10c492569b",
            [0.7842, 1.1127, 0.9716, 0.8137, 1.1017, 0.7866, 0.0944, 2.1879],
        ),
    ],
    ids=["day", "evening"],
)
def test_people_and_light_stay_as_they_were(palette, digest, light):
    people = identities.draw_identities(0, 60, palette)
    looks = [[palettes.RGB.get(value, value) for value in person] for person in people]
    assert hashlib.sha256(repr(looks).encode()).hexdigest() == digest
    camera = cameras.draw_camera(3, 1, palette, height=32)
    found = [camera.exposure, *camera.cast, camera.gamma, camera.saturation, camera.haze, camera.noise]
    np.testing.assert_allclose(found, light, atol=1e-4)


def test_palettes_have_no_colour_of_clothes_in_common_nor_two_alike():
    tables = {field for field in DRAWN_FROM.values() if field.endswith("_colors")}
    names = [set().union(*(getattr(palette, table) for table in tables)) for palette in (DAY, EVENING)]
    assert not names[0] & names[1]
    assert (names[0] | names[1]) <= palettes.RGB.keys()
    for palette, table in itertools.product((DAY, EVENING), tables):
        for first, second in itertools.combinations(getattr(palette, table), 2):
            assert math.dist(palettes.RGB[first], palettes.RGB[second]) > 45, (first, second)


def test_people_wear_what_their_palette_has():
    crowds = [identities.draw_identities(3, 300, palette) for palette in (DAY, EVENING)]
    for crowd, palette in zip(crowds, (DAY, EVENING), strict=True):
        for field, table in DRAWN_FROM.items():
            assert {getattr(person, field) for person in crowd} == getattr(palette, table).keys(), field
    # The second is not the first dyed.
    shapes = [[(person.bottom, person.bag, person.hat) for person in crowd] for crowd in crowds]
    assert sum(first != second for first, second in zip(*shapes, strict=True)) > 100


@pytest.mark.parametrize(
    ("write", "options"),
    [(synthetic.write_synthetic, SMALL), (synthetic.write_synthetic_video, SMALL_VIDEO)],
    ids=["images", "video"],
)
def test_people_passers_by_and_cameras_are_of_the_palette(tmp_path, monkeypatch, write, options):
    seen, render = [], rendering.render_moment

    def recorded(person, camera, *arguments, passers_by, **size):
        seen.append((camera, [person, *passers_by]))
        return render(person, camera, *arguments, passers_by=passers_by, **size)

    monkeypatch.setattr(rendering, "render_moment", recorded)
    write(tmp_path, **(options | {"palette": 1, "num_train_ids": 1, "num_test_ids": 1}))
    assert len(seen) > 10
    for camera, people in seen:
        assert EVENING.light.haze[0] <= camera.haze <= EVENING.light.haze[1]
        assert all(person.top_color in EVENING.top_colors for person in people)


def test_an_evening_is_darker_and_warmer(root, tmp_path):
    synthetic.write_synthetic(tmp_path, **(SMALL | {"palette": 1}))
    day, evening = files_of(root), files_of(tmp_path)
    assert day.keys() == evening.keys()
    assert not set(day.values()) & set(evening.values())

    def mean_color(folder):
        return np.mean([np.asarray(Image.open(folder / name)).mean(axis=(0, 1)) for name in day], axis=0)

    by_day, in_the_evening = mean_color(root), mean_color(tmp_path)
    assert in_the_evening.mean() < by_day.mean() - 10
    assert in_the_evening[0] - in_the_evening[2] > by_day[0] - by_day[2] + 15


def test_another_seed_is_another_world(root, tmp_path):
    synthetic.write_synthetic(tmp_path, **(SMALL | {"seed": 4}))
    assert not set(files_of(tmp_path).values()) & set(files_of(root).values())
    assert identities.draw_identities(3, 20, DAY) != identities.draw_identities(4, 20, DAY)
    first, second = (cameras.draw_camera(seed, 0, DAY, height=32) for seed in (3, 4))
    assert first._replace(scene=None) != second._replace(scene=None)


def test_an_image_does_not_depend_on_how_many_others_there_are(root, tmp_path):
    larger = {"num_train_ids": 6, "num_test_ids": 6, "images_per_id": 8, "num_distractors": 50, "num_junk": 12}
    synthetic.write_synthetic(tmp_path, **(SMALL | larger))
    small, large = files_of(root), files_of(tmp_path)
    common = small.keys() & large.keys()
    assert len(common) > 0.7 * len(small)
    assert {name.split("/")[1].split("_")[0] for name in common} >= {"-1", "0000", "0001", "0002"}
    assert all(small[name] == large[name] for name in common)


@pytest.mark.parametrize("palette", [DAY, EVENING], ids=["day", "evening"])
def test_identities_are_distinct_and_have_look_alikes(palette):
    people = identities.draw_identities(0, 400, palette)
    assert people[:150] == identities.draw_identities(0, 150, palette)

    def clothes(person):
        return person.top_color, person.bottom, person.bottom_color

    # Not even the build and what one side shows are needed to tell two people apart.
    outfits = {identities._outfit(person) for person in people}
    assert len(outfits) == len(people)
    assert len({clothes(person) for person in people}) < len(people) / 2


@pytest.mark.parametrize("num_cameras, images", [(2, 4), (4, 16), (6, 5), (9, 40)])
def test_images_by_camera(num_cameras, images):
    seen_by = set()
    for seed in range(60):
        counts = dataset._images_by_camera(np.random.default_rng(seed), images, num_cameras)
        assert sum(counts.values()) == images
        assert min(counts.values()) >= 2
        assert 2 <= len(counts) <= num_cameras
        assert set(counts) <= set(range(num_cameras))
        seen_by.add(len(counts))
    assert max(seen_by) == min(num_cameras, images // 2)


def test_print_shows_from_the_front_only(plain_person):
    printed = plain_person._replace(print_shape="square", print_color="red")
    assert count(paint(printed, 0.0), "red") > 40
    assert count(paint(printed, math.pi), "red") == 0
    assert count(paint(plain_person, 0.0), "red") == 0


def test_backpack_shows_most_from_behind(plain_person):
    packed = plain_person._replace(bag="backpack", bag_color="red")
    front, side, back = (count(paint(packed, yaw), "red") for yaw in (0.0, math.pi / 2, math.pi))
    assert 0 < front < side < back


def test_face_and_hair(plain_person):
    front, back = (paint(plain_person, yaw)[:24] for yaw in (0.0, math.pi))
    assert count(front, "pale") > 2 * count(back, "pale")
    assert count(front, "black") < count(back, "black")


@pytest.mark.parametrize("side", [1, -1])
def test_shoulder_bag_is_on_its_side(plain_person, side):
    carrier = plain_person._replace(bag="shoulder", bag_color="red", bag_side=side)
    image = paint(carrier, 0.0)[60:]
    # From the front, the person's left is right in the picture.
    left, right = count(image[:, :30], "red"), count(image[:, 30:], "red")
    assert (right > 5 * left) if side == 1 else (left > 5 * right)


@pytest.mark.parametrize(
    "field, value",
    [
        ("bottom", "shorts"), ("bottom", "skirt"), ("top", "coat"), ("hair", "long"), ("hat", "cap"),
        ("pattern", "stripes"), ("girth", 1.1), ("shoe_color", "red"),
    ],
)  # fmt: skip
def test_every_trait_changes_the_picture_from_every_side(plain_person, field, value):
    other = plain_person._replace(**{field: value})
    for yaw in (0.0, math.pi / 2, math.pi, 3 * math.pi / 2):
        different = (paint(plain_person, yaw) != paint(other, yaw)).any(axis=-1)
        assert different.sum() > 20, yaw


def test_views_and_phases_differ(plain_person):
    looks = [paint(plain_person, yaw) for yaw in (0.0, math.pi / 2, math.pi)]
    looks.append(paint(plain_person, math.pi / 2, phase=1.8))
    for first, second in itertools.combinations(looks, 2):
        assert (first != second).any(axis=-1).mean() > 0.02


@pytest.mark.parametrize("phase", np.linspace(0, 2 * np.pi, 7))
def test_limbs_keep_their_length_and_feet_the_ground(plain_person, phase):
    skeleton = poses.pose_skeleton(plain_person, poses.Pose(phase, 1.0, 1.0, 0.05, 0.0, 0.0))
    for leg in skeleton.legs:
        np.testing.assert_allclose(np.linalg.norm(leg.knee - leg.hip), 0.235)
        np.testing.assert_allclose(np.linalg.norm(leg.ankle - leg.knee), 0.228)
    for arm in skeleton.arms:
        np.testing.assert_allclose(np.linalg.norm(arm.elbow - arm.shoulder), 0.165)
    soles = [min(leg.heel[1], leg.toe[1]) for leg in skeleton.legs]
    assert 0 < min(soles) < 0.03
    # Half a cycle later, left and right have changed places.
    later = poses.pose_skeleton(plain_person, poses.Pose(phase + np.pi, 1.0, 1.0, 0.05, 0.0, 0.0))
    np.testing.assert_allclose(later.legs[1].knee, skeleton.legs[0].knee * [-1, 1, 1], atol=1e-12)


def test_projection_by_hand():
    left, up, forward = np.eye(3)
    level = meshes.View(0.0, 0.0, (0.0, 0.0, 1.0), 1.0)
    np.testing.assert_allclose(meshes.project(np.eye(3), level), np.eye(3), atol=1e-12)
    from_left = level._replace(yaw=np.pi / 2)
    np.testing.assert_allclose(meshes.project(left, from_left), [0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(meshes.project(forward, from_left), [-1, 0, 0], atol=1e-12)
    from_above = level._replace(pitch=np.pi / 2)
    np.testing.assert_allclose(meshes.project(up, from_above), [0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(meshes.project(forward, from_above), [0, -1, 0], atol=1e-12)


@pytest.mark.parametrize("end", [(0.0, 1.0, 0.0), (0.2, -1.0, 0.4), (0.1, 0.1, 1.0)])
def test_tube_has_its_radius_and_faces_outwards(end):
    path = np.linspace([0.0, 0.0, 0.0], end, 4)
    quads = meshes.tube(path, np.full((4, 2), 0.1), sectors=12)
    assert quads.shape == (3, 12, 4, 3)
    along = np.array(end) / np.linalg.norm(end)
    from_axis = quads - (quads @ along)[..., None] * along
    np.testing.assert_allclose(np.linalg.norm(from_axis, axis=-1), 0.1)
    normals = np.cross(quads[..., 2, :] - quads[..., 0, :], quads[..., 3, :] - quads[..., 1, :])
    assert (np.sum(normals * from_axis.mean(axis=-2), axis=-1) > 0).all()


def test_four_cameras_have_four_scenes_and_directions(monkeypatch):
    kinds, paint_scene = [], scenes.paint_scene

    def recorded(rng, kind, **size):
        kinds.append(kind)
        return paint_scene(rng, kind, **size)

    monkeypatch.setattr(scenes, "paint_scene", recorded)
    views = [cameras.draw_camera(1, number, DAY, height=32) for number in range(4)]
    assert sorted(kinds) == sorted(scenes.KINDS)
    directions = sorted(view.yaw for view in views)
    assert all(later - earlier > 0.1 for earlier, later in itertools.pairwise(directions))
    for first, second in itertools.combinations(views, 2):
        difference = np.abs(np.asarray(first.scene, dtype=int) - np.asarray(second.scene, dtype=int))
        assert difference.mean() > 4


def neutral_camera() -> cameras.Camera:
    """A camera that changes nothing."""
    camera = cameras.draw_camera(0, 0, DAY, height=32)
    return camera._replace(exposure=1.0, cast=(1.0, 1.0, 1.0), gamma=1.0, saturation=1.0, haze=0.0, noise=0.0)


def test_a_neutral_camera_changes_nothing_and_an_exposed_one_brightens():
    pixels = np.random.default_rng(0).integers(0, 200, (40, 20, 3), dtype=np.uint8)
    image, rng = Image.fromarray(pixels), np.random.default_rng(1)
    same = cameras.develop(image, neutral_camera(), rng, brightness=1.0, tilt=0.0, sharpness=1.0)
    assert np.array_equal(np.asarray(same), pixels)
    bright = cameras.develop(image, neutral_camera(), rng, brightness=1.2, tilt=0.0, sharpness=1.0)
    np.testing.assert_allclose(np.asarray(bright), np.round(1.2 * pixels), atol=1)
    grey = cameras.develop(
        image, neutral_camera()._replace(saturation=0.0), rng, brightness=1.0, tilt=0.0, sharpness=1.0
    )
    assert np.ptp(np.asarray(grey).astype(int), axis=-1).max() <= 1


def test_junk_misses_the_person_and_ordinary_crops_do_not():
    for seed in range(100):
        rng = np.random.default_rng(seed)
        passage = rendering.draw_passage(rng, neutral_camera())
        good, bad = rendering.draw_crop(rng, passage), rendering.draw_bad_crop(rng)
        assert abs(good.center - 0.5) < 0.1 and 0.8 < good.scale < 1
        assert abs(bad.center - 0.5) > 0.4 or bad.scale > 1.5 or bad.scale < 0.5


@pytest.mark.parametrize("height, width", [(32, 16), (33, 66), (64, 64)])
def test_other_sizes(tmp_path, height, width):
    synthetic.write_synthetic(
        tmp_path, num_train_ids=1, num_test_ids=1, images_per_id=4, num_cameras=2, height=height, width=width,
        num_distractors=0, num_junk=0,
    )  # fmt: skip
    sizes = set()
    for path in tmp_path.rglob("*.jpg"):
        with Image.open(path) as image:
            sizes.add(image.size)
    assert sizes == {(width, height)}
    assert len(files_of(tmp_path)) == 8


@pytest.mark.parametrize(
    "argument, value",
    [
        ("seed", -1), ("palette", -1), ("palette", 2), ("palette", "1"), ("num_train_ids", 0), ("num_test_ids", 3334),
        ("images_per_id", 3), ("num_cameras", 1), ("height", 31), ("width", 15), ("width", 129),
        ("num_distractors", -1), ("num_junk", -1), ("height", 64.0), ("num_junk", True),
    ],
)  # fmt: skip
def test_bad_arguments(tmp_path, argument, value):
    with pytest.raises(errors.UserError, match=rf"^{argument} must be .*got {re.escape(repr(value))}$"):
        synthetic.write_synthetic(tmp_path, **(SMALL | {argument: value}))
    assert not list(tmp_path.iterdir())


def test_refuses_a_folder_in_use(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(errors.UserError, match="root must be an empty folder or a new one"):
        synthetic.write_synthetic(tmp_path, **SMALL)
    with pytest.raises(errors.UserError, match="root must be an empty folder or a new one"):
        synthetic.write_synthetic(tmp_path / "notes.txt", **SMALL)


def test_generators_of_different_things_differ():
    keys = [(seed, stream, number) for seed in (0, 1) for stream in streams.Stream for number in (1, 2)]
    assert len({streams.generator(*key).random() for key in keys}) == len(keys)


def test_video_reader_reads_it(video_root, tmp_path):
    records = dukemtmc_videoreid.read(listing.Source(video_root, tmp_path, False))
    splits = {split: [r for r in records if r.split == split] for split in listing.SPLITS}
    assert {r.pid for r in splits["train"]} == {2, 5, 8}
    assert {r.pid for r in splits["query"]} == {1, 4, 7, 10}
    assert {r.pid for r in splits["gallery"]} == {0, 1, 4, 7, 10}
    assert len({r.tracklet for r in splits["gallery"] if r.pid == 0}) == 3
    for chosen in splits.values():
        frames = [r.tracklet for r in chosen]
        assert all(frames.count(tracklet) == 4 for tracklet in range(len(chosen) // 4))
    for pid in (1, 4, 7, 10):
        queries = {(r.camid, r.tracklet) for r in splits["query"] if r.pid == pid}
        gallery = {(r.camid, r.tracklet) for r in splits["gallery"] if r.pid == pid}
        # One query per camera, and each can be found again in another camera.
        assert len(queries) == len({camid for camid, _ in queries}) >= 2
        assert all({found for found, _ in gallery} - {camid} for camid, _ in queries)


def test_video_is_the_same_from_the_same_seed_whatever_else_there_is(video_root, tmp_path):
    larger = {"num_train_ids": 4, "num_test_ids": 5, "frames_per_tracklet": 5, "num_distractors": 5}
    synthetic.write_synthetic_video(tmp_path / "large", **(SMALL_VIDEO | larger))
    small, large = files_of(video_root), files_of(tmp_path / "large")
    assert small == {name: large[name] for name in small}
    assert len(set(large.values())) == len(large)
    synthetic.write_synthetic_video(tmp_path / "other", **(SMALL_VIDEO | {"seed": 4}))
    assert not set(files_of(tmp_path / "other").values()) & set(small.values())


def test_frames_follow_each_other_as_in_a_walk(video_root):
    difference = {1: [], 3: [], "other": []}
    folders = sorted({path.parent for path in video_root.rglob("*.jpg")})
    first_frames = []
    for folder in folders:
        frames = [np.asarray(Image.open(path)).astype(int) for path in sorted(folder.iterdir())]
        first_frames.append(frames[0])
        for distance in (1, 3):
            pairs = zip(frames, frames[distance:], strict=False)
            difference[distance] += [np.abs(a - b).mean() for a, b in pairs]
    difference["other"] = [np.abs(a - b).mean() for a, b in itertools.pairwise(first_frames)]
    near, far, other = (np.mean(values) for values in difference.values())
    assert 1 < near < 0.9 * far and far < 0.8 * other


def test_the_box_wavers_from_frame_to_frame(tmp_path, monkeypatch):
    crops, draw_crop = [], rendering.draw_crop

    def recorded(rng, passage):
        crops.append(draw_crop(rng, passage))
        return crops[-1]

    monkeypatch.setattr(rendering, "draw_crop", recorded)
    synthetic.write_synthetic_video(tmp_path, **(SMALL_VIDEO | {"num_train_ids": 1, "num_test_ids": 1}))
    assert len(set(crops)) == len(crops) == len(files_of(tmp_path))


def test_walking_on(plain_person):
    rng = np.random.default_rng(0)
    start = rendering.draw_passage(rng, neutral_camera())
    start = start._replace(yaw=math.pi / 2, place=0.5, pose=start.pose._replace(phase=0.2, stride=1.0))
    later = rendering.walk_on(start, 2)
    assert rendering.walk_on(start, 0) == start
    np.testing.assert_allclose(later.pose.phase, 0.2 + 2 * 0.45)
    # To the left of the image, and more of the back comes into sight.
    np.testing.assert_allclose(later.place, 0.5 - 2 * 0.009)
    np.testing.assert_allclose(later.yaw, math.pi / 2 + 2 * 0.02)
    straight = rendering.walk_on(start._replace(yaw=0.0), 2)
    assert (straight.yaw, straight.place) == (0.0, 0.5)
    assert later._replace(yaw=start.yaw, place=start.place, pose=start.pose) == start


@pytest.mark.parametrize("num_cameras", [2, 3, 9])
def test_walks_by_camera(num_cameras):
    seen_by = set()
    for seed in range(60):
        counts = video._walks_by_camera(np.random.default_rng(seed), num_cameras)
        assert list(counts) == sorted(counts) and set(counts) <= set(range(num_cameras))
        assert sorted(counts.values()) == [1] * (len(counts) - 2) + [2, 2]
        seen_by.add(len(counts))
    assert seen_by == set(range(2, min(num_cameras, 4) + 1))


@pytest.mark.parametrize(
    "argument, value",
    [
        ("seed", -1), ("palette", -1), ("palette", 2), ("num_train_ids", 0), ("num_test_ids", 3334),
        ("frames_per_tracklet", 0), ("num_cameras", 1), ("height", 31), ("width", 129), ("num_distractors", -1),
        ("frames_per_tracklet", 2.0),
    ],
)  # fmt: skip
def test_bad_video_arguments(tmp_path, argument, value):
    with pytest.raises(errors.UserError, match=rf"^{argument} must be .*got {re.escape(repr(value))}$"):
        synthetic.write_synthetic_video(tmp_path, **(SMALL_VIDEO | {argument: value}))
    assert not list(tmp_path.iterdir())


def test_contact_sheet_of_video_is_a_grid(video_root):
    images = folders.list_images(video_root, recursive=True)
    assert [len(row) for row in contact_sheet.arrange(images, rows=2, columns=3)] == [3, 3]
    assert contact_sheet.contact_sheet(images, rows=2, columns=3).size == (3 * 76 + 16, 2 * 170 + 14 + 16)


def test_contact_sheet_rows_are_identities(root):
    images = folders.list_images(root, recursive=True)
    table = contact_sheet.arrange(images, rows=100, columns=5)
    assert len(table) == 4 + 5 + 2
    assert [row[0][0].split()[0] for row in table] == [*"1 2 4 5 7 8 10 11 13 -1 0".split()]
    for row in table:
        assert len(row) == 5
        assert [label for label, _ in row] == sorted(label for label, _ in row)
        # All the cameras that saw the person come before any comes twice.
        pid = row[0][0].split()[0]
        names = [file.name for file in images if file.name.startswith((f"{int(pid):04d}_", f"{pid}_"))]
        assert {label.split()[1] for label, _ in row} == {name.split("_")[1][:2] for name in names}
    sheet = contact_sheet.contact_sheet(images, rows=2, columns=3)
    assert sheet.size == (3 * 76 + 16, 2 * 155 + 14 + 16)


def test_contact_sheet_shows_images_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.repeat(np.array([[0], [255]], np.uint8), 40, axis=0).repeat(60, axis=1)).save(
        tmp_path / "a.png", exif=exif
    )
    thumbnail = contact_sheet._thumbnail(tmp_path / "a.png", 128, 64)
    # What is below in the file is on the left.
    assert thumbnail.shape[0] < thumbnail.shape[1] and (thumbnail[:, 0] == 255).all() and (thumbnail[:, -1] == 0).all()


def test_contact_sheet_of_other_images_is_a_grid(tmp_path):
    for number in range(5):
        Image.new("RGB", (30, 20), (50 * number, 0, 0)).save(tmp_path / f"item{number}.png")
    images = folders.list_images(tmp_path)
    table = contact_sheet.arrange(images, rows=2, columns=2)
    assert [[label for label, _ in row] for row in table] == [["item0", "item1"], ["item2", "item3"]]
    sheet = np.asarray(contact_sheet.contact_sheet(images, rows=2, columns=2))
    assert tuple(sheet[14 + 64, 14 + 76 + 10]) == (50, 0, 0)


def test_contact_sheet_errors(tmp_path):
    with pytest.raises(errors.UserError, match="no images"):
        contact_sheet.contact_sheet([], rows=2, columns=2)
    with pytest.raises(errors.UserError, match="--rows: 0 must be at least 1"):
        contact_sheet.contact_sheet([tmp_path / "a.png"], rows=0, columns=2)
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(errors.UserError, match="a.png is not a whole image"):
        contact_sheet.contact_sheet([tmp_path / "a.png"], rows=1, columns=1)


def test_contact_sheet_command(root, tmp_path):
    script = pathlib.Path(contact_sheet.__file__)
    output = tmp_path / "sheet.png"

    def run(*arguments):
        return subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, timeout=60)

    done = run(f"--source={root}", f"--output={output}", "--rows=2")
    assert done.returncode == 0, done.stderr
    with Image.open(output) as sheet:
        assert sheet.height == 2 * 155 + 14 + 16
    failed = run(f"--source={root / 'nowhere'}", f"--output={output}")
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: --source:") and failed.stderr.count("\n") == 1
