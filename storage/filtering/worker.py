"""The process in which a filter is evaluated that could take long or much memory: it may be ended at any moment.

DuckDB looks at an interruption between blocks of rows, not within a function, nor while it reads a statement, and the
values that functions make count towards no limit of its own. A process has limits for both: what it may allocate, and
a clock that ends it.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import duckdb

from ..child_process import data_bytes, own_output, serve
from ..errors import SearchParameterError
from ..files.duckdb_file import open_locked
from .process import evaluate

# Above what the process takes when it has opened the catalog. DuckDB is given less, so that it notices first.
MEMORY_BYTES = 384 << 20
DUCKDB_MEMORY = "192MiB"
_KEPT_BYTES = 64 << 20  # a process that has kept more than this after a request ends; the next one starts small
# After the time limit, until the clock ends the process: DuckDB's own interruption comes first, and costs nothing.
GRACE_SECONDS = 1.0
_THREADS = 2


def answer(connection: duckdb.DuckDBPyConnection, sql: str, seconds: float) -> tuple[dict[str, Any], bytes]:
    """Evaluate a statement that gives row ids: what is to be told, and the ids as int64."""
    try:
        rows = evaluate(connection, sql, seconds)
    except SearchParameterError as failure:
        return {"failed": str(failure)}, b""
    return {}, rows.tobytes()


def main(descriptor: str, path: str) -> None:
    """Open the catalog at `path`, which a descriptor that was handed down has open, and serve on standard input."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    answers = own_output()  # DuckDB would print a progress bar into it after two seconds
    with os.fdopen(int(descriptor), "rb") as file:
        connection = open_locked(Path(path), file, memory_limit=DUCKDB_MEMORY, threads=str(_THREADS))
    connection.execute("SELECT row_id FROM images LIMIT 1").fetchnumpy()  # what the first request would wait for
    small = data_bytes()
    resource.setrlimit(resource.RLIMIT_DATA, (small + MEMORY_BYTES, small + MEMORY_BYTES))

    def answer_one(request: dict[str, Any], _: bytes) -> tuple[dict[str, Any], bytes, bool]:
        signal.setitimer(signal.ITIMER_REAL, request["seconds"] + GRACE_SECONDS)
        told, data = answer(connection, request["sql"], request["seconds"])
        signal.setitimer(signal.ITIMER_REAL, 0)
        return told, data, data_bytes() > small + _KEPT_BYTES

    serve(sys.stdin.buffer, answers, answer_one)
