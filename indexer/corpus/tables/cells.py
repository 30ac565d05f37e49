"""What a table cell of images or texts may hold."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

SEPARATOR = ";"
_URL = re.compile(r"\s*[a-z][a-z0-9+.-]*:[/\\]{2}", re.IGNORECASE)
# A URL may hold the separator itself.
_BETWEEN_URLS = re.compile(r";(?=\s*[a-z][a-z0-9+.-]*:[/\\]{2})", re.IGNORECASE)
_LISTS = (list, tuple)
_SCALARS = (int, float, bool)


@dataclass(frozen=True, slots=True)
class ImageCell:
    """One image of a cell: a path, a file's bytes with the name they came with, or why it is neither."""

    path: str | None = None
    data: bytes | None = None
    problem: str = ""


def image_cells(value: Any, *, bytes_are_files: bool) -> list[ImageCell]:
    """The images of one cell: paths joined by `;`, a list, bytes, a `data:` URL, a `{bytes, path}` struct; [] if empty.

    JSON has no bytes: there, and in `data:` URLs, they are in base64.
    With `bytes_are_files` a bytes value is an image file (Parquet); otherwise it is a path not yet decoded (CSV).
    """
    if value is None:
        return []
    if isinstance(value, _LISTS):
        return [cell for entry in value for cell in image_cells(entry, bytes_are_files=bytes_are_files)]
    if isinstance(value, Mapping):
        path = value.get("path")
        data = value.get("bytes")
        if isinstance(data, str) and data:
            return [_base64_cell(data, path)]  # JSON has no bytes
        return [ImageCell(path=path, data=data)] if data else image_cells(path, bytes_are_files=bytes_are_files)
    if isinstance(value, bytes) and bytes_are_files:
        return [ImageCell(data=value)] if value else []
    if _starts_as_data(value):
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        kind, _, packed = text.strip().partition(",")
        return [_base64_cell(packed if kind.lower().endswith(";base64") else "?", None)]
    return [_path_cell(part) for part in _split(value) if part.strip()]


def text_cells(value: Any) -> list[str | bytes | None]:
    """The texts of one cell: a string, bytes not yet decoded, a list of them, or `{"raw": text}` as Karpathy has."""
    if value is None:
        return []
    if isinstance(value, _LISTS):
        return [_text(entry) for entry in value]
    return [_text(value)]


def plain(value: Any) -> str | None:
    """A key or split cell as text; None when it is empty."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    text = "" if value is None else str(value).strip()
    return text.encode("utf-8", "backslashreplace").decode("utf-8") or None


def _split(value: Any) -> list[str]:
    if isinstance(value, bytes):
        # Undecodable bytes are kept as the file system would: the file may be there under such a name.
        value = value.decode("utf-8", "surrogateescape")
    text = str(value)
    return _BETWEEN_URLS.split(text) if _URL.match(text) else text.split(SEPARATOR)


def _starts_as_data(value: Any) -> bool:
    start = bytes(value[:200]).decode("latin-1") if isinstance(value, bytes) else str(value)[:200]
    return start.lstrip().lower().startswith("data:")


def _base64_cell(text: str, path: Any) -> ImageCell:
    name = path if isinstance(path, str) else None
    try:
        return ImageCell(path=name, data=base64.b64decode("".join(text.split()), validate=True))
    except ValueError:
        return ImageCell(path=name, problem="not_base64")


def _path_cell(part: str) -> ImageCell:
    path = part.strip()
    if _URL.match(path):
        return ImageCell(path=path, problem="url")
    if "\0" in path:
        return ImageCell(path=path.replace("\0", "\\0"), problem="invalid_path")
    return ImageCell(path=path)


def _text(value: Any) -> str | bytes | None:
    if isinstance(value, Mapping):
        value = value.get("raw", value.get("caption"))
    if value is None or isinstance(value, str | bytes):
        return value
    return str(value)


_KEPT: tuple[Callable[[pa.DataType], bool], ...] = (
    pa.types.is_boolean,
    pa.types.is_integer,
    pa.types.is_float32,
    pa.types.is_float64,
    pa.types.is_date,
    pa.types.is_decimal128,
)
_TEXT = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
_NESTED = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list, pa.types.is_struct, pa.types.is_map)


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
    kind, target = column.type, catalog_type(column.type)
    if kind == target:
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
    return pc.cast(column, target, safe=not pa.types.is_timestamp(kind))


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
