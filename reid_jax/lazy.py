"""Submodules that are imported when they are first used."""

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

_NONE: Mapping[str, str] = MappingProxyType({})


def attributes(
    package: str, functions: Mapping[str, str] = _NONE, *, loaded: Sequence[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Returns a package's `__getattr__` and `__dir__`, which know its submodules before they are imported.

    Args:
        package: its name.
        functions: other names by the modules that they are in.
        loaded: names that the package imports itself.
    """

    def get(name: str) -> Any:
        if name in functions:
            return getattr(importlib.import_module(functions[name]), name)
        if not name.startswith("_") and importlib.util.find_spec(f"{package}.{name}") is not None:
            return importlib.import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def names() -> list[str]:
        submodules = (module.name for module in pkgutil.iter_modules(sys.modules[package].__path__))
        return sorted({*functions, *loaded, *submodules})

    return get, names
