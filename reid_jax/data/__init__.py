"""Prepared data sets and folders of images, as samples and batches."""

from reid_jax import lazy

__getattr__, __dir__ = lazy.attributes(__name__)
