"""Pillow without its warnings, safe in threads."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

_lock = threading.Lock()
_inside = 0
_filter: Any = None


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Ignore warnings that come from Pillow's own modules while any thread is inside.

    `warnings.catch_warnings` swaps the process-wide list of filters, so two decode threads that overlap would restore
    each other's. Here the first thread in adds one filter and the last one out takes it away.
    """
    _enter()
    try:
        yield
    finally:
        _leave()


def _enter() -> None:
    global _inside, _filter
    with _lock:
        _inside += 1
        if _inside == 1 or _filter not in warnings.filters:
            warnings.filterwarnings("ignore", module=r"PIL\.")
            _filter = warnings.filters[0]


def _leave() -> None:
    global _inside
    with _lock:
        _inside -= 1
        if _inside == 0:
            # Someone else may have swapped the list meanwhile; then our filter went with it.
            with suppress(ValueError):
                warnings.filters.remove(_filter)  # type: ignore[attr-defined]
