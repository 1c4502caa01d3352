"""What XLA compiled is kept in the user's cache folder, so that the second start of a command compiles nothing."""

import os
import pathlib

import jax


def enable() -> None:
    """Turns JAX's persistent cache on, unless JAX's own settings say where it is, or that there is none.

    The same program compiled again would be the same: results do not change. JAX_COMPILATION_CACHE_DIR chooses another
    folder, JAX_ENABLE_COMPILATION_CACHE=false does without.
    """
    if jax.config.jax_compilation_cache_dir is None:
        home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path("~/.cache").expanduser()
        jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(home, "reid_jax", "xla")))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
