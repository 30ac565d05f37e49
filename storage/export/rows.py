"""What an export reads of an index, in bounded memory: rows with ids, vectors and metadata, and pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..catalog import Catalog
from ..errors import StorageError
from ..schema import Collection
from ..version import IndexVersion

DType = Literal["float16", "float32"]
Advance = Callable[[str, int, int], None]
ITEM_ID, VECTOR, PAIRED, COLLECTION = "item_id", "vector", "paired_items", "collection"
BATCH_ROWS = 16_384
WHERE_SECONDS = 3600.0
BATCH_PAIRS = 65_536
PAIR_SCHEMA = pa.schema(
    [("image_row", pa.int64()), ("text_row", pa.int64()), ("image_id", pa.string()), ("text_id", pa.string())]
)


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Which rows of a collection go out, in the order of the index, and in what form.

    Attributes:
        version: The open version they come from.
        collection: `images` or `texts`.
        row_ids: (n,) int64, ascending.
        columns: The catalog's columns beside the item id, by the names that they go out under.
        dtype: `float16`, as stored, or `float32`, the same numbers in twice the space.
        advance: Told after each batch: the collection, the rows that are out, and all of them.
    """

    version: IndexVersion
    collection: Collection
    row_ids: NDArray[np.int64]
    columns: dict[str, str]
    dtype: DType
    advance: Advance

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self.version.dim

    @property
    def numbers(self) -> np.dtype[Any]:
        """The type of the numbers in a vector."""
        return np.dtype(self.dtype)

    @property
    def schema(self) -> pa.Schema:
        """Columns of a batch: the item id, the vector, the metadata; the index's words for them beside."""
        element = pa.field("item", pa.from_numpy_dtype(self.numbers), nullable=False)
        known = self._metadata(self.row_ids[:0]).schema
        fields = [pa.field(ITEM_ID, pa.string(), nullable=False), pa.field(VECTOR, pa.list_(element, self.dim))]
        said = {"twinlens.collection": self.collection, "twinlens.version": str(self.version.number)}
        if self.version.manifest.encoder is not None:
            said["twinlens.encoder"] = self.version.manifest.encoder.spec
        return pa.schema([*fields, *known], metadata=said)

    def batches(self, size: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """Yield all rows in batches of at most `size`, with the columns of `schema`."""
        schema = self.schema
        for rows, vectors in self.blocks(size):
            flat = pa.array(vectors.reshape(-1))
            metadata = self._metadata(rows)
            columns = [
                pa.array(self.item_ids(rows), pa.string()),
                pa.FixedSizeListArray.from_arrays(flat, type=schema.field(VECTOR).type),
                *(metadata.column(name).combine_chunks() for name in metadata.column_names),
            ]
            yield pa.record_batch(columns, schema=schema)

    def blocks(self, size: int = BATCH_ROWS) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
        """Yield row ids (n,) and their vectors (n, dim) in `dtype`, n <= `size`, and tell `advance` of those before."""
        table = self.version.vectors(self.collection)
        self.advance(self.collection, 0, len(self.row_ids))
        for start in range(0, len(self.row_ids), size):
            rows = self.row_ids[start : start + size]
            yield rows, table.gather(rows) if self.dtype == "float16" else table.gather_float32(rows)
            self.advance(self.collection, start + len(rows), len(self.row_ids))

    def item_ids(self, rows: NDArray[np.int64]) -> list[str]:
        """Return the item ids of these row ids."""
        ids: list[str] = self.version.vectors(self.collection).item_ids(rows).tolist()
        return ids

    def metadata_batches(self, size: int = BATCH_ROWS) -> Iterator[pa.Table]:
        """Yield the item id and the metadata of all rows, without vectors."""
        for start in range(0, len(self.row_ids), size):
            rows = self.row_ids[start : start + size]
            yield self._metadata(rows).add_column(0, ITEM_ID, pa.array(self.item_ids(rows), pa.string()))

    def _metadata(self, rows: NDArray[np.int64]) -> pa.Table:
        if not self.columns:
            return pa.table({"": pa.nulls(len(rows))}).select([])
        table = self.version.catalog.arrow(self.collection, rows, list(self.columns))
        return table.rename_columns(list(self.columns.values()))


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """The pairs whose two ends both go out: (n, 2) row ids of the index; 16 bytes a pair are held in memory."""

    version: IndexVersion
    ends: NDArray[np.int64]
    images: NDArray[np.int64]
    texts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ends)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the pairs: rows counted within what goes out, as `build-index --pairs` takes them, and ids."""
        for start in range(0, len(self.ends), BATCH_PAIRS):
            image_rows, text_rows = self.ends[start : start + BATCH_PAIRS].T
            yield pa.record_batch(
                [
                    pa.array(np.searchsorted(self.images, image_rows).astype(np.int64)),
                    pa.array(np.searchsorted(self.texts, text_rows).astype(np.int64)),
                    pa.array(self.version.vectors("images").item_ids(image_rows), pa.string()),
                    pa.array(self.version.vectors("texts").item_ids(text_rows), pa.string()),
                ],
                schema=PAIR_SCHEMA,
            )

    def partners(self, collection: Collection, rows: NDArray[np.int64]) -> list[list[str]]:
        """Return for each row id of a collection the item ids that it is paired with."""
        if not len(self.ends):
            return [[] for _ in rows]
        near, far = (0, 1) if collection == "images" else (1, 0)
        ends = self.ends if near == 0 else self._by_text
        starts, stops = (np.searchsorted(ends[:, near], rows, side) for side in ("left", "right"))
        partner_rows = np.concatenate([ends[a:b, far] for a, b in zip(starts, stops, strict=True)] or [ends[:0, far]])
        ids = self.version.vectors("texts" if near == 0 else "images").item_ids(partner_rows).tolist()
        lengths = np.cumsum(stops - starts)
        return [ids[end - length : end] for end, length in zip(lengths, stops - starts, strict=True)]

    @cached_property
    def _by_text(self) -> NDArray[np.int64]:
        return self.ends[np.argsort(self.ends[:, 1], kind="stable")]


def choose_rows(catalog: Catalog, collection: Collection, where: str | None) -> NDArray[np.int64]:
    """Return the row ids that satisfy a predicate, ascending; all of the collection where there is none.

    Raises:
        SearchParameterError: The predicate cannot be used.
        StorageError: No row satisfies it.
    """
    if where is None:
        return np.arange(catalog.counts[collection], dtype=np.int64)
    row_ids = catalog.filter_rows(collection, where, timeout=WHERE_SECONDS)
    if not len(row_ids):
        raise StorageError(f"--where {where!r} leaves none of {catalog.counts[collection]} {collection}; widen it")
    return row_ids


def choose_columns(
    catalog: Catalog, collection: Collection, requested: tuple[str, ...] | None, ours: Set[str] = frozenset()
) -> dict[str, str]:
    """Return the catalog's columns that go out, each with its name there.

    A column of the user's that is called like one of ours (`vector`, `paired_items`, `ours`) goes out as `NAME_meta`.

    Raises:
        StorageError: A requested column is not there.
    """
    known = [name for name, _ in catalog.columns(collection) if name not in ("row_id", ITEM_ID)]
    for name in requested or ():
        if name not in known:
            raise StorageError(f"{collection} have no column {name!r}; they have {', '.join(known)}")
    reserved = {VECTOR, PAIRED, *ours}
    taken = {name.casefold() for name in known} | reserved
    chosen: dict[str, str] = {}
    for name in known if requested is None else dict.fromkeys(requested):
        chosen[name] = _free(name, taken) if name.casefold() in reserved else name
    return chosen


def read_pairs(version: IndexVersion, chosen: dict[Collection, NDArray[np.int64]]) -> Pairs:
    """Return the pairs of a version whose image and text are both among the chosen row ids, which ascend."""
    none = np.zeros(0, dtype=np.int64)
    images, texts = chosen.get("images", none), chosen.get("texts", none)
    ends = np.zeros((0, 2), dtype=np.int64)
    if len(images) and len(texts):
        table = version.catalog.table("pairs")
        ends = np.stack([table.column(name).to_numpy() for name in ("image_row", "text_row")], axis=1)
        ends = ends[_among(ends[:, 0], images) & _among(ends[:, 1], texts)]
        ends = ends[np.lexsort((ends[:, 1], ends[:, 0]))]
    return Pairs(version=version, ends=ends, images=images, texts=texts)


def _free(name: str, taken: set[str]) -> str:
    free = f"{name}_meta"
    while free.casefold() in taken:
        free += "_"
    taken.add(free.casefold())
    return free


def _among(rows: NDArray[np.int64], chosen: NDArray[np.int64]) -> NDArray[np.bool_]:
    index = np.minimum(np.searchsorted(chosen, rows), len(chosen) - 1)
    return np.asarray(chosen[index] == rows)
