"""What a table cell of images or texts may hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SEPARATOR = ";"
_LISTS = (list, tuple)
_SCALARS = (int, float, bool)


@dataclass(frozen=True, slots=True)
class ImageCell:
    """One image of a cell: a path, a file's bytes with the name they came with, or why it is neither."""

    path: str | None = None
    data: bytes | None = None
    problem: str = ""


def image_cells(value: Any, *, bytes_are_files: bool) -> list[ImageCell]:
    """The images of one cell: paths joined by `;`, a list, bytes, or a `{bytes, path}` struct; [] when it is empty.

    With `bytes_are_files` a bytes value is an image file (Parquet); otherwise it is a path not yet decoded (CSV).
    """
    if value is None:
        return []
    if isinstance(value, _LISTS):
        return [cell for entry in value for cell in image_cells(entry, bytes_are_files=bytes_are_files)]
    if isinstance(value, Mapping):
        path = value.get("path")
        data = value.get("bytes")
        return [ImageCell(path=path, data=data)] if data else image_cells(path, bytes_are_files=bytes_are_files)
    if isinstance(value, bytes) and bytes_are_files:
        return [ImageCell(data=value)] if value else []
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
    return str(value).split(SEPARATOR)


def _path_cell(part: str) -> ImageCell:
    path = part.strip()
    if path.startswith(("http://", "https://", "s3://", "gs://")):
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
