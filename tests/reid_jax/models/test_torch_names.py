import numpy as np
import pytest

from reid_jax.models import torch_names


@pytest.mark.parametrize(
    ("path", "options", "name"),
    [
        ("conv1/kernel", {}, "conv1.weight"),
        ("layer1_0/bn1/scale", {}, "layer1_0.bn1.weight"),
        ("neck/bn/mean", {}, "neck.bn.running_mean"),
        ("neck/bn/var", {}, "neck.bn.running_var"),
        ("a/b/bias", {}, "a.b.bias"),
        ("cls_token", {}, "cls_token"),
        ("pos_embed", {"underscores": True}, "pos_embed"),
        ("features_1/conv_0_1/var", {"underscores": True}, "features.1.conv.0.1.running_var"),
    ],
)
def test_dotted(path, options, name):
    assert torch_names.dotted(path, **options) == name


def test_heads_and_counters_are_left_out():
    names = ("fc.weight", "fc1.weight", "bn1.num_batches_tracked", "head.bias", "conv1.weight")
    state = {name: np.zeros(1) for name in names}
    assert set(torch_names.without_heads(state, "fc.", "head.")) == {"fc1.weight", "conv1.weight"}
    assert set(torch_names.without_heads(state)) == set(names) - {"bn1.num_batches_tracked"}
