"""Published weights: a catalogue of them, and those that are in the user's cache."""

from reid_jax import lazy

__getattr__, __dir__ = lazy.attributes(__name__)
