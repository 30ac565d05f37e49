"""Ready-made vectors of images, texts or both, with ids, captions, metadata and pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from storage.arguments import check_arguments, check_fields, exits_as_typed_wrong
from storage.schema import COLLECTIONS, Collection

from ...errors import SourceError
from ..item import Rejection, SourceOptions
from ..tables.cells import plain
from ..tables.column_types import as_keys, from_file, is_binary
from ..tables.columns import catalog_names, first_of, listed
from .pair_table import aligned_pairs, read_pairs
from .row_table import ID_NAMES, RowTable, check_ids, read_ids, read_parquet_columns, read_row_table
from .vector_file import NpyVectors, ParquetVectors, open_vectors

UNIT_TOLERANCE = 1e-3
# Half of the distance from 1 to the next float16: no unit vector changes its length by a larger share when rounded.
FLOAT16_ROUNDING = 2.0**-11
CHUNK_ROWS = 16384


@dataclass(frozen=True, kw_only=True)
class EmbeddingFiles:
    """The files of one collection.

    Attributes:
        vectors: A `.npy` or Parquet file, or a pattern or folder of them, read one after another in natural order.
        vector_column: The Parquet column of vectors; None takes the only one.
        ids: One id a row: a `.txt` file or a table. None takes the id column of the Parquet or table, else row numbers.
        id_column: The column with the ids, in `ids`, the Parquet of vectors, or `table`.
        table: A table, or a pattern or folder of Parquet files, with as many rows as there are vectors: captions or
            paths, and metadata. For texts also a `.txt` file with one text a line.
        text_column: The column of `table` with the texts; None takes one of a known name.
    """

    vectors: Path
    vector_column: str | None = None
    ids: Path | None = None
    id_column: str | None = None
    table: Path | None = None
    text_column: str | None = None

    @exits_as_typed_wrong
    def __post_init__(self) -> None:
        check_fields(self, SourceError)


@dataclass(frozen=True, kw_only=True)
class EmbeddingOptions:
    """Which vectors to index. At least one of `images` and `texts` must be there.

    Attributes:
        images: The vectors of the images.
        texts: The vectors of the texts, from the same model as the images'.
        pairs: A CSV or Parquet file with the columns `image_row` and `text_row`, counted from 0.
        aligned: Row n of the images and row n of the texts are a pair, instead of `pairs`.
        normalize: Scale every vector to unit length. Without it one that is not is an error, since vectors of other
            lengths are often raw features that no cosine search is meant for.
        chunk_rows: Vectors in one chunk. More rows take more memory and gain little; leave it alone.
    """

    images: EmbeddingFiles | None = None
    texts: EmbeddingFiles | None = None
    pairs: Path | None = None
    aligned: bool = False
    normalize: bool = False
    chunk_rows: int = CHUNK_ROWS

    @exits_as_typed_wrong
    def __post_init__(self) -> None:
        check_fields(self, SourceError)
        if self.chunk_rows < 1:
            raise SourceError(f"chunk_rows is {self.chunk_rows}; give 1 or more, or leave it out")


@dataclass(frozen=True, kw_only=True)
class EmbeddingChunk:
    """Consecutive vectors of one collection without the rejected ones; all parts are in the same order.

    Attributes:
        rows: (n,) int64, ascending source rows.
        item_ids: One id a vector.
        vectors: (n, dim) float16, of unit length but for that rounding: the bytes that are going to be stored.
        uris: Where each came from.
        captions: Texts, for the texts of which they are known; None when no captions were given.
        splits: The split of each; None when the table beside the vectors has none.
        metadata: n rows with the columns of the collection's `metadata_schema`.
        rejected: The rows of this chunk that are not in the above.
    """

    rows: np.ndarray
    item_ids: list[str]
    vectors: np.ndarray
    uris: list[str]
    captions: list[str | None] | None
    splits: list[str | None] | None
    metadata: pa.Table
    rejected: tuple[Rejection, ...]


class EmbeddingSource:
    """Vectors that were made elsewhere. Everything but the vectors themselves is read and checked at once.

    Raises:
        SourceError: A file cannot be read, dims or row counts differ, a pair is out of range.
        DuplicateItemError: Two rows have one id.
    """

    def __init__(self, options: EmbeddingOptions) -> None:
        check_arguments(EmbeddingSource.__init__, locals(), SourceError)
        self.options = options
        given = {"images": options.images, "texts": options.texts}
        self._sides = {name: _Side(name, files) for name in COLLECTIONS if (files := given[name]) is not None}
        self.collections: tuple[Collection, ...] = tuple(self._sides)
        if not self._sides:
            raise SourceError("neither image nor text embeddings were named; name at least one .npy or Parquet file")
        self.dim = self._common_dim()
        self.name = "embeddings " + ", ".join(f"{name}={side.name}" for name, side in self._sides.items())
        self.notes = tuple(note for side in self._sides.values() for note in side.notes)
        self.pairs = self._read_pairs()

    def rows(self, collection: Collection) -> int:
        """How many vectors the files of a collection hold, rejected ones included; 0 for one that was not given."""
        return self._sides[collection].rows if collection in self._sides else 0

    def metadata_schema(self, collection: Collection) -> pa.Schema:
        """Names and types of a collection's metadata columns."""
        return self._sides[collection].metadata.schema if collection in self._sides else pa.schema([])

    def chunks(self, collection: Collection) -> Iterator[EmbeddingChunk]:
        """All vectors of a collection in row order; each chunk needs about 10 bytes times `chunk_rows * dim`.

        Raises:
            SourceError: A vector is not of unit length and `normalize` is off, or a file broke since it was opened.
        """
        if collection in self._sides:
            yield from self._sides[collection].chunks(self.options.normalize, self.options.chunk_rows)

    def _common_dim(self) -> int:
        dims = {name: side.dim for name, side in self._sides.items()}
        if len(set(dims.values())) > 1:
            raise SourceError(
                f"image vectors are {dims['images']}-d, text vectors {dims['texts']}-d; both must come from one model"
            )
        return next(iter(dims.values()))

    def _read_pairs(self) -> np.ndarray:
        if self.options.aligned and len(self._sides) == 2:
            return aligned_pairs(self.rows("images"), self.rows("texts"))
        if self.options.pairs is None:
            return np.zeros((0, 2), np.int64)
        if len(self._sides) < 2:
            raise SourceError(
                f"{self.options.pairs.name} pairs images with texts, but only {self.collections[0]} were given; "
                "name both or leave the pairs out"
            )
        return read_pairs(self.options.pairs, self.rows("images"), self.rows("texts"))


class _Side:
    """The vectors of one collection and what stands beside them."""

    def __init__(self, collection: Collection, files: EmbeddingFiles) -> None:
        self._collection = collection
        self._files, self._empty = open_vectors(files.vectors, files.vector_column)
        self.name = files.vectors.name
        self.dim = self._files[0].dim
        self.rows = sum(file.rows for file in self._files)
        self.table = _read_table(collection, files)
        beside, ids = _parquet_columns(self._files, None if files.ids or files.table else files.id_column)
        self.ids = self._find_ids(files, ids)
        self.metadata = _joined(self.table.metadata, beside, self.rows)
        table = self.table
        for what, column in (
            ("captions", table.captions),
            ("paths", table.uris),
            ("splits", table.splits),
            ("rows", table.metadata),
        ):
            self._check_rows(column, f"{what} in {files.table.name if files.table else ''}")

    @property
    def notes(self) -> tuple[str, ...]:
        return (*self.table.notes, *((self._empty,) if self._empty else ()))

    def chunks(self, normalize: bool, size: int) -> Iterator[EmbeddingChunk]:
        start = 0
        for file in self._files:
            for vectors in file.chunks(size):
                yield self._chunk(vectors, start, normalize)
                start += len(vectors)

    def _chunk(self, vectors: np.ndarray, start: int, normalize: bool) -> EmbeddingChunk:
        wide = vectors.astype(np.float32, copy=False)
        norms = np.sqrt(np.einsum("ij,ij->i", wide, wide, dtype=np.float64))
        good = np.isfinite(norms) & (norms > 0)
        if not normalize:
            self._check_unit(norms, good, start)
        kept = np.flatnonzero(good)
        rows = kept + start
        everything = len(kept) == len(vectors)
        unit = _unit(vectors, norms) if everything else _unit(vectors[kept], norms[kept])
        captions, splits = self.table.captions, self.table.splits
        return EmbeddingChunk(
            rows=rows,
            item_ids=self._ids_of(rows),
            vectors=unit,
            uris=[self._uri(row) for row in rows.tolist()],
            captions=None if captions is None else captions.take(pa.array(rows)).to_pylist(),
            splits=None if splits is None else splits.take(pa.array(rows)).to_pylist(),
            metadata=self.metadata.take(pa.array(rows)),
            rejected=tuple(self._rejection(start + row, norms[row]) for row in np.flatnonzero(~good).tolist()),
        )

    def _check_unit(self, norms: np.ndarray, good: np.ndarray, start: int) -> None:
        off = np.flatnonzero(good & (np.abs(norms - 1) > UNIT_TOLERANCE))
        if len(off):
            raise SourceError(
                f"row {start + off[0]} of {self.name} has length {norms[off[0]]:.4g}, not 1; "
                "say --normalize (normalize=True) to scale all vectors to unit length"
            )

    def _rejection(self, row: int, norm: float) -> Rejection:
        reason = "zero_vector" if norm == 0 else "not_finite"
        words = "is all zeros" if norm == 0 else "holds NaN, infinity or nothing"
        return Rejection(
            item_id=self._id(row),
            collection=self._collection,
            uri=self._uri(row),
            stage="read",
            reason=reason,
            detail=f"row {row} of {self.name} {words}",
        )

    def _ids_of(self, rows: np.ndarray) -> list[str]:
        ids: list[str] = [str(row) for row in rows] if self.ids is None else self.ids.take(pa.array(rows)).to_pylist()
        return ids

    def _id(self, row: int) -> str:
        return str(row) if self.ids is None else str(self.ids[row].as_py())

    def _uri(self, row: int) -> str:
        uri = self.table.uris[row].as_py() if self.table.uris is not None else None
        return uri if uri is not None else f"{self.name}#{row}"

    def _find_ids(self, files: EmbeddingFiles, from_vectors: pa.ChunkedArray | None) -> pa.ChunkedArray | None:
        ids, location = from_vectors, self.name
        if files.ids is not None:
            ids, location = read_ids(files.ids, files.id_column), files.ids.name
        elif self.table.ids is not None and files.table is not None:
            ids, location = self.table.ids, files.table.name
        if ids is not None:
            self._check_rows(ids, f"ids in {location}")
            check_ids(ids, location)
        return ids

    def _check_rows(self, column: pa.ChunkedArray | pa.Table | None, what: str) -> None:
        if column is not None and len(column) != self.rows:
            raise SourceError(
                f"{self.name} holds {self.rows} vectors, but there are {len(column)} {what}; one a vector"
            )


def _unit(vectors: np.ndarray, norms: np.ndarray) -> np.ndarray:
    """Vectors at unit length as float16; those that were rounded to it before, and would now be to others, stay.

    An index that is exported and read again is thereby the same to the last bit.
    """
    stored = _rounded_before(vectors, norms)
    unit: np.ndarray = vectors if stored.all() else vectors / norms.astype(np.float32)[:, None]
    unit = unit.astype(np.float16, copy=False)
    unit[stored] = vectors[stored]
    return unit


def _rounded_before(vectors: np.ndarray, norms: np.ndarray) -> np.ndarray:
    """Which rows hold numbers of float16 alone, and are of unit length but for that rounding."""
    exact: np.ndarray = np.abs(norms - 1) <= FLOAT16_ROUNDING
    if vectors.dtype == np.float16:
        return exact
    with np.errstate(over="ignore"):
        # The first column alone tells most float32 rows apart; the others are looked at in full.
        exact &= vectors[:, 0].astype(np.float16) == vectors[:, 0]
        rows = np.flatnonzero(exact)
        exact[rows] = (vectors[rows].astype(np.float16) == vectors[rows]).all(axis=1)
    return exact


def _read_table(collection: Collection, files: EmbeddingFiles) -> RowTable:
    if files.table is None:
        return RowTable()
    id_column = files.id_column if files.ids is None else None
    options = SourceOptions(text=files.text_column, id=id_column)
    return read_row_table(files.table, options, needs_text=collection == "texts")


def _parquet_columns(
    files: Sequence[NpyVectors | ParquetVectors], id_column: str | None
) -> tuple[pa.Table | None, pa.ChunkedArray | None]:
    """Metadata and ids that stand in the Parquet files of the vectors themselves."""
    first = files[0]
    if not isinstance(first, ParquetVectors):
        return None, None
    names = first.schema.names
    if id_column is not None and id_column not in names:
        raise SourceError(f"{first.path.name} has no column {id_column!r}; its columns: {listed(names)}")
    key = id_column or first_of(names, ID_NAMES)
    others = [
        field.name for field in first.schema if field.name not in (first.column, key) and not is_binary(field.type)
    ]
    table = read_parquet_columns([file.path for file in files], [*others, *([key] if key else [])])
    called = catalog_names(others, first.path.name)
    columns = {name: from_file(table[column].combine_chunks()) for column, name in called.items()}
    return pa.table(columns) if columns else None, as_keys(table[key], plain) if key else None


def _joined(table: pa.Table | None, beside: pa.Table | None, rows: int) -> pa.Table:
    """The metadata of both; where both have a column, the table beside the vectors wins."""
    columns: dict[str, pa.ChunkedArray] = {}
    taken: set[str] = set()
    for part in (one for one in (table, beside) if one is not None):
        for name in part.column_names:
            if name.lower() not in taken:
                taken.add(name.lower())
                columns[name] = part[name]
    # A table of no columns still has rows, so that `take` works on it.
    return pa.table(columns) if columns else pa.table({"": pa.nulls(rows)}).select([])
