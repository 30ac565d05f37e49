"""Ctrl-C during a query of DuckDB."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import duckdb

_TOLD = "Query interrupted"
_INSIDE = "failed: KeyboardInterrupt:"  # it struck while DuckDB read an object of ours


@contextmanager
def keeping_ctrl_c() -> Iterator[None]:
    """Turn the errors that DuckDB makes of a Ctrl-C back into the `KeyboardInterrupt` that it was."""
    try:
        yield
    except (RuntimeError, duckdb.Error) as error:
        if str(error) != _TOLD and _INSIDE not in str(error):
            raise
        raise KeyboardInterrupt from error
