"""Table files as columns of cells: CSV, TSV, Parquet and JSON Lines, read whole."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ExamplesError

if TYPE_CHECKING:
    import pyarrow as pa

Columns = dict[str, list[Any]]

# A cell of a CSV may hold a base64 picture or a long text; Python's own limit is 128 KiB.
_LONGEST_CELL = 1 << 28


def read_table_file(path: Path, wanted: Sequence[str]) -> Columns:
    """Return the columns of a table by name, each as long as the table; cells of CSV and TSV are text.

    Args:
        path: A `.csv`, `.tsv`, `.parquet`, `.jsonl` or `.ndjson` file.
        wanted: The columns that will be looked at. Others may hold None in every row: they are there to be named.

    Raises:
        ExamplesError: There is no such file, or it is broken; the message names the row or the line.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ExamplesError(f"{str(path)[:200]!r} is no table file; give one of {', '.join(_READERS)}")
    if not path.is_file():
        raise ExamplesError(f"there is no file {str(path)!r}; give the path of a table")
    try:
        return reader(path, tuple(wanted))
    except UnicodeDecodeError as error:
        raise ExamplesError(f"{path.name!r} is not UTF-8 at byte {error.start}; save it as UTF-8") from error
    except OSError as error:
        raise ExamplesError(f"cannot read {str(path)!r}: {error.strerror or error}") from error


def _csv(path: Path, wanted: tuple[str, ...]) -> Columns:
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_CELL))
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
        try:
            return _csv_columns(path, list(lines))
        except csv.Error as error:
            raise ExamplesError(f"{path.name!r}, line {lines.line_num}: {error}; is a quote left open?") from error


def _csv_columns(path: Path, lines: list[list[str]]) -> Columns:
    filled = [(number, line) for number, line in enumerate(lines) if line]
    if not filled:
        raise ExamplesError(f"{path.name!r} is empty; its first line should name the columns")
    header = filled[0][1]
    uneven = next(((number, line) for number, line in filled if len(line) != len(header)), None)
    if uneven is not None:
        number, line = uneven
        raise ExamplesError(
            f"{path.name!r}, row {number - 1} has {len(line)} cells, the header {len(header)}; quote cells with commas"
        )
    return {name: [line[place] for _, line in filled[1:]] for place, name in enumerate(header)}


def _jsonl(path: Path, wanted: tuple[str, ...]) -> Columns:
    rows = []
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                rows.append(_json_row(path, number, line))
    names = list(dict.fromkeys(name for row in rows for name in row))
    if not names:
        raise ExamplesError(f"{path.name!r} is empty; give one JSON object a line")
    return {name: [row.get(name) for row in rows] for name in names}


def _json_row(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ExamplesError(f"{path.name!r}, line {number} is no JSON: {error}; give one object a line") from error
    if not isinstance(row, dict):
        raise ExamplesError(f"{path.name!r}, line {number} is a {type(row).__name__}; give one JSON object a line")
    return row


def _parquet(path: Path, wanted: tuple[str, ...]) -> Columns:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names: list[str] = pq.read_schema(path).names
        table: pa.Table = pq.read_table(path, columns=[name for name in wanted if name in names])
    except pa.ArrowException as error:
        raise ExamplesError(f"{path.name!r} is no Parquet file: {str(error).splitlines()[0][:120]}") from error
    found = {name: table.column(name).to_pylist() for name in table.column_names}
    # Columns that were not asked for are named in messages, and not read.
    unread = [None] * (table.num_rows if table.column_names else pq.read_metadata(path).num_rows)
    return {name: found.get(name, unread) for name in names}


_READERS: dict[str, Callable[[Path, tuple[str, ...]], Columns]] = {
    ".csv": _csv,
    ".tsv": _csv,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".parquet": _parquet,
}
