"""Whatever holds columns to lists of cells: pandas, Polars, Arrow, dicts, lists, CSV, Parquet and JSONL files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.errors import ExamplesError
from training.table_file import read_table_file

from .errors import DataError

IdMappings = Mapping[str, Mapping[Any, Any]]
"""For each column what its ids stand for: {"image": {17: "photos/17.jpg"}}."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """Columns of equal length.

    Attributes:
        columns: Those that were asked for and are there.
        names: All that the data has.
        rows: How many rows there are, at least 1.
        place: What to call the data in a message.
        folder: Where relative picture paths start: the folder of the file that was read; None for data in memory.
        index: The index of a pandas frame; None for anything else.
    """

    columns: Mapping[str, list[Any]]
    names: tuple[str, ...]
    rows: int
    place: str
    folder: Path | None = None
    index: Any = None

    def column(self, name: str) -> list[Any]:
        """Return the cells of a column.

        Raises:
            DataError: There is none of that name.
        """
        if name not in self.columns:
            known = ", ".join(map(repr, self.names))
            raise DataError(f"{self.place} has no column {name!r}; it has {known}")
        return self.columns[name]


def read_table(data: Any, wanted: Sequence[str], header: str | None = None) -> Table:
    """Return the wanted columns of the data, those that are there.

    Args:
        data: A pandas, Polars or Arrow table; a mapping from names to equally long sequences; the path of a `.csv`,
            `.tsv`, `.parquet`, `.jsonl` or `.ndjson` file; with `header` also one column alone: a list, a tuple, an
            array or a series.
        wanted: The columns to take.
        header: The name of the column where the data is one column alone.

    Raises:
        DataError: The data is none of these, is empty, or its columns differ in length.
    """
    table = _read(data, tuple(wanted), header)
    if not table.rows:
        raise DataError(f"{table.place} is empty; give at least one row")
    return table


def contents(name: str, cells: Sequence[Any], mappings: IdMappings | None) -> Sequence[Any]:
    """Return what the ids of a column stand for, and the cells as they are where the column has no mapping.

    Raises:
        DataError: An id has no content.
    """
    if not mappings or name not in mappings:
        return cells
    mapping = mappings[name]
    return [_content(mapping, cell, name, row) for row, cell in enumerate(cells)]


def _read(data: Any, wanted: tuple[str, ...], header: str | None) -> Table:
    if isinstance(data, str | Path):
        return _read_file(Path(data), wanted)
    if isinstance(data, Mapping):
        return _from_mapping(data, wanted, "the data")
    family = type(data).__module__.partition(".")[0]
    if family in _FRAMES and hasattr(data, _FRAMES[family]):
        return _from_frame(data, family, wanted)
    # A series of pandas or Polars, an Arrow array, a list.
    values = data.tolist() if family == "pandas" else data.to_pylist() if family == "pyarrow" else data
    if isinstance(values, bytes) or not (isinstance(values, Sequence | np.ndarray) or family == "polars"):
        raise DataError(
            f"the data is of type {type(data).__name__}; give a pandas, Polars or Arrow table, a dict of lists, "
            "or the path of a CSV, Parquet or JSONL file"
        )
    if header is None:
        raise DataError(
            f"the data is a {type(data).__name__} without column names; give a dict of lists: {{name: ...}}"
        )
    return _from_mapping({header: values}, (header,), "the data")


# What a table has and a column alone has not.
_FRAMES = {"pandas": "columns", "polars": "columns", "pyarrow": "column_names"}


def _from_frame(data: Any, family: str, wanted: tuple[str, ...]) -> Table:
    names = tuple(map(str, data.column_names if family == "pyarrow" else data.columns))
    twice = next((name for name in wanted if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"the data has {names.count(twice)} columns {twice!r}; keep one of them")
    read: dict[str, Callable[[str], list[Any]]] = {
        "pandas": lambda name: data[name].tolist(),
        "polars": lambda name: data.get_column(name).to_list(),
        "pyarrow": lambda name: data.column(name).to_pylist(),
    }
    return Table(
        columns={name: read[family](name) for name in wanted if name in names},
        names=names,
        rows=data.num_rows if family == "pyarrow" else len(data),
        place="the data",
        index=data.index if family == "pandas" else None,
    )


def _from_mapping(data: Mapping[str, Any], wanted: tuple[str, ...], place: str, folder: Path | None = None) -> Table:
    if not data:
        raise DataError(f"{place} has no columns; give a dict of lists: {{name: [...]}}")
    wrong = next((name for name, values in data.items() if isinstance(values, str | bytes)), None)
    if wrong is not None:
        raise DataError(f"column {wrong!r} is the one value {data[wrong][:40]!r}; put it in a list")
    lengths = {name: _length(name, values) for name, values in data.items()}
    first, rows = next(iter(lengths.items()))
    odd = next((name for name, length in lengths.items() if length != rows), None)
    if odd is not None:
        raise DataError(f"columns differ in length: {first!r} has {rows} values, {odd!r} has {lengths[odd]}")
    columns = {name: list(data[name]) for name in wanted if name in data}
    return Table(columns=columns, names=tuple(data), rows=rows, place=place, folder=folder)


def _length(name: str, values: Any) -> int:
    try:
        return len(values)
    except TypeError as error:
        raise DataError(f"column {name!r} is of type {type(values).__name__}; give a list of values") from error


def _read_file(path: Path, wanted: tuple[str, ...]) -> Table:
    try:
        columns = read_table_file(path, wanted)
    except ExamplesError as error:
        hint = "" if path.suffix else "; put single items into a list"
        raise DataError(f"{error}{hint}") from error
    return _from_mapping(columns, wanted, repr(path.name), path.parent)


def _content(mapping: Mapping[Any, Any], cell: Any, name: str, row: int) -> Any:
    try:
        return mapping[cell]
    except (KeyError, TypeError) as error:
        raise DataError(f"row {row}, column {name!r}: the id mappings have no {cell!r}; add it to them") from error
