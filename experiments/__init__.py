"""What a person starts: one script per method or task."""

from reid_jax import lazy

__getattr__, __dir__ = lazy.attributes(__name__)
