"""Raw data sets turned into prepared ones."""

from reid_jax import lazy

__getattr__, __dir__ = lazy.attributes(__name__)
