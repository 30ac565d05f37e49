"""How a step says that a promise is broken."""

from __future__ import annotations

from typing import Any


class BrokenPromiseError(AssertionError):
    """What a step found is not what it had to find."""


def expect(found: Any, wanted: Any, what: str) -> None:
    """Compare, and say what differs."""
    if found != wanted:
        raise BrokenPromiseError(f"{what}: found {found!r}, expected {wanted!r}"[:2000])
