"""The public API of Twinlens in one import; every name is imported on first use.

import twinlens

twinlens.build_index("photos/", "photos.index", encoder="lite")
with twinlens.Searcher.open("photos.index") as searcher:
    hits = searcher.text_to_image("a dog in the snow", k=5)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage.lazy import lazy_exports

if TYPE_CHECKING:
    from encoders import EncoderError, load_encoder
    from indexer import BuildError, build_index
    from matcher import Matcher, MatcherError
    from searcher import Query, Searcher, SearchError, evaluate_index
    from searcher.client import AsyncClient, Client
    from storage import StorageError, TwinlensError
    from training import TrainingError

__all__ = [
    "AsyncClient",
    "BuildError",
    "Client",
    "EncoderError",
    "Matcher",
    "MatcherError",
    "Query",
    "SearchError",
    "Searcher",
    "StorageError",
    "TrainingError",
    "TwinlensError",
    "build_index",
    "evaluate_index",
    "load_encoder",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "AsyncClient": "searcher.client",
        "BuildError": "indexer",
        "Client": "searcher.client",
        "EncoderError": "encoders",
        "Matcher": "matcher",
        "MatcherError": "matcher",
        "Query": "searcher",
        "SearchError": "searcher",
        "Searcher": "searcher",
        "StorageError": "storage",
        "TrainingError": "training",
        "TwinlensError": "storage",
        "build_index": "indexer",
        "evaluate_index": "searcher",
        "load_encoder": "encoders",
    },
)
