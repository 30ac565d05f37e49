"""What an update takes over: the vectors of items that have not changed since the current version."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from storage import IndexVersion
from storage.schema import COLLECTIONS, Collection

from ..config import recorded_prompt
from ..corpus.item import Item, LazyBytes
from .shards import file_state


@dataclass(frozen=True, slots=True)
class KnownItem:
    """What the current version says of one item."""

    row_id: int
    uri: str | None
    sha256: str
    width: int | None = None
    height: int | None = None
    file_bytes: int | None = None
    mtime_ns: int | None = None


class Reuse(Protocol):
    """Where a build looks for vectors that exist already."""

    def unchanged(self, item: Item) -> KnownItem | None:
        """Return the item as it is known if its content is certainly the same, without reading it."""

    def same_bytes(self, item: Item, sha256: str) -> KnownItem | None:
        """Return the item as it is known if its content has this checksum."""

    def vector(self, collection: Collection, row_id: int) -> np.ndarray:
        """Return one stored vector, (dim,) float16."""


class NoReuse:
    """A build from nothing."""

    def unchanged(self, item: Item) -> KnownItem | None:
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

    def __init__(self, version: IndexVersion, prompt: str | None = None) -> None:
        """Hold what the version has; its texts count only where they went through the same `prompt`."""
        self._version = version
        self._known = {collection: _known_items(version, collection) for collection in COLLECTIONS}
        if recorded_prompt(version.manifest.build) != prompt:
            self._known["texts"] = {}

    def unchanged(self, item: Item) -> KnownItem | None:
        """Compare size and modification time of a file or an archive, or the checksum of a text."""
        known = self._known[item.collection].get(item.item_id)
        if known is None or isinstance(item.content, bytes):
            return None
        if isinstance(item.content, LazyBytes):
            same = item.content.is_unchanged(known.file_bytes, known.mtime_ns) and known.uri == item.uri
            return known if same else None
        if isinstance(item.content, Path):
            same = file_state(item.content) == (known.file_bytes, known.mtime_ns) and known.uri == item.uri
            return known if same else None
        return known if text_sha256(item.content) == known.sha256 else None

    def same_bytes(self, item: Item, sha256: str) -> KnownItem | None:
        """Compare checksums."""
        known = self._known[item.collection].get(item.item_id)
        return known if known is not None and known.sha256 == sha256 else None

    def vector(self, collection: Collection, row_id: int) -> np.ndarray:
        """Read one vector of the version."""
        vector: np.ndarray = self._version.vectors(collection).gather(np.array([row_id], dtype=np.int64))[0]
        return vector


def text_sha256(text: str) -> str:
    """Return the checksum of a text's UTF-8 bytes."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _known_items(version: IndexVersion, collection: Collection) -> dict[str, KnownItem]:
    names = ["row_id", "uri", "sha256"]
    if collection == "images":
        names += ["width", "height", "file_bytes", "mtime_ns"]
    table = version.catalog.table(collection).select(["item_id", *names])
    rows: list[dict[str, Any]] = table.to_pylist()
    return {row.pop("item_id"): KnownItem(**row) for row in rows}
