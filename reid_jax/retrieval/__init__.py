"""Searching a gallery and sorting images into people, by their embeddings."""

from reid_jax import lazy

__getattr__, __dir__ = lazy.attributes(__name__)
