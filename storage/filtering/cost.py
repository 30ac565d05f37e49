"""What a filter may cost: the plain ones, whose cost is that of reading their columns, told from all others.

DuckDB can be interrupted between blocks of 2,048 rows. A plain filter does little enough for each row, makes no value
longer than those it reads, and has few enough parts, that time and memory stay small from one interruption to the
next. It is evaluated in the process that asks; any other in a process that can be ended.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Tree = dict[str, Any]

MAX_PLAIN_PARTS = 200
MAX_PLAIN_CALLS = 3  # functions within functions
_MAX_PATTERN = 200
_MAX_PATH = 4

_PATTERNS = frozenset({"~~", "!~~", "~~*", "!~~*"})
_CHEAP = (
    "% * + - / // abs bit_length ceil ceiling char_length character_length contains date_part date_trunc datepart"
    " datetrunc day dayname dayofmonth dayofweek dayofyear ends_with epoch floor greatest hour ifnull isfinite isinf"
    " isnan isodow isoyear lcase least left len length list_contains list_has array_contains array_has lower ltrim"
    " minute month monthname nullif octet_length prefix quarter right round rtrim second sign sqrt starts_with strlen"
    " substr substring suffix trim ucase upper week weekday weekofyear within_km year"
)
_SCALARS = (
    "BIGINT BOOL BOOLEAN BPCHAR CHAR DATE DECIMAL DOUBLE FLOAT HUGEINT INT INT1 INT2 INT4 INT8 INTEGER LONG NUMERIC"
    " REAL SHORT SMALLINT STRING TEXT TIME TIMESTAMP TINYINT UBIGINT UINTEGER USMALLINT UTINYINT VARCHAR"
)
_LOGIC = "OPERATOR_NOT OPERATOR_IS_NULL OPERATOR_IS_NOT_NULL OPERATOR_COALESCE COMPARE_IN COMPARE_NOT_IN"
_UNITS = "to_days to_hours to_microseconds to_milliseconds to_minutes to_months to_seconds to_weeks to_years trunc"
_FUNCTIONS, _TYPES, _OPERATORS, _INTERVALS = (frozenset(names.split()) for names in (_CHEAP, _SCALARS, _LOGIC, _UNITS))
_CLASSES = frozenset({"BETWEEN", "CASE", "CAST", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT", "OPERATOR"})


def is_plain(tree: Tree) -> bool:
    """Whether a predicate costs no more than reading its columns; `tree` is what DuckDB's parser makes of it."""
    parts = 0
    for node, calls in _walk(tree):
        parts += node["class"] != "CONSTANT"
        if parts > MAX_PLAIN_PARTS or calls > MAX_PLAIN_CALLS or not _is_plain_node(node):
            return False
    return True


def _walk(tree: Tree) -> Iterator[tuple[Tree, int]]:
    """Every expression, with the number of functions and casts that it stands in, itself included."""
    pending: list[tuple[Any, int]] = [(tree, 0)]
    while pending:
        value, calls = pending.pop()
        if isinstance(value, dict):
            if "class" in value:
                if _is_interval(value):  # a constant, however the parser writes it
                    continue
                calls += value["class"] in ("FUNCTION", "CAST")
                yield value, calls
            pending.extend((part, calls) for part in value.values())
        elif isinstance(value, list):
            pending.extend((part, calls) for part in value)


def _is_plain_node(node: Tree) -> bool:
    kind = node["class"]
    if kind == "FUNCTION":
        return _is_plain_function(node)
    if kind == "OPERATOR":
        return node["type"] in _OPERATORS and (node["type"] not in ("COMPARE_IN", "COMPARE_NOT_IN") or _is_list(node))
    if kind == "COLUMN_REF":
        return len(node["column_names"]) <= _MAX_PATH
    if kind == "TYPE":
        path = node["qualified_name"]["path"]
        return len(path) == 1 and path[0].upper() in _TYPES
    return kind in _CLASSES


def _is_plain_function(node: Tree) -> bool:
    name = node["function_name"].lower()
    if len(node["qualified_name"]["path"]) != 1:
        return False
    if name not in _PATTERNS:
        return name in _FUNCTIONS
    arguments = [one["expression"] for one in node["arguments"]]
    pattern = arguments[-1] if len(arguments) == 2 else None  # written as a function it may have any number
    if pattern is None or pattern["class"] != "CONSTANT":
        return False
    return len(str(pattern["literal"].get("text", ""))) <= _MAX_PATTERN  # a text is compared with it at each place


def _is_interval(node: Tree) -> bool:
    """Whether this is `INTERVAL 30 DAY`, or '30 days' as an interval."""
    while node["class"] in ("FUNCTION", "CAST"):
        if node["class"] == "CAST":
            if node["type_expr"].get("type_name") not in ("INTERVAL", "INTEGER", "BIGINT", "DOUBLE"):
                return False
            node = node["child"]
        elif node["function_name"] in _INTERVALS and len(node["arguments"]) == 1:
            node = node["arguments"][0]["expression"]
        else:
            return False
    return bool(node["class"] == "CONSTANT")


def _is_list(node: Tree) -> bool:
    """Whether all but the first part of an IN are values."""
    return all(part["class"] == "CONSTANT" for part in node["children"][1:])
