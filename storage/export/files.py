"""Export into files: Parquet, `.npy` with a table beside it, or Lance, in a folder that appears whole or not at all."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import StorageError, install_hint
from ..files import atomic
from .rows import COLLECTION, PAIR_SCHEMA, Pairs, Rows

FileFormat = Literal["parquet", "npy", "lance"]
MARK = "export.json"
SINGLE, SINGLE_MARK = ".parquet", b"twinlens_export"
FILE_SUFFIXES = frozenset(
    {SINGLE, ".pq", ".csv", ".tsv", ".json", ".jsonl", ".npy", ".npz", ".arrow", ".feather", ".xlsx"}
)


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


def is_single_file(target: Path, kind: FileFormat) -> bool:
    """Return whether a target is called like one Parquet file.

    Raises:
        StorageError: It is called like a file that this export does not write.
    """
    suffix = target.suffix.lower()
    if suffix not in FILE_SUFFIXES:
        return False
    if suffix != SINGLE or kind != "parquet":
        raise StorageError(
            f"{str(target)!r} is called like a {suffix} file and --format {kind} writes none; name a new folder, "
            f"or a file that ends in {SINGLE} with --format parquet"
        )
    return True


def write_single_parquet(path: Path, parts: Sequence[Rows], facts: Mapping[str, Any]) -> None:
    """Write one table of all collections, `collection` first; columns that one of them lacks are null there.

    Raises:
        StorageError: One column has other types in images and texts.
    """
    marked = {SINGLE_MARK: json.dumps(facts, allow_nan=False).encode()}
    try:
        schema = pa.unify_schemas([pa.schema([(COLLECTION, pa.string())]), *(part.schema for part in parts)])
    except pa.ArrowException as error:
        raise StorageError(f"images and texts do not fit into one table: {error}; choose by --collection") from error
    _parquet(
        path,
        schema.with_metadata(marked),
        (_widened(batch, part, schema) for part in parts for batch in part.batches()),
    )


def _widened(batch: pa.RecordBatch, part: Rows, schema: pa.Schema) -> pa.RecordBatch:
    known = {name: batch.column(name) for name in batch.schema.names}
    known[COLLECTION] = pa.array([part.collection] * batch.num_rows, pa.string())
    columns = [known.get(field.name, pa.nulls(batch.num_rows, field.type)) for field in schema]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def extra(module: str, name: str, package: str) -> Any:
    """Import a package that an extra of ours brings.

    Raises:
        StorageError: It is not installed; the message says how to get it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise StorageError(f"this export needs {package}: {error}; {install_hint(name)}") from error


def check_target(target: Path, *, force: bool) -> None:
    """Refuse a target that is there already; with `force` only what is no export.

    Raises:
        StorageError: The target is there, or its parent is not a folder.
    """
    if not target.name:
        raise StorageError(f"cannot export to {str(target)!r}; name a new folder")
    if not target.parent.is_dir():
        raise StorageError(f"there is no folder {str(target.parent)!r} to export into; make it first")
    if not (target.exists() or target.is_symlink()):
        return
    if not force:
        raise StorageError(f"{target} exists already; name another folder, or give --force to replace it")
    if target.is_symlink() or not ((target / MARK).is_file() or _is_marked(target)):
        raise StorageError(f"{target} is not an export (it has no {MARK}), and --force replaces only those; remove it")


def _is_marked(target: Path) -> bool:
    """Whether a file is one that we exported."""
    try:
        return target.is_file() and SINGLE_MARK in (pq.read_schema(target).metadata or {})
    except (OSError, pa.ArrowException):
        return False


@contextmanager
def whole_folder(target: Path, *, force: bool, single: bool = False) -> Iterator[Path]:
    """Give an empty folder to write into; at the end of the block it is made durable and becomes `target`.

    With `single` it is the file of that name in the folder that becomes `target`.

    Where the block fails, nothing is left. What a killed export left is cleared by the next one to the same target.

    Raises:
        StorageError: Another export writes there, the target is there already, or the disk is full.
    """
    check_target(target, force=force)
    work = target.with_name(f".{target.name}.exporting")
    with atomic.explained("write", work), _held(work):
        try:
            yield work
            _sync(work)
            atomic.checkpoint("export.synced")
            _take_place(work / target.name if single else work, target, force)
            if single:
                atomic.remove_folder(work)
        except BaseException:
            atomic.remove_folder(work)
            raise


def write_mark(folder: Path, facts: Mapping[str, Any]) -> None:
    """Say in the folder what it is."""
    text = json.dumps(facts, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
    (folder / MARK).write_text(text, encoding="utf-8")


def _parquet(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    with path.open("xb") as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch)


def _lance(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    lance = extra("lance", "lance", "pylance")
    reader = pa.RecordBatchReader.from_batches(schema, batches)
    lance.write_dataset(reader, str(path), mode="create")


@contextmanager
def _held(work: Path) -> Iterator[None]:
    """Make the folder, empty, and hold a lock on it that ends with this process."""
    atomic.make_folder(work)
    descriptor = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StorageError(f"another export is writing {work}; wait for it, or name another folder") from error
        for left in work.iterdir():
            atomic.remove_folder(left) if left.is_dir() and not left.is_symlink() else left.unlink()
        yield
    finally:
        os.close(descriptor)


def _sync(work: Path) -> None:
    paths = sorted(work.rglob("*"))
    for path in paths:
        if path.is_file():
            atomic.sync_file(path)
    for folder in [*(path for path in paths if path.is_dir()), work]:
        atomic.sync_directory(folder)


def _take_place(work: Path, target: Path, force: bool) -> None:
    check_target(target, force=force)
    old = target.with_name(f".{target.name}.replaced")
    _remove(old)
    if target.exists():
        # Between these two renames there is no target; both folders are whole all the while.
        atomic.rename(target, old, "export_old")
    atomic.rename(work, target, "export")
    _remove(old)


def _remove(path: Path) -> None:
    path.unlink() if path.is_file() else atomic.remove_folder(path)
