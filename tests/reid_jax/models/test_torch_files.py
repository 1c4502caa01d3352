"""The golden files are torch's own (tests/data/make_resnet_golden.py); the bad ones are written here by hand."""

import importlib.util
import io
import pickle
import struct
import zipfile

import numpy as np
import pytest
from tiny_data import DATA

from reid_jax import errors
from reid_jax.models import torch_files

_spec = importlib.util.spec_from_file_location("make_resnet_golden", DATA / "make_resnet_golden.py")
golden_script = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(golden_script)

VALUES = np.arange(6, dtype="<f4")
# The operations of a pickle: the storage of VALUES, as torch refers to it by a persistent id.
STORAGE = b"(Vstorage\nctorch\nFloatStorage\nV0\nVcpu\nI6\nNtQ"
STORAGE_IN_ZIP = b"(Vstorage\nctorch\nFloatStorage\nV0\nVcpu\nI6\ntQ"


def integers(numbers):
    return b"(" + b"".join(b"I%d\n" % number for number in numbers) + b"t"


def tensor(offset, shape, strides, *, storage=STORAGE, function=b"_rebuild_tensor_v2"):
    arguments = storage + b"I%d\n" % offset + integers(shape) + integers(strides)
    return b"ctorch._utils\n" + function + b"\n(" + arguments + b"tR"


def state_of(value):
    return b"\x80\x02}(Vweight\n" + value + b"u."


def write_legacy(path, body, *, keys=("0",), size=6, data=VALUES.tobytes(), magic=0x1950A86A20F9469CFC6C):
    parts = [pickle.dumps(magic, 2), pickle.dumps(1001, 2), pickle.dumps({"little_endian": True}, 2), body]
    path.write_bytes(b"".join(parts) + pickle.dumps(list(keys), 2) + struct.pack("<q", size) + data)
    return path


def write_zip(path, body, *, data=VALUES.tobytes(), compression=zipfile.ZIP_STORED, **members):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in {"data.pkl": body, "data/0": data, **members}.items():
            archive.writestr(f"archive/{name}", content)
    return path


@pytest.mark.parametrize(
    "file, prefix", [("tiny_state.pth", ""), ("tiny_checkpoint_legacy.pth", "module.")], ids=["zip", "legacy"]
)
def test_reads_what_torch_wrote(file, prefix):
    state = torch_files.read_tensors(DATA / file)
    expected = golden_script.tiny_arrays()
    assert set(state) == {prefix + name for name in expected}
    for name, array in expected.items():
        found = state[prefix + name]
        np.testing.assert_array_equal(found.astype(array.dtype), array, strict=True)
        assert str(found.dtype) == ("bfloat16" if name == "bfloat16" else str(array.dtype))
        assert found.flags.writeable and found.flags.c_contiguous


def test_reads_a_state_under_model(tmp_path):
    body = b"\x80\x02}(Vepoch\nI3\nVmodel\n}(Vweight\n" + tensor(1, (2, 2), (1, 2)) + b"uu."
    state = torch_files.read_tensors(write_legacy(tmp_path / "w.pth", body))
    assert set(state) == {"weight"}
    np.testing.assert_array_equal(state["weight"], [[1, 3], [2, 4]])


def test_reads_parameters_of_torch_0_3(tmp_path):
    # Parameter(data), then its state: whether it has a gradient, whether it is volatile, its hooks.
    data = tensor(0, (2, 3), (3, 1), function=b"_rebuild_tensor")
    parameter = b"ctorch.nn.parameter\nParameter\n(" + data + b"tR(I01\nI00\nccollections\nOrderedDict\n)Rtb"
    state = torch_files.read_tensors(write_legacy(tmp_path / "w.pth", state_of(parameter)))
    np.testing.assert_array_equal(state["weight"], VALUES.reshape(2, 3))


ATTACKS = {
    "posix.system": b"cposix\nsystem\n(Vtouch %s\ntR",
    "os.system": b"cos\nsystem\n(Vtouch %s\ntR",
    "builtins.exec": b"cbuiltins\nexec\n(Vopen('%s', 'w')\ntR",
    "subprocess.Popen": b"(Vtouch %s\nisubprocess\nPopen\n",
    "__builtin__.eval": b"c__builtin__\neval\n(Vopen('%s', 'w')\ntR",
    "torch.load": b"ctorch\nload\n(V%s\ntR",
}


@pytest.mark.parametrize("write", [write_legacy, write_zip])
@pytest.mark.parametrize("name", ATTACKS)
def test_code_is_refused_by_name_and_not_run(tmp_path, name, write):
    marker = tmp_path / "ran"
    attack = ATTACKS[name].replace(b"%s", str(marker).encode())
    path = write(tmp_path / "w.pth", state_of(attack))
    with pytest.raises(errors.UserError, match=rf"refused: it asks for the Python object {name},"):
        torch_files.read_tensors(path)
    assert not marker.exists()


def test_the_attack_would_run_elsewhere(tmp_path):
    marker = tmp_path / "ran"
    pickle.load(io.BytesIO(state_of(ATTACKS["posix.system"].replace(b"%s", str(marker).encode()))))
    assert marker.exists()


def test_code_in_the_first_pickle_is_not_run(tmp_path):
    marker = tmp_path / "ran"
    (tmp_path / "w.pth").write_bytes(state_of(ATTACKS["os.system"].replace(b"%s", str(marker).encode())))
    with pytest.raises(errors.UserError, match="os.system"):
        torch_files.read_tensors(tmp_path / "w.pth")
    assert not marker.exists()


def test_an_attribute_of_a_class_cannot_be_reached(tmp_path):
    # From protocol 4 on a pickle may ask for dotted names.
    attack = b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.fromkeys\x93."
    with pytest.raises(errors.UserError, match="refused.*OrderedDict.fromkeys"):
        torch_files.read_tensors(write_zip(tmp_path / "w.pth", attack))


@pytest.mark.parametrize(
    "target", [b"ctorch._utils\n_rebuild_tensor_v2\n", b"ccollections\nOrderedDict\n", b"ctorch\nFloatStorage\n"]
)
def test_what_is_reached_cannot_be_changed(tmp_path, target):
    for state in (b"(dVname\nVx\ns", b"(N(dV__class__\nccollections\nOrderedDict\nst", b"(N(dV__doc__\nVx\nst"):
        with pytest.raises(errors.UserError, match="is not a whole torch file"):
            torch_files.read_tensors(write_zip(tmp_path / "w.pth", state_of(target + state + b"b")))


OUTSIDE, NOT_A_TENSOR = "lies outside its storage of 6 elements", "not a tensor"


@pytest.mark.parametrize(
    "offset, shape, strides, message",
    [
        (0, (7,), (1,), OUTSIDE),
        (1, (6,), (1,), OUTSIDE),
        (7, (2,), (1,), OUTSIDE),
        (0, (2, 3), (4, 1), OUTSIDE),
        (0, (1_000_000_000, 6), (0, 1), OUTSIDE),
        (0, (2**62, 2**62), (2**62, 2**62), OUTSIDE),
        (-1, (2,), (1,), NOT_A_TENSOR),
        (5, (2,), (-1,), NOT_A_TENSOR),
        (0, (-2, -3), (1, 1), NOT_A_TENSOR),
        (0, (2, 3), (1,), "shorter"),
    ],
)
@pytest.mark.parametrize("is_zip", [True, False])
def test_views_outside_their_storage_are_refused(tmp_path, is_zip, offset, shape, strides, message):
    if is_zip:
        path = write_zip(tmp_path / "w.pth", state_of(tensor(offset, shape, strides, storage=STORAGE_IN_ZIP)))
    else:
        path = write_legacy(tmp_path / "w.pth", state_of(tensor(offset, shape, strides)))
    with pytest.raises(errors.UserError, match=f"is not a whole torch file: ValueError: .*{message}"):
        torch_files.read_tensors(path)


GOOD = state_of(tensor(0, (6,), (1,)))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"size": 5}, "storage 0 has 5 elements"),
        ({"size": 2**60}, "storage 0 has 1152921504606846976 elements"),
        ({"data": VALUES.tobytes()[:-1]}, "expected 6 inside the file"),
        ({"keys": ("1",)}, "KeyError"),
        ({"keys": ()}, "KeyError"),
        ({"magic": 5}, "not a file of torch.save"),
    ],
)
def test_bad_legacy_files(tmp_path, changes, message):
    with pytest.raises(errors.UserError, match=message):
        torch_files.read_tensors(write_legacy(tmp_path / "w.pth", GOOD, **changes))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"data": VALUES.tobytes() + b"x"}, "storage 0 has 25 bytes, expected 6"),
        ({"compression": zipfile.ZIP_DEFLATED}, "is compressed"),
        ({"byteorder": b"big"}, "big-endian"),
    ],
)
def test_bad_zip_files(tmp_path, changes, message):
    body = state_of(tensor(0, (6,), (1,), storage=STORAGE_IN_ZIP))
    with pytest.raises(errors.UserError, match=message):
        torch_files.read_tensors(write_zip(tmp_path / "w.pth", body, **changes))


def test_another_zip_archive_is_told(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        archive.writestr("readme.txt", "")
    with pytest.raises(errors.UserError, match="not one of torch.save"):
        torch_files.read_tensors(tmp_path / "w.pth")


@pytest.mark.parametrize(
    "body, found",
    [(b"\x80\x02}(Vepoch\nI3\nu.", "it holds 'epoch'"), (b"\x80\x02I3\n.", "it holds an object of type int")],
)
def test_a_file_without_tensors_is_told(tmp_path, body, found):
    with pytest.raises(errors.UserError, match=f"holds no tensors.*{found}"):
        torch_files.read_tensors(write_legacy(tmp_path / "w.pth", body))


@pytest.mark.parametrize("file", ["tiny_state.pth", "tiny_checkpoint_legacy.pth"])
def test_damaged_files_never_end_in_another_error(tmp_path, file):
    original = (DATA / file).read_bytes()
    rng, path, refused = np.random.default_rng(0), tmp_path / "w.pth", 0
    damaged = [original[:length] for length in range(0, len(original), 37)]
    for _ in range(400):
        content = bytearray(original)
        content[rng.integers(len(content))] = rng.integers(256)
        damaged.append(bytes(content))
    for content in damaged:
        path.write_bytes(content)
        try:
            torch_files.read_tensors(path)
        except errors.UserError:
            refused += 1
    assert refused > len(original) // 37
