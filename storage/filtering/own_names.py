"""What a filter may say beside DuckDB's own words: `within_km`, and today's date.

They are written out before DuckDB sees them, so that no catalog needs a macro, and the process that evaluates a filter
needs neither a clock nor a time zone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from datetime import datetime
from typing import Any

from ..errors import SearchParameterError

Tree = dict[str, Any]

WITHIN_KM = "within_km"
_WITHIN_KM_TAKES = "within_km takes five values: latitude, longitude, the latitude and longitude of a place, kilometres"
# Of the values of constants, in their order, the least and the most.
_RANGES = ((-90, 90), (-360, 360), (-90, 90), (-360, 360), (0, float("inf")))
_NAMES = ("latitude", "longitude", "latitude", "longitude", "distance")
# By the haversine formula, on a sphere of the earth's mean radius (at most 0.6 % off): at the poles and across the date
# line too. What is no place on it, as a latitude of 1000, is unknown.
_HAVERSINE = """CASE WHEN abs(CAST(p0 AS DOUBLE)) <= 90 AND abs(CAST(p1 AS DOUBLE)) <= 360
AND abs(CAST(p2 AS DOUBLE)) <= 90 AND abs(CAST(p3 AS DOUBLE)) <= 360
THEN 12742.0176 * asin(sqrt(least(1, pow(sin(radians(CAST(p2 AS DOUBLE) - CAST(p0 AS DOUBLE)) / 2), 2)
+ cos(radians(CAST(p0 AS DOUBLE))) * cos(radians(CAST(p2 AS DOUBLE)))
* pow(sin(radians(CAST(p3 AS DOUBLE) - CAST(p1 AS DOUBLE)) / 2), 2)))) <= CAST(p4 AS DOUBLE) END"""
_NOW = {"current_date": "DATE '{:%Y-%m-%d}'", "current_timestamp": "TIMESTAMP '{:%Y-%m-%d %H:%M:%S}'"}


def is_now(path: Collection[str]) -> bool:
    """Whether the parts of a name are `current_date` or `current_timestamp`: what the clock says where it is asked."""
    return len(path) == 1 and next(iter(path)).lower() in _NOW


def may_name_now(where: str) -> bool:
    """Whether what a filter lets through may change as time goes by."""
    return any(name in where.lower() for name in _NOW)


def names_own(tree: Tree) -> bool:
    """Whether a predicate says anything that `written_out` would write out."""
    return any(_is_within_km(node) or _is_now(node) for node in _nodes(tree))


def check_within_km(node: Tree) -> None:
    """Refuse a call of `within_km` that means nothing.

    Raises:
        SearchParameterError: It has not five values, or a number among them is no place or distance.
    """
    arguments = [one["expression"] for one in node["arguments"]]
    if len(arguments) != len(_RANGES) or any(one.get("name") for one in node["arguments"]):
        raise SearchParameterError(
            f"{_WITHIN_KM_TAKES}; {len(arguments)} are given. Write within_km(latitude, longitude, 48.2, 16.4, 5)"
        )
    if any(_is_within_km(inner) for argument in arguments for inner in _nodes(argument)):
        raise SearchParameterError("within_km stands within another one; join the two by AND or OR")
    for argument, name, (least, most) in zip(arguments, _NAMES, _RANGES, strict=True):
        value = _number(argument)
        if (argument.get("literal") or {}).get("kind") == "STRING":
            raise SearchParameterError(f"within_km has a text for a {name}; give a number, without quotes")
        if value is not None and not least <= value <= most:
            meant = "kilometres from 0 on" if name == "distance" else f"degrees from {least} to {most}"
            raise SearchParameterError(f"within_km has {value:g} for a {name}; give {meant}. {_WITHIN_KM_TAKES}")


def written_out(tree: Tree, columns: Collection[str], parse: Callable[[str], Tree], now: datetime) -> Tree:
    """Return a predicate in DuckDB's own words.

    Args:
        tree: What DuckDB's parser makes of it.
        columns: Of the catalog; a column called `current_date` is meant by that name.
        parse: From SQL to a tree.
        now: The time on the clock here.

    Raises:
        SearchParameterError: `within_km` has not five values.
    """
    known = {name.lower() for name in columns}
    formula = parse(_HAVERSINE)

    def replaced(node: Tree) -> Tree | None:
        if _is_now(node) and node["column_names"][0].lower() not in known:
            return parse(_NOW[node["column_names"][0].lower()].format(now))
        if _is_within_km(node):
            check_within_km(node)
            given = {f"p{number}": _mapped(one["expression"], replaced) for number, one in enumerate(node["arguments"])}
            distance: Tree = _mapped(formula, lambda part: given.get(_only_name(part)))
            return distance
        return None

    whole: Tree = _mapped(tree, replaced)
    return whole


def _mapped(value: Any, replaced: Callable[[Tree], Tree | None]) -> Any:
    if isinstance(value, list):
        return [_mapped(part, replaced) for part in value]
    if not isinstance(value, dict):
        return value
    other = replaced(value) if "class" in value else None
    return other if other is not None else {name: _mapped(part, replaced) for name, part in value.items()}


def _nodes(tree: Tree) -> Iterator[Tree]:
    pending: list[Any] = [tree]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            if "class" in value:
                yield value
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)


def _is_within_km(node: Tree) -> bool:
    return node["class"] == "FUNCTION" and str(node["function_name"]).lower() == WITHIN_KM


def _is_now(node: Tree) -> bool:
    return node["class"] == "COLUMN_REF" and is_now(node["column_names"])


def _only_name(node: Tree) -> str:
    return str(node["column_names"][0]) if node["class"] == "COLUMN_REF" and len(node["column_names"]) == 1 else ""


def _number(node: Tree) -> float | None:
    """The value of a constant that is a number."""
    literal = node.get("literal") or {}
    if node["class"] != "CONSTANT" or literal.get("kind") not in ("INTEGER", "NUMERIC"):
        return None
    try:
        return float(literal.get("text", ""))
    except ValueError:
        return None
