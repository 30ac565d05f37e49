"""Writes the vectors of a collection; the bytes depend only on the rows, not on how they came."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .atomic import checkpoint, explained
from .errors import StorageError

BATCH_ROWS = 131_072


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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
