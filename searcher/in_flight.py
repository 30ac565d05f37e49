"""Searches that are running, which the closing of a searcher waits for."""

from __future__ import annotations

from threading import Condition
from types import TracebackType

from .errors import SearcherClosedError


class InFlight:
    """Blocks `close()` until running searches finish: unmapping a file that a search reads would kill the process."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._changed = Condition()
        self._running = 0
        self._closed = False

    def __enter__(self) -> None:
        """Count a search in.

        Raises:
            SearcherClosedError: The searcher was closed already.
        """
        with self._changed:
            if self._closed:
                raise SearcherClosedError(f"the searcher of {self._name!r} is closed; open another with Searcher.open")
            self._running += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._running -= 1
            if self._closed:
                self._changed.notify_all()

    def close(self) -> bool:
        """Admit no further searches and wait for running ones; return False where it was closed before."""
        with self._changed:
            first, self._closed = not self._closed, True
            self._changed.wait_for(lambda: self._running == 0)
        return first
