"""Unsupervised person re-identification in JAX: pure functions from images to pseudo labels and back."""

__version__ = "0.1.0"
