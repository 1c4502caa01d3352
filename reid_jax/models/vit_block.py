"""A block of a vision transformer, and what it is made of."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

_LAYER_SCALE = 1e-5
_MLP_RATIO = 4


def _quick_gelu(x: jax.Array) -> jax.Array:
    return x * nn.sigmoid(1.702 * x)


ACTIVATIONS = {"gelu": functools.partial(nn.gelu, approximate=False), "quick_gelu": _quick_gelu}


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017, section 3.2).

    Attributes:
        num_heads: that the channels are divided into.
        dense: makes a linear layer from (features, name=).
    """

    num_heads: int
    dense: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, N, C] to [B, N, C]; the softmax is float32 whatever the dtype."""
        batch, num_tokens, dim = x.shape
        qkv = self.dense(3 * dim, name="qkv")(x).reshape(batch, num_tokens, 3, self.num_heads, dim // self.num_heads)
        query, key, value = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
        weights = nn.softmax(scores / np.sqrt(query.shape[-1]), axis=-1).astype(x.dtype)
        attended = jnp.einsum("bhqk,bkhd->bqhd", weights, value)
        return self.dense(dim, name="proj")(attended.reshape(batch, num_tokens, dim))


class Mlp(nn.Module):
    """Two linear layers, the hidden one four times as wide.

    Attributes:
        activation: one of `ACTIVATIONS`.
        dense: makes a linear layer from (features, name=).
    """

    activation: str
    dense: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, N, C] to [B, N, C]."""
        hidden = ACTIVATIONS[self.activation](self.dense(_MLP_RATIO * x.shape[-1], name="fc1")(x))
        return self.dense(x.shape[-1], name="fc2")(hidden)


class LayerScale(nn.Module):
    """A learned factor per channel (Touvron et al. 2021, section 2)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, N, C] to [B, N, C]."""
        gamma = self.param("gamma", nn.initializers.constant(_LAYER_SCALE), x.shape[-1:], jnp.float32)
        return x * gamma.astype(x.dtype)


class Block(nn.Module):
    """Attention and an MLP, each after a layer norm and beside a shortcut.

    Attributes:
        num_heads: of the attention.
        activation: of the MLP, one of `ACTIVATIONS`.
        layer_scale: whether what is added to the shortcuts is scaled per channel.
        dense: makes a linear layer from (features, name=).
        norm: makes a layer norm from (name=).
    """

    num_heads: int
    activation: str
    layer_scale: bool
    dense: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, N, C] to [B, N, C]."""
        y = Attention(self.num_heads, self.dense, name="attn")(self.norm(name="norm1")(x))
        x = x + (LayerScale(name="ls1")(y) if self.layer_scale else y)
        y = Mlp(self.activation, self.dense, name="mlp")(self.norm(name="norm2")(x))
        return x + (LayerScale(name="ls2")(y) if self.layer_scale else y)
