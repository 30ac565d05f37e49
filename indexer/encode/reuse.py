"""What an update takes over: the vectors of items that have not changed since the current version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from storage import IndexVersion
from storage.schema import COLLECTIONS, IMAGE_INFO_COLUMNS, Collection, ImageInfo

from ..corpus.item import Item, LazyBytes
from .shards import file_state, text_sha256


@dataclass(frozen=True, slots=True)
class KnownItem:
    """One item of the current version; of a text only the checksum in `info` is known."""

    row_id: int
    uri: str | None
    info: ImageInfo


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
        if version.manifest.encoding.prompt != prompt:
            self._known["texts"] = {}

    def unchanged(self, item: Item) -> KnownItem | None:
        """Compare size and modification time of a file or an archive, or the checksum of a text."""
        known = self._known[item.collection].get(item.item_id)
        if known is None or isinstance(item.content, bytes):
            return None
        if isinstance(item.content, LazyBytes):
            same = item.content.is_unchanged(known.info.file_bytes, known.info.mtime_ns) and known.uri == item.uri
            return known if same else None
        if isinstance(item.content, Path):
            same = file_state(item.content) == (known.info.file_bytes, known.info.mtime_ns) and known.uri == item.uri
            return known if same else None
        return known if text_sha256(item.content) == known.info.sha256 else None

    def same_bytes(self, item: Item, sha256: str) -> KnownItem | None:
        """Compare checksums."""
        known = self._known[item.collection].get(item.item_id)
        return known if known is not None and known.info.sha256 == sha256 else None

    def vector(self, collection: Collection, row_id: int) -> np.ndarray:
        """Read one vector of the version."""
        vector: np.ndarray = self._version.vectors(collection).gather(np.array([row_id], dtype=np.int64))[0]
        return vector


def _known_items(version: IndexVersion, collection: Collection) -> dict[str, KnownItem]:
    table = version.catalog.table(collection)
    present = [name for name in IMAGE_INFO_COLUMNS if name in table.column_names]
    rows: list[dict[str, Any]] = table.select(["item_id", "row_id", "uri", *present]).to_pylist()
    return {row["item_id"]: KnownItem(row["row_id"], row["uri"], _info(row)) for row in rows}


def _info(row: Mapping[str, Any]) -> ImageInfo:
    return ImageInfo(**{name: row.get(name) for name in IMAGE_INFO_COLUMNS})  # type: ignore[arg-type]
