"""The vectors of a collection: their writer and their memory-mapped reader, rows in an Arrow IPC file.

A value is stored as a float16, or in one byte with a scale for each row (see `one_byte`); either way rows are read as
float16 numbers, exactly as stored.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from . import compiled, one_byte
from .errors import CorruptIndexError, SearchParameterError, StorageError, first_line
from .exact_search import to_float32, to_scaled_float32
from .files.atomic import checkpoint, explained
from .files.mapped import MappedColumn, MappedRows, map_file
from .schema import VectorDType

__all__ = ["BATCH_ROWS", "VectorTable", "VectorWriter"]
BATCH_ROWS = 131_072
_NO_SCALES = np.empty(0, dtype=np.float16)


def vector_schema(dim: int, batch_rows: int, dtype: VectorDType = "float16") -> pa.Schema:
    """Return the schema of a file of vectors; its metadata states `dim` and `batch_rows`.

    Item ids are `string`, whose 32-bit offsets count within one batch, so the number of rows is not bounded by them.
    """
    element = pa.float16() if dtype == "float16" else pa.int8()
    vector = pa.list_(pa.field("item", element, nullable=False), dim)
    fields = [pa.field("item_id", pa.string(), nullable=False), pa.field("vector", vector, nullable=False)]
    if dtype == "int8":
        fields.append(pa.field("scale", pa.float16(), nullable=False))
    return pa.schema(fields, metadata={"dim": str(dim), "batch_rows": str(batch_rows)})


class VectorWriter:
    """Writes one file of vectors, in row order; use it as a context manager or call `close`.

    Args:
        path: The file, which must not exist yet.
        dim: Length of the vectors.
        batch_rows: Rows in each batch of the file, the last one apart. Larger batches make fewer of them and take more
            memory while writing (`batch_rows * dim * 2` bytes); there is no need to change it.
        dtype: `float16`, or `int8` for one byte a value.

    Attributes:
        lost: The largest length of what one byte a value took off a row so far; 0 for `float16`.
    """

    def __init__(self, path: Path, dim: int, batch_rows: int = BATCH_ROWS, dtype: VectorDType = "float16") -> None:
        if dim < 1 or batch_rows < 1:
            raise StorageError(f"cannot write vectors of dim {dim!r} in batches of {batch_rows!r} rows to {path}")
        self.path = Path(path)
        self.dim = dim
        self.rows = 0
        self.lost = 0.0
        self._schema = vector_schema(dim, batch_rows, dtype)
        self._ids: list[str] = []
        self._block = np.empty((batch_rows, dim), dtype=np.float16)
        with explained("write", self.path):
            self._file = self.path.open("xb")
            self._writer: pa.ipc.RecordBatchFileWriter | None = pa.ipc.new_file(self._file, self._schema)

    def append(self, item_ids: Sequence[str] | pa.Array, vectors: NDArray[Any]) -> None:
        """Append rows: `item_ids` (n,) and `vectors` (n, dim), float16 or float32, which are rounded as they are kept.

        Raises:
            StorageError: The shapes differ, an id is missing, a value is not finite in float16, or the disk is full.
        """
        ids = item_ids.to_pylist() if hasattr(item_ids, "to_pylist") else list(item_ids)
        self._check(ids, vectors)
        start = 0
        while start < len(ids):
            filled = len(self._ids)
            stop = min(len(ids), start + len(self._block) - filled)
            block = self._block[filled : filled + stop - start]
            with np.errstate(over="ignore"):  # what overflows is found and named below
                block[...] = vectors[start:stop]
            self._refuse_non_finite(block, ids[start:stop])
            self._ids += ids[start:stop]
            start = stop
            if len(self._ids) == len(self._block):
                self._flush()

    def close(self) -> None:
        """Write what is buffered, finish the file and make it durable; closing again does nothing."""
        if self._writer is None:
            return
        with explained("write", self.path), self._file as file:
            if self._ids:
                self._flush()
            writer, self._writer = self._writer, None
            writer.close()
            file.flush()
            checkpoint("vectors.written")
            os.fsync(file.fileno())
        checkpoint("vectors.synced")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:  # an unfinished file has no footer, so that no reader takes it for a whole one
            self._writer = None
            self._file.close()

    def _check(self, ids: list[str], vectors: NDArray[Any]) -> None:
        if self._writer is None:
            raise StorageError(f"{self.path} is closed; rows cannot be appended any more")
        if vectors.shape != (len(ids), self.dim):
            raise StorageError(
                f"vectors of shape {vectors.shape} do not fit {len(ids)} item ids in {self.path}; "
                f"give ({len(ids)}, {self.dim})"
            )
        wrong = next((value for value in ids if not isinstance(value, str)), "")
        if not isinstance(wrong, str):
            raise StorageError(f"item_id {wrong!r} is not a string in {self.path}; give every row its id")

    def _refuse_non_finite(self, block: NDArray[np.float16], ids: list[str]) -> None:
        finite = np.isfinite(block).all(axis=1)
        if not finite.all():
            wrong = ids[int(np.argmin(finite))]
            raise StorageError(
                f"the vector of item {wrong!r} holds NaN, infinity or a value beyond float16; "
                f"nothing of it goes into {self.path}, give unit vectors"
            )

    def _flush(self) -> None:
        assert self._writer is not None
        count = len(self._ids)
        arrays = [pa.array(self._ids, type=pa.string()), *self._encoded(self._block[:count])]
        with explained("write", self.path):
            self._writer.write_batch(pa.record_batch(arrays, schema=self._schema))
        self.rows += count
        self._ids = []

    def _encoded(self, block: NDArray[np.float16]) -> list[pa.Array]:
        """The columns of a batch that hold its vectors."""
        kind = self._schema.field("vector").type
        if kind.value_type == pa.float16():
            return [pa.FixedSizeListArray.from_arrays(pa.array(block.reshape(-1)), type=kind)]
        encoded = one_byte.encode(block)
        self.lost = max(self.lost, encoded.lost)
        numbers = pa.FixedSizeListArray.from_arrays(pa.array(encoded.numbers.reshape(-1)), type=kind)
        return [numbers, pa.array(encoded.scales)]


class VectorTable:
    """The vectors of a collection and their item ids, by row id; mapped, read only, safe from many threads.

    Nothing is copied into memory when it is opened. Rows that were read stay valid after `close`, and an open table
    keeps working when its file is removed.

    Attributes:
        dtype: `float16` as a rule; `int8` where a value takes one byte.
    """

    def __init__(self, path: Path, batches: Sequence[pa.RecordBatch], schema: pa.Schema, mapped: mmap.mmap) -> None:
        kind = schema.field("vector").type
        self.path = path
        self.dim = int(kind.list_size)
        self.dtype: VectorDType = "float16" if kind.value_type == pa.float16() else "int8"
        self.rows = sum(batch.num_rows for batch in batches)
        self._batch_rows = batches[0].num_rows if batches else 1
        self._ids = [batch.column(0) for batch in batches]
        self._strings = self._compiled_ids()
        values = [batch.column(1).values for batch in batches]
        self._vectors = MappedColumn(mapped, values, self._batch_rows, self.dim, np.dtype(self.dtype))
        scales = [batch.column(2) for batch in batches] if self.dtype == "int8" else []
        self._scales = MappedColumn(mapped, scales, self._batch_rows, 1, np.dtype(np.float16))
        self._compiled = self._compiled_rows()

    @classmethod
    def open(cls, path: Path) -> Self:
        """Map the file at `path` and check its structure; checksums are the manifest's business.

        Raises:
            CorruptIndexError: The file is missing, or is not a file that `VectorWriter` finished.
        """
        path = Path(path)
        mapped = map_file(path)
        try:
            reader = pa.ipc.open_file(pa.py_buffer(mapped))
            batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
            _check_structure(reader.schema, batches)
            return cls(path, batches, reader.schema, mapped)
        except (pa.ArrowException, ValueError, OSError) as error:
            raise CorruptIndexError(
                f"{path} is not a whole file of vectors ({first_line(error)}); "
                "roll back to another version or build again"
            ) from error

    def gather(self, row_ids: NDArray[np.integer[Any]]) -> NDArray[np.float16]:
        """Return the vectors of these rows, in this order: a C-contiguous float16 copy, `row_ids.shape + (dim,)`.

        Raises:
            SearchParameterError: A row id is not in [0, rows).
        """
        rows = self._checked(row_ids)
        values = self._vectors.at(rows)
        return values if self.dtype == "float16" else one_byte.decode_float16(values, self._scales.at(rows)[..., 0])

    def gather_float32(self, row_ids: NDArray[np.integer[Any]], *, scaled: bool = False) -> NDArray[np.float32]:
        """Return the same vectors as float32, exactly; `scaled`: times 2^-112, see `exact_search.to_scaled_float32`.

        Raises:
            SearchParameterError: A row id is not in [0, rows).
        """
        rows = self._checked(row_ids)
        values = self._vectors.at(rows)
        if self.dtype == "float16":
            return to_scaled_float32(values) if scaled else to_float32(values)
        return one_byte.decode(values, self._scales.at(rows)[..., 0], one_byte.TO_FLOAT16 if scaled else 1.0)

    def wrong_rows(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return the row ids from `start` to `stop` whose values are not finite, or no level or scale of `int8`."""
        parts = [np.empty(0, dtype=np.int64)]
        for first, values, scales in self._raw(start, stop):
            is_half = self.dtype == "float16"
            wrong = ~np.isfinite(values).all(axis=1) if is_half else one_byte.wrong_rows(values, scales)
            parts.append(first + np.flatnonzero(wrong))
        return np.concatenate(parts)

    def mapped(self) -> MappedRows:
        """Return where the rows lie in the file, for compiled code."""
        values, starts = self._vectors.mapped()
        scales, scale_starts = self._scales.mapped() if self.dtype == "int8" else (None, None)
        return MappedRows(self._batch_rows, self._vectors.is_large, values, starts, scales, scale_starts)

    def compared(
        self, queries: NDArray[np.float32], k: int, rows: NDArray[np.int64] | None, exclude: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]] | None:
        """Return what `exact_search` of these arguments does, compiled; None where nothing was compiled.

        Raises:
            SearchParameterError: A row id is not in [0, rows).
        """
        if self._compiled is None:
            return None
        if rows is not None:
            rows = np.ascontiguousarray(self._checked(rows)) if len(rows) else rows
        ids, scores = np.empty((len(queries), k), dtype=np.int64), np.empty((len(queries), k), dtype=np.float32)
        compiled.list_scan.compare(self._compiled, queries, len(queries), k, rows, exclude, ids, scores)
        return ids, scores

    def chunks(self, size: int = 65536) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield all vectors in row order as (row id of the first, (n, dim) float32), n <= size.

        Raises:
            SearchParameterError: `size` is not positive.
        """
        if size < 1:
            raise SearchParameterError(f"chunk size is {size!r}; give 1 or more")
        for start in range(0, self.rows, size):
            yield start, self._slice(start, min(start + size, self.rows))

    def item_ids(self, row_ids: NDArray[np.integer[Any]]) -> NDArray[np.object_]:
        """Return the item ids of these rows, in this order: an object array of str of the same shape.

        Raises:
            SearchParameterError: A row id is not in [0, rows).
        """
        rows = np.asarray(row_ids, dtype=np.int64)
        ids = np.empty(rows.size, dtype=object)
        if self._strings is not None:
            found = compiled.list_scan.strings_at(self._strings, np.ascontiguousarray(rows))
            if found is not None:  # else a row is out of range
                ids[:] = found
                return ids.reshape(rows.shape)
        if rows.size:
            self._check_range(rows)
        batch, row = np.divmod(rows.ravel(), self._batch_rows)
        for number in np.unique(batch):
            in_batch = batch == number
            ids[in_batch] = self._ids[number].take(pa.array(row[in_batch])).to_pylist()
        return ids.reshape(rows.shape)

    def find(self, item_ids: Sequence[str]) -> NDArray[np.int64]:
        """Return the row id of each item id, (n,) int64, -1 where it is unknown; one pass over the column."""
        requested = pa.array(item_ids, type=pa.string())
        keys = requested.unique()
        rows = np.full(len(keys), -1, dtype=np.int64)
        for number, column in enumerate(self._ids):
            key_index = pc.index_in(column, value_set=keys)
            hits = np.flatnonzero(np.asarray(key_index.is_valid()))
            rows[np.asarray(key_index.take(pa.array(hits)))] = hits + number * self._batch_rows
        return rows[np.asarray(pc.index_in(requested, value_set=keys), dtype=np.int64)] if len(keys) else rows

    def close(self) -> None:
        """Let go of the file; the table is empty afterwards."""
        self.rows = 0
        self._ids = []
        self._strings = None
        self._compiled = None
        self._vectors.close()
        self._scales.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _slice(self, start: int, stop: int) -> NDArray[np.float32]:
        parts = [
            to_float32(values) if self.dtype == "float16" else one_byte.decode(values, scales)
            for _, values, scales in self._raw(start, stop)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _raw(self, start: int, stop: int) -> Iterator[tuple[int, NDArray[Any], NDArray[np.float16]]]:
        """Yield rows as they stand in the file, batch by batch: first row id, values, and the scales of int8."""
        while start < stop:
            count = min(stop - start, self._batch_rows - start % self._batch_rows)
            scales = self._scales.span(start, count)[:, 0] if self.dtype == "int8" else _NO_SCALES
            yield start, self._vectors.span(start, count), scales
            start += count

    def _checked(self, row_ids: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        rows = np.asarray(row_ids, dtype=np.int64)
        if rows.size:
            self._check_range(rows)
        return rows

    def _compiled_ids(self) -> Any:
        """The item ids as compiled code reads them, in a tenth of the time; None where nothing was compiled."""
        if compiled.list_scan is None:
            return None
        buffers = [b"" if part is None else part for column in self._ids for part in column.buffers()[1:]]
        return compiled.list_scan.open_strings(self.rows, self._batch_rows, tuple(buffers))

    def _compiled_rows(self) -> Any:
        """The rows as compiled code reads them; None where it cannot."""
        lanes = compiled.scan_lanes()
        if not lanes or not self.rows:
            return None
        return compiled.list_scan.open_rows(lanes, self.dim, self.rows, *self.mapped())

    def _check_range(self, row_ids: NDArray[np.int64]) -> None:
        if row_ids.view(np.uint64).max() >= self.rows:  # a negative number seen as unsigned is beyond every row
            wrong = int(row_ids.min() if row_ids.min() < 0 else row_ids.max())
            raise SearchParameterError(f"row id {wrong} is not in {self.path}, which has rows 0 to {self.rows - 1}")


def _check_structure(schema: pa.Schema, batches: Sequence[pa.RecordBatch]) -> None:
    """Compare the structure with what the writer makes; ValueError says what differs."""
    stated = dict(schema.metadata or {})
    dim, batch_rows = int(stated.get(b"dim", b"0")), int(stated.get(b"batch_rows", b"0"))
    dtypes: tuple[VectorDType, ...] = get_args(VectorDType)
    known = [vector_schema(dim, batch_rows, dtype) for dtype in dtypes] if dim > 0 and batch_rows > 0 else []
    if not any(schema.equals(one, check_metadata=True) for one in known):
        raise ValueError("its columns are not item_id and vector as written by this format")
    for number, batch in enumerate(batches):
        last = number == len(batches) - 1
        if batch.num_rows != batch_rows and not (last and 0 < batch.num_rows < batch_rows):
            raise ValueError(f"batch {number} has {batch.num_rows} rows and not {batch_rows}")
        batch.column(0).validate(full=True)
        for column in batch.columns[1:]:
            column.validate()
        if any(column.null_count or column.offset for column in batch.columns):
            raise ValueError(f"batch {number} holds missing values")
