"""One cell of a column to the text, or to the pictures, that it holds."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from encoders.base import ImageLike

SEPARATOR = ";"
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".ppm")
_URL = ("http://", "https://", "ftp://", "s3://", "gs://")
_BASE64 = "data:image/"
_SHOWN = 100


class CellError(Exception):
    """A cell that cannot be used; its row is put before the message by who reads the column."""


@dataclass(frozen=True)
class Picture:
    """One picture as it was given, and a key that is equal where it was given twice in the same way."""

    source: ImageLike
    key: str


def text_of(cell: Any) -> str:
    """Return the text of a cell.

    Raises:
        CellError: It holds none.
    """
    if is_missing(cell):
        raise CellError("there is no text")
    if isinstance(cell, list | tuple):
        raise CellError(f"the cell is a list of {len(cell)} texts; give each a row of its own")
    if not isinstance(cell, str):
        raise CellError(f"the cell is {type(cell).__name__} {str(cell)[:_SHOWN]!r} and no text; make it a string")
    if not cell.strip():
        raise CellError(f"the text {cell[:_SHOWN]!r} is empty")
    return cell


def pictures_of(cell: Any, folder: Path | None) -> list[Picture]:
    """Return the pictures of a cell; nothing is read yet.

    A cell is a path, several joined by `;` (a file of exactly that name comes first), the bytes of a file, a
    `data:image/...;base64,` text, a PIL image, a uint8 array (h, w), (h, w, 3) or (h, w, 4), or a list of these.

    Raises:
        CellError: It holds none.
    """
    if is_missing(cell):
        raise CellError("there is no picture")
    if isinstance(cell, list | tuple):
        found = [picture for part in cell for picture in pictures_of(part, folder)]
    elif isinstance(cell, str) and not cell.startswith(_BASE64):
        found = [_at_path(path, folder) for path in _paths(cell, folder)]
    else:
        found = [_one(cell, folder)]
    if not found:
        raise CellError(f"the cell {str(cell)[:_SHOWN]!r} names no picture")
    return found


def is_missing(cell: Any) -> bool:
    """Return whether a cell is None, or NaN or NA as frames have them."""
    if cell is None:
        return True
    return type(cell).__name__ in ("NAType", "NaTType") or (isinstance(cell, float) and cell != cell)


def cell_key(cell: Any) -> Any:
    """Return something hashable that is equal where two cells hold the same: how items are told apart in tables."""
    if isinstance(cell, list | tuple):
        return tuple(cell_key(part) for part in cell)
    if isinstance(cell, bytes | bytearray | memoryview):
        return hashlib.sha256(cell).digest()
    if isinstance(cell, np.ndarray):
        return _array_key(cell)
    if isinstance(cell, Image.Image):
        return _pillow_key(cell)
    return str(cell) if isinstance(cell, Path) else cell


def all_picture_paths(texts: Sequence[str]) -> bool:
    """Return whether every text ends as the name of a picture file does."""
    return len(texts) > 0 and all(text.lower().endswith(PICTURE_SUFFIXES) for text in texts)


def _one(cell: Any, folder: Path | None) -> Picture:
    if isinstance(cell, Path):
        return _at_path(str(cell), folder)
    if isinstance(cell, str):
        return _from_base64(cell)
    if isinstance(cell, bytes | bytearray | memoryview):
        data = bytes(cell)
        return Picture(data, f"bytes {hashlib.sha256(data).hexdigest()}")
    if isinstance(cell, Image.Image):
        return Picture(cell, _pillow_key(cell))
    if isinstance(cell, np.ndarray):
        return Picture(_from_array(cell), _array_key(cell))
    raise CellError(
        f"the cell is of type {type(cell).__name__}; give a path, bytes, a PIL image or a uint8 array for a picture"
    )


def _paths(cell: str, folder: Path | None) -> list[str]:
    whole = cell.strip()
    if SEPARATOR not in whole or _resolved(whole, folder).is_file():
        return [whole] if whole else []
    return [part.strip() for part in whole.split(SEPARATOR) if part.strip()]


def _at_path(path: str, folder: Path | None) -> Picture:
    if path.lower().startswith(_URL):
        raise CellError(f"{path[:_SHOWN]!r} is a URL, and nothing is fetched; save the picture and give its path")
    if "\0" in path:
        raise CellError(f"the path {path[:_SHOWN]!r} holds a NUL, which no file name can")
    resolved = _resolved(path, folder)
    return Picture(resolved, f"path {resolved}")


def _resolved(path: str, folder: Path | None) -> Path:
    return Path(path) if folder is None else folder / path


def _from_base64(cell: str) -> Picture:
    try:
        data = base64.b64decode(cell.partition(",")[2], validate=True)
    except (binascii.Error, ValueError) as error:
        raise CellError(f"the picture {cell[:40]!r} is no base64: {error}") from error
    return Picture(data, f"bytes {hashlib.sha256(data).hexdigest()}")


def _from_array(array: np.ndarray) -> Image.Image:
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or channels not in (1, 3, 4) or not array.size:
        shown = f"{array.dtype} of shape {array.shape}"
        raise CellError(f"the array is {shown}; a picture is uint8 of shape (h, w), (h, w, 3) or (h, w, 4)")
    return Image.fromarray(array[:, :, 0] if array.ndim == 3 and channels == 1 else array)


def _array_key(array: np.ndarray) -> str:
    return f"array {array.dtype} {array.shape} {hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()}"


def _pillow_key(image: Image.Image) -> str:
    # A picture not yet loaded, or an animated one, is known by itself alone: reading its pixels here could fail.
    if getattr(image, "filename", "") or getattr(image, "is_animated", False):
        return f"object {id(image)}"
    return f"pixels {image.mode} {image.size} {hashlib.sha256(image.tobytes()).hexdigest()}"
