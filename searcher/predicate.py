"""Checking a `where`: one expression on known columns, by DuckDB's own parser and a list of what is allowed.

The text is parsed twice, in the parentheses it is later run in and as the only argument of a function; both must give
the same tree, so nothing can close a parenthesis, start a second statement or comment away what follows. Then every
node of the tree must be of a kind that is known here: what a newer DuckDB adds is refused until someone looked at it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from typing import Any

from storage.errors import SearchParameterError

from .errors import FilterError
from .functions import ALLOWED_FUNCTIONS

_MAX_LENGTH = 50_000
_MAX_NODES = 5_000
_MAX_DEPTH = 32
_SHOWN = 80

# Classes of DuckDB's expression tree. What is missing here is refused.
_ALLOWED = {
    "BETWEEN",
    "CASE",
    "CAST",
    "COLLATE",
    "COLUMN_REF",
    "COMPARISON",
    "CONJUNCTION",
    "CONSTANT",
    "OPERATOR",
    "TYPE",
}
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
Parse = Callable[[str], Tree]


def check_predicate(where: str, columns: Sequence[str], parse: Parse) -> None:
    """Return where the predicate may be run as it stands, in parentheses, a newline before the closing one.

    Args:
        where: What the caller wrote, e.g. `width >= 640 and caption ilike '%dog%'`.
        columns: Names of the columns that it may use.
        parse: DuckDB's parser, from the text of an expression to its tree; see `Catalog.parse_predicate`.

    Raises:
        FilterError: It is no single expression, uses something that is not allowed, or names an unknown column.
        SearchParameterError: From `parse`, where it is no SQL.
    """
    if not isinstance(where, str) or not where.strip():
        raise FilterError(f'where={where!r} is empty; give a condition such as "width >= 640", or leave it out')
    if len(where) > _MAX_LENGTH or "\0" in where:
        raise FilterError(f"where has {len(where)} characters; give at most {_MAX_LENGTH}, and no NUL: {shown(where)}")
    tree = _parsed(where, columns, parse)
    known = {name.lower() for name in columns}
    for count, (node, depth) in enumerate(_walk(tree)):
        if count >= _MAX_NODES or depth > _MAX_DEPTH:
            raise FilterError(f"where is larger than {_MAX_NODES} parts or deeper than {_MAX_DEPTH}: {shown(where)}")
        _check_node(node, where, known, columns)
    _check_whole(where, tree, parse)


def _parsed(where: str, columns: Sequence[str], parse: Parse) -> Tree:
    try:
        where.encode("utf-8")
    except UnicodeEncodeError as error:
        raise FilterError(f"where={shown(where)} is not Unicode text: {error.reason}; decode it first") from error
    try:
        return parse(where)
    except SearchParameterError as error:
        raise FilterError(f"{error}{_to_be_quoted(where, columns, parse)}") from error


def _to_be_quoted(where: str, columns: Sequence[str], parse: Parse) -> str:
    """A hint where a column that SQL cannot read bare, such as `my col` or `select`, may be what was meant."""
    named = [name for name in columns if re.search(rf"(?<![\w\"']){re.escape(name)}(?![\w\"'])", where, re.IGNORECASE)]
    odd = [f'"{name}"' for name in named if not _stands_bare(name, parse)]
    return f"; the column {' and '.join(odd)} must stand in double quotes" if odd else ""


def _stands_bare(name: str, parse: Parse) -> bool:
    try:
        tree = parse(f"{name} IS NULL")
    except SearchParameterError:
        return False
    return bool(tree["children"][0]["class"] == "COLUMN_REF") if tree.get("children") else False


def _check_whole(where: str, tree: Tree, parse: Parse) -> None:
    problem = FilterError(f"where must be one whole expression: {shown(where)}; mind its parentheses and commas")
    try:
        call = parse(f"coalesce(\n{where}\n)")
    except SearchParameterError as error:
        raise problem from error
    if call["type"] != "OPERATOR_COALESCE" or _without_places(call["children"]) != [_without_places(tree)]:
        raise problem


def shown(where: str) -> str:
    """Return a predicate as error messages show it: on one line, cut to 80 characters."""
    line = " ".join(where.split())
    return repr(line if len(line) <= _SHOWN else line[: _SHOWN - 3] + "...")


def _without_places(value: Any) -> Any:
    """The same tree without where in the text each part stood."""
    if isinstance(value, list):
        return [_without_places(part) for part in value]
    if isinstance(value, dict):
        return {name: _without_places(part) for name, part in value.items() if not name.startswith("query_location")}
    return value


def _walk(tree: Tree) -> Iterator[tuple[Tree, int]]:
    """Every expression of a tree, whatever it hangs from, with its depth; no recursion, it may be hostile."""
    waiting: list[tuple[Any, int]] = [(tree, 0)]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, dict) and "class" in value:
            depth += 1
            yield value, depth
        if isinstance(value, dict):
            waiting.extend((part, depth) for part in reversed(value.values()))
        elif isinstance(value, list):
            waiting.extend((part, depth) for part in reversed(value))


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
        near = [one for one in get_close_matches(name.lower(), ALLOWED_FUNCTIONS, cutoff=0.75) if one != name.lower()]
        hint = f"do you mean {' or '.join(near)}?" if near else "use plain functions of numbers, texts, times and lists"
        raise FilterError(f"where may not call {name!r}: {shown(where)}; {hint}")


def _check_column(path: Sequence[str], where: str, known: set[str], columns: Sequence[str]) -> None:
    # Further parts of the path are fields of a struct column.
    if path[0].lower() in known:
        return
    near = get_close_matches(path[0].lower(), known, cutoff=0.7)
    hint = f"; do you mean {' or '.join(near)}?" if near else ""
    hint += "; values stand in single quotes" if f'"{path[0]}"' in where and not near else ""
    raise FilterError(f"where names no column {'.'.join(path)!r}{hint}; there are: {', '.join(columns)}")
