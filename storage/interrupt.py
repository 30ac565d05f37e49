"""Ctrl-C during a query of DuckDB."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_TOLD = "Query interrupted"


@contextmanager
def keeping_ctrl_c() -> Iterator[None]:
    """Turn the `RuntimeError` that DuckDB makes of a Ctrl-C back into the `KeyboardInterrupt` that it was."""
    try:
        yield
    except RuntimeError as error:
        if str(error) != _TOLD:
            raise
        raise KeyboardInterrupt from error
