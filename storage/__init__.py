"""An index on disk: immutable versions of vectors, catalog and ANN files, published whole or not at all."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import StorageError, TwinlensError
    from .manifest import Manifest
    from .spec import AnnPlan, CollectionInfo, EncoderInfo, OperatingPoint
    from .store import IndexStore
    from .vectors import VectorTable
    from .version import IndexVersion

__all__ = [
    "AnnPlan",
    "CollectionInfo",
    "EncoderInfo",
    "IndexStore",
    "IndexVersion",
    "Manifest",
    "OperatingPoint",
    "StorageError",
    "TwinlensError",
    "VectorTable",
]

_MODULES = {
    "AnnPlan": "spec",
    "CollectionInfo": "spec",
    "EncoderInfo": "spec",
    "IndexStore": "store",
    "IndexVersion": "version",
    "Manifest": "manifest",
    "OperatingPoint": "spec",
    "StorageError": "errors",
    "TwinlensError": "errors",
    "VectorTable": "vectors",
}


def __getattr__(name: str) -> Any:
    # On first use: `import storage` alone loads neither Arrow nor DuckDB nor FAISS.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
