"""Filters evaluated: within a time limit, and in processes that end when they take too long or too much memory."""

from __future__ import annotations

import os
import signal
import threading
import weakref
from pathlib import Path
from typing import BinaryIO

import duckdb
import numpy as np
from numpy.typing import NDArray

from ..child_process import ChildProcess, ProcessEndedError, ProcessPool
from ..errors import SearchParameterError, first_line

SLOW = "took longer than {:g} s; simplify it"
LARGE = "needs too much memory; simplify it"


def evaluate(connection: duckdb.DuckDBPyConnection, sql: str, seconds: float) -> NDArray[np.int64]:
    """Return the row ids that a statement gives, ascending.

    DuckDB looks at the interruption between blocks of rows: the time limit is as good as what it does within one.

    Raises:
        SearchParameterError: It takes longer than `seconds` or too much memory, or DuckDB refuses it; the message says
            which, in words that stand behind the filter itself.
    """
    timer = threading.Timer(seconds, connection.interrupt)
    timer.daemon = True
    timer.start()
    try:
        rows = connection.execute(sql).fetchnumpy()["row_id"]
    except duckdb.InterruptException as error:
        raise SearchParameterError(SLOW.format(seconds)) from error
    except (duckdb.OutOfMemoryException, MemoryError) as error:
        raise SearchParameterError(LARGE) from error
    except duckdb.Error as error:
        raise SearchParameterError(f"cannot be used: {first_line(error)}") from error
    finally:
        timer.cancel()
        timer.join()
    return np.sort(np.asarray(rows, dtype=np.int64))


_AT_ONCE = 2
_LATEST_SECONDS = 3.0  # after the time limit: the process should have ended by itself long since


class FilterProcesses:
    """Evaluates statements on one catalog in at most two processes, started when needed. Safe from many threads."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        """Remember the catalog at `path`, which `file` has open, so that it may be removed from then on."""
        descriptor = os.dup(file.fileno())
        arguments = (str(descriptor), str(path))
        self._pool = ProcessPool(lambda: _started(arguments, descriptor), _AT_ONCE)
        self._end = weakref.finalize(self, _close, self._pool, descriptor)

    def rows(self, sql: str, seconds: float) -> NDArray[np.int64]:
        """Return the row ids that a statement gives, ascending.

        Raises:
            SearchParameterError: It takes longer than `seconds` or too much memory, or DuckDB refuses it.
        """
        request = {"sql": sql, "seconds": seconds}
        try:
            answer, data = self._pool.ask(request, seconds=seconds + _LATEST_SECONDS)
        except ProcessEndedError as error:
            raise SearchParameterError(SLOW.format(seconds) if error.code == -signal.SIGALRM else LARGE) from error
        except TimeoutError as error:
            raise SearchParameterError(SLOW.format(seconds)) from error
        if failed := answer.get("failed"):
            raise SearchParameterError(failed)
        return np.frombuffer(data, dtype=np.int64).copy()

    @property
    def idle(self) -> list[ChildProcess]:
        """The processes that wait for a filter."""
        return self._pool.idle

    def close(self) -> None:
        """End the processes that wait for a filter."""
        self._end()


def _started(arguments: tuple[str, ...], descriptor: int) -> ChildProcess:
    try:
        return ChildProcess("storage.filtering.worker", arguments, (descriptor,))
    except (ProcessEndedError, TimeoutError) as error:
        raise SearchParameterError("cannot be used: no process could be started to evaluate it") from error


def _close(pool: ProcessPool, descriptor: int) -> None:
    pool.close()
    os.close(descriptor)
