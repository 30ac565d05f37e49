"""An index on disk: immutable versions of vectors, catalog and ANN files, published whole or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .lazy import lazy_exports

if TYPE_CHECKING:
    from .errors import StorageError, TwinlensError
    from .manifest import Manifest
    from .schema import AnnPlan, CollectionInfo, EncoderInfo, OperatingPoint
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


# `import storage` alone loads neither Arrow nor DuckDB nor FAISS.
__getattr__ = lazy_exports(
    __name__,
    {
        "AnnPlan": ".schema",
        "CollectionInfo": ".schema",
        "EncoderInfo": ".schema",
        "IndexStore": ".store",
        "IndexVersion": ".version",
        "Manifest": ".manifest",
        "OperatingPoint": ".schema",
        "StorageError": ".errors",
        "TwinlensError": ".errors",
        "VectorTable": ".vectors",
    },
)
