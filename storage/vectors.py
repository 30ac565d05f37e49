"""The vectors of a collection: their writer and their memory-mapped reader, float16 rows in an Arrow IPC file."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from .errors import CorruptIndexError, SearchParameterError, StorageError, first_line
from .exact_search import to_float32
from .files.atomic import checkpoint, explained
from .files.layout import open_regular

__all__ = ["BATCH_ROWS", "VectorTable", "VectorWriter"]
BATCH_ROWS = 131_072
_FEW_ROWS = 128


def vector_schema(dim: int, batch_rows: int) -> pa.Schema:
    """Return the schema of a file of vectors; its metadata states `dim` and `batch_rows`.

    Item ids are `string`, whose 32-bit offsets count within one batch, so the number of rows is not bounded by them.
    """
    vector = pa.list_(pa.field("item", pa.float16(), nullable=False), dim)
    fields = [pa.field("item_id", pa.string(), nullable=False), pa.field("vector", vector, nullable=False)]
    return pa.schema(fields, metadata={"dim": str(dim), "batch_rows": str(batch_rows)})


class VectorWriter:
    """Writes one file of vectors, in row order; use it as a context manager or call `close`.

    Args:
        path: The file, which must not exist yet.
        dim: Length of the vectors.
        batch_rows: Rows in each batch of the file, the last one apart. Larger batches make fewer of them and take more
            memory while writing (`batch_rows * dim * 2` bytes); there is no need to change it.
    """

    def __init__(self, path: Path, dim: int, batch_rows: int = BATCH_ROWS) -> None:
        if dim < 1 or batch_rows < 1:
            raise StorageError(f"cannot write vectors of dim {dim!r} in batches of {batch_rows!r} rows to {path}")
        self.path = Path(path)
        self.dim = dim
        self.rows = 0
        self._schema = vector_schema(dim, batch_rows)
        self._ids: list[str] = []
        self._block = np.empty((batch_rows, dim), dtype=np.float16)
        with explained("write", self.path):
            self._file = self.path.open("xb")
            self._writer: pa.ipc.RecordBatchFileWriter | None = pa.ipc.new_file(self._file, self._schema)

    def append(self, item_ids: Sequence[str] | pa.Array, vectors: NDArray[Any]) -> None:
        """Append rows: `item_ids` (n,) and `vectors` (n, dim), float16 or float32, which are rounded to float16.

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
        values = pa.array(self._block[:count].reshape(-1))
        vectors = pa.FixedSizeListArray.from_arrays(values, type=self._schema.field("vector").type)
        ids = pa.array(self._ids, type=pa.string())
        with explained("write", self.path):
            self._writer.write_batch(pa.record_batch([ids, vectors], schema=self._schema))
        self.rows += count
        self._ids = []


class VectorTable:
    """The vectors of a collection and their item ids, by row id; mapped, read only, safe from many threads.

    Nothing is copied into memory when it is opened. Rows that were read stay valid after `close`, and an open table
    keeps working when its file is removed.
    """

    def __init__(self, path: Path, batches: Sequence[pa.RecordBatch], dim: int, mapped: NDArray[np.uint8]) -> None:
        self.path = path
        self.dim = dim
        self.rows = sum(batch.num_rows for batch in batches)
        self._batch_rows = batches[0].num_rows if batches else 1
        self._ids = [batch.column(0) for batch in batches]
        self._strings = [_StringColumn.of(column) for column in self._ids]
        first_rows = np.arange(len(batches), dtype=np.int64) * self._batch_rows
        # Where each batch would start if it held all rows before it too: row `r` of it is at this + r * dim.
        self._starts = (
            np.array([_element_offset(batch, mapped) for batch in batches], dtype=np.int64) - first_rows * dim
        )
        self._flat = mapped[: mapped.size // 2 * 2].view(np.float16)
        self._row_at = _overlapping_rows(self._flat, dim)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Map the file at `path` and check its structure; checksums are the manifest's business.

        Raises:
            CorruptIndexError: The file is missing, or is not a file that `VectorWriter` finished.
        """
        path = Path(path)
        mapped = _map(path)
        try:
            reader = pa.ipc.open_file(pa.py_buffer(mapped))
            batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
            dim = _checked_dim(reader.schema, batches)
            return cls(path, batches, dim, np.frombuffer(mapped, dtype=np.uint8))
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
        rows = np.asarray(row_ids, dtype=np.int64)
        if rows.size == 0:
            return np.empty((*rows.shape, self.dim), dtype=np.float16)
        self._check_range(rows)
        vectors: NDArray[np.float16] = self._row_at[self._starts[rows // self._batch_rows] + rows * self.dim]
        return vectors

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
        if rows.size:
            self._check_range(rows)
        ids = np.empty(rows.size, dtype=object)
        if rows.size <= _FEW_ROWS:  # a call of Arrow's `take` costs as much as a hundred of these
            pairs = (divmod(row, self._batch_rows) for row in rows.ravel().tolist())
            ids[:] = [self._strings[number].at(index) for number, index in pairs]
            return ids.reshape(rows.shape)
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
        self._strings = []
        self._starts = np.empty(0, dtype=np.int64)
        self._flat = np.empty(0, dtype=np.float16)
        self._row_at = np.empty((0, self.dim), dtype=np.float16)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _slice(self, start: int, stop: int) -> NDArray[np.float32]:
        parts = []
        while start < stop:
            batch, row = divmod(start, self._batch_rows)
            count = min(stop - start, self._batch_rows - row)
            first = self._starts[batch] + start * self.dim
            parts.append(to_float32(self._flat[first : first + count * self.dim].reshape(count, self.dim)))
            start += count
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _check_range(self, row_ids: NDArray[np.int64]) -> None:
        if row_ids.view(np.uint64).max() >= self.rows:  # a negative number seen as unsigned is beyond every row
            wrong = int(row_ids.min() if row_ids.min() < 0 else row_ids.max())
            raise SearchParameterError(f"row id {wrong} is not in {self.path}, which has rows 0 to {self.rows - 1}")


class _StringColumn(NamedTuple):
    """A column of strings, whose offsets and UTF-8 bytes are read without an object of Arrow's in between."""

    offsets: memoryview
    data: memoryview

    @classmethod
    def of(cls, column: Any) -> Self:
        """Return the column, which starts at the first of its values and misses none."""
        _, offsets, data = column.buffers()
        return cls(memoryview(offsets).cast("B").cast("i"), memoryview(data if data is not None else b""))

    def at(self, index: int) -> str:
        return str(self.data[self.offsets[index] : self.offsets[index + 1]], "utf-8")


def _map(path: Path) -> mmap.mmap:
    with open_regular(path.parent, path.name) as file, explained("map", path):
        try:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as error:  # an empty file cannot be mapped
            raise CorruptIndexError(f"{path} is empty; roll back to another version or build again") from error


def _checked_dim(schema: pa.Schema, batches: Sequence[pa.RecordBatch]) -> int:
    """Return dim after comparing the structure with what the writer makes; ValueError says what differs."""
    stated = dict(schema.metadata or {})
    dim, batch_rows = int(stated.get(b"dim", b"0")), int(stated.get(b"batch_rows", b"0"))
    if dim < 1 or batch_rows < 1 or not schema.equals(vector_schema(dim, batch_rows), check_metadata=True):
        raise ValueError("its columns are not item_id and vector as written by this format")
    for number, batch in enumerate(batches):
        last = number == len(batches) - 1
        if batch.num_rows != batch_rows and not (last and 0 < batch.num_rows < batch_rows):
            raise ValueError(f"batch {number} has {batch.num_rows} rows and not {batch_rows}")
        batch.column(0).validate(full=True)
        batch.column(1).validate()
        if any(column.null_count or column.offset for column in batch.columns):
            raise ValueError(f"batch {number} holds missing values")
    return dim


def _element_offset(batch: pa.RecordBatch, mapped: NDArray[np.uint8]) -> int:
    """Return where the batch's first vector starts in the file, in float16 elements; ValueError if it does not fit."""
    values = batch.column(1).values
    data = values.buffers()[1]
    start = data.address + 2 * values.offset - mapped.ctypes.data
    expected = 2 * batch.num_rows * batch.schema.field(1).type.list_size
    if values.null_count or start % 2 or start < 0 or start + expected > mapped.size or data.size < expected:
        raise ValueError("the values of a batch lie outside the file")
    return int(start // 2)


def _overlapping_rows(values: NDArray[np.float16], dim: int) -> NDArray[np.float16]:
    """Return a view of overlapping rows, one at each even byte of the file, so that one fancy index reads any rows."""
    shape = (max(values.size - dim + 1, 0), dim)
    return np.lib.stride_tricks.as_strided(values, shape=shape, strides=(2, 2), writeable=False)
