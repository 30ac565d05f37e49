"""The folder that `clip-retrieval inference` writes: vectors of images and texts with a table beside them, in parts.

    img_emb/img_emb_0.npy  text_emb/text_emb_0.npy  metadata/metadata_0.parquet

Row n of each belongs together: an image, its caption, and what was known of both. Either half may be left out.
"""

from __future__ import annotations

from pathlib import Path

from ...errors import SourceError
from ..file_pattern import is_there
from ..item import SourceOptions
from .embedding_source import EmbeddingFiles, EmbeddingOptions, EmbeddingSource

IMAGES, TEXTS, METADATA = "img_emb", "text_emb", "metadata"


def is_clip_retrieval(folder: Path) -> bool:
    """Whether a folder holds vectors of images or texts as clip-retrieval writes them."""
    if not is_there(folder):
        return False
    return any(next((folder / name).glob("*.npy"), None) is not None for name in (IMAGES, TEXTS))


def open_clip_retrieval(folder: Path, options: SourceOptions | None = None) -> EmbeddingSource:
    """The vectors of such a folder, with `image_path` as uris, `caption` as captions and the rest as metadata.

    Raises:
        SourceError: A part cannot be read, the parts do not fit each other, or `options` name columns of a corpus.
    """
    if options is not None and options != SourceOptions():
        raise SourceError(
            f"folder {str(folder)!r} holds ready-made vectors (img_emb, text_emb), which take no columns, splits or "
            "layouts; leave those out, or name the corpus itself"
        )
    return EmbeddingSource(EmbeddingOptions(images=_side(folder, IMAGES), texts=_side(folder, TEXTS), aligned=True))


def _side(folder: Path, name: str) -> EmbeddingFiles | None:
    table = folder / METADATA
    vectors = folder / name
    return EmbeddingFiles(vectors=vectors, table=table if table.is_dir() else None) if vectors.is_dir() else None
