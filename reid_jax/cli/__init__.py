"""The command line."""

from reid_jax import lazy

__getattr__ = lazy.attributes(__name__)
