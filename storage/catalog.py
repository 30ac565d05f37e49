"""The catalog of a version: a DuckDB file, opened read only and locked against everything but reading its tables."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Self

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .catalog_writer import (
    IMAGE_COLUMNS,
    ITEM_COLUMNS,
    PAIR_COLUMNS,
    REJECTED_COLUMNS,
    RESERVED_NAMES,
    TABLES,
    TEXT_COLUMNS,
    quoted,
    restored_keyboard_interrupt,
    write_catalog,
)
from .errors import CorruptIndexError, SearchParameterError, StorageError, first_line
from .files.layout import open_regular
from .schema import LATER_COLUMNS, Collection
from .where import parse_predicate, shortened

__all__ = [
    "IMAGE_COLUMNS",
    "ITEM_COLUMNS",
    "PAIR_COLUMNS",
    "REJECTED_COLUMNS",
    "RESERVED_NAMES",
    "TABLES",
    "TEXT_COLUMNS",
    "Catalog",
    "write_catalog",
]

TableName = Literal["images", "texts", "pairs", "rejected"]

# No files, no Python variables, no extensions, no spilling beside the catalog; and none of it can be switched back.
# One place for all of it: DuckDB refuses to open a file twice in a process with different settings.
_LOCKED: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "python_enable_replacements": "false",
    "python_scan_all_frames": "false",
    "autoload_known_extensions": "false",
    "autoinstall_known_extensions": "false",
    "allow_community_extensions": "false",
    "temp_directory": "",
    "lock_configuration": "true",
}


class Catalog:
    """Reads the tables of one version; safe from many threads, a cursor a call.

    It keeps working when its file is removed.
    """

    def __init__(self, path: Path, connection: duckdb.DuckDBPyConnection) -> None:
        self.path = path
        self._connection = connection
        self._lock = threading.Lock()
        self._columns = self._read_columns()
        self.counts: Mapping[str, int] = {name: self._count(name) for name in TABLES}

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the catalog at `path` and check that its tables are those of this format.

        Raises:
            CorruptIndexError: The file is missing, not a catalog, or lacks a table or column.
        """
        path = Path(path)
        open_regular(path.parent, path.name).close()
        try:
            connection = duckdb.connect(str(path.resolve()), read_only=True, config=_LOCKED)
        except duckdb.Error as error:
            raise CorruptIndexError(
                f"{path} is not a catalog ({first_line(error)}); roll back to another version or build again"
            ) from error
        try:
            return cls(path, connection)
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

        Raises:
            SearchParameterError: It is not one expression, DuckDB refuses it (a typo in a column, a type that does not
                fit), or it takes longer than `timeout` seconds.
        """
        self.parse_predicate(where)
        sql = f"SELECT row_id FROM (SELECT * FROM {collection}) AS {collection} WHERE (\n{where}\n)"
        with self._cursor() as cursor, _limited(cursor, timeout):
            try:
                row_ids = cursor.execute(sql).fetchnumpy()["row_id"]
            except duckdb.InterruptException as error:
                raise SearchParameterError(
                    f"where {shortened(where)!r} took longer than {timeout:g} s on {collection}; simplify it"
                ) from error
            except duckdb.Error as error:
                names = ", ".join(name for name, _ in self._columns[collection])
                raise SearchParameterError(
                    f"where {shortened(where)!r} cannot be used: {first_line(error)}; "
                    f"the columns of {collection} are {names}"
                ) from error
        return np.sort(np.asarray(row_ids, dtype=np.int64))

    def parse_predicate(self, where: str) -> dict[str, Any]:
        """Return the tree of one SQL expression as DuckDB's parser gives it; see `parse_predicate`.

        Raises:
            SearchParameterError: It is not one expression.
        """
        with self._cursor() as cursor:
            return parse_predicate(cursor, where)

    def table(self, name: TableName) -> pa.Table:
        """Return a whole table, in row order."""
        with self._cursor() as cursor:
            table: pa.Table = cursor.sql(f"SELECT * FROM {name}").to_arrow_table()
            return table

    def close(self) -> None:
        """Close the file."""
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
        except duckdb.Error as error:
            raise CorruptIndexError(f"{self.path} cannot be read: {first_line(error)}; verify the index") from error

    def _read_columns(self) -> dict[str, list[tuple[str, str]]]:
        sql = "SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE NOT internal ORDER BY column_index"
        columns: dict[str, list[tuple[str, str]]] = {name: [] for name in TABLES}
        with self._cursor() as cursor:
            for table, name, kind in cursor.execute(sql).fetchall():
                columns.setdefault(table, []).append((name, kind))
        for table in TABLES:
            present = {name for name, _ in columns[table]}
            expected = [name for name in TABLES[table] if name in present or name not in LATER_COLUMNS]
            names = [name for name, _ in columns[table][: len(expected)]]
            if names != expected:
                raise CorruptIndexError(
                    f"{self.path} has columns {names} in table {table!r} where {expected} are expected; build again"
                )
        return columns

    def _count(self, name: str) -> int:
        with self._cursor() as cursor:
            (count,) = cursor.execute(f"SELECT count(*) FROM {name}").fetchone() or (0,)
        return int(count)


@contextmanager
def _limited(cursor: duckdb.DuckDBPyConnection, seconds: float) -> Iterator[None]:
    """Interrupt what runs on the cursor after some seconds."""
    timer = threading.Timer(seconds, cursor.interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
