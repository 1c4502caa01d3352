import functools
import hashlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from tiny_data import ROOT

from reid_jax import errors
from reid_jax.data_prep import port_resnet
from reid_jax.models import pretrained, resnet
from reid_jax.models.reid import ReidModel


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A ResNet-18 state with a classifier, as torchvision's: (path, state)."""
    init = functools.partial(resnet.resnet18().init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), jax.ShapeDtypeStruct((1, 64, 32, 3), np.float32))
    rng = np.random.default_rng(0)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    state = {name: rng.random(array.shape, np.float32) for name, array in pretrained.to_state(zeros).items()}
    state |= {"fc.weight": np.zeros((10, 512), np.float32), "fc.bias": np.zeros(10, np.float32)}
    path = tmp_path_factory.mktemp("source") / "resnet18.npz"
    np.savez(path, **state)
    return path, state


def test_ports_what_a_model_loads(source, tmp_path, capsys):
    path, state = source
    output = tmp_path / "weights" / "resnet18.npz"
    port_resnet.port_resnet(str(path), "resnet18", str(output))
    printed = capsys.readouterr().out
    assert hashlib.sha256(path.read_bytes()).hexdigest() in printed
    # torchvision's 11,689,512 parameters without its classifier of 512 x 1000 + 1000; 20 convolutions and norms.
    assert f"resnet18, 100 tensors, {11_689_512 - 513_000:,} parameters" in printed
    model = ReidModel(backbone=resnet.resnet18(last_stride=1))
    sample = np.zeros((1, 64, 32, 3), np.float32)
    like = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), sample)
    loaded = pretrained.to_state(pretrained.load_variables(output, like))
    for name, array in loaded.items():
        np.testing.assert_array_equal(array, state[name])


def test_another_architecture_is_told(source, tmp_path):
    with pytest.raises(errors.UserError, match="is not a resnet34.*missing"):
        port_resnet.port_resnet(str(source[0]), "resnet34", str(tmp_path / "w.npz"))
    assert not (tmp_path / "w.npz").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("missing.pth", "resnet18", "w.npz"), "no weights file 'missing.pth'"),
        (("w.pth", "resnet101", "w.npz"), "--architecture must be one of resnet18, resnet34, resnet50"),
        (("w.pth", "resnet18", "w.pth"), "--output must end in .npz"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(errors.UserError, match=message):
        port_resnet.port_resnet(*arguments)


def test_command_line_errors_are_one_line():
    command = [sys.executable, str(ROOT / "data_prep/port_resnet.py"), "--source=x.pth", "--output=w.npz"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr == "error: --architecture: it must be given\n"
