"""Backbones, pooling, heads, and the weights they start from."""

from reid_jax import lazy

__getattr__, __dir__ = lazy.attributes(__name__)
