"""Which images and texts belong together, by their rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from ...errors import SourceError
from ..item import one_line
from ..layouts.lines import check_regular
from ..tables.column_types import plain_column, plain_type
from ..tables.columns import listed
from ..tables.parquet_file import PARQUET_ERRORS

COLUMNS = ("image_row", "text_row")


def read_pairs(path: Path, image_rows: int, text_rows: int) -> np.ndarray:
    """(n, 2) int64 rows of image and text, from 0 on, in file order, each pair once.

    `path` is a CSV or Parquet file with the columns `image_row` and `text_row`.

    Raises:
        SourceError: A column is missing, a cell is no whole number, or a row number is out of range.
    """
    table = _read(path)
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing:
        raise SourceError(
            f"{path.name} has no column {missing[0]!r}; expected image_row,text_row. "
            f"Its columns: {listed(table.column_names)}"
        )
    pairs = np.stack([_whole_numbers(table[name], name, path) for name in COLUMNS], axis=1)
    for column, (name, rows) in enumerate(zip(COLUMNS, (image_rows, text_rows), strict=True)):
        wrong = np.flatnonzero((pairs[:, column] < 0) | (pairs[:, column] >= rows))
        if len(wrong):
            raise SourceError(
                f"row {wrong[0] + 1} of {path.name} has {name} {pairs[wrong[0], column]}, but there are {rows} "
                f"{name.removesuffix('_row')} vectors; rows count from 0"
            )
    _, first = np.unique(pairs, axis=0, return_index=True)
    return pairs[np.sort(first)]


def aligned_pairs(image_rows: int, text_rows: int) -> np.ndarray:
    """(n, 2) int64: each row with the row of the same number.

    Raises:
        SourceError: There are not as many images as texts.
    """
    if image_rows != text_rows:
        raise SourceError(
            f"there are {image_rows} image vectors and {text_rows} text vectors, and row belongs to row; "
            "name both sides by themselves, with a file of pairs"
        )
    return np.repeat(np.arange(image_rows, dtype=np.int64)[:, None], 2, axis=1)


def kept_pairs(pairs: np.ndarray, image_rows: np.ndarray, text_rows: np.ndarray) -> tuple[np.ndarray, int]:
    """`pairs` in row ids of the index, and how many fell out because an end was rejected.

    `image_rows` and `text_rows` are the ascending source rows that were kept: position = row id.
    """
    images, has_image = _positions(pairs[:, 0], image_rows)
    texts, has_text = _positions(pairs[:, 1], text_rows)
    kept = has_image & has_text
    return np.stack([images[kept], texts[kept]], axis=1), int(len(pairs) - kept.sum())


def _positions(rows: np.ndarray, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if not len(kept):
        return np.zeros(len(rows), np.int64), np.zeros(len(rows), bool)
    positions = np.searchsorted(kept, rows)
    return positions, kept[np.minimum(positions, len(kept) - 1)] == rows


def _read(path: Path) -> pa.Table:
    try:
        check_regular(path)
        return pq.read_table(path) if path.suffix.lower() == ".parquet" else pa_csv.read_csv(path)
    except PARQUET_ERRORS as error:
        raise SourceError(
            f"pairs file {str(path)!r} cannot be read: {one_line(error)}; expected image_row,text_row"
        ) from error


def _whole_numbers(column: pa.ChunkedArray, name: str, path: Path) -> np.ndarray:
    kind = plain_type(column.type)
    if not pa.types.is_integer(kind) or column.null_count:
        raise SourceError(f"column {name!r} of {path.name} holds {column.type} with gaps or text, not whole numbers")
    chunks = [plain_column(chunk).to_numpy(zero_copy_only=False) for chunk in column.chunks]
    # A number that only an unsigned type holds is out of range, and not a negative one.
    numbers = np.concatenate(chunks) if chunks else np.zeros(0, np.int64)
    return np.minimum(numbers, np.iinfo(np.int64).max).astype(np.int64)
