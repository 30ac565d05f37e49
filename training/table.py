"""Captioned images from a table: CSV, TSV, Parquet, JSON Lines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from encoders.base import ImageLike

from .errors import ExamplesError
from .examples import CaptionedImages

SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson")
SPLIT_COLUMN = "split"
_SHOWN = 10
Columns = Mapping[str, list[Any]]


def read_captions(
    path: str | Path, image: str = "image", text: str = "captions", split: str | None = None
) -> CaptionedImages:
    """Return the images of a table with their captions, in the order in which they first come.

    A row holds one image and a caption or a list of captions; rows of one image are put together. Image paths start
    from the table's folder; Parquet may hold the files' bytes.

    Args:
        path: A `.csv`, `.tsv`, `.parquet`, `.jsonl` or `.ndjson` file.
        image: Name of the column with the images.
        text: Name of the column with the captions.
        split: Take only rows with this value in the column `split`.

    Raises:
        ExamplesError: There is no such file, column or split, a row is broken, or nothing is left.
    """
    file = Path(path).expanduser()
    columns = _columns(file)
    for name in (image, text, *((SPLIT_COLUMN,) if split is not None else ())):
        if name not in columns:
            raise ExamplesError(f"{file.name} has no column {name!r}; its columns are {', '.join(columns)}")
    rows = range(len(columns[image]))
    if split is not None:
        rows = _of_split(file, columns[SPLIT_COLUMN], split)  # type: ignore[assignment]
    images: dict[ImageLike, list[str]] = {}
    for row in rows:
        key = _image(columns[image][row], file, row)
        images.setdefault(key, []).extend(_captions(columns[text][row], file, row))
    if not images:
        raise ExamplesError(f"{file.name} holds no rows, so there is nothing to learn from")
    return CaptionedImages(list(images), list(images.values()))


def _columns(file: Path) -> Columns:
    if file.suffix.lower() not in SUFFIXES:
        raise ExamplesError(f"{str(file)!r} is no table that can be read; give one of {', '.join(SUFFIXES)}")
    if not file.is_file():
        raise ExamplesError(f"there is no file {str(file)!r}; name a table of images and captions")
    try:
        if file.suffix.lower() in (".jsonl", ".ndjson"):
            return _json_lines(file)
        columns: Columns = _arrow(file).to_pydict()
        return columns
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        words = " ".join(str(error).split())[:200]
        raise ExamplesError(f"{str(file)!r} cannot be read as {file.suffix[1:].lower()}: {words}") from error


def _arrow(file: Path) -> pa.Table:
    if file.suffix.lower() == ".parquet":
        return pa.parquet.read_table(file)
    parse = pa.csv.ParseOptions(delimiter="\t" if file.suffix.lower() == ".tsv" else ",", newlines_in_values=True)
    # All columns as text: a caption such as "1984" is no number, and "null" is a word.
    names = pa.csv.open_csv(file, parse_options=parse).schema.names
    convert = pa.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False)
    return pa.csv.read_csv(file, parse_options=parse, convert_options=convert)


def _json_lines(file: Path) -> Columns:
    columns: dict[str, list[Any]] = {}
    count = 0
    with file.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            for name, value in _object(line, file, number).items():
                column = columns.setdefault(name, [])
                column.extend([None] * (count - len(column)))
                column.append(value)
            count += 1
    for column in columns.values():
        column.extend([None] * (count - len(column)))
    return columns


def _object(line: str, file: Path, number: int) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise ExamplesError(f"line {number} of {file.name} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ExamplesError(f"line {number} of {file.name} holds a {type(value).__name__}, not an object with columns")
    return value


def _of_split(file: Path, values: list[Any], split: str) -> list[int]:
    rows = [row for row, value in enumerate(values) if str(value) == split]
    if not rows:
        known = sorted({str(value) for value in values})
        more = ", ..." if len(known) > _SHOWN else ""
        raise ExamplesError(f"{file.name} has no rows of split {split!r}; it has {', '.join(known[:_SHOWN])}{more}")
    return rows


def _image(value: Any, file: Path, row: int) -> ImageLike:
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes) and value:
        return value
    if not isinstance(value, str) or not value.strip():
        raise ExamplesError(f"row {row + 1} of {file.name} has no image; fill it in or remove the row")
    return file.parent / value


def _captions(value: Any, file: Path, row: int) -> list[str]:
    captions = list(value) if isinstance(value, list | tuple) else [value]
    if not captions or not all(isinstance(caption, str) and caption.strip() for caption in captions):
        raise ExamplesError(f"row {row + 1} of {file.name} has an empty caption; fill it in or remove the row")
    return captions
