"""The rows and tables of sweeps over configs."""

from reid_jax import lazy

__getattr__, __dir__ = lazy.attributes(__name__)
