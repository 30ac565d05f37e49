"""Whether an update would give the version that is there already."""

from __future__ import annotations

from storage import IndexVersion, Manifest

from .config import BuildConfig
from .corpus import Source
from .corpus.item import printable
from .encode.known_items import columns_to_fill, filled_columns
from .encode.reuse import read_from_of
from .encode.shards import Corpus


def is_up_to_date(version: IndexVersion, source: Source, corpus: Corpus, config: BuildConfig) -> bool:
    """Whether an update would give the version that is there already; told without loading the encoder."""
    manifest = version.manifest
    known = manifest.corpus
    if known is None or (known.root, known.digest) != (image_root(source), corpus.digest):
        return False
    if changed_on_disk(manifest, corpus) or not manifest.has_words:
        return False
    if corpus.images and not columns_to_fill(source.metadata_schema.names) <= filled_columns(manifest):
        return False
    if manifest.counts.rejected > config.rejection_limit(corpus.items):
        return False
    if manifest.counts.rejected and (manifest.build.get("source_options") or {}).get("allow_urls"):
        return False  # what could not be fetched then may be there now
    before = {**(manifest.build.get("config") or {}), "prompt": manifest.encoding.prompt}
    before.setdefault("portable", False)
    before.setdefault("vector_dtype", "float16")
    before["words_columns"] = tuple(before.get("words_columns") or ())
    settings = ("ann", "prompt", "max_pixels", "max_file_bytes", "portable", "words_columns", "vector_dtype")
    encoder = manifest.encoder.spec if manifest.encoder else None
    if config.encoder not in (None, encoder):
        return False
    return all(before.get(name) == getattr(config, name) for name in settings)


def image_root(source: Source) -> str:
    """The absolute folder of the images: an update of a corpus that has moved is no update without changes."""
    return printable(str(source.root.resolve()))


def changed_on_disk(manifest: Manifest, corpus: Corpus) -> bool:
    """Whether a file was written, renamed or replaced since, even where no size and no modification time tells it."""
    known = read_from_of(manifest)
    return known is not None and corpus.changed_ns >= known
