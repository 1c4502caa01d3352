"""Submodules that are imported when they are first used."""

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

_NONE: Mapping[str, str] = MappingProxyType({})


def attributes(package: str, functions: Mapping[str, str] = _NONE) -> Callable[[str], Any]:
    """Returns a package's `__getattr__`: its submodules, and functions by the modules they are in."""

    def get(name: str) -> Any:
        if name in functions:
            return getattr(importlib.import_module(functions[name]), name)
        if not name.startswith("_") and importlib.util.find_spec(f"{package}.{name}") is not None:
            return importlib.import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get
