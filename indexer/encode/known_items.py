"""The items of a version in columns, each found by its id or by the checksum of its content.

200 MB a million images; as Python objects they took 740.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage import IndexVersion, Manifest
from storage.schema import IMAGE_INFO_COLUMNS, LATER_COLUMNS, TOLD_COLUMNS, Collection, ImageInfo

_BATCH = 1 << 16
IMAGE_COLUMNS_KEY = "image_columns"  # of the build report in a manifest


@dataclass(frozen=True, slots=True)
class KnownItem:
    """One item of the current version; of a text only the checksum in `info` is known.

    Attributes:
        row_id: Its row.
        uri: Where it came from.
        info: What the version knows of it.
        missing: The fields of `info` that the version has no columns for, and its successor is to have.
    """

    row_id: int
    uri: str | None
    info: ImageInfo
    missing: frozenset[str] = frozenset()


class KnownItems:
    """What a version knows of the items of one collection."""

    def __init__(self, version: IndexVersion, collection: Collection, metadata: Iterable[str] = ()) -> None:
        """Hold what a version has; `metadata` are the user's columns now, for which no image need be read."""
        present = {name for name, _ in version.catalog.columns(collection)}
        # Any other that came later is the user's.
        present -= LATER_COLUMNS - filled_columns(version.manifest)
        names = ["item_id", "uri", *(name for name in IMAGE_INFO_COLUMNS if name in present)]
        table = version.catalog.table(collection, names)
        self._columns = {name: _whole(table.column(name)) for name in names}
        self._missing = columns_to_fill(metadata) - present if collection == "images" else frozenset()
        self._by_id = _TextIndex(self._columns["item_id"])
        self._by_sha256 = _TextIndex(self._columns["sha256"])
        sizes = self._columns.get("file_bytes", pa.array([], pa.int64()))
        self._sizes = np.asarray(pc.drop_null(pc.unique(sizes)).sort())

    def of_id(self, item_id: str) -> KnownItem | None:
        """Return the item of an id."""
        return self._at(self._by_id.row(item_id))

    def of_sha256(self, sha256: str) -> KnownItem | None:
        """Return an item whose content has this checksum, the last one where there are several."""
        return self._at(self._by_sha256.row(sha256))

    def has_size(self, file_bytes: int | None) -> bool:
        """Whether any file has so many bytes; one of none counts for nothing."""
        if not file_bytes:
            return False
        place = int(np.searchsorted(self._sizes, file_bytes))
        return place < len(self._sizes) and int(self._sizes[place]) == file_bytes

    def _at(self, row: int | None) -> KnownItem | None:
        if row is None:
            return None
        info: dict[str, Any] = {
            name: self._columns[name][row].as_py() if name in self._columns else None for name in IMAGE_INFO_COLUMNS
        }
        if isinstance(info["keywords"], list):
            info["keywords"] = tuple(info["keywords"])
        return KnownItem(row, self._columns["uri"][row].as_py(), ImageInfo(**info), self._missing)


def filled_columns(manifest: Manifest) -> frozenset[str]:
    """Return those of the later columns that a version has from its images, and not from its user."""
    names = manifest.build.get(IMAGE_COLUMNS_KEY)
    return LATER_COLUMNS.intersection(names) if isinstance(names, list) else frozenset()


def columns_to_fill(metadata: Iterable[str]) -> frozenset[str]:
    """Return those of the later columns that the user has none of the same name for, or may have none."""
    return LATER_COLUMNS - (TOLD_COLUMNS & {name.casefold() for name in metadata})


class _TextIndex:
    """Finds the row of a text by hash, 12 bytes a row."""

    def __init__(self, texts: pa.Array) -> None:
        self._texts = texts
        hashes = np.fromiter((hash(text) for text in _values(texts)), dtype=np.int64, count=len(texts))
        order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[order]
        self._rows = order.astype(np.uint32 if len(order) < 1 << 32 else np.int64)

    def row(self, text: str) -> int | None:
        """Return the last row that has this text."""
        place = int(np.searchsorted(self._hashes, hash(text), side="right")) - 1
        while place >= 0 and self._hashes[place] == hash(text):
            row = int(self._rows[place])
            if self._texts[row].as_py() == text:
                return row
            place -= 1
        return None


def _values(texts: pa.Array) -> Iterator[str | None]:
    for start in range(0, len(texts), _BATCH):
        yield from texts.slice(start, _BATCH).to_pylist()


def _whole(column: pa.ChunkedArray) -> pa.Array:
    """The column in one piece, in which a value is found at once; texts may be more than 2 GB."""
    if pa.types.is_string(column.type):
        column = column.cast(pa.large_string())
    return column.combine_chunks()
