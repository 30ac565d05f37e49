"""Lazy exports (PEP 562): a package whose names are imported on first use, so that importing it stays cheap."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_exports(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a `__getattr__` for a package that imports each exported name when it is first used.

    Args:
        package: `__name__` of the package.
        modules: Each exported name, and the module that defines it: relative (`.store`) or absolute (`searcher`).
    """

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(modules[name], package), name)
        # The next use finds the name itself, without this function.
        setattr(sys.modules[package], name, value)
        return value

    return get
