"""A `where` predicate: read by DuckDB's own parser, and checked node by node against what is allowed.

`check_predicate` says whether a caller's text is one condition on known columns, made of allowed functions alone;
whoever evaluates it (`Catalog.filter_rows`) relies on that. Everything here raises `SearchParameterError`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from typing import Any

import duckdb

from .errors import SearchParameterError, first_line
from .filtering.own_names import WITHIN_KM, check_within_km, is_now

# Far above any filter a person or a program writes, far below what makes the parser work hard.
MAX_LENGTH = 100_000
_BARE = "SELECT 1 FROM t"


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
    node = _parse(connection, f"{_BARE} WHERE (\n{where}\n)", where)
    tree = node.pop("where_clause", None)
    bare = _parse(connection, _BARE, where)
    bare.pop("where_clause", None)
    if not isinstance(tree, dict) or node != bare:
        raise SearchParameterError(
            f"where {shortened(where)!r} is not one expression; write a single condition on columns, without clauses"
        )
    return tree


def predicate_sql(connection: duckdb.DuckDBPyConnection, tree: dict[str, Any]) -> str:
    """Return the SQL of an expression, in parentheses, from its tree."""
    (answer,) = connection.execute("SELECT json_serialize_sql(?)", [_BARE]).fetchone() or ("{}",)
    statements = json.loads(answer)
    statements["statements"][0]["node"]["where_clause"] = tree
    (sql,) = connection.execute("SELECT json_deserialize_sql(?)", [json.dumps(statements)]).fetchone() or ("",)
    return "(" + str(sql).split(" WHERE ", 1)[1] + ")"


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
            f"where {shortened(where)!r} cannot be parsed: {first_line(error)}; write a simpler one"
        ) from error
    statements = parsed.get("statements", [])
    if parsed.get("error") or len(statements) != 1:
        reason = str(parsed.get("error_message", "more than one statement")).splitlines()[0]
        raise SearchParameterError(
            f"where {shortened(where)!r} is not SQL: {reason}; write a predicate such as 'width >= 640'"
        )
    node: dict[str, Any] = statements[0]["node"]
    return node


_OPERATORS = (
    "! !~~ !~~* % & * ** + - -> ->> / // < << <@ ^@ > >> @> ^ | || ~ ~~ ~~* ~~~"
    " ilike_escape like_escape not_ilike_escape not_like_escape"
)

_NUMBERS = (
    "abs add bit_count ceil ceiling divide even exp fdiv floor fmod greatest isfinite isinf isnan least ln log"
    " log10 log2 mod multiply pow power round round_even sign signbit sqrt subtract trunc"
)

_TEXT = (
    "ascii bit_length char_length character_length concat contains damerau_levenshtein editdist3 ends_with hamming"
    " instr jaccard jaro_similarity jaro_winkler_similarity lcase left len length length_grapheme levenshtein lower"
    " ltrim mismatches nfc_normalize octet_length ord parse_dirname parse_dirpath parse_filename parse_path position"
    " prefix regexp_extract regexp_extract_all regexp_full_match regexp_matches regexp_split_to_array reverse right"
    " rtrim split split_part starts_with str_split string_split string_to_array strip_accents strlen strpos substr"
    " substring suffix translate trim ucase unicode upper"
)

_TIME = (
    "century date_add date_diff date_part date_sub date_trunc datediff datepart datesub datetrunc day dayname"
    " dayofmonth dayofweek dayofyear decade epoch epoch_ms epoch_ns epoch_us era hour isodow isoyear julian last_day"
    " make_date make_time make_timestamp microsecond millennium millisecond minute month monthname quarter second"
    " strftime strptime time_bucket to_days to_hours to_minutes to_months to_seconds to_timestamp to_weeks to_years"
    " try_strptime week weekday weekofyear year yearweek"
)

_NESTED = (
    "array_contains array_has array_has_all array_has_any array_length array_position array_value cardinality"
    " element_at flatten json_array_length json_contains json_exists json_extract json_extract_path"
    " json_extract_path_text json_extract_string json_keys json_type json_valid json_value list_any_value list_avg"
    " list_contains list_count list_distinct list_element list_extract list_first list_has list_has_all list_has_any"
    " list_indexof list_last list_max list_median list_min list_pack list_position list_sort list_sum list_unique"
    " list_value map map_contains map_extract map_extract_value map_keys map_values row struct_extract struct_pack"
)

_OTHERS = "constant_or_null if ifnull nullif typeof"

ALLOWED_FUNCTIONS = frozenset(" ".join((_OPERATORS, _NUMBERS, _TEXT, _TIME, _NESTED, _OTHERS, WITHIN_KM)).split())
# What others call what is allowed here.
_OTHERWISE = {
    **dict.fromkeys(("now", "get_current_timestamp", "current_timestamp", "localtimestamp"), "current_timestamp"),
    **dict.fromkeys(("today", "current_date"), "current_date"),
}


_MAX_PREDICATE = 50_000
_MAX_NODES = 5_000
_MAX_DEPTH = 32
_MAX_VALUE = 4_096  # characters of one text or number
_MAX_PATH = 8  # parts of a name: a column and the fields within its structs
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
        SearchParameterError: It is no single expression, uses what is not allowed, or names an unknown column.
    """
    if not isinstance(where, str) or not where.strip():
        raise SearchParameterError(
            f'where={where!r} is empty; give a condition such as "width >= 640", or leave it out'
        )
    if len(where) > _MAX_PREDICATE or "\0" in where:
        raise SearchParameterError(
            f"where={shown(where)} has {len(where)} characters; give at most {_MAX_PREDICATE}, and no NUL"
        )
    tree = _parsed(where, columns, parse)
    known = {name.lower() for name in columns}
    for count, (node, depth) in enumerate(_walk(tree)):
        if count >= _MAX_NODES or depth > _MAX_DEPTH:
            raise SearchParameterError(
                f"where is larger than {_MAX_NODES} parts or deeper than {_MAX_DEPTH}: {shown(where)}"
            )
        _check_node(node, where, known, columns)
    _check_whole(where, tree, parse)


def _parsed(where: str, columns: Sequence[str], parse: Parse) -> Tree:
    try:
        where.encode("utf-8")
    except UnicodeEncodeError as error:
        raise SearchParameterError(
            f"where={shown(where)} is not Unicode text: {error.reason}; decode it first"
        ) from error
    try:
        return parse(where)
    except SearchParameterError as error:
        raise SearchParameterError(f"{error}{_quoting_hint(where, columns, parse)}") from error


def _quoting_hint(where: str, columns: Sequence[str], parse: Parse) -> str:
    """A hint where a column that SQL cannot read bare, such as `my col` or `select`, may be what was meant."""
    named = [name for name in columns if re.search(rf"(?<![\w\"']){re.escape(name)}(?![\w\"'])", where, re.IGNORECASE)]
    odd = [f'"{name}"' for name in named if not _needs_no_quotes(name, parse)]
    return f"; the column {' and '.join(odd)} must stand in double quotes" if odd else ""


def _needs_no_quotes(name: str, parse: Parse) -> bool:
    try:
        tree = parse(f"{name} IS NULL")
    except SearchParameterError:
        return False
    return bool(tree["children"][0]["class"] == "COLUMN_REF") if tree.get("children") else False


def _check_whole(where: str, tree: Tree, parse: Parse) -> None:
    problem = SearchParameterError(
        f"where must be one whole expression: {shown(where)}; mind its parentheses and commas"
    )
    try:
        call = parse(f"coalesce(\n{where}\n)")
    except SearchParameterError as error:
        raise problem from error
    if call["type"] != "OPERATOR_COALESCE" or _without_locations(call["children"]) != [_without_locations(tree)]:
        raise problem


def shown(where: str) -> str:
    """Return a predicate as error messages show it: on one line, cut to 80 characters."""
    line = " ".join(where.split())
    return repr(line if len(line) <= _SHOWN else line[: _SHOWN - 3] + "...")


def _without_locations(value: Any) -> Any:
    """The same tree without where in the text each part stood."""
    if isinstance(value, list):
        return [_without_locations(part) for part in value]
    if isinstance(value, dict):
        return {name: _without_locations(part) for name, part in value.items() if not name.startswith("query_location")}
    return value


def _walk(tree: Tree) -> Iterator[tuple[Tree, int]]:
    """Every expression of a tree, whatever it hangs from, with its depth; no recursion, it may be hostile."""
    pending: list[tuple[Any, int]] = [(tree, 0)]
    while pending:
        value, depth = pending.pop()
        if isinstance(value, dict) and "class" in value:
            depth += 1
            yield value, depth
        if isinstance(value, dict):
            pending.extend((part, depth) for part in reversed(value.values()))
        elif isinstance(value, list):
            pending.extend((part, depth) for part in reversed(value))


def _check_node(node: Tree, where: str, known: set[str], columns: Sequence[str]) -> None:
    kind = node["class"]
    if kind == "CONSTANT":
        _check_value(node, where)
    elif kind == "FUNCTION":
        _check_function(node, where)
    elif kind == "TYPE":
        _check_type(node, where)
    elif kind == "COLUMN_REF":
        _check_column(node["column_names"], where, known, columns)
    elif kind not in _ALLOWED or node["type"] == "GROUPING_FUNCTION":
        what = _REFUSED.get(kind, f"an expression of the kind {node['type']}")
        raise SearchParameterError(f"where may not use {what}: {shown(where)}; give a condition on columns and values")


def _check_value(node: Tree, where: str) -> None:
    length = len(str(node.get("literal", {}).get("text", "")))
    if length > _MAX_VALUE:
        raise SearchParameterError(
            f"where holds a value of {length} characters: {shown(where)}; give at most {_MAX_VALUE}"
        )


def _check_type(node: Tree, where: str) -> None:
    path = node["qualified_name"]["path"]
    if len(path) > 1:
        raise SearchParameterError(
            f"where names the type {'.'.join(path)[:_SHOWN]!r}: {shown(where)}; give a plain one"
        )


def _check_function(node: Tree, where: str) -> None:
    name = str(node["function_name"])
    special = node.get("schema") or node.get("catalog") or node.get("distinct") or node.get("filter")
    special = special or len(node["qualified_name"]["path"]) > 1
    if name.lower() not in ALLOWED_FUNCTIONS or special or node.get("order_bys", {}).get("orders"):
        near = [one for one in get_close_matches(name.lower(), ALLOWED_FUNCTIONS, cutoff=0.75) if one != name.lower()]
        if name.lower() in _OTHERWISE:
            near = [f"{_OTHERWISE[name.lower()]}, without parentheses"]
        hint = f"do you mean {' or '.join(near)}?" if near else "use plain functions of numbers, texts, times and lists"
        raise SearchParameterError(f"where may not call {name!r}: {shown(where)}; {hint}")
    if name.lower() == WITHIN_KM:
        try:
            check_within_km(node)
        except SearchParameterError as error:
            raise SearchParameterError(f"where {shown(where)}: {error}") from error


def _check_column(path: Sequence[str], where: str, known: set[str], columns: Sequence[str]) -> None:
    # Further parts of the path are fields of a struct column.
    if len(path) > _MAX_PATH:
        raise SearchParameterError(
            f"where names a column by {len(path)} parts: {shown(where)}; give at most {_MAX_PATH}"
        )
    if path[0].lower() in known or is_now(path):
        return
    near = get_close_matches(path[0].lower(), known, cutoff=0.7)
    hint = f"; do you mean {' or '.join(near)}?" if near else ""
    hint += "; values stand in single quotes" if f'"{path[0]}"' in where and not near else ""
    raise SearchParameterError(f"where names no column {'.'.join(path)!r}{hint}; there are: {', '.join(columns)}")
