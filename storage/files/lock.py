"""The lock of an index: one builder at a time, released by the kernel when its holder dies."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

from ..errors import IndexLockedError
from .atomic import explained

_HOLDER_BYTES = 4096
# Who has just taken the lock has yet to write down who it is; that takes far less than all tries together.
_TRIES, _SECONDS_BETWEEN = 20, 0.01


class IndexLock:
    """The lock of an index folder; the thread that holds it may take it again, and lets go as often."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = -1
        self._depth = 0
        self._owner = 0

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._depth > 0

    def __enter__(self) -> None:
        """Take the lock without waiting.

        Raises:
            IndexLockedError: Another builder has it; the message says which process, where and since when.
            StorageError: The file cannot be written.
        """
        if self._depth == 0:
            self._take()
            self._owner = threading.get_ident()
        elif self._owner != threading.get_ident():
            raise IndexLockedError(f"{self.path.parent} is being built by another thread; wait until it has finished")
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            # The file stays, so that one builder's lock is the next one's too.
            os.close(self._descriptor)

    def _take(self) -> None:
        with explained("lock", self.path):
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._check_in_place(descriptor)
                os.truncate(descriptor, 0)
                os.pwrite(descriptor, _this_process(), 0)
            except BlockingIOError as error:
                holder = _holder(descriptor)
                os.close(descriptor)
                raise IndexLockedError(
                    f"{self.path.parent} is being built by {holder}; wait until it has finished, or stop it"
                ) from error
            except OSError:
                os.close(descriptor)
                raise
        self._descriptor = descriptor

    def _check_in_place(self, descriptor: int) -> None:
        """Refuse a file that was removed while it was opened: another builder would lock one of the same name."""
        if not os.path.samestat(os.fstat(descriptor), self.path.lstat()):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.path))


def _this_process() -> bytes:
    started = datetime.now(UTC).isoformat(timespec="seconds")
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "started": started}
    return json.dumps(holder).encode() + b"\n"


def _holder(descriptor: int) -> str:
    """Describe who holds the lock, by what is in its file."""
    data = b""
    for _ in range(_TRIES):
        time.sleep(_SECONDS_BETWEEN)
        data = os.pread(descriptor, _HOLDER_BYTES, 0)
        if data.endswith(b"\n"):
            break
    return _describe(data)


def _describe(data: bytes) -> str:
    try:
        holder = json.loads(data)
        return f"process {holder['pid']} on {holder['host']} since {holder['started']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
