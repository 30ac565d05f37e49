"""Who may still search: many threads while the searcher is open, nobody once it is closed."""

from __future__ import annotations

from threading import Condition
from types import TracebackType

from .errors import SearcherClosedError


class Gate:
    """Counts the searches under way, so that closing waits for them: unmapping a file under a reader kills it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._changed = Condition()
        self._inside = 0
        self._closed = False

    def __enter__(self) -> None:
        """Hold the gate open for one search.

        Raises:
            SearcherClosedError: It was closed already.
        """
        with self._changed:
            if self._closed:
                raise SearcherClosedError(f"the searcher of {self._name!r} is closed; open another with Searcher.open")
            self._inside += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._inside -= 1
            if self._closed:
                self._changed.notify_all()

    def close(self) -> bool:
        """Let nobody in any more and wait until all are out; return False where it was closed before."""
        with self._changed:
            first, self._closed = not self._closed, True
            self._changed.wait_for(lambda: self._inside == 0)
        return first
