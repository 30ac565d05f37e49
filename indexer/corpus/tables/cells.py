"""What a table cell of images or texts may hold."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..image_paths import SEPARATOR, local_name
from ..item import NoText, shown
from .column_types import is_map, json_text

MAX_DEPTH = 10
CAPTION_KEYS = ("raw", "caption", "captions", "text", "texts", "sentence", "sentences", "title")
PATH_KEYS = ("path", "file_name", "filename", "url")
_LISTS = (list, tuple)
ARRAY = "a list of numbers"

Text = str | bytes | NoText | None


@dataclass(frozen=True, slots=True)
class ImageCell:
    """One image of a cell: a path, a file's bytes with the name they came with, or why it is neither."""

    path: str | None = None
    data: bytes | None = None
    problem: str = ""


def split_names(cell: str) -> list[str]:
    """The names in a cell, cut at every `;`: what is done where no folder tells which files there are."""
    return cell.split(SEPARATOR)


def image_cells(
    value: Any, *, bytes_are_files: bool, names_in: Callable[[str], list[str]] = split_names
) -> list[ImageCell]:
    """The images of one cell: paths joined by `;`, a list, bytes, a `data:` URL, a `{bytes, path}` struct; [] if empty.

    JSON has no bytes: there, and in `data:` URLs, they are in base64. A list may also be written as text, in JSON.
    With `bytes_are_files` a bytes value is an image file (Parquet); otherwise it is a path not yet decoded (CSV).
    """
    if is_missing(value):
        return []
    if isinstance(value, _LISTS) and not is_map(value):
        if _is_array(value):
            return [ImageCell(problem="numbers")]
        return [cell for one in value for cell in image_cells(one, bytes_are_files=bytes_are_files, names_in=names_in)]
    if isinstance(value, Mapping | list):
        return _struct_cells(dict(value), bytes_are_files, names_in)
    if isinstance(value, bytes) and bytes_are_files:
        return [ImageCell(data=value)] if value else []
    if _starts_as_data(value):
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        kind, _, packed = text.strip().partition(",")
        return [_base64_cell(packed if kind.lower().endswith(";base64") else "?", None)]
    # Undecodable bytes are kept as the file system would: the file may be there under such a name.
    text = value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)
    listed = written_list(text)
    parts = names_in(text) if listed is None else [name for one in listed for name in names_in(one)]
    return [_path_cell(part) for part in parts if part.strip()]


def _struct_cells(
    value: Mapping[str, Any], bytes_are_files: bool, names_in: Callable[[str], list[str]]
) -> list[ImageCell]:
    path = next((value[key] for key in PATH_KEYS if not is_missing(value.get(key))), None)
    data = value.get("bytes")
    if isinstance(data, str) and data:
        return [_base64_cell(data, path)]  # JSON has no bytes
    if data:
        return [ImageCell(path=path if isinstance(path, str) else None, data=data)]
    return image_cells(path, bytes_are_files=bytes_are_files, names_in=names_in)


def text_cells(value: Any) -> list[Text]:
    """The texts of one cell, which may be a text, bytes not yet decoded, or either in lists and structs.

    Of a struct the first of `CAPTION_KEYS` counts: `{"raw": text}` as Karpathy has it, `[{"caption": text}]` as
    COCO. A list or an object of JSON that stands in the cell as text is read, and so is a list of strings as Python
    writes it. What else is nested is a `NoText`.
    """
    return [] if is_missing(value) else _texts(value, MAX_DEPTH)


def _texts(value: Any, depth: int) -> list[Text]:
    if is_missing(value):
        return [None]
    if depth == 0:
        return [NoText(f"nested more than {MAX_DEPTH} deep")]
    if isinstance(value, _LISTS) and not is_map(value):
        return [NoText(ARRAY)] if _is_array(value) else [text for one in value for text in _texts(one, depth - 1)]
    if isinstance(value, Mapping | list):
        return _struct_texts(dict(value), depth)
    if not isinstance(value, str | bytes):
        return [_scalar_text(value)]
    nested = _written_json(value) if depth > 1 else None
    return [value] if nested is None else _texts(nested, depth - 1)


def _struct_texts(value: Mapping[str, Any], depth: int) -> list[Text]:
    key = next((key for key in CAPTION_KEYS if not is_missing(value.get(key))), None)
    if key is not None:
        return _texts(value[key], depth - 1)
    if any(key in value for key in CAPTION_KEYS):
        return [None]
    keys = shown(", ".join(map(repr, value)) or "none")
    return [NoText(f"an object without a key such as 'caption', 'text' or 'raw'; its keys: {keys}")]


def _scalar_text(value: Any) -> Text:
    if isinstance(value, bool):
        return "true" if value else "false"
    return _number_text(value) if isinstance(value, float) else str(value)


def _is_array(value: Any) -> bool:
    """Whether a list holds numbers, or lists of them: pixels, tokens, a vector."""
    for _ in range(MAX_DEPTH):
        if not (isinstance(value, _LISTS) and value):
            break
        value = next((one for one in value if one is not None), None)
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_missing(value: Any) -> bool:
    """True for None and for NaN, which stands in data frames where there is nothing."""
    return value is None or (isinstance(value, float) and value != value)


def plain(value: Any) -> str | None:
    """A key or split cell as text; None when it is empty. A whole number that came as a float has no `.0`."""
    if is_missing(value):
        return None
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    if isinstance(value, Mapping | list):
        value = json_text(value)
    text = (_number_text(value) if isinstance(value, float) else str(value)).strip()
    return text.encode("utf-8", "backslashreplace").decode("utf-8") or None


def _number_text(value: float) -> str:
    return str(int(value)) if value.is_integer() and abs(value) < 1e22 else str(value)


# A list of strings as Python and NumPy write it.
_STRING = re.compile(r"""\s*(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)")\s*,?""", re.DOTALL)
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r"}


def written_list(text: str) -> list[str] | None:
    """The strings of a list that stands in a cell as JSON or as Python writes one; None for any other text."""
    text = text.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return _python_strings(text[1:-1].strip())
    return value if isinstance(value, list) and all(isinstance(one, str) for one in value) else None


def _python_strings(inner: str) -> list[str] | None:
    strings, at = [], 0
    while at < len(inner):
        match = _STRING.match(inner, at)
        if match is None:
            return None
        strings.append(_ESCAPE.sub(_unescaped, match[1] if match[1] is not None else match[2]))
        at = match.end()
    return strings or None


def _unescaped(match: re.Match[str]) -> str:
    code = match[1]
    if len(code) == 1:
        return _ESCAPED.get(code, code)
    return chr(min(int(code[1:], 16), 0x10FFFF))


def _written_json(value: str | bytes) -> Any:
    """The list of texts or the object that a cell holds as text; None for words, which it nearly always is."""
    start = value.lstrip()[:1]
    if start not in ("[", "{", b"[", b"{"):
        return None
    try:
        text = value.decode("utf-8") if isinstance(value, bytes) else value
        strings = written_list(text)
        nested = json.loads(text) if strings is None else strings
    except (ValueError, RecursionError):
        return None
    # A list of numbers alone is taken for words.
    holds = isinstance(nested, dict) or any(one is None or isinstance(one, str | dict | list) for one in nested)
    return nested if holds or not nested else None


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
    path, problem = local_name(part)
    return ImageCell(path=path, problem=problem)
