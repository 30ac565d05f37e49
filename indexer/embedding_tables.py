"""Ready-made vectors in the form of encoded shards, so that they are merged like everything else."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from storage.spec import COLLECTIONS, Collection

from .progress import Progress
from .reuse import text_sha256
from .shard_table import ITEM_FIELDS
from .sources import EmbeddingChunk, EmbeddingSource, kept_pairs

_Value = TypeVar("_Value")


class EmbeddingTables:
    """Turns the chunks of a source into shard tables, and remembers which rows were kept."""

    def __init__(self, source: EmbeddingSource, progress: Progress) -> None:
        self._source, self._progress = source, progress
        self._kept: dict[Collection, list[np.ndarray]] = {name: [] for name in COLLECTIONS}

    def tables(self) -> Iterator[pa.Table]:
        """Yield all images, then all texts, a bounded number of rows at a time."""
        for collection in COLLECTIONS:
            self._progress.stage(f"read {collection}", self._source.rows(collection))
            for rows, table in _ahead(self._read(collection)):
                self._kept[collection].append(rows)
                yield table
                self._progress.advance(table.num_rows)

    def pairs(self) -> np.ndarray:
        """Return (n, 2) int64 image and text row ids, once all tables have been taken."""
        rows = [np.concatenate([np.zeros(0, np.int64), *self._kept[name]]) for name in COLLECTIONS]
        pairs, dropped = kept_pairs(self._source.pairs, *rows)
        if dropped:
            self._progress.note(f"{dropped:,} pairs are left out, since their image or text was rejected")
        return pairs

    def _read(self, collection: Collection) -> Iterator[tuple[np.ndarray, pa.Table]]:
        for chunk in self._source.chunks(collection):
            yield chunk.rows, _table(collection, chunk, self._source.dim)


def _ahead(values: Iterator[_Value]) -> Iterator[_Value]:
    """Make the next value in a thread while the one before is used."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, values, None)
        while (value := coming.result()) is not None:
            coming = thread.submit(next, values, None)
            yield value


def _table(collection: Collection, chunk: EmbeddingChunk, dim: int) -> pa.Table:
    """The chunk's vectors, then its rejections, with the columns of a shard."""
    captions = chunk.captions or [None] * len(chunk.rows)
    values: dict[str, list[Any]] = {
        "collection": [collection] * len(chunk.rows),
        "item_id": chunk.item_ids,
        "uri": chunk.uris,
        "caption": captions if collection == "texts" else [None] * len(chunk.rows),
        "sha256": [None if text is None else text_sha256(text) for text in captions],
    }
    missing = len(chunk.rejected)
    for name in ("collection", "item_id", "uri", "stage", "reason", "detail"):
        known = values.get(name, [None] * len(chunk.rows))
        values[name] = [*known, *(getattr(rejection, name) for rejection in chunk.rejected)]
    rows = len(chunk.rows) + missing
    columns = [pa.array(_padded(values.get(field.name, []), rows), field.type) for field in ITEM_FIELDS]
    metadata = [_grown(chunk.metadata.column(name), missing) for name in chunk.metadata.column_names]
    flat = np.concatenate([chunk.vectors, np.zeros((missing, dim), np.float16)])
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), dim)
    schema = pa.schema([*ITEM_FIELDS, *chunk.metadata.schema, pa.field("vector", vectors.type)])
    return pa.Table.from_arrays([*columns, *metadata, vectors], schema=schema)


def _padded(values: list[Any], rows: int) -> list[Any]:
    return values + [None] * (rows - len(values))


def _grown(column: pa.ChunkedArray, missing: int) -> pa.ChunkedArray:
    return pa.chunked_array([*column.chunks, pa.nulls(missing, column.type)], column.type)
