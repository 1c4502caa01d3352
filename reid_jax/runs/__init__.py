"""A run: its config, session, run directory, checkpoints, logs and results."""

from reid_jax import lazy

__getattr__, __dir__ = lazy.attributes(__name__)
