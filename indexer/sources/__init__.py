"""Corpora of every supported kind as one stream of items, and ready-made vectors in chunks.

`open_source` looks at a path and picks; `item.py` says what comes out; one file a kind of corpus.
"""

from .embeddings import EmbeddingChunk, EmbeddingFiles, EmbeddingOptions, EmbeddingSource
from .folder import IMAGE_SUFFIXES
from .item import Item, Source
from .opening import open_source
from .options import SourceOptions
from .pairs import kept_pairs

__all__ = [
    "IMAGE_SUFFIXES",
    "EmbeddingChunk",
    "EmbeddingFiles",
    "EmbeddingOptions",
    "EmbeddingSource",
    "Item",
    "Source",
    "SourceOptions",
    "kept_pairs",
    "open_source",
]
