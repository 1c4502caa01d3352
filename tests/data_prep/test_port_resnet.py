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
from reid_jax.models import backbones, pretrained, resnet
from reid_jax.models.reid import ReidModel


def random_state(backbone, height, width):
    """A state by torch's names that fits a backbone on images of that size."""
    sample = jax.ShapeDtypeStruct((1, height, width, 3), np.float32)
    shapes = jax.eval_shape(functools.partial(backbone.init, train=False), jax.random.key(0), sample)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    rng = np.random.default_rng(0)
    return {name: rng.random(array.shape, np.float32) for name, array in pretrained.to_state(zeros, backbone).items()}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A ResNet-18 state with a classifier, as torchvision's: (path, state)."""
    state = random_state(resnet.resnet18(), 64, 32)
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
    loaded = pretrained.to_state(pretrained.load_variables(output, like), model.backbone)
    assert loaded.keys() == state.keys() - {"fc.weight", "fc.bias"}
    for name, array in loaded.items():
        np.testing.assert_array_equal(array, state[name])


@pytest.mark.parametrize("architecture", ["mobilenet_v2", "vit_s16"])
def test_other_backbones_are_ported(architecture, tmp_path):
    height, width = backbones.natural_size(architecture)
    state = random_state(backbones.make(architecture), height, width)
    np.savez(tmp_path / "state.npz", **state)
    port_resnet.port_resnet(str(tmp_path / "state.npz"), architecture, str(tmp_path / "w.npz"))
    model = ReidModel(backbone=backbones.make(architecture), pooling=backbones.find(architecture).pooling)
    sample = np.zeros((1, height, width, 3), np.float32)
    like = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), sample)
    loaded = pretrained.to_state(pretrained.load_variables(tmp_path / "w.npz", like), model.backbone)
    assert loaded.keys() == state.keys()
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
        (("w.pth", "resnet101", "w.npz"), "--architecture must be one of resnet18, .*, got 'resnet101'"),
        (("w.pth", "color_histogram", "w.npz"), "--architecture must be one of .*vit_b16_clip, got 'color_histogram'"),
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
