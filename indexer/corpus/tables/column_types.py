"""The types of a table's columns, as Arrow has them, and what a catalog keeps of each."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ...errors import SourceError

_KEPT: tuple[Callable[[pa.DataType], bool], ...] = (
    pa.types.is_boolean,
    pa.types.is_integer,
    pa.types.is_float32,
    pa.types.is_float64,
    pa.types.is_date,
    pa.types.is_decimal128,
)
_TEXT = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
_BYTES = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view)
# Extension types whose storage is not what a reader takes them for: 16 bytes, a small integer.
_UUID, _BOOL8 = "arrow.uuid", "arrow.bool8"


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type of the values themselves: of a dictionary, of runs, or under the name that an extension gave it."""
    if isinstance(kind, pa.BaseExtensionType):
        if kind.extension_name in (_UUID, _BOOL8):
            return pa.string() if kind.extension_name == _UUID else pa.bool_()
        return plain_type(kind.storage_type)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return plain_type(kind.value_type)
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        return pa.large_list(kind.value_field)
    return kind


def plain_column(column: pa.Array) -> pa.Array:
    """`column` in its `plain_type`."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        if kind.extension_name in (_UUID, _BOOL8):
            is_uuid = kind.extension_name == _UUID
            return as_texts(column.to_pylist()) if is_uuid else pc.cast(column.storage, pa.bool_())
        return plain_column(column.storage)
    if pa.types.is_dictionary(kind):
        return plain_column(column.dictionary_decode())
    if pa.types.is_run_end_encoded(kind):
        return plain_column(pc.run_end_decode(column))
    target = plain_type(kind)
    return column if target == kind else column.cast(target)


def catalog_type(kind: pa.DataType) -> pa.DataType:
    """The type that the catalog uses for a column of this type: what has no plain SQL type becomes a string."""
    kind = plain_type(kind)
    if pa.types.is_float16(kind):
        return pa.float32()
    if pa.types.is_decimal32(kind) or pa.types.is_decimal64(kind):
        return pa.decimal128(kind.precision, kind.scale)
    if pa.types.is_timestamp(kind):
        # Nanoseconds come back from Arrow as pandas values, so microseconds are kept, as in DuckDB's TIMESTAMP.
        return pa.timestamp("us", kind.tz)
    return kind if any(check(kind) for check in _KEPT) else pa.string()


def keepable(schema: pa.Schema, names: Mapping[str, str]) -> pa.Schema:
    """The catalog's columns for the file's: `names` maps the file's names to the catalog's."""
    return pa.schema([(name, catalog_type(schema.field(column).type)) for column, name in names.items()])


def from_file(column: pa.Array) -> pa.Array:
    """`column` in its catalog type; bytes that are not UTF-8 are replaced, nested values become JSON text."""
    target = catalog_type(column.type)
    column = plain_column(column)
    kind = column.type
    if kind == target:
        return column
    if pa.types.is_nested(kind):
        return as_texts(column.to_pylist(), json_text)
    if is_binary(kind):
        texts = (None if value is None else value.decode("utf-8", "replace") for value in column.to_pylist())
        return pa.array(texts, pa.string())
    if is_text(kind) or pa.types.is_null(kind):
        return column.cast(pa.string())
    if pa.types.is_duration(kind) or pa.types.is_interval(kind):
        return as_texts(column.to_pylist())
    return pc.cast(column, target, safe=not pa.types.is_timestamp(kind))


def to_values(column: pa.Array, errors: str, where: str = "a column") -> list[Any]:
    """`column` as Python values; strings that are not UTF-8, which Arrow may hold, are decoded with `errors`.

    Raises:
        SourceError: It holds a date that no calendar of ours has.
    """
    column = plain_column(column)
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        if not is_text(column.type):
            raise
        cells = column.cast(pa.large_binary()).to_pylist()
        values = [None if cell is None else cell.decode("utf-8", errors) for cell in cells]
    except (OverflowError, ValueError) as error:
        raise SourceError(
            f"{where} holds a date or a time outside the years 1 to 9999; leave the column out, or write it as text"
        ) from error
    return values


def as_keys(column: pa.ChunkedArray, to_key: Callable[[Any], str | None]) -> pa.ChunkedArray:
    """`column` as a string array of keys, whatever its type; `to_key` writes one value."""
    chunks = [as_texts(to_values(chunk, "backslashreplace"), to_key) for chunk in column.chunks]
    return pa.chunked_array(chunks, pa.string())


def common_type(kinds: Sequence[pa.DataType]) -> pa.DataType:
    """The catalog type that holds the values of all these columns; a string where no other does."""
    types = list(dict.fromkeys(catalog_type(kind) for kind in kinds if not pa.types.is_null(plain_type(kind))))
    if len(types) < 2:
        return types[0] if types else pa.string()
    if any(pa.types.is_uint64(kind) for kind in types) or _rounds(types):
        return pa.string()  # integers of both kinds, or beside floats, would lose digits
    try:
        schemas = [pa.schema([("", kind)]) for kind in types]
        return catalog_type(pa.unify_schemas(schemas, promote_options="permissive").field(0).type)
    except pa.ArrowException:
        return pa.string()


def _rounds(kinds: Sequence[pa.DataType]) -> bool:
    return any(map(pa.types.is_int64, kinds)) and any(map(pa.types.is_floating, kinds))


# Floats hold whole numbers of 15 digits, and all up to 2^53.
_LONG = r"^\s*[+-]?\d{16,}"
_PADDED = r"^\s*[+-]?0\d"


def exact_numbers(texts: pa.ChunkedArray, numbers: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Numbers of a text file that would lose digits, as unsigned integers or as text; None where none does.

    `texts` holds the cells as they are written, `numbers` the same as int64 or float64.
    """
    there = numbers.is_valid()
    texts = pc.if_else(there, pc.utf8_trim_whitespace(texts), pa.scalar(None, pa.string()))
    if pc.any(pc.match_substring_regex(texts, _PADDED)).as_py():
        return texts
    if pa.types.is_floating(numbers.type) and pc.any(pc.and_(pc.is_inf(numbers), _has_digits(texts))).as_py():
        return texts  # 1e400 is no infinity
    if pa.types.is_int64(numbers.type) or not pc.any(pc.match_substring_regex(texts, _LONG)).as_py():
        return None
    if pc.all(pc.match_substring_regex(texts, r"^\+?\d{1,20}$")).as_py():
        try:
            return texts.cast(pa.uint64())
        except pa.ArrowInvalid:
            return texts
    long = texts.filter(pc.match_substring_regex(texts, _LONG)).to_pylist()
    return None if all(_is_exact(text) for text in long) else texts


def _has_digits(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.match_substring_regex(texts, r"\d")


def _is_exact(text: str) -> bool:
    try:
        return "e" in text.lower() or Decimal(text) == Decimal(float(text))
    except ArithmeticError:
        return True


def is_text(kind: pa.DataType) -> bool:
    """True for columns of strings in any of Arrow's forms."""
    return any(check(kind) for check in _TEXT)


def is_binary(kind: pa.DataType) -> bool:
    """True for columns of bytes, such as image files in a Parquet table."""
    kind = plain_type(kind)
    return any(check(kind) for check in _BYTES)


def json_text(value: Any) -> str | None:
    """A nested value as JSON; what JSON has no form for becomes text, NaN and infinity null."""
    return None if value is None else json.dumps(_for_json(value), ensure_ascii=False, allow_nan=False)


def _for_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _for_json(part) for key, part in value.items()}
    if is_map(value):
        return {str(key): _for_json(part) for key, part in value}
    if isinstance(value, list | tuple):
        return [_for_json(part) for part in value]
    if isinstance(value, float):
        return value if value - value == 0 else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, bytes):
        return _bytes_text(value)
    return value.isoformat() if isinstance(value, dt.date | dt.time) else str(value)


def _bytes_text(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return f"({len(value)} bytes)"


def is_map(value: Any) -> bool:
    """True for a map as Arrow gives it: a list of (key, value) tuples."""
    return isinstance(value, list) and bool(value) and all(isinstance(one, tuple) and len(one) == 2 for one in value)


def as_texts(values: Iterable[Any], to_text: Callable[[Any], str | None] = str) -> pa.Array:
    """A string array of values, each written by `to_text`; None stays None."""
    return pa.array([None if value is None else to_text(value) for value in values], pa.string())
