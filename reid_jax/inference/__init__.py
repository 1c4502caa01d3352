"""Trained models to use: loaded from runs, model folders and exported files."""

from reid_jax import lazy

__getattr__, __dir__ = lazy.attributes(__name__)
