"""A `where` predicate as DuckDB's own parser reads it."""

from __future__ import annotations

import json
from typing import Any

import duckdb

from .errors import SearchParameterError

# Far above any filter a person or a program writes, far below what makes the parser work hard.
MAX_LENGTH = 100_000


def parse_predicate(connection: duckdb.DuckDBPyConnection, where: str) -> dict[str, Any]:
    """Return the tree of one SQL expression, as DuckDB's `json_serialize_sql` gives it.

    The text is parsed inside `SELECT 1 FROM t WHERE (...)`; whatever closes the parenthesis to add a clause of its own
    (`ORDER BY`, `UNION`, `LIMIT`, ...) changes more than the WHERE clause and is refused. Functions, columns and
    subqueries inside the expression are for the caller to check.

    Raises:
        SearchParameterError: It is empty, too long, or not one expression; the message names it and the reason.
    """
    if not where.strip() or len(where) > MAX_LENGTH or "\0" in where:
        raise SearchParameterError(f"where {shortened(where)!r} is not a predicate; write one such as 'width >= 640'")
    node = _parse(connection, f"SELECT 1 FROM t WHERE (\n{where}\n)", where)
    tree = node.pop("where_clause", None)
    bare = _parse(connection, "SELECT 1 FROM t", where)
    bare.pop("where_clause", None)
    if not isinstance(tree, dict) or node != bare:
        raise SearchParameterError(
            f"where {shortened(where)!r} is not one expression; write a single condition on columns, without clauses"
        )
    return tree


def shortened(where: str) -> str:
    """Return a predicate on one line, cut to a length that fits a message."""
    line = " ".join(where.split())
    return line if len(line) <= 200 else line[:200] + "..."


def _parse(connection: duckdb.DuckDBPyConnection, sql: str, where: str) -> dict[str, Any]:
    try:
        (answer,) = connection.execute("SELECT json_serialize_sql(?)", [sql]).fetchone() or ("{}",)
        parsed = json.loads(answer)
    except (duckdb.Error, RecursionError) as error:
        raise SearchParameterError(
            f"where {shortened(where)!r} cannot be parsed: {str(error).splitlines()[0]}; write a simpler one"
        ) from error
    statements = parsed.get("statements", [])
    if parsed.get("error") or len(statements) != 1:
        reason = str(parsed.get("error_message", "more than one statement")).splitlines()[0]
        raise SearchParameterError(
            f"where {shortened(where)!r} is not SQL: {reason}; write a predicate such as 'width >= 640'"
        )
    node: dict[str, Any] = statements[0]["node"]
    return node
