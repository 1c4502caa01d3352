"""Pictures: rows of images, cluster hierarchies, plots."""

from reid_jax import lazy

__getattr__, __dir__ = lazy.attributes(__name__)
