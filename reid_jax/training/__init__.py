"""The train step, an epoch of it, and optimizers."""

from reid_jax import lazy

__getattr__, __dir__ = lazy.attributes(__name__)
