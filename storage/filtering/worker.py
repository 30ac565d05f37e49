"""The process in which a filter is evaluated that could take long or much memory: it may be ended at any moment.

DuckDB looks at an interruption between blocks of rows, not within a function, nor while it reads a statement, and the
values that functions make count towards no limit of its own. A process has limits for both: what it may allocate, and
a clock that ends it. It reads one line of JSON for each request and answers with one, and with the row ids behind it.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import sys
from pathlib import Path
from typing import Any, BinaryIO

import duckdb

from ..errors import SearchParameterError
from ..files.duckdb_file import open_locked
from .process import evaluate

# Above what the process takes when it has opened the catalog. DuckDB is given less, so that it notices first.
MEMORY_BYTES = 384 << 20
DUCKDB_MEMORY = "192MiB"
_KEPT_BYTES = 64 << 20  # a process that has kept more than this after a request ends; the next one starts small
# After the time limit, until the clock ends the process: DuckDB's own interruption comes first, and costs nothing.
GRACE_SECONDS = 1.0
_IDLE_SECONDS = 60.0
_THREADS = 2


def answer(connection: duckdb.DuckDBPyConnection, sql: str, seconds: float) -> tuple[dict[str, Any], bytes]:
    """Evaluate a statement that gives row ids: what is to be told, and the ids as int64."""
    try:
        rows = evaluate(connection, sql, seconds)
    except SearchParameterError as failure:
        return {"failed": str(failure)}, b""
    return {"rows": len(rows)}, rows.tobytes()


def serve(connection: duckdb.DuckDBPyConnection, requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until there are no more, none has come for a minute, or one has left much memory behind."""
    small = _data_bytes()
    resource.setrlimit(resource.RLIMIT_DATA, (small + MEMORY_BYTES, small + MEMORY_BYTES))
    _send(answers, {"ready": True}, b"")
    while select.select([requests], [], [], _IDLE_SECONDS)[0] and (line := requests.readline()):
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, request["seconds"] + GRACE_SECONDS)
        _send(answers, *answer(connection, request["sql"], request["seconds"]))
        signal.setitimer(signal.ITIMER_REAL, 0)
        if _data_bytes() > small + _KEPT_BYTES:
            return


def main(descriptor: int, path: str) -> None:
    """Open the catalog at `path`, which a descriptor that was handed down has open, and serve on standard input."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    answers = _own_output()
    with os.fdopen(descriptor, "rb") as file:
        connection = open_locked(Path(path), file, memory_limit=DUCKDB_MEMORY, threads=str(_THREADS))
    connection.execute("SELECT row_id FROM images LIMIT 1").fetchnumpy()  # what the first request would wait for
    serve(connection, sys.stdin.buffer, answers)


def _own_output() -> BinaryIO:
    """Return standard output for answers alone: DuckDB would print a progress bar into it after two seconds."""
    answers = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.close(nothing)
    return answers


def _send(answers: BinaryIO, answer: dict[str, Any], data: bytes) -> None:
    answers.write(json.dumps(answer).encode() + b"\n" + data)
    answers.flush()


def _data_bytes() -> int:
    """What `RLIMIT_DATA` counts: private memory that can be written."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    line = next(line for line in status.read_text("ascii").splitlines() if line.startswith("VmData:"))
    return int(line.split()[1]) * 1024
