"""Merging: shard tables, from an encoder or of ready-made embeddings, become the vectors and the catalog of a version.

Row ids are given here, in source order, so that a local, a resumed and a distributed build give the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage.catalog import IMAGE_COLUMNS, REJECTED_COLUMNS, RESERVED_NAMES, TEXT_COLUMNS, write_catalog
from storage.metadata_columns import check_names
from storage.schema import COLLECTIONS, Collection, Counts, VectorDType
from storage.vectors import VectorWriter

from .corpus import EmbeddingChunk, EmbeddingSource, kept_pairs
from .corpus.item import shown
from .encode.shards import ITEM_FIELDS, METADATA, text_sha256
from .errors import BuildError
from .progress import Progress

_Value = TypeVar("_Value")


def merge(
    tables: Iterable[pa.Table],
    folder: Path,
    dim: int,
    pairs: Callable[[], np.ndarray] | None = None,
    dtype: VectorDType = "float16",
) -> tuple[Counts, dict[Collection, float]]:
    """Write vectors and catalog of encoded tables, in their order, into the folder of a draft; see `Merger`.

    Returns:
        The counts, and for each collection the largest length of what `dtype` took off a vector.
    """
    merger = Merger(folder, dim, dtype)
    for table in tables:
        merger.add(table)
    return merger.finish(pairs() if pairs else None), merger.lost


@dataclass
class Merger:
    """Writes `vectors.arrow` of both collections as shards come in, then the catalog."""

    folder: Path
    dim: int
    dtype: VectorDType = "float16"
    _writers: dict[Collection, VectorWriter] = field(default_factory=dict)
    _tables: dict[str, list[pa.Table]] = field(default_factory=lambda: {"images": [], "texts": [], "rejected": []})
    _schemas: dict[str, pa.Schema] = field(default_factory=dict)
    _links: list[pa.Table] = field(default_factory=list)

    def add(self, shard: pa.Table) -> None:
        """Append the rows of one shard; shards come in the order of the source."""
        rejected = pc.is_valid(shard.column("reason"))
        self._tables["rejected"].append(shard.filter(rejected).select(list(REJECTED_COLUMNS)))
        indexed = shard.filter(pc.invert(rejected))
        for collection in COLLECTIONS:
            self._add_rows(collection, indexed.filter(pc.equal(indexed.column("collection"), collection)))

    @property
    def lost(self) -> dict[Collection, float]:
        """For each collection the largest length of what `dtype` took off a vector, once it is finished."""
        return {name: writer.lost for name, writer in self._writers.items()}

    def finish(self, known_pairs: np.ndarray | None = None) -> Counts:
        """Write the catalog and return the counts.

        Args:
            known_pairs: (n, 2) image and text row ids; None joins texts with the images that they name.

        Raises:
            BuildError: No item could be indexed.
            DuplicateItemError: One `item_id` stands for two items.
        """
        for writer in self._writers.values():
            writer.close()
        rejected = _concat(self._tables["rejected"], pa.schema(list(REJECTED_COLUMNS.items())))
        schemas = {name: self._schemas.get(name, _item_columns(name)) for name in COLLECTIONS}
        if not self._writers:
            raise BuildError(_nothing_indexed(rejected))
        images, texts = (_with_row_ids(_concat(self._tables[name], schemas[name])) for name in COLLECTIONS)
        pairs = _pairs_of_links(images, self._links) if known_pairs is None else _pair_table(known_pairs)
        write_catalog(
            self.folder / "catalog.duckdb",
            images=_with_captions(images, texts, pairs),
            texts=texts,
            pairs=pairs,
            rejected=rejected,
        )
        indexed = images.num_rows + texts.num_rows
        return Counts(
            items=indexed + rejected.num_rows,
            indexed=indexed,
            rejected=rejected.num_rows,
            images=images.num_rows,
            texts=texts.num_rows,
            pairs=pairs.num_rows,
        )

    def _add_rows(self, collection: Collection, rows: pa.Table) -> None:
        if rows.num_rows == 0:
            return
        metadata = [name for name in rows.column_names if name.startswith(METADATA)]
        given = {name.removeprefix(METADATA): rows.column(name) for name in metadata}
        check_names(collection, list(given), RESERVED_NAMES)
        # What the user says of an image counts for more than what its file says.
        taken = {name.casefold() for name in given}
        own = [name for name in _item_columns(collection).names if name not in taken]
        columns = {name: rows.column(name) for name in own} | given
        schema = pa.schema([(name, column.type) for name, column in columns.items()])
        if schema != self._schemas.setdefault(collection, schema):
            raise BuildError(f"shards of {collection} have unlike columns: {self._schemas[collection]}, and {schema}")
        # Most columns of facts are empty in most corpora, and empty ones would take a third of the memory.
        self._tables[collection].append(pa.table({name: column for name, column in columns.items() if _has(column)}))
        if collection == "texts":
            self._links.append(rows.select(["item_id", "image_ids"]))
        if collection not in self._writers:
            (self.folder / collection).mkdir(parents=True, exist_ok=True)
            path = self.folder / collection / "vectors.arrow"
            self._writers[collection] = VectorWriter(path, self.dim, dtype=self.dtype)
        self._writers[collection].append(rows.column("item_id").to_pylist(), vector_matrix(rows, self.dim))


class EmbeddingTables:
    """Shard tables of ready-made embeddings, and the pairs among the rows that were kept."""

    def __init__(self, source: EmbeddingSource, progress: Progress) -> None:
        self._source, self._progress = source, progress
        self._kept: dict[Collection, list[np.ndarray]] = {name: [] for name in COLLECTIONS}

    def tables(self) -> Iterator[pa.Table]:
        """Yield all images, then all texts, a bounded number of rows at a time."""
        for collection in COLLECTIONS:
            self._progress.stage(f"read {collection}", self._source.rows(collection))
            for rows, table in _prefetched(self._read(collection)):
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


def vector_matrix(table: pa.Table, dim: int) -> np.ndarray:
    """Return the `vector` column as an (n, dim) float16 array."""
    column = table.column("vector").combine_chunks()
    values = column.flatten() if not isinstance(column, pa.ChunkedArray) else pa.concat_arrays(column.chunks).flatten()
    return np.asarray(values).reshape(-1, dim)


def _item_columns(collection: Collection) -> pa.Schema:
    columns = IMAGE_COLUMNS if collection == "images" else TEXT_COLUMNS
    return pa.schema([(name, kind) for name, kind in columns.items() if name != "row_id"])


def _concat(parts: list[pa.Table], schema: pa.Schema) -> pa.Table:
    """Join tables to one with these columns, null where a part lacks one; `parts` is emptied, a column at a time."""
    rows = [part.num_rows for part in parts]
    columns = {}
    for kind in schema:
        chunks = [_chunks_of(part, kind, count) for part, count in zip(parts, rows, strict=True)]
        column = pa.chunked_array([chunk for own in chunks for chunk in own], kind.type)
        if _has(column):  # else its chunks are one and the same
            column = pa.table({kind.name: column}).combine_chunks().column(0)
        columns[kind.name] = column
        parts[:] = [_without(part, kind.name) for part in parts]
    parts.clear()
    return pa.table(columns, schema=pa.schema([pa.field(kind.name, kind.type) for kind in schema]))


def _chunks_of(part: pa.Table, kind: pa.Field, rows: int) -> list[pa.Array]:
    return part.column(kind.name).chunks if kind.name in part.column_names else [_nulls(kind.type, rows)]


@lru_cache(maxsize=128)
def _nulls(kind: pa.DataType, rows: int) -> pa.Array:
    return pa.nulls(rows, kind)


def _without(part: pa.Table, name: str) -> pa.Table:
    return part.drop_columns([name]) if name in part.column_names else part


def _has(column: pa.ChunkedArray) -> bool:
    """Whether there is any value in a column."""
    return bool(column.null_count < len(column))


def _with_row_ids(table: pa.Table) -> pa.Table:
    return table.add_column(0, "row_id", pa.array(np.arange(table.num_rows, dtype=np.int64)))


def _pair_table(pairs: np.ndarray) -> pa.Table:
    ordered = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))].astype(np.int64)
    return pa.table({"image_row": pa.array(ordered[:, 0]), "text_row": pa.array(ordered[:, 1])})


def _pairs_of_links(images: pa.Table, links: list[pa.Table]) -> pa.Table:
    """Join texts with the images that they name; a pair with a rejected end is left out."""
    if not links or images.num_rows == 0:
        return _pair_table(np.zeros((0, 2), np.int64))
    column = pa.concat_tables(links).column("image_ids").combine_chunks()
    image_rows = pc.index_in(pc.list_flatten(column), value_set=images.column("item_id"))
    indexed = np.asarray(pc.is_valid(image_rows))
    text_rows = np.asarray(pc.list_parent_indices(column))
    pairs = np.stack([np.asarray(pc.fill_null(image_rows, -1)), text_rows], axis=1)
    return _pair_table(pairs[indexed])


def _with_captions(images: pa.Table, texts: pa.Table, pairs: pa.Table) -> pa.Table:
    """Give each image its first caption, for display; the pairs hold all of them."""
    first = np.full(images.num_rows, -1, dtype=np.int64)
    image_rows, text_rows = (np.asarray(pairs.column(name)) for name in ("image_row", "text_row"))
    # Assigned backwards, the first pair of an image is the last to write.
    first[image_rows[::-1]] = text_rows[::-1]
    captions = texts.column("caption").take(pa.array(first, mask=first < 0))
    position = images.schema.get_field_index("caption")
    return images.set_column(position, pa.field("caption", pa.string()), captions)


def _nothing_indexed(rejected: pa.Table) -> str:
    if rejected.num_rows == 0:
        return "the corpus is empty, there is nothing to index"
    row = rejected.slice(0, 1).to_pylist()[0]
    return (
        f"none of {rejected.num_rows} items could be indexed; the first, {shown(row['uri'], 200)!r}, fell out: "
        f"{row['detail']}; nothing was published"
    )


def _prefetched(values: Iterator[_Value]) -> Iterator[_Value]:
    """Yield the values, each computed in a thread while the one before is used."""
    with ThreadPoolExecutor(1) as thread:
        upcoming = thread.submit(next, values, None)
        while (value := upcoming.result()) is not None:
            upcoming = thread.submit(next, values, None)
            yield value


def _table(collection: Collection, chunk: EmbeddingChunk, dim: int) -> pa.Table:
    """The chunk's vectors, then its rejections, with the columns of a shard."""
    captions = chunk.captions or [None] * len(chunk.rows)
    values: dict[str, list[Any]] = {
        "collection": [collection] * len(chunk.rows),
        "item_id": chunk.item_ids,
        "uri": chunk.uris,
        "split": chunk.splits or [],
        "caption": captions if collection == "texts" else [None] * len(chunk.rows),
        "sha256": [None if text is None else text_sha256(text) for text in captions],
    }
    missing = len(chunk.rejected)
    for name in ("collection", "item_id", "uri", "stage", "reason", "detail"):
        known = values.get(name, [None] * len(chunk.rows))
        values[name] = [*known, *(getattr(rejection, name) for rejection in chunk.rejected)]
    rows = len(chunk.rows) + missing
    columns = [pa.array(_padded(values.get(field.name, []), rows), field.type) for field in ITEM_FIELDS]
    metadata = [_with_nulls(chunk.metadata.column(name), missing) for name in chunk.metadata.column_names]
    flat = np.concatenate([chunk.vectors, np.zeros((missing, dim), np.float16)])
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), dim)
    own = [field.with_name(METADATA + field.name) for field in chunk.metadata.schema]
    schema = pa.schema([*ITEM_FIELDS, *own, pa.field("vector", vectors.type)])
    return pa.Table.from_arrays([*columns, *metadata, vectors], schema=schema)


def _padded(values: list[Any], rows: int) -> list[Any]:
    return values + [None] * (rows - len(values))


def _with_nulls(column: pa.ChunkedArray, missing: int) -> pa.ChunkedArray:
    return pa.chunked_array([*column.chunks, pa.nulls(missing, column.type)], column.type)
