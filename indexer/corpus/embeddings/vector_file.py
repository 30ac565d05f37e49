"""Ready-made vectors on disk: `.npy` and Parquet, a chunk at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ...errors import SourceError
from ..file_pattern import files_in_parts
from ..item import one_line
from ..layouts.lines import check_regular
from ..tables.column_types import plain_column, plain_type
from ..tables.columns import listed
from ..tables.parquet_file import PARQUET_ERRORS

SUFFIXES = (".npy", ".parquet")
VECTOR_NAMES = ("vector", "embedding", "emb", "features")
# NumPy evaluates the header as Python text, so a damaged one can fail in any of these ways.
UNREADABLE = (ValueError, TypeError, KeyError, OverflowError, OSError, EOFError, SyntaxError, TokenError)
FLOATS = (np.float16, np.float32, np.float64)


class NpyVectors:
    """A 2-D `.npy` file of float16, float32 or float64, mapped and never unpickled; `dim` is 0 where there is no row.

    Raises:
        SourceError: It is no such file, is cut short, or holds Python objects, which could run code.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        array = self._map()
        self.rows, self.dim = len(array) if array.ndim else -1, 0
        if not self.rows:
            return  # what was left for the last of several processes
        if array.ndim != 2 or array.dtype.type not in FLOATS or not array.size:
            raise SourceError(
                f"{path.name} holds {array.dtype} of shape {array.shape}; expected (rows, dim) of float16, "
                "float32 or float64"
            )
        self.rows, self.dim = array.shape

    def chunks(self, size: int) -> Iterator[np.ndarray]:
        """(n, dim) copies of at most `size` rows: float16 as it stands in the file, else float32."""
        for start in range(0, self.rows, size):
            # Mapped anew for each chunk, so that pages already read do not stay on this process's account.
            part = self._map()[start : start + size]
            yield np.array(part, dtype=np.float16, order="C") if part.dtype.type is np.float16 else _float32(part)

    def _map(self) -> np.ndarray:
        try:
            check_regular(self.path)
            return np.lib.format.open_memmap(self.path, mode="r")
        except UNREADABLE as error:
            raise SourceError(
                f"{str(self.path)!r} is no plain .npy array: {one_line(error)}; write it with numpy.save(path, array) "
                "from a float array, without pickle"
            ) from error


class ParquetVectors:
    """A column of equally long lists of floats in a Parquet file; `column` None takes the only one there is.

    `dim` is 0 where there is no row.

    Raises:
        SourceError: It is no Parquet file, or has no such column.
    """

    def __init__(self, path: Path, column: str | None = None) -> None:
        self.path = path
        try:
            check_regular(path)
            with pq.ParquetFile(path) as file:
                self.schema: pa.Schema = file.schema_arrow
                self.rows: int = file.metadata.num_rows
                self.column, self.dim = "", 0
                if self.rows:  # without rows a column may be of no type
                    self.column = _vector_column(self.schema, column, path)
                    self.dim = self._find_dim(file)
        except PARQUET_ERRORS as error:
            raise SourceError(f"{path.name} cannot be read as Parquet: {one_line(error)}; make a new copy") from error

    def chunks(self, size: int) -> Iterator[np.ndarray]:
        """(n, dim) float32 arrays of at most `size` rows."""
        start = 0
        try:
            with pq.ParquetFile(self.path) as file:
                for batch in file.iter_batches(size, columns=[self.column], use_threads=False):
                    yield self._dense(plain_column(batch.column(0)), start)
                    start += len(batch)
        except PARQUET_ERRORS as error:
            raise SourceError(
                f"{self.path.name} is damaged after row {start}: {one_line(error)}; make a new copy"
            ) from error

    def _find_dim(self, file: Any) -> int:
        kind = plain_type(self.schema.field(self.column).type)
        if pa.types.is_fixed_size_list(kind):
            return int(kind.list_size)
        for batch in file.iter_batches(1024, columns=[self.column], use_threads=False):
            longest = pc.max(pc.list_value_length(plain_column(batch.column(0)))).as_py()
            if longest:
                return int(longest)
        raise SourceError(f"column {self.column!r} of {self.path.name} holds no vector")

    def _dense(self, column: Any, start: int) -> np.ndarray:
        dense = np.full((len(column), self.dim), np.nan, np.float32)
        there = column.is_valid().to_numpy(zero_copy_only=False)
        lengths = pc.list_value_length(column).fill_null(self.dim).to_numpy(zero_copy_only=False)
        odd = np.flatnonzero(lengths != self.dim)
        if len(odd):
            raise SourceError(
                f"row {start + odd[0]} of {self.path.name} has {lengths[odd[0]]} numbers in column {self.column!r}, "
                f"others have {self.dim}; vectors must be equally long"
            )
        flat = column.drop_null().flatten().to_numpy(zero_copy_only=False)
        dense[there] = _float32(flat.reshape(-1, self.dim))
        return dense


def open_vectors(path: Path, column: str | None = None) -> tuple[Sequence[NpyVectors | ParquetVectors], str]:
    """The vector files at `path` that hold vectors, and a note of those that hold none, empty where there are none.

    `path` is one file, a pattern, or a folder of `.npy` or Parquet files, read in natural order (2 before 10).

    Raises:
        SourceError: Nothing is there, a file is not what its suffix says, or the files differ in `dim`.
    """
    paths = files_in_parts(path, SUFFIXES, "vectors")
    opened = [ParquetVectors(one, column) if one.suffix.lower() == ".parquet" else NpyVectors(one) for one in paths]
    files = [file for file in opened if file.rows]
    empty = [file.path.name for file in opened if not file.rows]
    if not files:
        raise SourceError(f"{path.name} holds no vector: {empty[0]} has no rows; make the vectors anew")
    for file in files[1:]:
        if file.dim != files[0].dim:
            raise SourceError(
                f"{file.path.name} holds {file.dim}-d vectors, {files[0].path.name} {files[0].dim}-d; "
                "all vectors of an index have one length"
            )
    return files, f"{len(empty)} of {len(opened)} files of vectors hold no row, first {empty[0]}" if empty else ""


def _float32(array: np.ndarray) -> np.ndarray:
    # A float64 beyond float32 becomes infinite here and its row is rejected as not finite.
    with np.errstate(over="ignore", invalid="ignore"):  # nor is a signalling NaN worth a warning
        return np.array(array, dtype=np.float32, order="C")


def _vector_column(schema: pa.Schema, column: str | None, path: Path) -> str:
    lists = [field.name for field in schema if _is_vector(field.type)]
    if column is not None and column in lists:
        return column
    named = [name for name in VECTOR_NAMES if name in lists]
    if column is None and (len(lists) == 1 or named):
        return named[0] if named else str(lists[0])
    problem = f"no vector column {column!r}" if column else f"{len(lists)} vector columns"
    raise SourceError(
        f"{path.name} has {problem}; name one of its columns of float lists: {', '.join(lists) or 'there is none'} "
        f"(all columns: {listed(schema.names)})"
    )


def _is_vector(kind: pa.DataType) -> bool:
    kind = plain_type(kind)
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return bool(is_list and pa.types.is_floating(kind.value_type))
