"""What an update takes over: the vectors of items that have not changed since the current version."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from encoders import DecodeLimits, ImageError
from encoders.formats.films import film_of
from encoders.images import read_image_file
from storage import IndexVersion, Manifest
from storage.schema import COLLECTIONS, Collection

from ..corpus.item import Item, LazyBytes, file_of
from ..errors import ContentError
from .known_films import KnownFilms
from .known_items import KnownItem, KnownItems
from .shards import changed_ns, file_state, path_of, text_sha256


class Reuse(Protocol):
    """Where a build looks for vectors that exist already."""

    def unchanged(self, item: Item) -> KnownItem | None:
        """Return the item as it is known if its content is certainly the same, without reading it."""

    def by_content(self, item: Item, limits: DecodeLimits, content: bytes | None = None) -> KnownItem | None:
        """Return an image with the same bytes, whatever its id, with the file as it is now; it may be read for that."""

    def same_bytes(self, item: Item, sha256: str) -> KnownItem | None:
        """Return an item of that collection whose content has this checksum, whatever its id."""

    def vector(self, collection: Collection, row_id: int) -> np.ndarray:
        """Return one stored vector, (dim,) float16."""


class NoReuse:
    """A build from nothing."""

    def unchanged(self, item: Item) -> KnownItem | None:
        """Return None."""
        return None

    def by_content(self, item: Item, limits: DecodeLimits, content: bytes | None = None) -> KnownItem | None:
        """Return None."""
        return None

    def same_bytes(self, item: Item, sha256: str) -> KnownItem | None:
        """Return None."""
        return None

    def vector(self, collection: Collection, row_id: int) -> np.ndarray:
        """Raise, since nothing is known."""
        raise KeyError(row_id)


class VersionReuse:
    """Takes over from an open version of the index that is being updated."""

    def __init__(self, version: IndexVersion, prompt: str | None = None, metadata: Iterable[str] = ()) -> None:
        """Hold what the version has; its texts count only where they went through the same `prompt`.

        `metadata` are the columns that the user has now.
        """
        self._version = version
        same_prompt = version.manifest.encoding.prompt == prompt
        self._known: dict[str, KnownItems] = {
            collection: KnownItems(version, collection, metadata)
            for collection in COLLECTIONS
            if collection == "images" or same_prompt
        }
        self._films = KnownFilms(version.manifest)
        self._read_from = read_from_of(version.manifest)

    def unchanged(self, item: Item) -> KnownItem | None:
        """Compare size, modification time and last change of a file or an archive, or the checksum of a text."""
        if isinstance(item.content, str):
            return self.same_bytes(item, text_sha256(item.content))
        items = self._known.get(item.collection)
        known = None if items is None else items.of_id(item.item_id)
        if known is None or isinstance(item.content, bytes) or known.uri != item.uri or self._changed_since(item):
            return None
        if isinstance(item.content, LazyBytes):
            return known if item.content.is_unchanged(known.info.file_bytes, known.info.mtime_ns) else None
        return known if file_state(item.content) == (known.info.file_bytes, known.info.mtime_ns) else None

    def by_content(self, item: Item, limits: DecodeLimits, content: bytes | None = None) -> KnownItem | None:
        """Read what has as many bytes as a known image, and compare checksums."""
        if isinstance(item.content, Path) and film_of(item.content.name):
            return self._frame(item)
        size, mtime_ns = _state(item) if content is None else (len(content), None)
        if not self._known["images"].has_size(size):
            return None
        try:
            data = _read(item.content, limits) if content is None else content
        except (ImageError, ContentError):
            return None  # it is rejected where it is opened
        known = self.same_bytes(item, hashlib.sha256(data).hexdigest())
        return known and replace(known, info=replace(known.info, file_bytes=size, mtime_ns=mtime_ns))

    def _frame(self, item: Item) -> KnownItem | None:
        """Return a frame of a film with the same bytes, wherever that lay."""
        size, mtime_ns = file_state(Path(str(item.content))) or (None, None)
        before = self._films.frame_before(item) if self._known["images"].has_size(size) else None
        known = None if before is None else self._known["images"].of_id(before)
        return known and replace(known, info=replace(known.info, file_bytes=size, mtime_ns=mtime_ns))

    def same_bytes(self, item: Item, sha256: str) -> KnownItem | None:
        """Compare checksums."""
        items = self._known.get(item.collection)
        return None if items is None else items.of_sha256(sha256)

    def vector(self, collection: Collection, row_id: int) -> np.ndarray:
        """Read one vector of the version."""
        vector: np.ndarray = self._version.vectors(collection).gather(np.array([row_id], dtype=np.int64))[0]
        return vector

    def _changed_since(self, item: Item) -> bool:
        """Whether the file was written, renamed or replaced after the version began to read, whatever its times say."""
        path = path_of(item)
        return path is not None and self._read_from is not None and changed_ns(path) >= self._read_from


def read_from_of(manifest: Manifest) -> int | None:
    """Return when the build of a version began to read its corpus, in ns; None where that was not kept."""
    value = manifest.build.get("read_from_ns")
    return value if isinstance(value, int) else None


def _state(item: Item) -> tuple[int | None, int | None]:
    """Bytes and modification time; None for what cannot be known or is no file of its own."""
    if isinstance(item.content, bytes):
        return len(item.content), None
    if isinstance(item.content, LazyBytes):
        return item.content.state or (None, None)
    path = Path(item.content)
    return (file_state(path) if file_of(path) == path else None) or (None, None)


def _read(content: Path | bytes | str | LazyBytes, limits: DecodeLimits) -> bytes:
    if isinstance(content, LazyBytes):
        return content.read(limits.max_bytes)
    return content if isinstance(content, bytes) else read_image_file(Path(content), limits)
