"""Column types of JSON records, found over the whole file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

INT64 = range(-(2**63), 2**63)
_SCALARS = {frozenset({"bool"}): pa.bool_(), frozenset({"int"}): pa.int64()}
_NUMBERS = ({"float"}, {"int", "float"})


class JsonTypes:
    """Collects what kinds of value each column holds; `type_of` then names the narrowest type that fits all."""

    def __init__(self) -> None:
        self._kinds: dict[str, set[str]] = {}

    @property
    def columns(self) -> tuple[str, ...]:
        """All keys, in the order in which they were first seen."""
        return tuple(self._kinds)

    def add(self, values: Mapping[str, Any]) -> None:
        """Take note of one record."""
        for column, value in values.items():
            kinds = self._kinds.setdefault(column, set())
            if value is not None:
                kinds.add(_kind(value))

    def type_of(self, column: str) -> pa.DataType:
        """bool, int64, float64 or string; whatever is mixed or nested is a string."""
        kinds = self._kinds.get(column, set())
        if kinds in _NUMBERS:
            return pa.float64()
        return _SCALARS.get(frozenset(kinds), pa.string())


def cast_json(value: Any, kind: pa.DataType) -> Any:
    """`value` as a value of the column's type; in a string column everything but strings becomes JSON text."""
    if value is None or not pa.types.is_string(kind):
        return float(value) if value is not None and pa.types.is_floating(kind) else value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    # JSON may hold half a surrogate pair (\ud800), which no UTF-8 column can.
    return text.encode("utf-8", "replace").decode("utf-8")


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if value in INT64 else "nested"
    if isinstance(value, float):
        return "float"
    return "str" if isinstance(value, str) else "nested"
