"""Searching a gallery and sorting images into people, by their embeddings."""

from reid_jax import lazy

__getattr__ = lazy.attributes(__name__)
