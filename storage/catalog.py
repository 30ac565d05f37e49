"""The catalog of a version: a DuckDB file, opened read only and locked against everything but reading its tables."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Literal, Self

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from .errors import CorruptIndexError, DuplicateItemError, SearchParameterError, StorageError, first_line
from .files.atomic import checkpoint, explained, sync_file
from .files.duckdb_file import open_locked, refuse_all_but_tables, written_through
from .files.layout import open_regular
from .files.mapped import memory_bytes
from .filtering.captions import any_caption_sql, names_caption
from .filtering.cost import is_plain
from .filtering.own_names import names_own, written_out
from .filtering.process import FilterProcesses, evaluate
from .metadata_columns import check_names, stored
from .schema import COLLECTIONS, IMAGE_INFO_COLUMNS, ITEM_COLUMNS, LATER_COLUMNS, TOLD_COLUMNS, Collection
from .where import parse_predicate, predicate_sql, shortened


def _image_columns() -> dict[str, pa.DataType]:
    columns: dict[str, pa.DataType] = {}
    for name, kind in {**ITEM_COLUMNS, **IMAGE_INFO_COLUMNS}.items():
        columns[name] = pa.list_(pa.string()) if kind == "list<string>" else pa.type_for_alias(kind)
        if name == "sha256":
            columns["split"] = pa.string()
    return columns


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
RESERVED_NAMES = frozenset({*IMAGE_COLUMNS, *TEXT_COLUMNS, "rowid"} - TOLD_COLUMNS)


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


__all__ = [
    "IMAGE_COLUMNS",
    "PAIR_COLUMNS",
    "REJECTED_COLUMNS",
    "RESERVED_NAMES",
    "TABLES",
    "TEXT_COLUMNS",
    "Catalog",
    "write_catalog",
]

_COLUMNS = """SELECT table_name, column_name, data_type FROM duckdb_columns()
WHERE database_name = current_database() ORDER BY column_index"""
_SQL_TYPES = {pa.int64(): "BIGINT", pa.int32(): "INTEGER", pa.string(): "VARCHAR"}
TableName = Literal["images", "texts", "pairs", "rejected"]


# What DuckDB may take to answer from a catalog. Most questions take 50 MiB; a condition on captions joins all of them,
# some 100 bytes each, which is less than four times what they take in the file.
_MEMORY_BYTES, _MEMORY_A_BYTE = 512 << 20, 4


class Catalog:
    """Reads the tables of one version; safe from many threads, a cursor a call.

    It keeps working when its file is removed.
    """

    def __init__(self, path: Path, file: BinaryIO, connection: duckdb.DuckDBPyConnection) -> None:
        self.path = path
        self._connection = connection
        self._processes = FilterProcesses(path, file)
        self._lock = threading.Lock()
        self._columns = self._read_columns(file)
        self.counts: Mapping[str, int] = {name: self._count(name) for name in TABLES}

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the catalog at `path` and check that its tables are those of this format.

        Raises:
            CorruptIndexError: The file is missing, not a catalog, or lacks a table or column.
        """
        path = Path(path)
        with open_regular(path.parent, path.name) as file:
            try:
                connection = open_locked(path, file, memory_limit=_memory_limit(file))
            except duckdb.Error as error:
                raise CorruptIndexError(
                    f"{path} is not a catalog ({first_line(error)}); roll back to another version or build again"
                ) from error
            try:
                return cls(path, file, connection)
            except BaseException:
                connection.close()
                raise

    def columns(self, collection: Collection) -> list[tuple[str, str]]:
        """Return name and SQL type of each column of a collection, in order, the user's metadata last."""
        return list(self._columns[collection])

    def rows(
        self, collection: Collection, row_ids: Sequence[int] | NDArray[np.int64], columns: Sequence[str] | None = None
    ) -> list[dict[str, Any]]:
        """Return one dict a row id, in the order given; the same row id may come twice.

        Args:
            collection: `images` or `texts`.
            row_ids: Row ids. Some 2 ms for ten of a million rows, wherever they lie.
            columns: Names to return, in this order; all by default.

        Raises:
            SearchParameterError: A column or a row id is not in the collection.
        """
        names = [name for name, _ in self._columns[collection]]
        selected = names if columns is None else list(columns)
        if unknown := [name for name in selected if name not in names]:
            raise SearchParameterError(f"{collection} have no column {unknown[0]!r}; they have {', '.join(names)}")
        requested = [int(row) for row in row_ids]
        if not requested:
            return []
        # A semi-join: an IN list of constants makes DuckDB read every row group that lies between them.
        sql = f"SELECT rowid, {', '.join(map(quoted, selected))} FROM {collection} WHERE rowid IN (SELECT unnest(?))"
        with self._cursor() as cursor:
            by_id = {row[0]: row[1:] for row in cursor.execute(sql, [requested]).fetchall()}
        if missing := [row for row in requested if row not in by_id]:
            last = self.counts[collection] - 1
            raise SearchParameterError(f"row id {missing[0]} is not in {collection}, which have rows 0 to {last}")
        return [dict(zip(selected, by_id[row], strict=True)) for row in requested]

    def item_ids(self, collection: Collection, start: int, stop: int) -> NDArray[np.object_]:
        """Return the item ids of the rows from `start` to before `stop`, those that exist, in row order: (n,) str."""
        sql = f"SELECT item_id FROM {collection} WHERE row_id >= ? AND row_id < ? ORDER BY row_id"
        with self._cursor() as cursor:
            ids = [row[0] for row in cursor.execute(sql, [start, stop]).fetchall()]
        return np.array(ids, dtype=object)

    def arrow(self, collection: Collection, row_ids: NDArray[np.int64], columns: Sequence[str]) -> pa.Table:
        """Return some columns of these rows as an Arrow table, with the catalog's own types.

        Args:
            collection: `images` or `texts`.
            row_ids: (n,) int64, ascending, each once; the rows come in their order.
            columns: Names of columns, at least one.
        """
        chosen = f"SELECT {', '.join(map(quoted, columns))} FROM {collection}"
        with self._cursor() as cursor:
            table: pa.Table = cursor.sql(
                f"{chosen} WHERE rowid IN (SELECT unnest(?)) ORDER BY row_id", params=[row_ids.tolist()]
            ).to_arrow_table()
            return table

    def filter_rows(self, collection: Collection, where: str, timeout: float = 10.0) -> NDArray[np.int64]:
        """Return the row ids that satisfy a predicate, (n,) int64, ascending.

        A condition on `caption` looks at every caption of an image; see `storage.filtering.captions`.

        Raises:
            SearchParameterError: It is not one expression, DuckDB refuses it (a typo in a column, a type that does not
                fit), or it takes longer than `timeout` seconds or much memory.
        """
        tree = self.parse_predicate(where)
        try:
            sql = self._filter_sql(collection, where, tree)
            rows = self._rows_here(sql, timeout) if is_plain(tree) else self._processes.rows(sql, timeout)
        except SearchParameterError as error:
            names = ", ".join(name for name, _ in self._columns[collection])
            raise SearchParameterError(
                f"where {shortened(where)!r} {error}; the columns of {collection} are {names}"
            ) from error
        return rows

    def _filter_sql(self, collection: Collection, where: str, tree: dict[str, Any]) -> str:
        if names_own(tree):
            columns = [name for name, _ in self._columns[collection]]
            tree = written_out(tree, columns, self.parse_predicate, datetime.now())
            with self._cursor() as cursor:
                where = predicate_sql(cursor, tree)
        if collection == "texts" or not self.counts["pairs"] or not names_caption(tree):
            return f"SELECT row_id FROM (SELECT * FROM {collection}) AS {collection} WHERE (\n{where}\n)"
        columns = [name for name, _ in self._columns[collection]]
        with self._cursor() as cursor:
            return any_caption_sql(tree, columns, lambda part: predicate_sql(cursor, part))

    def _rows_here(self, sql: str, seconds: float) -> NDArray[np.int64]:
        with self._cursor() as cursor:
            return evaluate(cursor, sql, seconds)

    def parse_predicate(self, where: str) -> dict[str, Any]:
        """Return the tree of one SQL expression as DuckDB's parser gives it; see `parse_predicate`.

        Raises:
            SearchParameterError: It is not one expression.
        """
        with self._cursor() as cursor:
            return parse_predicate(cursor, where)

    def row_hashes(self, collection: Collection, without: Set[str] = frozenset()) -> dict[str, NDArray[np.uint64]]:
        """Return 64-bit hashes of each row, in no order, by which two catalogs are compared: four arrays (n,).

        `id` of the item id, `content` of the checksum, `place` of the uri, and `row` of all columns that say
        something of the item, metadata included, but those in `without`.
        """
        silent = {"row_id", "mtime_ns", *without}
        names = [quoted(name) for name, _ in self._columns[collection] if name not in silent]
        sql = (
            "SELECT hash(item_id) AS id, hash(sha256) AS content, hash(uri) AS place, "
            f"hash({', '.join(names)}) AS row FROM {collection}"
        )
        with self._cursor() as cursor:
            return {name: np.asarray(values) for name, values in cursor.execute(sql).fetchnumpy().items()}

    def table(self, name: TableName, columns: Sequence[str] | None = None) -> pa.Table:
        """Return a whole table, in row order, or only these columns of it."""
        chosen = "*" if columns is None else ", ".join(map(quoted, columns))
        with self._cursor() as cursor:
            table: pa.Table = cursor.sql(f"SELECT {chosen} FROM {name}").to_arrow_table()
            return table

    def close(self) -> None:
        """Close the file."""
        self._processes.close()
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        try:
            with self._lock:
                cursor = self._connection.cursor()
            with cursor, restored_keyboard_interrupt():
                yield cursor
        except duckdb.ConnectionException as error:
            raise StorageError(f"{self.path} is closed; open the index again") from error
        except duckdb.OutOfMemoryException as error:
            raise StorageError(f"{self.path} takes more memory to read than it may: {first_line(error)}") from error
        except duckdb.Error as error:
            raise CorruptIndexError(f"{self.path} cannot be read: {first_line(error)}; verify the index") from error

    def _read_columns(self, file: BinaryIO) -> dict[str, list[tuple[str, str]]]:
        columns: dict[str, list[tuple[str, str]]] = {name: [] for name in TABLES}
        with self._cursor() as cursor:
            refuse_all_but_tables(cursor, self.path, file, TABLES)
            for table, name, kind in cursor.execute(_COLUMNS).fetchall():
                columns[table].append((name, kind))
        for table in TABLES:
            # Later ones stand behind, where they may be the user's as well, of any type.
            expected = [(name, _SQL_TYPES[kind]) for name, kind in TABLES[table].items() if name not in LATER_COLUMNS]
            actual = columns[table][: len(expected)]
            if actual != expected:
                raise CorruptIndexError(
                    f"{self.path} has columns {_listed(actual)} in table {table!r} where {_listed(expected)} are "
                    "expected; build again"
                )
        return columns

    def _count(self, name: str) -> int:
        with self._cursor() as cursor:
            (count,) = cursor.execute(f"SELECT count(*) FROM {name}").fetchone() or (0,)
        return int(count)


def _memory_limit(file: BinaryIO) -> str:
    """Return the limit for a catalog of this size, at most DuckDB's own share, 80 %, of the memory that there is."""
    wanted = _MEMORY_BYTES + _MEMORY_A_BYTE * os.fstat(file.fileno()).st_size
    return f"{min(wanted, memory_bytes() * 4 // 5) >> 20}MiB"


def _listed(columns: list[tuple[str, str]]) -> str:
    return ", ".join(f"{name[:80]} {kind[:80]}" for name, kind in columns) or "none"


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


def _create(path: Path, tables: Mapping[str, pa.Table]) -> None:
    config: dict[str, str | bool | int | float | list[str]] = {
        "python_enable_replacements": "false",
        "autoload_known_extensions": "false",
    }
    if path.exists():
        raise StorageError(f"{path} exists already; a catalog is written once, into a new draft")
    try:
        with (
            written_through(path) as target,
            closing(duckdb.connect(str(target), config=config)) as connection,
            restored_keyboard_interrupt(),
        ):
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
    kinds = {field.name: field.type for field in table.schema}
    expected = {
        column: kind
        for column, kind in TABLES[name].items()
        if column not in LATER_COLUMNS or kinds.get(column) == kind
    }
    missing = [column for column in expected if column not in table.column_names]
    if missing:
        raise StorageError(f"table {name!r} of the catalog lacks the columns {missing}; it has {table.column_names}")
    metadata = [column for column in table.column_names if column not in expected]
    if metadata and name not in COLLECTIONS:
        raise StorageError(f"table {name!r} of the catalog has no room for the columns {metadata}")
    check_names(name, metadata, RESERVED_NAMES)
    columns = {column: stored(name, column, table.column(column), kind) for column, kind in expected.items()}
    columns |= {column: stored(name, column, table.column(column)) for column in metadata}
    return pa.table(columns)


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
