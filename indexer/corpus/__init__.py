"""Corpora of every supported kind as one stream of items, and ready-made vectors in chunks.

`open_source` opens a path; `item.py` says what it gives; each kind of corpus has a file of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage.lazy import lazy_exports

if TYPE_CHECKING:
    from ..errors import ContentError, SourceError
    from .detect_layout import open_source
    from .embeddings.embedding_source import EmbeddingChunk, EmbeddingFiles, EmbeddingOptions, EmbeddingSource
    from .embeddings.pair_table import kept_pairs
    from .item import Item, Source, SourceOptions

__all__ = [
    "ContentError",
    "EmbeddingChunk",
    "EmbeddingFiles",
    "EmbeddingOptions",
    "EmbeddingSource",
    "Item",
    "Source",
    "SourceError",
    "SourceOptions",
    "kept_pairs",
    "open_source",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "ContentError": "indexer.errors",
        "EmbeddingChunk": ".embeddings.embedding_source",
        "EmbeddingFiles": ".embeddings.embedding_source",
        "EmbeddingOptions": ".embeddings.embedding_source",
        "EmbeddingSource": ".embeddings.embedding_source",
        "Item": ".item",
        "Source": ".item",
        "SourceError": "indexer.errors",
        "SourceOptions": ".item",
        "kept_pairs": ".embeddings.pair_table",
        "open_source": ".detect_layout",
    },
)
