"""Which Arrow types a catalog keeps, and as what."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

_KEPT: tuple[Callable[[pa.DataType], bool], ...] = (
    pa.types.is_boolean,
    pa.types.is_integer,
    pa.types.is_float32,
    pa.types.is_float64,
    pa.types.is_date,
    pa.types.is_decimal128,
)
_TEXT = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
_NESTED = (
    pa.types.is_list,
    pa.types.is_large_list,
    pa.types.is_fixed_size_list,
    pa.types.is_struct,
    pa.types.is_map,
)


def catalog_type(kind: pa.DataType) -> pa.DataType:
    """The type that the catalog uses for a column of this type: what has no plain SQL type becomes a string."""
    if pa.types.is_dictionary(kind):
        return catalog_type(kind.value_type)
    if pa.types.is_float16(kind):
        return pa.float32()
    if pa.types.is_timestamp(kind):
        # Nanoseconds come back from Arrow as pandas values, so microseconds are kept, as in DuckDB's TIMESTAMP.
        return pa.timestamp("us", kind.tz)
    return kind if any(check(kind) for check in _KEPT) else pa.string()


def keepable(schema: pa.Schema, names: Mapping[str, str]) -> pa.Schema:
    """The catalog's columns for the file's: `names` maps the file's names to the catalog's."""
    return pa.schema([(name, catalog_type(schema.field(column).type)) for column, name in names.items()])


def from_file(column: pa.Array) -> pa.Array:
    """`column` in its catalog type; bytes that are not UTF-8 are replaced, nested values become JSON text."""
    kind, wanted = column.type, catalog_type(column.type)
    if kind == wanted:
        return column
    if pa.types.is_dictionary(kind):
        return from_file(column.dictionary_decode())
    if any(check(kind) for check in _NESTED):
        return pa.array([_json(value) for value in column.to_pylist()], pa.string())
    if is_binary(kind):
        texts = (None if value is None else value.decode("utf-8", "replace") for value in column.to_pylist())
        return pa.array(texts, pa.string())
    if any(check(kind) for check in _TEXT) or pa.types.is_null(kind):
        return column.cast(pa.string())
    return pc.cast(column, wanted, safe=not pa.types.is_timestamp(kind))


def to_values(column: pa.Array, errors: str) -> list[Any]:
    """`column` as Python values; strings that are not UTF-8, which Arrow may hold, are decoded with `errors`."""
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        if not any(check(column.type) for check in _TEXT):
            raise
        cells = column.cast(pa.large_binary()).to_pylist()
        values = [None if cell is None else cell.decode("utf-8", errors) for cell in cells]
    return values


def is_binary(kind: pa.DataType) -> bool:
    """True for columns of bytes, such as image files in a Parquet table."""
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_binary_view(kind)
    )


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False, default=str)
