"""Filters evaluated: within a time limit, and in processes that end when they take too long or too much memory."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

import duckdb
import numpy as np
from numpy.typing import NDArray

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
_START_SECONDS = 60.0
_LATEST_SECONDS = 3.0  # after the time limit: the process should have ended by itself long since
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "TMPDIR", "TZ", "LANG", "LC_ALL")
_BLOCK = 1 << 20
_PROGRAM = (
    "import sys, json; sys.path[:] = json.loads(sys.argv.pop()); "
    "from storage.filtering.worker import main; main(int(sys.argv[1]), sys.argv[2])"
)


class FilterProcesses:
    """Evaluates statements on one catalog in at most two processes, started when needed. Safe from many threads.

    A process that has answered is kept for the next filter, and ends when none has come for a minute.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        """Remember the catalog at `path`, which `file` has open, so that it may be removed from then on."""
        self._path = path
        self._descriptor = os.dup(file.fileno())
        self._free = threading.BoundedSemaphore(_AT_ONCE)
        self._idle: list[_Worker] = []  # appending and popping are atomic
        self._owner = os.getpid()
        self._end = weakref.finalize(self, _end_all, self._idle, self._descriptor, os.getpid())

    def rows(self, sql: str, seconds: float) -> NDArray[np.int64]:
        """Return the row ids that a statement gives, ascending.

        Raises:
            SearchParameterError: It takes longer than `seconds` or too much memory, or DuckDB refuses it.
        """
        with self._free:
            try:
                return self._ask(self._take(), sql, seconds)
            except _EndedIdleError:
                return self._ask(_Worker(self._path, self._descriptor), sql, seconds)

    def close(self) -> None:
        """End the processes that wait for a filter."""
        self._end()

    def _ask(self, worker: _Worker, sql: str, seconds: float) -> NDArray[np.int64]:
        try:
            rows = worker.ask(sql, seconds)
        except SearchParameterError:
            self._keep(worker)  # where it has ended, the next one to take it sees that
            raise
        except BaseException:
            worker.end()
            raise
        self._keep(worker)
        return rows

    def _keep(self, worker: _Worker) -> None:
        self._idle.append(worker)
        if not self._end.alive:  # closed meanwhile
            _end_workers(self._idle)

    def _take(self) -> _Worker:
        if os.getpid() != self._owner:  # a fork shares no pipes with the process it came from
            self._idle.clear()
            self._owner = os.getpid()
        while self._idle:
            worker = self._idle.pop()
            if worker.is_alive():
                return worker
            worker.end()
        return _Worker(self._path, self._descriptor)


class _EndedIdleError(Exception):
    """The process had ended before it saw the request, since none had come for a while."""


class _Worker:
    """One process, which does one request after the other."""

    def __init__(self, path: Path, descriptor: int) -> None:
        arguments = (str(descriptor), str(path), json.dumps(sys.path))
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", _PROGRAM, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=(descriptor,),
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
            start_new_session=True,  # Ctrl-C is for the process that asks
            bufsize=0,
        )
        try:
            self._read(time.monotonic() + _START_SECONDS)
        except BaseException as error:
            self.end()
            if isinstance(error, EOFError | TimeoutError):
                raise SearchParameterError("cannot be used: no process could be started to evaluate it") from error
            raise

    def ask(self, sql: str, seconds: float) -> NDArray[np.int64]:
        """Return the row ids that a statement gives."""
        request = json.dumps({"sql": sql, "seconds": seconds}).encode() + b"\n"
        deadline = time.monotonic() + seconds + _LATEST_SECONDS
        try:
            _write(self._pipe("stdin"), request)
            answer, data = self._read(deadline)
        except (BrokenPipeError, EOFError) as error:
            code = self.end()
            if code == 0:
                raise _EndedIdleError from error
            raise SearchParameterError(SLOW.format(seconds) if code == -signal.SIGALRM else LARGE) from error
        except TimeoutError as error:
            self.end()
            raise SearchParameterError(SLOW.format(seconds)) from error
        if failed := answer.get("failed"):
            raise SearchParameterError(failed)
        return np.frombuffer(data, dtype=np.int64).copy()

    def is_alive(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def end(self) -> int:
        """End the process, where it has not ended by itself, and return its exit status."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            if self._process.poll() is None and self._closed():
                self._process.wait(1.0)
        if self._process.poll() is None:
            self._process.kill()
        for name in ("stdin", "stdout"):
            self._pipe(name).close()
        return self._process.wait()

    def _closed(self) -> bool:
        """Whether the process has closed its side already, so that it is about to end by itself."""
        pipe = self._pipe("stdout")
        return not pipe.closed and bool(select.select([pipe], [], [], 0)[0])

    def _pipe(self, name: str) -> FileIO:
        pipe: FileIO = getattr(self._process, name)
        return pipe

    def _read(self, deadline: float) -> tuple[dict[str, Any], bytes]:
        """Return what was told, and the row ids behind it."""
        data = bytearray()
        while (end := data.find(b"\n")) < 0:
            data += self._some(deadline)
        answer: dict[str, Any] = json.loads(data[:end])
        whole = end + 1 + 8 * answer.get("rows", 0)
        while len(data) < whole:
            data += self._some(deadline)
        return answer, bytes(data[end + 1 :])

    def _some(self, deadline: float) -> bytes:
        pipe = self._pipe("stdout")
        if not select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise TimeoutError
        if not (data := pipe.read(_BLOCK)):
            raise EOFError
        return data


def _write(pipe: FileIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[pipe.write(rest) :]


def _end_all(workers: list[_Worker], descriptor: int, owner: int) -> None:
    if os.getpid() == owner:  # a fork leaves those of the process it came from alone
        _end_workers(workers)
    os.close(descriptor)


def _end_workers(workers: list[_Worker]) -> None:
    while workers:
        workers.pop().end()
