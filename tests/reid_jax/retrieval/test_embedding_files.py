import errno
import json
import pathlib
import pickle
import tracemalloc
import zipfile

import numpy as np
import pytest

from reid_jax import errors
from reid_jax.retrieval import embedding_files
from reid_jax.retrieval.embedding_files import Origin

ORIGIN = Origin("c0ffee", 24, 12, "/photos/of people", ("data", "tiny", "gallery"))
REFUSED = "is no file of embeddings as `reid embed` writes it: "


def make_arrays(num_items=7, dim=5, *, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "embeddings": rng.normal(size=(num_items, dim)).astype(np.float32),
        "paths": np.array([f"c{number % 3}/été {number}.jpg" for number in range(num_items)]),
        "pids": rng.integers(-1, 4, num_items),
        "camids": rng.integers(-1, 3, num_items),
    }


def write(file, arrays, origin=ORIGIN):
    embedding_files.write_embeddings(file, **arrays, origin=origin)
    return file


def read_blocks(file, **options):
    return list(embedding_files.read_blocks(embedding_files.open_embeddings(file), **options))


def read_all(file):
    return embedding_files.read_embeddings(embedding_files.open_embeddings(file))


def rewrite(file, **changes):
    """Changes arrays of a file; None takes one away."""
    with np.load(file) as arrays:
        changed = dict(arrays) | changes
    np.savez(file, **{name: array for name, array in changed.items() if array is not None})


def find_all(data, part):
    return [place for place in range(len(data)) if data.startswith(part, place)]


@pytest.fixture
def file(tmp_path):
    return write(tmp_path / "crops.npz", make_arrays())


def test_round_trip(file):
    arrays, opened = make_arrays(), embedding_files.open_embeddings(file)
    assert (opened.file, opened.shape, opened.origin) == (file, (7, 5), ORIGIN)
    for name in ("paths", "pids", "camids"):
        np.testing.assert_array_equal(getattr(opened, name), arrays[name])
    assert opened.pids.dtype == opened.camids.dtype == np.int64
    found = embedding_files.read_embeddings(opened)
    np.testing.assert_array_equal(found, arrays["embeddings"])
    assert found.dtype == np.float32


def test_by_hand(tmp_path):
    embedding_files.write_embeddings(
        tmp_path / "two.npz", [[0.5, -2], [3, 0.25]], ["a.jpg", "b/c.png"], origin=Origin()
    )
    opened = embedding_files.open_embeddings(str(tmp_path / "two.npz"))
    assert [block.tolist() for block in embedding_files.read_blocks(opened, rows_per_block=1)] == [
        [[0.5, -2]],
        [[3, 0.25]],
    ]
    assert opened.paths.tolist() == ["a.jpg", "b/c.png"]
    assert opened.pids.tolist() == opened.camids.tolist() == [-1, -1]
    assert opened.origin == Origin("", 0, 0, "", ())


def test_plain_numpy_reads_it(file):
    arrays = make_arrays()
    with np.load(file, allow_pickle=False) as found:
        assert set(found) == {*arrays, "origin"}
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array)
        origin = json.loads(str(found["origin"]))
    assert origin == ORIGIN._asdict() | {"dataset": ["data", "tiny", "gallery"]}


@pytest.mark.parametrize(
    ("rows_per_block", "counts"),
    [(1, [1] * 7), (2, [2, 2, 2, 1]), (3, [3, 3, 1]), (6, [6, 1]), (7, [7]), (1000, [7]), (None, [7])],
)
def test_blocks_make_up_the_whole(file, rows_per_block, counts):
    blocks = read_blocks(file, **({} if rows_per_block is None else {"rows_per_block": rows_per_block}))
    assert [len(block) for block in blocks] == counts
    assert {block.dtype for block in blocks} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(np.concatenate(blocks), make_arrays()["embeddings"])


def test_all_vectors_are_several_blocks(tmp_path):
    vectors = np.arange(140002, dtype=np.float32).reshape(70001, 2)
    np.savez(tmp_path / "many.npz", embeddings=vectors, paths=np.full(70001, "a"))
    assert [len(block) for block in read_blocks(tmp_path / "many.npz")] == [65536, 4465]
    np.testing.assert_array_equal(read_all(tmp_path / "many.npz"), vectors)


def test_one_block_is_held(tmp_path):
    file = write(tmp_path / "large.npz", make_arrays(4000, 512))  # 8 MB
    tracemalloc.start()
    try:
        opened = embedding_files.open_embeddings(file)
        opening = tracemalloc.get_traced_memory()[1]
        sums = [block.sum() for block in embedding_files.read_blocks(opened, rows_per_block=100)]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(sums) == 40
    assert opening < 1.2e6  # paths and labels
    assert peak < opening + 4 * 100 * 512 * 4


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4", ">f8"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_others_need_vectors_and_paths_only(tmp_path, dtype, save):
    arrays = make_arrays()
    vectors = arrays["embeddings"].astype(dtype)
    save(tmp_path / "others.npz", embeddings=vectors, paths=arrays["paths"], faces=np.zeros(3))
    opened = embedding_files.open_embeddings(tmp_path / "others.npz")
    assert opened.pids.tolist() == opened.camids.tolist() == [-1] * 7
    assert opened.origin == Origin()
    blocks = list(embedding_files.read_blocks(opened, rows_per_block=3))
    np.testing.assert_array_equal(np.concatenate(blocks), vectors.astype(np.float32))
    assert all(block.dtype == np.dtype(np.float32) for block in blocks)


def test_labels_of_any_integer_type(file):
    rewrite(file, pids=np.arange(7, dtype=np.uint8), camids=np.arange(7, dtype=np.int32))
    opened = embedding_files.open_embeddings(file)
    assert opened.pids.tolist() == opened.camids.tolist() == list(range(7))
    assert opened.pids.dtype == opened.camids.dtype == np.int64


@pytest.mark.parametrize("given", [np.asfortranarray, lambda x: x[:, ::2], lambda x: x.astype(np.float64), list])
def test_vectors_in_any_order_and_type_are_written(tmp_path, given):
    vectors = given(make_arrays(6, 8)["embeddings"])
    file = write(tmp_path / "a.npz", make_arrays(6) | {"embeddings": vectors})
    np.testing.assert_array_equal(read_all(file), np.asarray(vectors, np.float32))


def test_writing_what_does_not_fit_is_refused(tmp_path):
    for shape in ((7,), (7, 0), (0, 5), (7, 5, 1)):
        with pytest.raises(ValueError, match=r"embeddings must"):
            write(tmp_path / "a.npz", make_arrays() | {"embeddings": np.zeros(shape)})
    for name in ("paths", "pids", "camids"):
        with pytest.raises(ValueError, match=f"{name} must"):
            write(tmp_path / "a.npz", make_arrays() | {name: make_arrays(6)[name]})
    assert list(tmp_path.iterdir()) == []


def test_whole_or_not_at_all(file, monkeypatch):
    before = file.read_bytes()

    def fill_disk(name, **arrays):
        pathlib.Path(name).write_bytes(before[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", fill_disk)
        for target in (file, file.with_name("new.npz")):
            with pytest.raises(OSError, match="No space left on device"):
                write(target, make_arrays(3))
    assert [path.name for path in file.parent.iterdir()] == ["crops.npz"]
    assert file.read_bytes() == before
    write(file, make_arrays(3))
    assert embedding_files.open_embeddings(file).shape == (3, 5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embeddings": None}, REFUSED + "it lacks the array 'embeddings'"),
        ({"paths": None}, REFUSED + "it lacks the array 'paths'"),
        ({"embeddings": np.zeros(7)}, REFUSED + r"embeddings must be \[N, D\] floats .* got shape \(7,\) of float64"),
        ({"embeddings": np.zeros((7, 5, 1))}, r"got shape \(7, 5, 1\) of float64"),
        ({"embeddings": np.zeros((7, 0))}, r"at least one, got shape \(7, 0\) of float64"),
        ({"embeddings": np.zeros((0, 5)), "paths": np.zeros(0, "U1")}, r"at least one, got shape \(0, 5\) of float64"),
        ({"embeddings": np.zeros((7, 5), int)}, r"floats .* got shape \(7, 5\) of int64"),
        ({"embeddings": np.zeros((7, 5), complex)}, r"floats .* got shape \(7, 5\) of complex128"),
        ({"embeddings": np.zeros((5, 7)).T}, r"in C order, .* got shape \(7, 5\) of float64"),
        ({"paths": np.zeros(6, "U3")}, r"paths in .* must be \[7\] strings, one for each .* got shape \(6,\) of <U3"),
        ({"paths": np.zeros((7, 1), "U3")}, r"paths in .* must be \[7\] strings, .* got shape \(7, 1\) of <U3"),
        ({"paths": np.zeros(7, "S3")}, r"paths in .* must be \[7\] strings, .* got shape \(7,\) of \|S3"),
        ({"pids": np.zeros(7)}, r"pids in .* must be \[7\] integers, .* got shape \(7,\) of float64"),
        ({"pids": np.int64(1)}, r"pids in .* must be \[7\] integers, .* got shape \(\) of int64"),
        ({"camids": np.zeros(8, int)}, r"camids in .* must be \[7\] integers, .* got shape \(8,\) of int64"),
        ({"camids": np.zeros(7, bool)}, r"camids in .* must be \[7\] integers, .* got shape \(7,\) of bool"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(file, changes, message):
    rewrite(file, **changes)
    with pytest.raises(errors.UserError, match=message):
        embedding_files.open_embeddings(file)


@pytest.mark.parametrize(
    ("origin", "message"),
    [
        ("{", "Expecting property name"),
        ("[]", "its origin must be a JSON object"),
        ("[" * 100000, "recursion"),
        ('{"model": 1}', "model of its origin must be a str, got 1"),
        ('{"folder": null}', "folder of its origin must be a str, got None"),
        ('{"height": "24"}', "height of its origin must be a int, got '24'"),
        ('{"width": 1.5}', "width of its origin must be a int, got 1.5"),
        ('{"dataset": "tiny"}', "dataset of its origin must be a list, got 'tiny'"),
        (np.zeros(3), "Expecting|Extra data"),
    ],
)
def test_damaged_origin_is_refused(file, origin, message):
    rewrite(file, origin=np.array(origin))
    with pytest.raises(errors.UserError, match=f"crops.npz' {REFUSED}.*({message})"):
        embedding_files.open_embeddings(file)


def test_origin_of_another_version(file):
    rewrite(file, origin=np.array('{"model": "ab", "dataset": [1, "b"], "colour": "unknown"}'))
    assert embedding_files.open_embeddings(file).origin == Origin(model="ab", dataset=("1", "b"))


class Marker:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["embeddings", "paths", "pids", "camids", "origin"])
def test_pickles_are_refused_and_never_run(file, name):
    marker = file.with_name("was run")
    rewrite(file, **{name: np.array([Marker(marker)] * 7, object)})
    with pytest.raises(errors.UserError, match=f"{REFUSED}.*(allow_pickle|embeddings must be)"):
        embedding_files.open_embeddings(file)
    assert not marker.exists()
    with np.load(file, allow_pickle=True) as arrays:
        arrays[name]
    assert marker.exists()  # the file was dangerous


def test_other_files_are_refused(tmp_path):
    marker, file = tmp_path / "was run", tmp_path / "odd.npz"
    single = tmp_path / "single.npy"
    np.save(single, make_arrays()["embeddings"])
    for content in (b"", b"\xff\xd8\xff\xe0 JFIF", single.read_bytes(), pickle.dumps(Marker(marker))):
        file.write_bytes(content)
        with pytest.raises(errors.UserError, match=f"odd.npz' {REFUSED}File is not a zip file"):
            embedding_files.open_embeddings(file)
    assert not marker.exists()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("paths.npy", "no array")
        archive.writestr("embeddings.npy", "no array")
    with pytest.raises(errors.UserError, match=f"{REFUSED}the magic string is not correct"):
        embedding_files.open_embeddings(file)
    for missing in (tmp_path / "nowhere.npz", tmp_path):
        with pytest.raises(errors.UserError, match=f"there is no file '{missing}'"):
            embedding_files.open_embeddings(missing)


def test_encrypted_and_unknown_compression_are_refused(file):
    data = file.read_bytes()
    # In every entry of the central directory: flags at 8, the way of compression at 10.
    for offset, value, message in ((8, 1, "encrypted"), (10, 99, "compression method is not supported")):
        damaged = bytearray(data)
        for entry in find_all(data, b"PK\x01\x02"):
            damaged[entry + offset] = value
        file.write_bytes(damaged)
        with pytest.raises(errors.UserError, match=f"{REFUSED}.*{message}"):
            embedding_files.open_embeddings(file)


def test_truncated_files_are_refused(file):
    data = file.read_bytes()
    for length in range(0, len(data), 41):
        file.write_bytes(data[:length])
        with pytest.raises(errors.UserError, match=REFUSED):
            embedding_files.open_embeddings(file)


def test_flipped_bits_are_found_or_change_nothing(file):
    data = file.read_bytes()
    arrays, vectors = make_arrays(), make_arrays()["embeddings"]
    headers = [place + offset for place in find_all(data, b"\x93NUMPY")[:2] for offset in range(80)]
    flips = [(place, 1 << bit) for place in headers for bit in range(8)] + [
        (place, 255) for place in range(0, len(data), 3)
    ]
    found = 0
    for place, mask in flips:
        damaged = bytearray(data)
        damaged[place] ^= mask
        file.write_bytes(damaged)
        try:
            opened = embedding_files.open_embeddings(file)
            blocks = list(embedding_files.read_blocks(opened, rows_per_block=3))
        except errors.UserError:
            found += 1
            continue
        # What is left can be dates and names that nobody reads.
        np.testing.assert_array_equal(np.concatenate(blocks), vectors, err_msg=f"{place} {mask}")
        np.testing.assert_array_equal(opened.paths, arrays["paths"], err_msg=f"{place} {mask}")
        for name in ("pids", "camids"):
            known = getattr(opened, name)
            assert np.array_equal(known, arrays[name]) or (known == -1).all(), (place, mask)
    assert found > 0.9 * len(flips)


def test_a_flipped_byte_of_a_vector_is_damage(tmp_path):
    arrays = make_arrays(300, 40)  # more than is read at once
    file = write(tmp_path / "crops.npz", arrays)
    data = bytearray(file.read_bytes())
    data[data.index(arrays["embeddings"][299].tobytes())] ^= 1
    file.write_bytes(data)
    blocks = embedding_files.read_blocks(embedding_files.open_embeddings(file), rows_per_block=150)
    np.testing.assert_array_equal(next(blocks), arrays["embeddings"][:150])
    with pytest.raises(errors.UserError, match="crops.npz' is damaged: Bad CRC-32"):
        next(blocks)


@pytest.mark.parametrize(
    ("header", "damaged"),
    [("'shape': (3000, 40)", "'shape': (3000, 10)"), ("<U15", "<U11"), ("<i8", "<i4")],
)
def test_a_header_that_asks_for_fewer_bytes_is_damage(tmp_path, header, damaged):
    # Whoever reads only what it says never comes to the checksum at the end.
    file = write(tmp_path / "crops.npz", make_arrays(3000, 40))
    data = file.read_bytes()
    assert header.encode() in data
    file.write_bytes(data.replace(header.encode(), damaged.encode(), 1))
    with pytest.raises(errors.UserError, match="has more bytes than its shape says"):
        read_all(file)


def test_the_disks_errors_are_its_own(file):
    opened = embedding_files.open_embeddings(file)
    file.unlink()
    with pytest.raises(FileNotFoundError):
        embedding_files.read_embeddings(opened)


def test_numbers_that_are_not_finite_are_refused(file):
    vectors = make_arrays()["embeddings"].astype(np.float64)
    for value in (np.nan, np.inf, -np.inf):
        vectors[5, 2] = value
        rewrite(file, embeddings=vectors)
        with pytest.raises(errors.UserError, match="is damaged: embeddings must be finite, row 5 is not"):
            read_blocks(file, rows_per_block=3)


def test_a_file_replaced_after_it_was_opened_is_refused(file):
    opened = embedding_files.open_embeddings(file)
    write(file, make_arrays(7, 4))
    with pytest.raises(errors.UserError, match=r"embeddings were \(7, 5\) when it was opened, now they are \(7, 4\)"):
        embedding_files.read_embeddings(opened)
