"""Tables to be matched: where columns come from, what their cells hold, and which role each column plays.

A table is a pandas, Polars or Arrow frame, a dict of lists, or a file that `indexer.corpus` reads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypedDict, get_args

import numpy as np
from PIL import Image

from encoders.base import ImageLike
from encoders.images import IMAGE_SUFFIXES
from indexer.corpus import SourceError
from indexer.corpus.image_paths import ImagePaths
from indexer.corpus.item import is_visible
from indexer.corpus.tables.cells import ImageCell, image_cells
from indexer.corpus.tables.column_types import to_values
from indexer.corpus.tables.table import read_columns
from storage.arguments import check_fields, exits_as_typed_wrong

from .errors import DataError, MatcherError

IdMappings = Mapping[str, Mapping[Any, Any]]
"""For each column what its ids stand for: {"image": {17: "photos/17.jpg"}}."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """Columns of equal length.

    Attributes:
        columns: Those that were requested and are there. A row of a file that could not be read has a `CellError` in
            each of its cells.
        names: All that the data has.
        rows: How many rows there are, at least 1.
        origin: What to call the data in a message.
        folder: Where relative image paths start: the folder of the file that was read; None for data in memory.
        index: The index of a pandas frame; None for anything else.
        notes: What was decided about the file that was read.
    """

    columns: Mapping[str, list[Any]]
    names: tuple[str, ...]
    rows: int
    origin: str
    folder: Path | None = None
    index: Any = None
    notes: tuple[str, ...] = ()

    def column(self, name: str) -> list[Any]:
        """Return the cells of a column.

        Raises:
            DataError: There is none of that name.
        """
        if name not in self.columns:
            known = ", ".join(map(repr, self.names))
            raise DataError(f"{self.origin} has no column {name!r}; it has {known}")
        return self.columns[name]


def read_table(data: Any, names: Sequence[str], header: str | None = None, quoting: str = "auto") -> Table:
    """Return those of the named columns that the data has.

    Args:
        data: A pandas, Polars or Arrow table; a mapping from names to equally long sequences; the path of a `.csv`,
            `.tsv`, `.parquet`, `.jsonl`, `.ndjson` or `.json` file, also `.gz`; with `header` also one column alone: a
            list, a tuple, an array or a series.
        names: The columns to take.
        header: The name of the column where the data is one column alone.
        quoting: How quotes in a CSV file are read.

    Raises:
        DataError: The data is none of these, is empty, or its columns differ in length.
    """
    is_file = isinstance(data, str | Path)
    table = _read_file(Path(data), tuple(names), quoting) if is_file else _read(data, tuple(names), header)
    if not table.rows:
        raise DataError(f"{table.origin} is empty; give at least one row")
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


def _read(data: Any, names: tuple[str, ...], header: str | None) -> Table:
    if isinstance(data, Mapping):
        return _from_mapping(data, names)
    family = type(data).__module__.partition(".")[0]
    if family in _FRAMES and hasattr(data, _FRAMES[family]):
        return _from_frame(data, family, names)
    # A series of pandas or Polars, an Arrow array, a list.
    values = data.tolist() if family == "pandas" else _arrow_values(data) if family == "pyarrow" else data
    if isinstance(values, bytes) or not (isinstance(values, Sequence | np.ndarray) or family == "polars"):
        raise DataError(
            f"the data is of type {type(data).__name__}; give a pandas, Polars or Arrow table, a dict of lists, "
            "or the path of a CSV, Parquet or JSON file"
        )
    if header is None:
        raise DataError(
            f"the data is a {type(data).__name__} without column names; give a dict of lists: {{name: ...}}"
        )
    return _from_mapping({header: values}, (header,))


def _arrow_values(column: Any) -> list[Any]:
    """The values of an Arrow array in the types that a file would give: a UUID as its text."""
    try:
        return [value for part in getattr(column, "chunks", (column,)) for value in to_values(part, "replace")]
    except SourceError as error:
        raise DataError(str(error)) from error


# What a table has and a column alone has not.
_FRAMES = {"pandas": "columns", "polars": "columns", "pyarrow": "column_names"}


def _from_frame(data: Any, family: str, names: tuple[str, ...]) -> Table:
    known = tuple(map(str, data.column_names if family == "pyarrow" else data.columns))
    twice = next((name for name in names if known.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"the data has {known.count(twice)} columns {twice!r}; keep one of them")
    read: dict[str, Callable[[str], list[Any]]] = {
        "pandas": lambda name: data[name].tolist(),
        "polars": lambda name: data.get_column(name).to_list(),
        "pyarrow": lambda name: _arrow_values(data.column(name)),
    }
    return Table(
        columns={name: read[family](name) for name in names if name in known},
        names=known,
        rows=data.num_rows if family == "pyarrow" else len(data),
        origin="the data",
        index=data.index if family == "pandas" else None,
    )


def _from_mapping(data: Mapping[str, Any], names: tuple[str, ...]) -> Table:
    if not data:
        raise DataError("the data has no columns; give a dict of lists: {name: [...]}")
    wrong = next((name for name, values in data.items() if isinstance(values, str | bytes)), None)
    if wrong is not None:
        raise DataError(f"column {wrong!r} is the one value {data[wrong][:40]!r}; put it in a list")
    lengths = {name: _length(name, values) for name, values in data.items()}
    first, rows = next(iter(lengths.items()))
    odd = next((name for name, length in lengths.items() if length != rows), None)
    if odd is not None:
        raise DataError(f"columns differ in length: {first!r} has {rows} values, {odd!r} has {lengths[odd]}")
    columns = {name: list(data[name]) for name in names if name in data}
    return Table(columns=columns, names=tuple(data), rows=rows, origin="the data")


def _length(name: str, values: Any) -> int:
    try:
        return len(values)
    except TypeError as error:
        raise DataError(f"column {name!r} is of type {type(values).__name__}; give a list of values") from error


def _read_file(path: Path, names: tuple[str, ...], quoting: str) -> Table:
    try:
        file = read_columns(path, names, quoting)
    except SourceError as error:
        hint = "" if path.suffix else "; put single items into a list"
        raise DataError(f"{error}{hint}") from error
    for row, reason in file.bad.items():
        for cells in file.columns.values():
            cells[row] = CellError(reason)
    return Table(
        columns=file.columns,
        names=file.names,
        rows=file.rows,
        origin=repr(path.name),
        folder=path.parent,
        notes=file.notes,
    )


def _content(mapping: Mapping[Any, Any], cell: Any, name: str, row: int) -> Any:
    try:
        return mapping[cell]
    except (KeyError, TypeError) as error:
        raise DataError(f"row {row}, column {name!r}: the id mappings have no {cell!r}; add it to them") from error


_SHOWN = 100


class CellError(Exception):
    """A cell that cannot be used; its row is put before the message by who reads the column."""


@dataclass(frozen=True)
class CellImage:
    """One image of a cell as it was given, and a key that is equal where it was given twice in the same way."""

    source: ImageLike
    key: str


def text_of(cell: Any) -> str:
    """Return the text of a cell.

    Raises:
        CellError: It holds none.
    """
    check_read(cell)
    if is_missing(cell):
        raise CellError("there is no text")
    if isinstance(cell, list | tuple):
        raise CellError(f"the cell is a list of {len(cell)} texts; give each a row of its own")
    if not isinstance(cell, str):
        raise CellError(f"the cell is {type(cell).__name__} {str(cell)[:_SHOWN]!r} and no text; make it a string")
    if not is_visible(cell):
        raise CellError(f"the text {cell[:_SHOWN]!r} is empty")
    return cell


def images_of(cell: Any, folder: Path | None) -> list[CellImage]:
    """Return the images of a cell; nothing is decoded yet.

    A cell is whatever it may be in a corpus (a path, several joined by `;`, the bytes of a file, a `data:` URL in
    base64, a `{bytes, path}` struct), a PIL image, a uint8 array (h, w), (h, w, 3) or (h, w, 4), or a list of these. A
    file whose very name holds `;` comes first.

    Raises:
        CellError: It holds none.
    """
    check_read(cell)
    if is_missing(cell):
        raise CellError("there is no image")
    paths = ImagePaths(folder or Path())
    if isinstance(cell, list | tuple):
        images = [image for part in cell for image in images_of(part, folder)]
    elif isinstance(cell, Path):
        images = [_at_path(str(cell), paths)]
    elif isinstance(cell, str | bytes | Mapping):
        cells = image_cells(cell, bytes_are_files=True, names_in=paths.names_in)
        images = [_in_corpus(part, paths) for part in cells]
    else:
        images = [_in_memory(cell)]
    if not images:
        raise CellError(f"the cell {repr(cell)[:_SHOWN]} names no image")
    return images


def check_read(cell: Any) -> None:
    """Raise what stands in a cell whose row could not be read."""
    if isinstance(cell, CellError):
        raise cell


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


def all_image_paths(texts: Sequence[str]) -> bool:
    """Return whether every text ends as the name of an image file does."""
    return len(texts) > 0 and all(text.lower().endswith(IMAGE_SUFFIXES) for text in texts)


_PROBLEMS = {
    "url": "is a URL, and nothing is fetched; save the image and give its path",
    "not_base64": "comes with an image that is no base64; write it as data:image/png;base64,...",
    "numbers": "is a list of numbers; give an array of uint8, a PIL image or a path",
    "invalid_path": "holds a NUL, which no file name can",
    "remote_file": "is a file: URL of another machine; copy the file here and give its path",
    "not_a_path": "is no path but rather base64; write an image as data:image/png;base64,...",
}


def _in_corpus(cell: ImageCell, paths: ImagePaths) -> CellImage:
    if cell.problem:
        raise CellError(f"{(cell.path or 'the cell')[:_SHOWN]!r} {_PROBLEMS[cell.problem]}")
    return _of_bytes(cell.data) if cell.data is not None else _at_path(str(cell.path), paths)


def _in_memory(cell: Any) -> CellImage:
    if isinstance(cell, bytearray | memoryview):
        return _of_bytes(bytes(cell))
    if isinstance(cell, Image.Image):
        return CellImage(cell, _pillow_key(cell))
    if isinstance(cell, np.ndarray):
        return CellImage(_from_array(cell), _array_key(cell))
    raise CellError(
        f"the cell is of type {type(cell).__name__}; give a path, bytes, a PIL image or a uint8 array for an image"
    )


def _of_bytes(data: bytes) -> CellImage:
    return CellImage(data, f"bytes {hashlib.sha256(data).hexdigest()}")


def _at_path(name: str, paths: ImagePaths) -> CellImage:
    path = paths.find(name)
    return CellImage(path.path, f"path {path.uri}")


def _from_array(array: np.ndarray) -> Image.Image:
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or channels not in (1, 3, 4) or not array.size:
        shown = f"{array.dtype} of shape {array.shape}"
        raise CellError(f"the array is {shown}; an image is uint8 of shape (h, w), (h, w, 3) or (h, w, 4)")
    return Image.fromarray(array[:, :, 0] if array.ndim == 3 and channels == 1 else array)


def _array_key(array: np.ndarray) -> str:
    return f"array {array.dtype} {array.shape} {hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()}"


def _pillow_key(image: Image.Image) -> str:
    # An image not yet loaded, or an animated one, is known by itself alone: reading its pixels here could fail.
    if getattr(image, "filename", "") or getattr(image, "is_animated", False):
        return f"object {id(image)}"
    return f"pixels {image.mode} {image.size} {hashlib.sha256(image.tobytes()).hexdigest()}"


Kind = Literal["text", "image"]
Side = Literal["query", "response"]
SIDES: tuple[Side, ...] = get_args(Side)


class RoleOptions(TypedDict, total=False):
    """The keyword arguments of a matcher; `Roles` says what they mean."""

    query_type: Kind
    response_type: Kind
    label: str | None
    match_label: Any
    root: str | Path | None
    quoting: str


@dataclass(frozen=True, kw_only=True)
class Roles:
    """What the columns of the data mean.

    Attributes:
        query: The column of the queries.
        response: The column of what is searched for.
        query_type: `text` or `image`: what the cells of the query column are.
        response_type: The same for the response column. Two texts or two images may be matched as well.
        label: The column that says whether a pair belongs together; None where every row of the data does.
        match_label: The value of `label` that means a match. Not needed where labels are 0 and 1, or False and True.
        root: The folder that relative image paths start from. None: that of the table file they stand in, else the
            working directory.
        quoting: How a CSV file's quotes are read: `auto`, `csv` or `none`, as `SourceOptions` has it.
    """

    query: str = "caption"
    response: str = "image"
    query_type: Kind = "text"
    response_type: Kind = "image"
    label: str | None = None
    match_label: Any = None
    root: str | Path | None = None
    quoting: str = "auto"

    @exits_as_typed_wrong
    def __post_init__(self) -> None:
        """Refuse roles that contradict each other.

        Raises:
            MatcherError: A name or a kind cannot be used; the message says which.
        """
        check_fields(self, MatcherError)
        named = {"query": self.query, "response": self.response, "label": self.label}
        for role, name in named.items():
            if name == "":
                raise MatcherError(f"{role}={name!r} is no column name; give one string")
        names = [name for name in named.values() if name is not None]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise MatcherError(f"column {twice!r} has two roles; query, response and label need a column each")

    def swapped(self) -> Roles:
        """Return the same columns with the sides exchanged: what was asked with is searched for."""
        sides = {"query": self.response, "query_type": self.response_type}
        return replace(self, **sides, response=self.query, response_type=self.query_type)  # type: ignore[arg-type]

    @property
    def direction(self) -> str:
        """What figures of this direction are called: `text_to_image`, or by the columns where both are of one kind."""
        return f"{self.query_type}_to_{self.response_type}" if self.mixed else f"{self.query}_to_{self.response}"

    def column(self, side: Side) -> str:
        """Return the name of a side's column."""
        return self.query if side == "query" else self.response

    def kind(self, side: Side) -> Kind:
        """Return what the cells of a side are."""
        return self.query_type if side == "query" else self.response_type

    @property
    def mixed(self) -> bool:
        """Whether one side is text and the other images."""
        return self.query_type != self.response_type

    def side_of_kind(self, kind: Kind) -> Side:
        """Return the side of a kind, the query's where both are of it."""
        return "query" if self.query_type == kind else "response"
