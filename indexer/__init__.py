"""A corpus becomes an index: read, decode, encode, merge, index, measure, publish.

`build_index` is the entry point; `build.py` reads as the flow chart of a build.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage.lazy import lazy_exports

if TYPE_CHECKING:
    from .build import build_index
    from .config import BuildConfig
    from .corpus import EmbeddingSource, Source, SourceOptions, open_source
    from .errors import BuildError, RejectedError, ShrinkError, SourceError
    from .report import BuildReport

__all__ = [
    "BuildConfig",
    "BuildError",
    "BuildReport",
    "EmbeddingSource",
    "RejectedError",
    "ShrinkError",
    "Source",
    "SourceError",
    "SourceOptions",
    "build_index",
    "open_source",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "BuildConfig": ".config",
        "BuildError": ".errors",
        "BuildReport": ".report",
        "EmbeddingSource": ".corpus",
        "RejectedError": ".errors",
        "ShrinkError": ".errors",
        "Source": ".corpus",
        "SourceError": ".errors",
        "SourceOptions": ".corpus",
        "build_index": ".build",
        "open_source": ".corpus",
    },
)
