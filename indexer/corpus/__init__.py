"""Corpora of every supported kind as one stream of items, and ready-made vectors in chunks.

`open_source` looks at a path and picks; `item.py` says what comes out; one file a kind of corpus.
"""

from ..errors import SourceError
from .detect_layout import open_source
from .embeddings.embedding_source import EmbeddingChunk, EmbeddingFiles, EmbeddingOptions, EmbeddingSource
from .embeddings.pair_table import kept_pairs
from .item import Item, Source, SourceOptions

__all__ = [
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
