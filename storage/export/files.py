"""Rows as files: Parquet, `.npy` with a table beside it, Lance."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import StorageError
from .pairs import PAIR_SCHEMA, Pairs
from .rows import Rows

FileFormat = Literal["parquet", "npy", "lance"]


def write_parquet(folder: Path, rows: Rows) -> None:
    """Write `COLLECTION.parquet`: item id, vector (a fixed-size list), metadata."""
    _parquet(folder / f"{rows.collection}.parquet", rows.schema, rows.batches())


def write_npy(folder: Path, rows: Rows) -> None:
    """Write `COLLECTION/vectors.npy`, (rows, dim), and `COLLECTION/items.parquet` with a row a vector, in its order."""
    home = folder / rows.collection
    home.mkdir()
    header = {"descr": np.lib.format.dtype_to_descr(rows.numbers), "fortran_order": False}
    with (home / "vectors.npy").open("xb") as file:
        np.lib.format.write_array_header_1_0(file, {**header, "shape": (len(rows.row_ids), rows.dim)})
        for _, vectors in rows.blocks():
            file.write(np.ascontiguousarray(vectors).data)
    schema = pa.schema([field for field in rows.schema if field.name != "vector"])
    tables = rows.metadata_batches()
    _parquet(home / "items.parquet", schema, (batch for table in tables for batch in table.cast(schema).to_batches()))


def write_lance(folder: Path, rows: Rows) -> None:
    """Write the Lance data set `COLLECTION.lance`."""
    _lance(folder / f"{rows.collection}.lance", rows.schema, rows.batches())


def write_pairs(folder: Path, kind: FileFormat, pairs: Pairs) -> None:
    """Write the pairs beside the collections, in a form that fits theirs."""
    if kind == "lance":
        _lance(folder / "pairs.lance", PAIR_SCHEMA, pairs.batches())
    else:
        _parquet(folder / "pairs.parquet", PAIR_SCHEMA, pairs.batches())


WRITERS: dict[FileFormat, Callable[[Path, Rows], None]] = {
    "parquet": write_parquet,
    "npy": write_npy,
    "lance": write_lance,
}


def extra(module: str, name: str, package: str) -> Any:
    """Import a package that an extra of ours brings.

    Raises:
        StorageError: It is not installed; the message says how to get it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise StorageError(f'this export needs {package}: {error}; pip install "twinlens[{name}]"') from error


def _parquet(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    with path.open("xb") as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch)


def _lance(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    lance = extra("lance", "lance", "pylance")
    reader = pa.RecordBatchReader.from_batches(schema, batches)
    lance.write_dataset(reader, str(path), mode="create")
