"""Writes the catalog: what is known of every item, its pairs, and what was rejected."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .errors import DuplicateItemError, StorageError, first_line
from .files.atomic import checkpoint, explained, sync_file
from .schema import COLLECTIONS, IMAGE_INFO_COLUMNS


def _image_columns() -> dict[str, pa.DataType]:
    columns: dict[str, pa.DataType] = dict(ITEM_COLUMNS)
    for name, kind in IMAGE_INFO_COLUMNS.items():
        columns[name] = pa.type_for_alias(kind)
        if name == "sha256":
            columns["split"] = pa.string()
    return columns


# What every item has: a hit shows these in fields of their own.
ITEM_COLUMNS: Mapping[str, pa.DataType] = {
    "row_id": pa.int64(),
    "item_id": pa.string(),
    "uri": pa.string(),
    "caption": pa.string(),
}
IMAGE_COLUMNS: Mapping[str, pa.DataType] = _image_columns()
TEXT_COLUMNS: Mapping[str, pa.DataType] = {name: IMAGE_COLUMNS[name] for name in (*ITEM_COLUMNS, "sha256", "split")}
PAIR_COLUMNS: Mapping[str, pa.DataType] = {"image_row": pa.int64(), "text_row": pa.int64()}
REJECTED_COLUMNS: Mapping[str, pa.DataType] = {
    name: pa.string() for name in ("item_id", "collection", "uri", "stage", "reason", "detail")
}
TABLES: Mapping[str, Mapping[str, pa.DataType]] = {
    "images": IMAGE_COLUMNS,
    "texts": TEXT_COLUMNS,
    "pairs": PAIR_COLUMNS,
    "rejected": REJECTED_COLUMNS,
}
# What DuckDB raises where a file cannot be written or synced; a commit or a checkpoint wraps it.
_DISK_ERRORS = (duckdb.IOException, duckdb.TransactionException, duckdb.FatalException)
_INTERRUPTED = "Query interrupted"
_INTERRUPTED_INSIDE = "failed: KeyboardInterrupt:"  # it struck while DuckDB read an object of ours
# Names that a metadata column may not have, in any spelling; `rowid` is DuckDB's own column, by which rows are read.
RESERVED_NAMES = frozenset({*IMAGE_COLUMNS, *TEXT_COLUMNS, "rowid"})


def write_catalog(path: Path, *, images: pa.Table, texts: pa.Table, pairs: pa.Table, rejected: pa.Table) -> None:
    """Write the catalog to a new file, durably, as one file with no write-ahead log beside it.

    Args:
        path: The file, which must not exist yet.
        images: Columns `IMAGE_COLUMNS`, then the user's metadata; `row_id` counts from 0 in order.
        texts: Columns `TEXT_COLUMNS`, then the user's metadata; `row_id` counts from 0 in order.
        pairs: Columns `PAIR_COLUMNS`, row ids of `images` and `texts`.
        rejected: Columns `REJECTED_COLUMNS`.

    Raises:
        StorageError: A column is missing, of another type, or has a reserved or repeated name; row ids are out of order
            or out of range; the disk is full.
        DuplicateItemError: An `item_id` stands twice in `images` or in `texts`.
    """
    given = {"images": images, "texts": texts, "pairs": pairs, "rejected": rejected}
    tables = {name: _normalized(name, table) for name, table in given.items()}
    for collection in COLLECTIONS:
        _check_row_ids(collection, tables[collection])
    for column, target in (("image_row", "images"), ("text_row", "texts")):
        _check_range(column, tables["pairs"], tables[target].num_rows)
    with explained("write", path):
        _create(path, tables)
        checkpoint("catalog.written")
        sync_file(path)
    checkpoint("catalog.synced")


def quoted(name: str) -> str:
    """Return a name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


@contextmanager
def restored_keyboard_interrupt() -> Iterator[None]:
    """Turn the errors that DuckDB makes of a Ctrl-C back into the `KeyboardInterrupt` that it was."""
    try:
        yield
    except (RuntimeError, duckdb.Error) as error:
        if str(error) != _INTERRUPTED and _INTERRUPTED_INSIDE not in str(error):
            raise
        raise KeyboardInterrupt from error


def _create(path: Path, tables: Mapping[str, pa.Table]) -> None:
    config: dict[str, str | bool | int | float | list[str]] = {
        "python_enable_replacements": "false",
        "autoload_known_extensions": "false",
    }
    if path.exists():
        raise StorageError(f"{path} exists already; a catalog is written once, into a new draft")
    try:
        with closing(duckdb.connect(str(path), config=config)) as connection, restored_keyboard_interrupt():
            for name, table in tables.items():
                connection.register("source", table)
                connection.execute(f"CREATE TABLE {name} AS SELECT * FROM source")
                connection.unregister("source")
            for collection in COLLECTIONS:
                _refuse_duplicates(connection, collection)
            connection.execute("CHECKPOINT")
    except duckdb.Error as error:
        step = "check the disk and its free space" if isinstance(error, _DISK_ERRORS) else "fix the column"
        raise StorageError(f"cannot write {path}: {first_line(error)}; {step}, then run the command again") from error


def _normalized(name: str, table: pa.Table) -> pa.Table:
    """Return the table with the columns of the format first, each of its type, then metadata that DuckDB can hold."""
    expected = TABLES[name]
    missing = [column for column in expected if column not in table.column_names]
    if missing:
        raise StorageError(f"table {name!r} of the catalog lacks the columns {missing}; it has {table.column_names}")
    metadata = [column for column in table.column_names if column not in expected]
    if metadata and name not in COLLECTIONS:
        raise StorageError(f"table {name!r} of the catalog has no room for the columns {metadata}")
    _check_names(name, metadata)
    columns = {column: _cast(name, column, table.column(column), kind) for column, kind in expected.items()}
    for column in metadata:
        values = table.column(column)
        columns[column] = _cast(name, column, values, _storable(values.type))
    return pa.table(columns)


def _check_names(table: str, names: list[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        if not name or "\0" in name:
            raise StorageError(f"a metadata column of {table!r} is called {name!r}; give it a name")
        if name.casefold() in RESERVED_NAMES:
            raise StorageError(f"metadata column {name!r} of {table!r} has a name of Twinlens's own; rename it")
        if name.casefold() in seen:
            raise StorageError(
                f"metadata columns {seen[name.casefold()]!r} and {name!r} of {table!r} differ only in case, "
                "which SQL does not see; rename one"
            )
        seen[name.casefold()] = name


def _cast(table: str, name: str, values: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if values.type.equals(kind):
        return values
    try:
        return values.cast(kind)
    except pa.ArrowException as error:
        raise StorageError(
            f"column {name!r} of {table!r} is {values.type} and cannot become {kind}: {first_line(error)}"
        ) from error


def _storable(kind: pa.DataType) -> pa.DataType:
    # An ENUM, made of a dictionary, cannot be compared with any other word: a filter for one would be an error.
    if pa.types.is_dictionary(kind):
        return _storable(kind.value_type)
    if pa.types.is_null(kind):
        return pa.string()
    return pa.float32() if pa.types.is_float16(kind) else kind


def _check_row_ids(collection: str, table: pa.Table) -> None:
    row_ids = np.asarray(table.column("row_id").combine_chunks())
    if table.column("row_id").null_count or not np.array_equal(row_ids, np.arange(table.num_rows)):
        raise StorageError(f"row ids of {collection!r} do not count from 0 to {table.num_rows - 1} in order")
    if table.column("item_id").null_count:
        row = pc.index(table.column("item_id").is_null(), True).as_py()
        raise StorageError(f"row {row} of {collection!r} has no item_id; give every item an id")


def _check_range(column: str, pairs: pa.Table, rows: int) -> None:
    values = pairs.column(column)
    span = pc.min_max(values).as_py()
    if values.null_count or (pairs.num_rows and (span["min"] < 0 or span["max"] >= rows)):
        raise StorageError(f"pairs name rows {span['min']} to {span['max']} as {column}; there are {rows} such rows")


def _refuse_duplicates(connection: duckdb.DuckDBPyConnection, collection: str) -> None:
    repeated = connection.execute(
        f"SELECT item_id, min(row_id), max(row_id) FROM {collection} GROUP BY item_id HAVING count(*) > 1 LIMIT 1"
    ).fetchone()
    if repeated:
        item_id, first, last = repeated
        raise DuplicateItemError(
            f"item_id {item_id!r} stands for rows {first} and {last} of {collection}; give every item an id of its own"
        )
