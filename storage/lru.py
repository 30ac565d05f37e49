"""A small least-recently-used cache that threads may share."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Lru(Generic[K, V]):
    """Keeps the values that were used last. Safe from many threads."""

    def __init__(self, limit: int, size: Callable[[V], int] | None = None) -> None:
        """Set up an empty cache.

        Args:
            limit: Entries to keep, or the sum of their sizes where `size` is given.
            size: Size of a value, e.g. its bytes; None counts each as 1.
        """
        self._limit = limit
        self._size = size
        self._lock = Lock()
        self._values: OrderedDict[K, V] = OrderedDict()
        self._total = 0

    def get(self, key: K) -> V | None:
        """Return the value of a key, from now on the last used; None where there is none."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key]

    def put(self, key: K, value: V) -> None:
        """Keep a value as the last used; those unused for longest go where the limit is passed."""
        with self._lock:
            if key in self._values:
                self._total -= self._measure(self._values.pop(key))
            self._values[key] = value
            self._total += self._measure(value)
            while self._total > self._limit:
                _, dropped = self._values.popitem(last=False)
                self._total -= self._measure(dropped)

    def __contains__(self, key: K) -> bool:
        """Whether a key is kept; this is no use of it."""
        with self._lock:
            return key in self._values

    def __len__(self) -> int:
        with self._lock:
            return len(self._values)

    def _measure(self, value: V) -> int:
        return 1 if self._size is None else self._size(value)
