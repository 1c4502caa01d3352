import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from flax import linen as nn

from reid_jax.models import vit_block

DENSE = functools.partial(nn.Dense, dtype=jnp.float32)
NORM = functools.partial(nn.LayerNorm, epsilon=1e-6)


def random_params(module, x, rng):
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)


def test_activations():
    x = np.linspace(-4, 4, 33, dtype=np.float32)
    gelu = x * 0.5 * (1 + scipy.special.erf(x.astype(float) / np.sqrt(2)))
    # The approximation by tanh differs by 5e-4.
    np.testing.assert_allclose(vit_block.ACTIVATIONS["gelu"](x), gelu, atol=1e-6)
    np.testing.assert_allclose(vit_block.ACTIVATIONS["quick_gelu"](x), x * scipy.special.expit(1.702 * x), atol=1e-6)


def test_attention_equals_a_loop_over_heads(rng):
    x = rng.normal(size=(2, 5, 6)).astype(np.float32)
    module = vit_block.Attention(num_heads=3, dense=DENSE)
    variables = random_params(module, x, rng)
    qkv, proj = (variables["params"][name] for name in ("qkv", "proj"))
    # Queries of all heads first, then keys, then values.
    query, key, value = np.split(x @ qkv["kernel"] + qkv["bias"], 3, axis=-1)
    heads = []
    for head in range(3):
        channels = slice(2 * head, 2 * head + 2)
        scores = query[..., channels] @ key[..., channels].transpose(0, 2, 1) / np.sqrt(2)
        heads.append(scipy.special.softmax(scores, axis=-1) @ value[..., channels])
    expected = np.concatenate(heads, axis=-1) @ proj["kernel"] + proj["bias"]
    np.testing.assert_allclose(module.apply(variables, x), expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("layer_scale", [False, True])
def test_a_block_is_its_shortcut_where_nothing_is_added(layer_scale, rng):
    x = rng.normal(size=(2, 5, 6)).astype(np.float32)
    block = vit_block.Block(3, "gelu", layer_scale, DENSE, NORM)
    params = random_params(block, x, rng)["params"]
    assert set(params) == {"norm1", "attn", "norm2", "mlp"} | ({"ls1", "ls2"} if layer_scale else set())
    assert params["mlp"]["fc1"]["kernel"].shape == (6, 24)
    silent = [params["ls1"], params["ls2"]] if layer_scale else [params["attn"]["proj"], params["mlp"]["fc2"]]
    assert np.abs(block.apply({"params": params}, x) - x).max() > 0.1
    for module in silent:
        module.update(jax.tree.map(np.zeros_like, module))
    np.testing.assert_array_equal(block.apply({"params": params}, x), x)
