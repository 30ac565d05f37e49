"""Captioned images from a table: CSV, TSV, Parquet, JSON Lines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from encoders.base import ImageLike

from .errors import ExamplesError
from .examples import CaptionedImages
from .table_file import read_table_file

SPLIT_COLUMN = "split"
_SHOWN = 10


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
    wanted = (image, text, *((SPLIT_COLUMN,) if split is not None else ()))
    columns = read_table_file(file, wanted)
    for name in wanted:
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
