"""Checking a `where`: one expression on known columns, by DuckDB's own parser and a list of what is allowed.

The text is parsed twice, alone and in the parentheses it is later run in; both must give the same tree, so nothing can
close a parenthesis, start a second statement or comment away what follows. Then every node of the tree must be of a
kind that is known here: what a newer DuckDB adds is refused until someone has looked at it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from functools import lru_cache
from threading import Lock
from typing import Any

import duckdb

from .errors import FilterError
from .functions import ALLOWED_FUNCTIONS

_MAX_LENGTH = 10_000
_MAX_NODES = 1_000
_MAX_DEPTH = 64
_SHOWN = 80

# Classes of DuckDB's expression tree. What is missing here is refused.
_ALLOWED = {"BETWEEN", "CASE", "CAST", "COLLATE", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT", "OPERATOR", "TYPE"}
_REFUSED = {
    "SUBQUERY": "a subquery",
    "WINDOW": "a window function",
    "PARAMETER": "a parameter",
    "STAR": "a star expression",
    "LAMBDA": "a lambda",
    "POSITIONAL_REFERENCE": "a column by position",
    "DEFAULT": "the word DEFAULT",
}

Tree = dict[str, Any]
_lock = Lock()


def check_predicate(where: str, columns: Sequence[str]) -> str:
    """Return the predicate as it may be run: the same text, ended by a newline so that a comment ends with it.

    Args:
        where: What the caller wrote, e.g. `width >= 640 and caption ilike '%dog%'`.
        columns: Names of the columns that it may use.

    Raises:
        FilterError: It is no single expression, uses something that is not allowed, or names an unknown column.
    """
    if not isinstance(where, str) or not where.strip():
        raise FilterError(f"where={where!r} is empty; give a condition such as \"width >= 640\", or leave it out")
    if len(where) > _MAX_LENGTH or "\0" in where:
        raise FilterError(f"where has {len(where)} characters; give at most {_MAX_LENGTH}, and no NUL: {shown(where)}")
    tree = _parse(where, f"{where}\n")
    if tree != _parse(where, f"({where}\n)"):
        raise FilterError(f"where must be one whole expression: {shown(where)}; mind its parentheses and comments")
    known = {name.lower() for name in columns}
    for count, (node, depth) in enumerate(_walk(tree)):
        if count >= _MAX_NODES or depth > _MAX_DEPTH:
            raise FilterError(f"where is larger than {_MAX_NODES} parts or deeper than {_MAX_DEPTH}: {shown(where)}")
        _check_node(node, where, known, columns)
    return f"{where}\n"


def shown(where: str) -> str:
    """Return a predicate as error messages show it: on one line, cut to 80 characters."""
    line = " ".join(where.split())
    return repr(line if len(line) <= _SHOWN else line[: _SHOWN - 3] + "...")


@lru_cache(maxsize=1)
def _parser() -> duckdb.DuckDBPyConnection:
    options: dict[str, str | bool | int | float | list[str]] = {
        "enable_external_access": False,
        "python_enable_replacements": False,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "threads": 1,
    }
    connection = duckdb.connect(":memory:", config=options)
    connection.execute("SET lock_configuration = true")
    return connection


def _parse(where: str, text: str) -> Tree:
    """The tree of `SELECT 1 FROM t WHERE text`, which must have nothing but that condition."""
    with _lock:
        row = _parser().execute("SELECT json_serialize_sql(?)", [f"SELECT 1 FROM t WHERE {text}"]).fetchone()
    answer: Tree = json.loads(row[0]) if row else {"error": True}
    if answer["error"]:
        reason = answer.get("error_message", "it cannot be parsed")
        raise FilterError(f"where is not a condition: {shown(where)}: {' '.join(str(reason).split())[:200]}")
    node: Tree = answer["statements"][0]["node"]
    condition = node.get("where_clause")
    if len(answer["statements"]) != 1 or not _is_plain(node) or not isinstance(condition, dict):
        raise FilterError(f"where must be one condition and nothing else: {shown(where)}")
    return _without_places(condition)


def _is_plain(node: Tree) -> bool:
    extras = ("modifiers", "group_expressions", "group_sets", "having", "sample", "qualify")
    source = node.get("from_table", {})
    plain_source = source.get("type") == "BASE_TABLE" and not source.get("alias") and not source.get("sample")
    return node["type"] == "SELECT_NODE" and plain_source and not any(node.get(extra) for extra in extras)


def _without_places(value: Any) -> Any:
    """The same tree without where in the text each part stood."""
    if isinstance(value, list):
        return [_without_places(part) for part in value]
    if isinstance(value, dict):
        return {name: _without_places(part) for name, part in value.items() if not name.startswith("query_location")}
    return value


def _walk(value: Any, depth: int = 0) -> Iterator[tuple[Tree, int]]:
    """Every expression of a tree, whatever it hangs from, with its depth."""
    if isinstance(value, dict):
        if "class" in value:
            yield value, depth
            depth += 1
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from _walk(part, depth)


def _check_node(node: Tree, where: str, known: set[str], columns: Sequence[str]) -> None:
    kind = node["class"]
    if kind == "FUNCTION":
        _check_function(node, where)
    elif kind == "COLUMN_REF":
        _check_column(node["column_names"], where, known, columns)
    elif kind not in _ALLOWED or node["type"] == "GROUPING_FUNCTION":
        what = _REFUSED.get(kind, f"an expression of the kind {node['type']}")
        raise FilterError(f"where may not use {what}: {shown(where)}; give a condition on columns and values")


def _check_function(node: Tree, where: str) -> None:
    name = str(node["function_name"])
    special = node.get("schema") or node.get("catalog") or node.get("distinct") or node.get("filter")
    if name.lower() not in ALLOWED_FUNCTIONS or special or node.get("order_bys", {}).get("orders"):
        near = get_close_matches(name.lower(), ALLOWED_FUNCTIONS, n=3)
        hint = f"; do you mean {' or '.join(near)}?" if near and near[0] != name.lower() else ""
        raise FilterError(f"where may not call {name!r}: {shown(where)}{hint}")


def _check_column(path: Sequence[str], where: str, known: set[str], columns: Sequence[str]) -> None:
    # Further parts of the path are fields of a struct column.
    if path[0].lower() in known:
        return
    quoted: Callable[[str], bool] = lambda name: f'"{name}"' in where  # noqa: E731
    near = get_close_matches(path[0].lower(), known, n=3)
    hint = f"; do you mean {' or '.join(near)}?" if near else ""
    hint += "; values stand in single quotes" if quoted(path[0]) and not near else ""
    raise FilterError(f"where names no column {'.'.join(path)!r}{hint}; there are: {', '.join(columns)}")
