"""The parts of a report on runs."""

from reid_jax import lazy

__getattr__, __dir__ = lazy.attributes(__name__)
