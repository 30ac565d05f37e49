"""Tables written as JSON: one object a line (JSONL, also gzipped), or one array of objects."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from ...errors import SourceError
from ..item import one_line
from ..layouts.lines import BOM, MAX_RECORD_BYTES, bounded_lines, open_bytes, read_whole
from .column_types import json_text
from .columns import BadRecord, Record, Roles

_BOOL, _FLOAT, _TEXT, _NESTED = "bool", "float", "str", "nested"
# Kinds of whole numbers: those that a float holds exactly, those of 64 bits, those that only an unsigned one holds.
_SMALL, _NEGATIVE, _LONG, _LONG_NEGATIVE, _UNSIGNED = "int", "-int", "long", "-long", "unsigned"
_KINDS: tuple[tuple[frozenset[str], pa.DataType], ...] = (
    (frozenset((_BOOL,)), pa.bool_()),
    (frozenset((_SMALL, _NEGATIVE, _LONG, _LONG_NEGATIVE)), pa.int64()),
    (frozenset((_SMALL, _LONG, _UNSIGNED)), pa.uint64()),
    (frozenset((_SMALL, _NEGATIVE, _FLOAT)), pa.float64()),
)


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
        """bool, int64, uint64, float64 or string; what is mixed, nested or would lose digits is a string."""
        kinds = self._kinds.get(column, set())
        fitting = (kind for known, kind in _KINDS if kinds and kinds <= known)
        return next(fitting, pa.string())


def cast_json(value: Any, kind: pa.DataType) -> Any:
    """`value` as a value of the column's type; in a string column everything but strings becomes JSON text."""
    if value is None or not pa.types.is_string(kind):
        return float(value) if value is not None and pa.types.is_floating(kind) else value
    text = value if isinstance(value, str) else json_text(value) or ""
    # JSON may hold half a surrogate pair (\ud800), which no UTF-8 column can.
    return text.encode("utf-8", "replace").decode("utf-8")


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return _BOOL
    if isinstance(value, int):
        return _integer_kind(value)
    if isinstance(value, float):
        return _FLOAT
    return _TEXT if isinstance(value, str) else _NESTED


def _integer_kind(value: int) -> str:
    if -(2**53) <= value <= 2**53:
        return _NEGATIVE if value < 0 else _SMALL
    if -(2**63) <= value < 2**63:
        return _LONG_NEGATIVE if value < 0 else _LONG
    return _UNSIGNED if 0 <= value < 2**64 else _NESTED


class JsonFile:
    """A `.jsonl` / `.ndjson` file, or with `array=True` a `.json` file that holds a list of objects.

    The file is read once here, to find its columns and their types, and once for each `records` call.

    Raises:
        SourceError: It cannot be read, or holds no object at all.
    """

    def __init__(self, path: Path, *, array: bool = False) -> None:
        self._path = path
        self._array = array
        self.word = "entry" if array else "line"
        self.notes: tuple[str, ...] = ()
        self._types = JsonTypes()
        first_bad: BadRecord | None = None
        objects = 0
        for record in self._read():
            if isinstance(record, Record):
                self._types.add(record.values)
                objects += 1
            elif first_bad is None:
                first_bad = record
        if not objects:
            why = first_bad.detail if first_bad else "it is empty"
            raise SourceError(f"{path.name} holds no JSON object: {why}; expected one object a {self.word}")

    @property
    def columns(self) -> tuple[str, ...]:
        """All keys of all objects, in the order in which they first appear."""
        return self._types.columns

    def schema(self, roles: Roles) -> pa.Schema:
        """Types over the whole file: bool, int64, float64; mixed and nested values are strings."""
        return pa.schema([(name, self._types.type_of(column)) for column, name in roles.metadata.items()])

    def records(self, roles: Roles) -> Iterator[Record | BadRecord]:
        """Every line that is not blank; a line that is no JSON object is a `BadRecord`."""
        types = {column: self._types.type_of(column) for column in roles.metadata if column not in roles.raw}
        for record in self._read():
            if isinstance(record, BadRecord):
                yield record
                continue
            values = dict(record.values)
            values.update({name: cast_json(values.get(name), kind) for name, kind in types.items()})
            yield Record(number=record.number, values=values)

    def _read(self) -> Iterator[Record | BadRecord]:
        try:
            yield from self._entries() if self._array else self._lines()
        except (OSError, EOFError) as error:
            raise SourceError(
                f"{self._path.name} cannot be read to its end: {one_line(error)}; make a new copy"
            ) from error

    def _lines(self) -> Iterator[Record | BadRecord]:
        with open_bytes(self._path) as file:
            for number, line in enumerate(bounded_lines(file, MAX_RECORD_BYTES), start=1):
                text = line.removeprefix(BOM) if number == 1 else line
                if text.strip():
                    yield parse_object(text, number, f"line {number} of {self._path.name}")

    def _entries(self) -> Iterator[Record | BadRecord]:
        for number, value in enumerate(read_json(self._path, list), start=1):
            yield _as_record(value, number, f"entry {number} of {self._path.name}")


def parse_object(text: bytes, number: int, location: str) -> Record | BadRecord:
    """The JSON object in `text`, or what is wrong with it: `too_large`, `not_utf8`, `not_json` or `not_an_object`."""
    if len(text) > MAX_RECORD_BYTES:
        detail = f"{location} has more than {MAX_RECORD_BYTES} bytes"
        return BadRecord(number=number, reason="too_large", detail=detail)
    try:
        value = json.loads(text.decode("utf-8"))
    except UnicodeDecodeError as error:
        return BadRecord(number=number, reason="not_utf8", detail=f"{location} is not UTF-8: {error.reason}")
    except (ValueError, RecursionError) as error:
        return BadRecord(number=number, reason="not_json", detail=f"{location} is not JSON: {one_line(error)}")
    return _as_record(value, number, location)


def _as_record(value: Any, number: int, location: str) -> Record | BadRecord:
    if isinstance(value, dict):
        return Record(number=number, values=value)
    kind = type(value).__name__
    return BadRecord(number=number, reason="not_an_object", detail=f"{location} is a JSON {kind}, not an object")


def read_json(path: Path, kind: type[list[Any]] | type[dict[str, Any]]) -> Any:
    """The whole file as one JSON value of the given kind.

    Raises:
        SourceError: It cannot be read, is not UTF-8, not JSON, or another kind of value.
    """
    try:
        value = json.loads(read_whole(path).decode("utf-8"))
    except (OSError, EOFError) as error:
        raise SourceError(f"{str(path)!r} cannot be read to its end: {one_line(error)}; make a new copy") from error
    except (ValueError, RecursionError) as error:
        raise SourceError(
            f"{str(path)!r} is not JSON in UTF-8: {one_line(error)}; one object a line is called .jsonl"
        ) from error
    if not isinstance(value, kind):
        raise SourceError(f"{str(path)!r} holds a JSON {type(value).__name__}; expected a {kind.__name__}")
    return value
