"""DuckDB files: written whole, opened read only and locked against everything but reading, whatever their path.

DuckDB takes a `?` in a path for the start of parameters and `\\` for a folder's end. A file below such a path is
written, or read, by way of a copy in the folder for temporary files, which is gone as soon as DuckDB has it open.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

import duckdb

from ..errors import CorruptIndexError
from ..lru import Lru
from .layout import copy_open_file, is_same_file

# No files, no Python variables, no extensions, no spilling beside the catalog; and none of it can be switched back.
# One place for all of it: DuckDB refuses to open a file twice in a process with different settings.
LOCKED: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "python_enable_replacements": "false",
    "python_scan_all_frames": "false",
    "autoload_known_extensions": "false",
    "autoinstall_known_extensions": "false",
    "allow_community_extensions": "false",
    "temp_directory": "",
    # A division by zero is unknown (NULL), as SQL has it: NaN would pass every filter that asks for large values.
    "ieee_floating_point_ops": "false",
    "error_on_division_by_zero": "false",
    "lock_configuration": "true",
}
_BLOCK = 1 << 20
_READ_OTHERWISE = "?\\"

# What a file may hold besides plain tables, and where DuckDB lists it. Views come first: whatever looks at the columns
# of one, DuckDB's own functions included, would run the statement that it stands for. That something is DuckDB's own
# (`internal`) is told by the file itself, so that counts for nothing. Functions are named in full: a macro of the file
# goes before a function of DuckDB's with the same bare name.
_FOREIGN = {
    "a view": "SELECT view_name FROM system.main.duckdb_views()",
    "a macro": "SELECT function_name FROM system.main.duckdb_functions()",
    "a sequence": "SELECT sequence_name FROM system.main.duckdb_sequences()",
    "an index": "SELECT index_name FROM system.main.duckdb_indexes()",
    "a type": "SELECT type_name FROM system.main.duckdb_types()",
    "a schema": "SELECT schema_name FROM system.main.duckdb_schemas()",
    "a constraint": "SELECT table_name FROM system.main.duckdb_constraints()",
    "a computed column": "SELECT column_name FROM system.main.duckdb_columns()",
}
_TABLES = "SELECT table_name FROM system.main.duckdb_tables()"
_IN_FILE = "database_name = system.main.current_database()"
_OWN = {
    "a type": "NOT internal",  # DuckDB lists its own types under each file
    "a schema": "schema_name <> 'main'",
    "a computed column": "(is_generated OR column_default IS NOT NULL)",
}
# DuckDB has some 3,000 functions, and lists them all for the macros of one file: 10 to 20 ms, spent once for a file.
_CHECKED: Lru[tuple[int, ...], bool] = Lru(256)


def open_locked(path: Path, file: BinaryIO, **settings: str) -> duckdb.DuckDBPyConnection:
    """Open the DuckDB file at `path`, which `file` has open, for reading alone; it may be removed from then on.

    Further settings are DuckDB's own; in one process a file is always opened with the same.

    Raises:
        duckdb.Error: It is no DuckDB file.
        OSError: It cannot be copied, where it must be.
    """
    with _readable(path, file) as plain:
        return duckdb.connect(str(plain), read_only=True, config={**LOCKED, **settings})


@contextmanager
def written_through(path: Path) -> Iterator[Path]:
    """Yield the path under which DuckDB is to make the file `path`, which is there when the block ends."""
    if _is_plain(path.absolute()) and _is_plain(path.resolve()):
        yield path
        return
    with TemporaryDirectory(prefix="twinlens-") as folder:
        copy = Path(folder) / "catalog.duckdb"
        yield copy
        with copy.open("rb") as source, path.open("xb") as target:
            shutil.copyfileobj(source, target, _BLOCK)


def refuse_all_but_tables(
    connection: duckdb.DuckDBPyConnection, path: Path, file: BinaryIO, names: Collection[str]
) -> None:
    """Check that a file holds these tables, or some of them, and nothing that could run by being read.

    A file that has passed, and has not changed since by size or time, is not looked at again in this process.

    Args:
        connection: What `open_locked` gave.
        path: For messages.
        file: The same file, open.
        names: Names of the tables, which are always the same.

    Raises:
        CorruptIndexError: It holds another table, or a view, macro, sequence, index, type, constraint or computed
            column.
    """
    facts = os.fstat(file.fileno())
    state = (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
    if _CHECKED.get(state):
        return
    for what, sql in _FOREIGN.items():
        condition = f"{_IN_FILE} AND {_OWN.get(what, 'true')}"
        if entry := connection.execute(f"{sql} WHERE {condition} LIMIT 1").fetchone():
            raise CorruptIndexError(_foreign(path, what, entry[0]))
    for (name,) in connection.execute(f"{_TABLES} WHERE {_IN_FILE}").fetchall():
        if name not in names:
            raise CorruptIndexError(_foreign(path, "a table", name))
    _CHECKED.put(state, True)


def _foreign(path: Path, what: str, name: str) -> str:
    return f"{path} holds {what}, {name[:80]!r}, which no catalog has; take the index from where it was built"


@contextmanager
def _readable(path: Path, file: BinaryIO) -> Iterator[Path]:
    resolved = path.resolve()
    if _is_plain(resolved) and is_same_file(resolved, file):
        yield resolved
        return
    with TemporaryDirectory(prefix="twinlens-") as folder:
        copy = Path(folder) / "catalog.duckdb"
        copy_open_file(file, copy)
        yield copy


def _is_plain(path: Path) -> bool:
    """Whether DuckDB reads a path as it stands."""
    try:
        text = str(path).encode("utf-8").decode()
    except UnicodeEncodeError:
        return False
    return not any(sign in text for sign in _READ_OTHERWISE)
