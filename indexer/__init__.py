"""A corpus becomes an index: read, decode, encode, merge, index, measure, publish.

`build_index` is the way in; `build.py` reads as the flow chart, one file a step.
"""

from .build import build_index
from .config import BuildConfig
from .errors import BuildError, RejectedError, SourceError
from .report import BuildReport
from .sources import EmbeddingSource, Source, SourceOptions, open_source

__all__ = [
    "BuildConfig",
    "BuildError",
    "BuildReport",
    "EmbeddingSource",
    "RejectedError",
    "Source",
    "SourceError",
    "SourceOptions",
    "build_index",
    "open_source",
]
