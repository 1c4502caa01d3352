import errno
import json
import os
import pathlib
import shutil
import subprocess
import sys
import types as python_types
import zipfile

import compiler_flags
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs
from jax import export
from PIL import Image

from reid_jax import augment, errors, postprocess
from reid_jax.embeddings import Features
from reid_jax.inference import exported
from reid_jax.models.reid import ReidModel

INFO = exported.Info("c0ffee", 24, 12, 16, "float32", "a tiny model")
FACTS = {"format": "reid_jax embedding model 1", **INFO._asdict(), "platforms": ["cpu"], "jax": "0"}
ENTRIES = {"info": "model.json", "program": "model.stablehlo"}
REFUSED = "is no exported model as `reid export` writes it: "


def noise(count, height, width, *, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)


def photographs(count, height, width):
    """Smooth and sharp by turns."""
    coarse = noise(count, 5, 4)
    return np.stack(
        [np.asarray(Image.fromarray(each).resize((width, height), Image.Resampling.BICUBIC)) for each in coarse]
    )


def pillow(images, height, width):
    resized = [Image.fromarray(each).resize((width, height), Image.Resampling.BILINEAR) for each in images]
    return np.stack([np.asarray(each) for each in resized]).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    """(module, variables) with numbers in place of weights: initialising takes longer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tiny_runs.OWN_BACKBONE)
        import own_backbone

        module = ReidModel(own_backbone.Backbone())
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, 24, 12, 3)), train=False))
    rng = np.random.default_rng(0)
    return module, jax.tree.map(lambda leaf: rng.uniform(-0.2, 0.4, leaf.shape).astype(leaf.dtype) ** 2, shapes)


@pytest.fixture(scope="module")
def function(model):
    return exported.embedding_function(*model, height=24, width=12)


@pytest.fixture(scope="module")
def file_once(function, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "tiny.zip"
    exported.write_model(path, function, INFO)
    return path


@pytest.fixture
def file(file_once, tmp_path):
    """A copy, to damage."""
    return pathlib.Path(shutil.copy(file_once, tmp_path))


def contents(file):
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(file, *, compression=zipfile.ZIP_STORED, **changes):
    """Writes the file anew with another `info` or `program`."""
    entries = contents(file)
    entries |= {ENTRIES[name]: content for name, content in changes.items()}
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


resize = jax.jit(exported.resize, static_argnames=("height", "width"))


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        ((24, 12), (24, 12)),
        ((128, 64), (24, 12)),
        ((31, 17), (24, 12)),
        ((9, 50), (24, 12)),
        ((1, 1), (24, 12)),
        ((24, 5), (24, 12)),
        ((600, 301), (24, 12)),
        ((25, 13), (24, 12)),
        ((40, 30), (1, 1)),
        ((97, 41), (256, 128)),
        ((128, 64), (256, 128)),
    ],
)
def test_resize_is_pillows(size, wanted):
    height, width = wanted
    for images in (noise(2, *size), photographs(2, *size), noise(2, *size) // 128 * 255):
        found, expected = np.asarray(resize(images, height=height, width=width)), pillow(images, height, width)
        assert found.dtype == np.float32 and found.shape == expected.shape
        differences = np.abs(found - expected)
        assert differences.max() <= (0 if size == wanted else 1)
        assert differences.mean() < 0.1


def test_resize_by_hand():
    column = np.array([0, 0, 70, 70], np.uint8)[None, :, None, None] * np.ones(3, np.uint8)
    # Half the size: weights 1/4, 3/4, 3/4, 1/4 around an edge; at the border the mean of 3/4, 3/4, 1/4.
    assert resize(column, height=2, width=1)[0, :, 0].tolist() == [[10] * 3, [60] * 3]
    assert resize(column, height=1, width=1)[0, 0, 0].tolist() == [35] * 3
    # Twice the size: 1/4 and 3/4 of neighbours, 17.5 and 52.5 rounded up.
    assert resize(column, height=8, width=1)[0, :, 0, 0].tolist() == [0, 0, 0, 18, 53, 70, 70, 70]
    # Halves are rounded up after each direction, the rows' first: 0.5 and 0 become 1 and 0, and their mean 1 again.
    assert resize(np.array([[0, 1], [0, 0]], np.uint8)[None, ..., None], height=1, width=1).tolist() == [[[[1]]]]


def float64_resize(images, height, width):
    """The same filter in 64 bits, rounded to bytes after each direction."""
    pixels = images.astype(np.float64)
    for axis, wanted in ((2, width), (1, height)):
        size = pixels.shape[axis]
        scale = size / wanted
        weights = np.zeros((wanted, size))
        for row in range(wanted):
            for column in range(size):
                weights[row, column] = max(0, 1 - abs(column + 0.5 - (row + 0.5) * scale) / max(scale, 1))
        weights /= weights.sum(axis=1, keepdims=True)
        pixels = np.moveaxis(np.tensordot(weights, pixels, (1, axis)), 0, axis)
        unrounded, pixels = pixels, np.floor(pixels + 0.5)
    return unrounded, pixels


def test_resize_keeps_the_digits():
    images = noise(1, 1500, 331)
    unrounded, expected = float64_resize(images, 24, 12)
    differs = np.asarray(resize(images, height=24, width=12)) != expected
    # Only where a sum is next to one half.
    np.testing.assert_allclose(unrounded[differs] % 1, 0.5, atol=0.01)
    assert differs.mean() < 0.02


def test_resize_mirrors():
    images = photographs(2, 40, 30)
    flipped = resize(images[:, ::-1, ::-1], height=9, width=14)
    resized = resize(images, height=9, width=14)
    assert np.abs(flipped - resized[:, ::-1, ::-1]).max() <= 1
    assert (flipped == resized[:, ::-1, ::-1]).mean() > 0.97


def stub(embed):
    """A model by which embeddings can be told by hand."""
    return python_types.SimpleNamespace(apply=lambda variables, images, train: Features(embed(images)))


def test_embeds_by_hand():
    function = exported.embedding_function(stub(lambda images: images[:, 0, 0]), {}, height=2, width=1)
    colour = np.array([[255, 0, 51]], np.uint8)
    expected = (np.array([1, 0, 0.2]) - augment.IMAGENET_MEAN) / augment.IMAGENET_STD
    for size in ((2, 1), (5, 4)):  # one colour stays that colour
        found = jax.jit(function)(np.broadcast_to(colour, (1, *size, 3)))
        np.testing.assert_allclose(found[0], expected / np.linalg.norm(expected), atol=1e-6)
        assert found.dtype == jnp.float32


def test_an_embedding_of_zeros_stays_finite():
    function = exported.embedding_function(stub(lambda images: 0 * images[:, 0, 0]), {}, height=2, width=1)
    np.testing.assert_array_equal(jax.jit(function)(noise(2, 2, 1)), np.zeros((2, 3)))


def test_function_is_the_model_on_resized_images(model, function):
    module, variables = model
    for images, tolerance in ((noise(3, 24, 12), 1e-6), (photographs(3, 60, 25), 2e-3)):
        normalized = (pillow(images, 24, 12) / 255 - augment.IMAGENET_MEAN) / augment.IMAGENET_STD
        expected = jax.jit(lambda x: module.apply(variables, x, train=False).embeddings)(normalized.astype(np.float32))
        expected = np.asarray(expected) / np.linalg.norm(expected, axis=1, keepdims=True)
        np.testing.assert_allclose(jax.jit(function)(images), expected, atol=tolerance)


def test_file_computes_what_the_function_does(file_once, function):
    read = exported.read_model(file_once)
    assert read.info == INFO
    original, found = jax.jit(function), {}
    for count, height, width in ((1, 24, 12), (3, 24, 12), (5, 24, 12), (2, 31, 17)):
        images = noise(5, height, width)[:count]
        found[count] = np.asarray(read.call(images))
        assert found[count].shape == (count, 16) and found[count].dtype == np.float32
        np.testing.assert_allclose(found[count], original(images), atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(found[count], axis=1), 1, atol=1e-6)
    # An image's embedding is its own, and other images have others.
    np.testing.assert_allclose(found[5][:3], found[3], atol=1e-6)
    np.testing.assert_allclose(found[5][:1], found[1], atol=1e-6)
    assert np.abs(found[5][0] - found[5][1]).max() > 1e-3


def test_what_a_file_holds(file_once):
    entries = contents(file_once)
    assert list(entries) == ["README.txt", "model.json", "model.stablehlo"]
    facts = json.loads(entries["model.json"])
    assert facts == FACTS | {"platforms": ["cpu", "cuda", "rocm", "tpu"], "jax": jax.__version__}
    program = export.deserialize(bytearray(entries["model.stablehlo"]))
    assert program.platforms == exported.PLATFORMS
    # Nothing of this computer.
    assert b".py" not in entries["model.stablehlo"] and str(tiny_runs.ROOT).encode() not in file_once.read_bytes()
    with zipfile.ZipFile(file_once) as archive:
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}


def test_files_of_one_model_are_the_same(file_once, function, model, tmp_path):
    exported.write_model(tmp_path / "a.zip", function, INFO, name="tiny.zip")
    again = exported.embedding_function(*model, height=24, width=12)
    (lambda: exported.write_model(tmp_path / "b.zip", again, INFO, name="tiny.zip"))()
    for name in ("a.zip", "b.zip"):
        assert (tmp_path / name).read_bytes() == file_once.read_bytes()


def test_writing_leaves_the_settings_as_they_are(tmp_path):
    limit = jax.config.jax_traceback_in_locations_limit
    try:
        jax.config.update("jax_traceback_in_locations_limit", 7)
        exported.write_model(tmp_path / "a.zip", stub_function, INFO)
        assert jax.config.jax_traceback_in_locations_limit == 7
    finally:
        jax.config.update("jax_traceback_in_locations_limit", limit)


def test_whole_or_not_at_all(file, monkeypatch):
    before = file.read_bytes()

    def fill_disk(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "writestr", fill_disk)
        for target in (file, file.with_name("new.zip")):
            with pytest.raises(OSError, match="No space left on device"):
                exported.write_model(target, stub_function, INFO)
    assert [path.name for path in file.parent.iterdir()] == ["tiny.zip"]
    assert file.read_bytes() == before


def stub_function(images):
    return jnp.zeros((images.shape[0], 16)) + images.mean(axis=(1, 2, 3))[:, None]


def test_readme_works_without_this_library(file_once, function, tmp_path):
    name = 'it\'s "tiny" é.zip'
    exported.write_model(tmp_path / name, function, INFO)
    assert exported.read_model(tmp_path / name).info == INFO
    usage = contents(tmp_path / name)["README.txt"].decode()
    code = [line.removeprefix("    ") for line in usage.split("\n") if line.startswith("    ")]
    assert len(code) >= 7 and "resize to 24 x 12" in usage
    image = Image.fromarray(photographs(1, 24, 12)[0])
    image.save(tmp_path / "person.jpg", quality=95)
    blocked = "import sys\nsys.modules.update(dict.fromkeys(['reid_jax', 'experiments', 'data_prep', 'flax']))"
    script = "\n".join([blocked, *code, "np.save('found.npy', np.asarray(embeddings))", "import reid_jax"])
    environment = os.environ | {"XLA_FLAGS": compiler_flags.QUICK}
    done = subprocess.run(
        [sys.executable, "-I", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    # The last line shows that the library was out of reach.
    assert done.stderr.endswith("import of reid_jax halted; None in sys.modules\n"), done.stderr
    decoded = np.asarray(Image.open(tmp_path / "person.jpg").convert("RGB"))
    found = np.load(tmp_path / "found.npy")
    assert found.shape == (1, 16)
    np.testing.assert_allclose(found, exported.read_model(file_once).call(decoded[None]), atol=1e-6)


def test_is_model_file(file, tmp_path):
    assert exported.is_model_file(file) and exported.is_model_file(str(file))
    (tmp_path / "text.zip").write_text("no archive")
    np.savez(tmp_path / "arrays.npz", a=np.zeros(3))
    (tmp_path / "half.zip").write_bytes(file.read_bytes()[:-30])
    for name in ("text.zip", "arrays.npz", "half.zip", "nowhere.zip", ""):
        assert not exported.is_model_file(tmp_path / name)
    # A directory entry that zipfile does not understand.
    data = bytearray(file.read_bytes())
    data[data.index(b"PK\x01\x02") + 6] = 255
    file.write_bytes(data)
    assert not exported.is_model_file(file)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("model.json", "{}")
    assert not exported.is_model_file(file)


@pytest.fixture
def never_run(monkeypatch):
    """No program may be as much as made callable."""

    def refuse(*args):
        raise AssertionError("a program that must be refused was asked for its function")

    monkeypatch.setattr(export.Exported, "call", refuse)


def test_truncated_files_are_refused(file, never_run):
    data = file.read_bytes()
    for length in (0, 1, 30, 100, 1000, len(data) // 2, len(data) - 23, len(data) - 1):
        file.write_bytes(data[:length])
        with pytest.raises(errors.UserError, match=f"tiny.zip' {REFUSED}"):
            exported.read_model(file)


def test_flipped_bytes_are_found_or_change_nothing(file):
    data, entries = file.read_bytes(), contents(file)
    found = 0
    directory = data.index(b"PK\x01\x02")
    places = [*range(0, directory, 89), *range(directory, len(data))]
    for place in places:
        damaged = bytearray(data)
        damaged[place] ^= 255
        file.write_bytes(damaged)
        try:
            assert exported.read_model(file).info == INFO
        except errors.UserError as error:
            assert REFUSED in str(error)
            found += 1
            continue
        # What is left is README.txt, which is not read, or dates.
        with zipfile.ZipFile(file) as archive:
            for name in ("model.json", "model.stablehlo"):
                assert archive.read(name) == entries[name]
    assert found > 0.5 * len(places)


def test_a_flipped_byte_of_the_weights_is_found(file, never_run):
    data = bytearray(file.read_bytes())
    data[data.index(contents(file)["model.stablehlo"]) + 9000] ^= 1
    file.write_bytes(data)
    with pytest.raises(errors.UserError, match=f"{REFUSED}Bad CRC-32 for file 'model.stablehlo'"):
        exported.read_model(file)


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ("no json", "Expecting value"),
        ("[" * 100000, "recursion"),
        ("[]", "must say the format 'reid_jax embedding model 1'"),
        ({"format": "reid_jax embedding model 2"}, "model.json in it must say the format 'reid_jax embedding model 1'"),
        ({"digest": None}, "digest in its model.json must be a str, got None"),
        ({"description": ...}, "description in its model.json must be a str, got None"),
        ({"height": 0}, "height in its model.json must be an int, at least 1, got 0"),
        ({"width": True}, "width in its model.json must be an int, at least 1, got True"),
        ({"dim": "16"}, "dim in its model.json must be an int, at least 1, got '16'"),
        ({"dim": 16.0}, "dim in its model.json must be an int, at least 1, got 16.0"),
        ("{}" + " " * 2**20, "model.json in it has more than 1048576 bytes"),
    ],
)
def test_a_wrong_model_json_is_refused(file, monkeypatch, info, message):
    # The program is not even looked at.
    monkeypatch.setattr(export, "deserialize", None)
    if isinstance(info, dict):
        info = json.dumps({name: value for name, value in (FACTS | info).items() if value is not ...})
    pack(file, info=info)
    with pytest.raises(errors.UserError, match=f"tiny.zip' {REFUSED}.*{message}"):
        exported.read_model(file)


def test_a_compressed_program_is_refused(file, monkeypatch):
    monkeypatch.setattr(export, "deserialize", None)
    pack(file, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(errors.UserError, match=f"{REFUSED}model.stablehlo in it must be stored, not compressed"):
        exported.read_model(file)


def test_archives_that_are_something_else_are_refused(file, tmp_path, never_run):
    for keep in ("README.txt", "model.json", "model.stablehlo"):
        with zipfile.ZipFile(tmp_path / "part.zip", "w") as archive:
            archive.writestr(keep, contents(file)[keep])
        with pytest.raises(errors.UserError, match=f"part.zip' {REFUSED}.*no item named 'model"):
            exported.read_model(tmp_path / "part.zip")
    with pytest.raises(FileNotFoundError):
        exported.read_model(tmp_path / "nowhere.zip")
    with pytest.raises(IsADirectoryError):
        exported.read_model(tmp_path)


@pytest.mark.parametrize("program", [b"x", b"\0" * 8, b"\xff" * 50, b"hello" * 100, "half", "other bytes inside"])
def test_bytes_that_are_no_program_are_refused(file, capfd, never_run, program):
    whole = contents(file)["model.stablehlo"]
    if program == "half":
        program = whole[: len(whole) // 2]
    elif program == "other bytes inside":
        begin = whole.index(b"StableHLO")
        program = whole[: begin + 20] + bytes(500) + whole[begin + 520 :]
    pack(file, program=program)
    with pytest.raises(errors.UserError, match=f"tiny.zip' {REFUSED}"):
        exported.read_model(file)
    assert capfd.readouterr().err == ""


SIZES = "b, h, w, 3"


def program_of(function, shape=SIZES, dtype=np.uint8, *, more=(), platforms=("cpu",), **options):
    images = jax.ShapeDtypeStruct(export.symbolic_shape(shape), dtype)
    return export.export(jax.jit(function), platforms=platforms, **options)(images, *more).serialize()


def vectors(images, dim=16, dtype=np.float32):
    return jnp.zeros((images.shape[0], dim), dtype)


IMAGES = r"must take images \[B, h, w, 3\] uint8 of any size and return \[B, 16\] float32, it "
OTHER_PROGRAMS = {
    "floats": (lambda: program_of(vectors, dtype=np.float32), IMAGES + r"takes .*float32\[b,h,w,3\]"),
    "four channels": (lambda: program_of(vectors, "b, h, w, 4"), IMAGES + r"takes .*uint8\[b,h,w,4\]"),
    "no batch": (lambda: program_of(vectors, "h, w, 3"), IMAGES + r"takes .*uint8\[h,w,3\]"),
    "one size": (lambda: program_of(vectors, "b, 24, 12, 3"), IMAGES + r"takes .*uint8\[b,24,12,3\]"),
    "one batch": (lambda: program_of(vectors, "4, h, w, 3"), IMAGES + r"takes .*uint8\[4,h,w,3\]"),
    "two arguments": (
        lambda: program_of(lambda x, y: vectors(x), more=(np.float32(0),)),
        IMAGES + r"takes .*float32\[\]",
    ),
    "named": (
        lambda: export.export(jax.jit(lambda x: vectors(x["images"])), platforms=("cpu",))(
            {"images": jax.ShapeDtypeStruct(export.symbolic_shape(SIZES), np.uint8)}
        ).serialize(),
        IMAGES,
    ),
    "another dim": (lambda: program_of(lambda x: vectors(x, 15)), IMAGES + r".*returns .*float32\[b,15\]"),
    "halves": (lambda: program_of(lambda x: vectors(x, dtype=np.float16)), IMAGES + r".*returns .*float16\[b,16\]"),
    "two results": (
        lambda: program_of(lambda x: (vectors(x), vectors(x))),
        IMAGES + r".*float32\[b,16\].*float32\[b,16\]",
    ),
    "nested": (lambda: program_of(lambda x: {"a": vectors(x)}), IMAGES),
    "a map": (lambda: program_of(lambda x: jnp.zeros((x.shape[0], 4, 16))), IMAGES + r".*returns .*float32\[b,4,16\]"),
    "one row": (lambda: program_of(lambda x: vectors(x[:1])), IMAGES + r".*returns .*float32\[1,16\]"),
    "rows of width": (
        lambda: program_of(lambda x: jnp.zeros((x.shape[2], 16))),
        IMAGES + r".*returns .*float32\[w,16\]",
    ),
    "another platform": (
        lambda: program_of(vectors, platforms=("cuda", "tpu")),
        "was exported for cuda, tpu, this machine computes on cpu",
    ),
}


@pytest.mark.parametrize("kind", OTHER_PROGRAMS)
def test_other_programs_are_refused(file, never_run, kind):
    program, message = OTHER_PROGRAMS[kind]
    pack(file, program=bytes(program()))
    with pytest.raises(errors.UserError, match=f"tiny.zip' {message}"):
        exported.read_model(file)


def test_a_program_that_calls_a_stranger_is_refused(file, never_run):
    def calling(images):
        call = jax.ffi.ffi_call("run_this", jax.ShapeDtypeStruct((16,), np.float32))
        # Inside a loop, where it is not seen at once.
        return jax.lax.fori_loop(0, 3, lambda _, x: x + call(x[0]), vectors(images))

    allowed = [export.DisabledSafetyCheck.custom_call("run_this")]
    pack(file, program=bytes(program_of(calling, disabled_checks=allowed)))
    with pytest.raises(errors.UserError, match="tiny.zip' must consist of array operations, it calls run_this$"):
        exported.read_model(file)


def test_a_library_of_linear_algebra_is_a_stranger(file, never_run):
    pack(file, program=bytes(program_of(lambda x: vectors(x) + jnp.linalg.qr(jnp.eye(16))[0][:1])))
    with pytest.raises(errors.UserError, match="array operations, it calls lapack_sgeqrf_ffi, lapack_sorgqr_ffi$"):
        exported.read_model(file)


def test_usual_operations_are_no_strangers(file):
    def usual(images):
        pixels = images.astype(jnp.float32).mean(axis=(1, 2))[:, None, None]
        mixed = jax.nn.dot_product_attention(pixels, pixels, pixels)[:, 0]
        best, _ = jax.lax.top_k(jax.nn.gelu(jax.nn.softmax(mixed), approximate=False), 1)
        return jnp.tile(jnp.sort(best[..., 0], axis=1), (1, 16))

    pack(file, program=bytes(program_of(usual, platforms=exported.PLATFORMS)))
    assert exported.read_model(file).info == INFO


WITH_CAMERAS = INFO._replace(postprocess="camera_center")


def vectors_of_cameras(images, cameras):
    return vectors(images) + cameras[:, None]


@pytest.fixture
def camera_file(tmp_path):
    exported.write_model(tmp_path / "tiny.zip", vectors_of_cameras, WITH_CAMERAS)
    return tmp_path / "tiny.zip"


def test_a_function_of_cameras(camera_file):
    call, info = exported.read_model(camera_file)
    assert info == WITH_CAMERAS and info.takes_cameras and not INFO.takes_cameras
    images = noise(3, 24, 12)
    plain = np.asarray(call(images, np.zeros(3, np.int32)))
    np.testing.assert_allclose(
        call(images, np.array([0, -1, 5], np.int32)) - plain, np.tile([[0], [-1], [5]], 16), atol=1e-6
    )
    assert "[B] int32, numbered as when the model was made" in contents(camera_file)["README.txt"].decode()


@pytest.mark.parametrize("takes_cameras", [True, False])
def test_a_function_that_takes_other_arguments_than_it_says_is_refused(camera_file, never_run, takes_cameras):
    program = program_of(vectors)
    if takes_cameras:
        program = contents(camera_file)["model.stablehlo"]
    info = FACTS | {"postprocess": "center" if takes_cameras else "camera_center"}
    pack(camera_file, info=json.dumps(info), program=bytes(program))
    message = (
        "must take images .* uint8 of any size and return" if takes_cameras else r"of any size, cameras \[B\] int32 and"
    )
    with pytest.raises(errors.UserError, match=message):
        exported.read_model(camera_file)


@pytest.mark.parametrize("dtype,shape", [(np.float32, "b"), (np.int32, "3"), (np.int32, "b, 1")])
def test_cameras_are_a_row_of_whole_numbers(camera_file, never_run, dtype, shape):
    sizes = export.symbolic_shape(f"b, h, w, {shape}")
    arguments = jax.ShapeDtypeStruct((*sizes[:3], 3), np.uint8), jax.ShapeDtypeStruct(sizes[3:], dtype)
    function = jax.jit(lambda images, cameras: vectors(images) + cameras.sum().astype(np.float32))
    pack(camera_file, program=bytes(export.export(function, platforms=("cpu",))(*arguments).serialize()))
    with pytest.raises(errors.UserError, match=r"must take images .* of any size, cameras \[B\] int32 and return"):
        exported.read_model(camera_file)


def test_post_processing_is_the_last_step(model):
    images = photographs(9, 24, 12)
    plain = np.asarray(jax.jit(exported.embedding_function(*model, height=24, width=12))(images))
    cameras = np.resize([3, 8], 9)
    for kind in postprocess.KINDS[1:]:
        fitted = postprocess.fit(kind, [plain], camids=cameras, shrinkage=0.1)
        function = jax.jit(exported.embedding_function(*model, height=24, width=12, fitted=fitted))
        arguments = (images, cameras.astype(np.int32)) if exported.takes_cameras(fitted) else (images,)
        np.testing.assert_allclose(function(*arguments), postprocess.apply(fitted, plain, cameras), atol=2e-4)
        assert exported.takes_cameras(fitted) == (kind in postprocess.CAMERA_KINDS)
    assert not exported.takes_cameras(None)


def test_a_file_of_before_has_no_post_processing(file):
    facts = {name: value for name, value in FACTS.items() if name != "postprocess"}
    pack(file, info=json.dumps(facts))
    assert exported.read_model(file).info == INFO
    pack(file, info=json.dumps(FACTS | {"postprocess": 3}))
    with pytest.raises(errors.UserError, match="postprocess in its model.json must be a str, got 3"):
        exported.read_model(file)
