"""Evaluation of a filter: the rows that a statement gives, within a time limit."""

from __future__ import annotations

import threading

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
