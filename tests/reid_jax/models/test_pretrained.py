import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import linen as nn
from tiny_data import DATA

from reid_jax import errors
from reid_jax.models import pretrained, resnet, vit
from reid_jax.models.reid import ReidModel

IMAGES = jnp.zeros((2, 32, 32, 3))


def small_resnet(width=4):
    return resnet.ResNet((1, 1), "basic", width=width)


def small_reid(**fields):
    return ReidModel(backbone=small_resnet(), pooling="gem", neck="bn", **fields)


def variables_of(model, seed=0):
    """Random values in the model's shapes: compiling the model's own initialisation takes seconds."""
    shapes = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), IMAGES)
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), shapes)


@pytest.fixture(scope="module")
def variables():
    return variables_of(small_reid())


@pytest.fixture(scope="module")
def state(variables):
    """A torch state that fits, of random values."""
    rng = np.random.default_rng(0)
    shapes = {name: array.shape for name, array in pretrained.to_state(variables, small_resnet()).items()}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def assert_trees_equal(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_names_are_torchvisions(state):
    norm = ("weight", "bias", "running_mean", "running_var")
    norms = ["bn1"] + [f"layer{stage}.0.bn{index}" for stage in (1, 2) for index in (1, 2)] + ["layer2.0.downsample.1"]
    convolutions = ["conv1"] + [f"layer{stage}.0.conv{index}" for stage in (1, 2) for index in (1, 2)]
    expected = {f"{name}.{leaf}" for name in norms for leaf in norm}
    assert set(state) == expected | {f"{name}.weight" for name in (*convolutions, "layer2.0.downsample.0")}


def test_values_are_where_they_belong(state, variables):
    backbone = pretrained.to_variables(state, variables, small_resnet())["params"]["backbone"]
    kernel, weight = backbone["conv1"]["kernel"], state["conv1.weight"]
    assert kernel.shape == (7, 7, 3, 4) and kernel[1, 2, 0, 3] == weight[3, 0, 1, 2]
    np.testing.assert_array_equal(backbone["layer2_0"]["downsample_bn"]["scale"], state["layer2.0.downsample.1.weight"])


def test_round_trip(state, variables):
    again = pretrained.to_state(pretrained.to_variables(state, variables, small_resnet()), small_resnet())
    assert again.keys() == state.keys()
    for name in state:
        np.testing.assert_array_equal(again[name], state[name])


def test_leaves_outside_the_backbone_stay(state, variables):
    loaded = pretrained.to_variables(state, variables, small_resnet())
    assert loaded["params"]["gem_p"] == variables["params"]["gem_p"]
    assert_trees_equal(loaded["params"]["neck"], variables["params"]["neck"])
    assert jax.tree.structure(loaded) == jax.tree.structure(variables)


def test_a_bare_resnet_from_shapes(state, variables):
    shapes = jax.eval_shape(functools.partial(small_resnet().init, train=False), jax.random.key(0), IMAGES)
    loaded = pretrained.to_variables(state, shapes, small_resnet())
    assert_trees_equal(
        loaded["params"], pretrained.to_variables(state, variables, small_resnet())["params"]["backbone"]
    )


def test_classifier_and_counters_are_dropped_and_halves_widened(state, variables):
    extra = {"fc.weight": np.zeros((10, 8)), "fc.bias": np.zeros(10), "bn1.num_batches_tracked": np.array(3)}
    halves = {name: array.astype(np.float16) for name, array in state.items()}
    loaded = pretrained.to_variables(halves | extra, variables, small_resnet())
    assert {leaf.dtype for leaf in jax.tree.leaves(loaded)} == {jnp.dtype(jnp.float32)}


def test_misfits_are_listed_by_name(state, variables):
    wrong = dict(state)
    del wrong["layer1.0.bn1.bias"]
    wrong["layer3.0.conv1.weight"] = np.zeros(1, np.float32)
    wrong["layer2.0.conv1.weight"] = np.zeros((8, 4, 1, 1), np.float32)
    wrong["bn1.weight"] = np.arange(4)
    with pytest.raises(errors.UserError) as error:
        pretrained.to_variables(wrong, variables, small_resnet())
    for part in (
        "1 missing (layer1.0.bn1.bias)",
        "1 unexpected (layer3.0.conv1.weight)",
        "1 of another shape (layer2.0.conv1.weight [8, 4, 1, 1], the model's is [8, 4, 3, 3])",
        "1 not float (bn1.weight of int64)",
    ):
        assert part in str(error.value)


def test_long_lists_are_cut(variables):
    with pytest.raises(errors.UserError, match=r"30 missing \((\S+, ){4}\.\.\.\)"):
        pretrained.to_variables({"other": np.zeros(1)}, variables, small_resnet())


def test_another_width_is_told(state):
    with pytest.raises(errors.UserError, match=r"\(their width is 4, the model's 6\)"):
        pretrained.to_variables(state, variables_of(small_resnet(width=6)), small_resnet(width=6))


def state_of(backbone, height, width):
    sample = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)
    shapes = jax.eval_shape(functools.partial(backbone.init, train=False), jax.random.key(0), sample)
    return pretrained.to_state(jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes), backbone)


def test_a_state_is_checked_against_an_architecture():
    # With what published files have besides.
    published = state_of(resnet.resnet18(), 64, 32) | {"fc.weight": np.zeros((1000, 512)), "fc.bias": np.zeros(1000)}
    pretrained.check_state(published, "resnet18")
    with pytest.raises(errors.UserError, match=r"^not the weights of resnet34: .*missing \(layer1\.2"):
        pretrained.check_state(published, "resnet34")
    with pytest.raises(errors.UserError, match="^architecture must be one of resnet18, .*, got 'resnet101'"):
        pretrained.check_state(published, "resnet101")


def test_a_transformers_state_may_be_of_another_image_size():
    pretrained.check_state(state_of(vit.vit_s16(), 256, 256), "vit_s16")


def test_files_of_this_project_are_told_from_torchs(tmp_path, state, variables):
    pretrained.save_variables(tmp_path / "own.npz", variables)
    np.savez(tmp_path / "torch.npz", **state)
    (tmp_path / "damaged.npz").write_bytes(b"half a file")
    (tmp_path / "w.pth").write_bytes(b"")
    found = {path.name: pretrained.is_own_file(path) for path in tmp_path.iterdir()}
    # Reading the damaged one says what is wrong with it.
    assert found == {"own.npz": True, "torch.npz": False, "damaged.npz": True, "w.pth": False}


def write_npz(path, arrays):
    np.savez(path, **arrays)


def write_safetensors(path, arrays):
    safetensors.numpy.save_file(arrays, path)


@pytest.mark.parametrize("suffix, write", [(".npz", write_npz), (".safetensors", write_safetensors)])
def test_load_state_takes_data_parallels_prefix_off(tmp_path, state, suffix, write):
    path = tmp_path / f"weights{suffix}"
    write(path, {f"module.{name}": array for name, array in state.items()})
    loaded = pretrained.load_state(path)
    assert loaded.keys() == state.keys()
    for name in state:
        np.testing.assert_array_equal(loaded[name], state[name])


def test_load_state_reads_torch_files():
    loaded = pretrained.load_state(DATA / "tiny_checkpoint_legacy.pth")
    np.testing.assert_array_equal(loaded["row"], [4, 5, 6, 7])


def test_safetensors_bfloat16(tmp_path):
    # Written by hand: safetensors.numpy has no bfloat16.
    header = b'{"w":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
    values = np.array([1.0, -3.140625], jnp.bfloat16)
    (tmp_path / "w.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + values.tobytes())
    np.testing.assert_array_equal(pretrained.load_state(tmp_path / "w.safetensors")["w"], values)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pth", ".pt", ".bin"])
@pytest.mark.parametrize("content", [b"", b"not a weights file"])
def test_files_of_another_kind_are_told(tmp_path, suffix, content):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(errors.UserError, match=f"weights{suffix} is not a whole"):
        pretrained.load_state(path)


def test_pickled_arrays_are_refused(tmp_path):
    np.savez(tmp_path / "w.npz", w=np.array([{}], object))
    with pytest.raises(errors.UserError, match="plain arrays"):
        pretrained.load_state(tmp_path / "w.npz")


def test_a_missing_file_and_another_ending_are_told(tmp_path):
    with pytest.raises(errors.UserError, match="no weights file"):
        pretrained.load_state(tmp_path / "w.pth")
    (tmp_path / "w.h5").touch()
    with pytest.raises(errors.UserError, match="must end in .safetensors, .npz"):
        pretrained.load_state(tmp_path / "w.h5")


def test_saved_variables_come_back(tmp_path, variables):
    path = tmp_path / "new" / "weights.npz"
    pretrained.save_variables(path, variables)
    with np.load(path) as arrays:
        assert "params/backbone/conv1/kernel" in arrays.files and "batch_stats/neck/mean" in arrays.files
    zeros = jax.tree.map(jnp.zeros_like, variables)
    assert_trees_equal(pretrained.load_variables(path, zeros), variables)
    assert_trees_equal(pretrained.load_variables(path, jax.eval_shape(lambda: variables)), variables)
    assert [file.name for file in path.parent.iterdir()] == ["weights.npz"]


def test_a_file_of_the_backbone_alone_fits_any_head(tmp_path, variables):
    plain = variables_of(ReidModel(backbone=small_resnet()), seed=1)
    pretrained.save_variables(tmp_path / "w.npz", plain)
    loaded = pretrained.load_variables(tmp_path / "w.npz", variables)
    assert_trees_equal(loaded["params"]["backbone"], plain["params"]["backbone"])
    assert_trees_equal(loaded["params"]["neck"], variables["params"]["neck"])


def test_saved_variables_of_another_model_are_refused(tmp_path, variables):
    path = tmp_path / "w.npz"
    pretrained.save_variables(path, variables)
    message = r"width is 4, the model's 6.*33 of another shape \(batch_stats/backbone/bn1/mean \["
    with pytest.raises(errors.UserError, match=message):
        pretrained.load_variables(path, variables_of(ReidModel(backbone=small_resnet(6), pooling="gem", neck="bn")))
    with pytest.raises(errors.UserError, match=r"unexpected \(.*params/neck/scale"):
        pretrained.load_variables(path, variables_of(ReidModel(backbone=small_resnet(), pooling="gem")))
    larger = ReidModel(backbone=resnet.ResNet((2, 1), "basic", width=4))
    with pytest.raises(errors.UserError, match=r"10 missing \(.*layer1_1"):
        pretrained.load_variables(path, variables_of(larger))


def test_who_reads_the_old_file_is_not_disturbed(tmp_path, variables):
    path = tmp_path / "w.npz"
    path.write_bytes(b"old")
    with open(path, "rb") as reader:
        pretrained.save_variables(path, variables)
        assert reader.read() == b"old"


def test_a_failed_save_leaves_the_old_file(tmp_path, variables, monkeypatch):
    path = tmp_path / "w.npz"
    path.write_bytes(b"old")

    def write_half(file, **arrays):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", write_half)
    with pytest.raises(OSError, match="disk full"):
        pretrained.save_variables(path, variables)
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["w.pth", "w"])
def test_variables_are_npz_files(tmp_path, variables, name):
    with pytest.raises(errors.UserError, match="saved as .npz"):
        pretrained.save_variables(tmp_path / name, variables)
    (tmp_path / name).touch()
    with pytest.raises(errors.UserError, match="must be an .npz file made by data_prep/port_resnet.py"):
        pretrained.load_variables(tmp_path / name, variables)
    with pytest.raises(errors.UserError, match="no weights file"):
        pretrained.load_variables(tmp_path / "other.npz", variables)


def test_a_model_without_batch_norms(tmp_path):
    variables = {"params": nn.Dense(2).init(jax.random.key(0), jnp.ones((1, 3)))["params"], "batch_stats": {}}
    pretrained.save_variables(tmp_path / "w.npz", variables)
    assert_trees_equal(pretrained.load_variables(tmp_path / "w.npz", variables), variables)
