"""Processes that do what could take long, take much memory or crash: one request after the other, over pipes.

A message is one line of JSON, and behind it as many bytes as its `bytes` says.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

_START_SECONDS = 60.0
_IDLE_SECONDS = 60.0
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "TMPDIR", "TZ", "LANG", "LC_ALL")
_BLOCK = 1 << 20
_PROGRAM = (
    "import sys, json, importlib; sys.path[:] = json.loads(sys.argv.pop()); "
    "importlib.import_module(sys.argv[1]).main(*sys.argv[2:])"
)


class ProcessEndedError(Exception):
    """The process ended before it answered; `code` is its exit status, negative for a signal."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class ChildProcess:
    """One process, whose first message says that it is ready."""

    def __init__(self, module: str, arguments: Sequence[str] = (), descriptors: Sequence[int] = ()) -> None:
        """Start `module.main(*arguments)`, with these files open.

        Raises:
            ProcessEndedError: It ended before it was ready.
            TimeoutError: It was not ready within a minute.
        """
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", _PROGRAM, module, *arguments, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=tuple(descriptors),
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
            start_new_session=True,  # Ctrl-C is for the process that asks
            bufsize=0,
        )
        try:
            self._receive(time.monotonic() + _START_SECONDS)
        except BaseException as error:
            code = self.end()
            if isinstance(error, EOFError):
                raise ProcessEndedError(code) from error
            raise

    def ask(self, request: dict[str, Any], data: bytes, seconds: float) -> tuple[dict[str, Any], bytes]:
        """Return the answer to one request, and the bytes behind it.

        Raises:
            ProcessEndedError: The process ended instead.
            TimeoutError: No answer came within `seconds`; the process was ended.
        """
        head = json.dumps({**request, "bytes": len(data)}).encode() + b"\n"
        deadline = time.monotonic() + seconds
        try:
            self._write(head)
            self._write(data)
            return self._receive(deadline)
        except (BrokenPipeError, EOFError) as error:
            raise ProcessEndedError(self.end()) from error
        except TimeoutError:
            self.end()
            raise

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

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self._pipe("stdin").write(rest) :]

    def _receive(self, deadline: float) -> tuple[dict[str, Any], bytes]:
        data = bytearray()
        while (end := data.find(b"\n")) < 0:
            data += self._some(deadline)
        answer: dict[str, Any] = json.loads(data[:end])
        del data[: end + 1]
        while len(data) < answer["bytes"]:
            data += self._some(deadline)
        return answer, bytes(data)

    def _some(self, deadline: float) -> bytes:
        pipe = self._pipe("stdout")
        if not select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise TimeoutError
        if not (data := pipe.read(_BLOCK)):
            raise EOFError
        return data


class ProcessPool:
    """Processes of one kind, started when needed, at most so many at once. Safe from many threads.

    A process that has answered is kept for the next request, and ends when none has come for a minute.
    """

    def __init__(self, start: Callable[[], ChildProcess], at_once: int) -> None:
        """Remember how a process is started, and how many may work at once."""
        self._start = start
        self._free = threading.BoundedSemaphore(at_once)
        self._lock = threading.Lock()
        self._idle: list[tuple[str, ChildProcess]] = []
        self._owner = os.getpid()
        self._end = weakref.finalize(self, _end_all, self._idle, os.getpid())

    def ask(
        self, request: dict[str, Any], data: bytes = b"", *, seconds: float, subject: str = ""
    ) -> tuple[dict[str, Any], bytes]:
        """Return the answer of a process, of the one that worked on `subject` last where it is idle.

        Raises:
            ProcessEndedError: The process ended while it worked, or none could be started.
            TimeoutError: No answer came within `seconds`.
        """
        with self._free:
            process, worked = self._take(subject)
            try:
                answer = self._asked(process, request, data, seconds, subject)
            except ProcessEndedError as error:
                if error.code or not worked:
                    raise
                # It had ended before it saw the request, since none had come for a while.
                return self._asked(self._start(), request, data, seconds, subject)
            return answer

    @property
    def idle(self) -> list[ChildProcess]:
        """The processes that wait for a request."""
        return [process for _, process in self._idle]

    def close(self) -> None:
        """End the processes that wait for a request."""
        self._end()

    def _asked(
        self, process: ChildProcess, request: dict[str, Any], data: bytes, seconds: float, subject: str
    ) -> tuple[dict[str, Any], bytes]:
        try:
            answer = process.ask(request, data, seconds)
        except BaseException:
            process.end()
            raise
        with self._lock:
            self._idle.append((subject, process))
        if not self._end.alive:  # closed meanwhile
            _end_processes(self._idle)
        return answer

    def _take(self, subject: str) -> tuple[ChildProcess, bool]:
        """Return a process, and whether it has worked before."""
        if os.getpid() != self._owner:  # a fork shares no pipes with the process it came from
            self._idle.clear()
            self._owner = os.getpid()
            self._lock = threading.Lock()
        while (process := self._pop(subject)) is not None:
            if process.is_alive():
                return process, True
            process.end()
        return self._start(), False

    def _pop(self, subject: str) -> ChildProcess | None:
        with self._lock:
            if not self._idle:
                return None
            last = len(self._idle) - 1
            place = next((place for place in range(last, -1, -1) if self._idle[place][0] == subject), last)
            return self._idle.pop(place)[1]


def _end_all(idle: list[tuple[str, ChildProcess]], owner: int) -> None:
    if os.getpid() == owner:  # a fork leaves those of the process it came from alone
        _end_processes(idle)


def _end_processes(idle: list[tuple[str, ChildProcess]]) -> None:
    while idle:
        idle.pop()[1].end()


def serve(requests: BinaryIO, answers: BinaryIO, answer: Callable[[dict[str, Any], bytes], Any]) -> None:
    """Say that this process is ready and answer requests, until there are no more or none has come for a minute.

    `answer` returns the answer, the bytes behind it, and whether this process is to end.
    """
    send(answers, {}, b"")
    while select.select([requests], [], [], _IDLE_SECONDS)[0] and (line := requests.readline()):
        request = json.loads(line)
        told, data, last = answer(request, requests.read(request["bytes"]))
        send(answers, told, data)
        if last:
            return


def send(answers: BinaryIO, answer: dict[str, Any], data: bytes) -> None:
    """Send one message."""
    answers.write(json.dumps({**answer, "bytes": len(data)}).encode() + b"\n")
    answers.write(data)
    answers.flush()


def own_output() -> BinaryIO:
    """Return standard output for answers alone; what libraries print into it goes nowhere from now on."""
    answers = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.close(nothing)
    return answers


def data_bytes() -> int:
    """Return what `RLIMIT_DATA` counts: private memory of this process that can be written."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    line = next(line for line in status.read_text("ascii").splitlines() if line.startswith("VmData:"))
    return int(line.split()[1]) * 1024
