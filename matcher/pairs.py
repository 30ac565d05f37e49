"""A table of pairs: two columns to be encoded and, where there is one, the label of each row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .embed import CellEncoder, Column, Vectors
from .errors import DataError
from .tables import (
    SIDES,
    CellError,
    IdMappings,
    Kind,
    Roles,
    Side,
    Table,
    all_image_paths,
    contents,
    is_missing,
    read_table,
)

_TRUE = {"1", "1.0", "true"}
_FALSE = {"0", "0.0", "false"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Pairs:
    """Rows of a query, a response and perhaps a label.

    Attributes:
        query: The query column, its contents.
        response: The response column.
        keys: The cells of both as the table has them: ids where there are mappings.
        labels: (n,) 1 for a match, 0 for none; None where the table has no label column.
        index: The index of a pandas frame; None for anything else.
        notes: What was decided about the file that was read.
    """

    query: Column
    response: Column
    keys: dict[Side, Sequence[Any]]
    labels: NDArray[np.int64] | None
    index: Any = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.query.cells)


def read_pairs(
    data: Any, roles: Roles, mappings: IdMappings | None = None, *, labelled: bool | None = None, several: bool = False
) -> Pairs:
    """Return the pairs of a table.

    Args:
        data: As `tables.read_table` takes it, with both columns.
        roles: Which columns.
        mappings: What ids in the columns stand for.
        labelled: Whether to read the label column; None reads it where the roles name one and the table has it.
        several: Whether a list of texts in a cell stands for as many pairs.

    Raises:
        DataError: A column is missing, or a label says nothing.
    """
    names = [roles.query, roles.response, *([roles.label] if roles.label else [])]
    table = read_table(data, names, quoting=roles.quoting)
    cells = {side: table.column(roles.column(side)) for side in SIDES}
    labels = read_labels(table, roles, labelled)
    if several:
        cells, labels = _one_text_a_row(cells, labels, roles)
    columns = {side: column_of(table, roles, side, cells[side], mappings) for side in SIDES}
    return Pairs(
        query=columns["query"],
        response=columns["response"],
        keys=dict(cells),
        labels=labels,
        index=table.index,
        notes=table.notes,
    )


def column_of(
    table: Table, roles: Roles, side: Side, cells: Sequence[Any], mappings: IdMappings | None = None
) -> Column:
    """Return the cells of a side as a column that can be encoded."""
    name = roles.column(side)
    folder = Path(roles.root) if roles.root is not None else table.folder
    return Column(name=name, kind=roles.kind(side), cells=contents(name, cells, mappings), folder=folder)


def read_labels(table: Table, roles: Roles, labelled: bool | None = None) -> NDArray[np.int64] | None:
    """Return (n,) 1 and 0 from the label column; None where there is none to read.

    Raises:
        DataError: The column is needed and missing, or a value says neither match nor no match.
    """
    if roles.label is None:
        if labelled:
            raise DataError(f"{table.origin} has to be labelled here; name the column: Matcher(..., label=...)")
        return None
    if labelled is False or (labelled is None and roles.label not in table.columns):
        return None
    return match_labels(table.column(roles.label), roles)


def has_labels(data: Any, roles: Roles) -> bool:
    """Return whether the roles name a label column and the data has it."""
    return roles.label is not None and roles.label in read_table(data, [roles.label], quoting=roles.quoting).columns


def match_labels(values: Sequence[Any], roles: Roles) -> NDArray[np.int64]:
    """Return 1 where a label means a match, 0 where it does not.

    Raises:
        DataError: A label is missing; or there is no `match_label`, and labels are not 0 and 1.
    """
    unread = next(((row, value) for row, value in enumerate(values) if isinstance(value, CellError)), None)
    if unread is not None:
        raise DataError(f"row {unread[0]} has no label that can be read: {unread[1]}")
    missing = next((row for row, value in enumerate(values) if is_missing(value)), None)
    if missing is not None:
        raise DataError(f"row {missing} has no label in column {roles.label!r}; give one, or leave the row out")
    words = [str(value).strip().lower() for value in values]
    if roles.match_label is not None:
        match = str(roles.match_label).strip().lower()
        if match not in words:
            known = ", ".join(map(repr, sorted(set(words))[:5]))
            raise DataError(f"no row of column {roles.label!r} has match_label={roles.match_label!r}; it has {known}")
        return np.array([word == match for word in words], dtype=np.int64)
    odd = next((value for value, word in zip(values, words, strict=True) if word not in _TRUE | _FALSE), None)
    if odd is not None:
        raise DataError(
            f"column {roles.label!r} holds {odd!r}, neither 0 nor 1; name what means a match: match_label=..."
        )
    return np.array([word in _TRUE for word in words], dtype=np.int64)


def _one_text_a_row(
    cells: dict[Side, list[Any]], labels: NDArray[np.int64] | None, roles: Roles
) -> tuple[dict[Side, list[Any]], NDArray[np.int64] | None]:
    """Repeat a row for each text where a text cell is a list: five captions of a photograph are five pairs."""
    for side in SIDES:
        if roles.kind(side) == "text":
            sizes = [len(cell) if isinstance(cell, list | tuple) else 1 for cell in cells[side]]
            flat = [text for cell in cells[side] for text in (cell if isinstance(cell, list | tuple) else [cell])]
            rows = np.repeat(np.arange(len(sizes)), sizes)
            cells = {other: [cells[other][row] for row in rows] for other in SIDES} | {side: flat}
            labels = labels if labels is None else labels[rows]
    if not cells["query"]:
        raise DataError("no row of the data holds a text; give at least one")
    return cells, labels


class Reader:
    """Reads columns as the roles declare them and encodes them.

    Attributes:
        roles: Which column plays which part.
        cells: What encodes, and remembers what it has encoded.
        mappings: What ids in the columns stand for.
    """

    def __init__(self, roles: Roles, cells: CellEncoder, mappings: IdMappings | None = None) -> None:
        self.roles = roles
        self.cells = cells
        self.mappings = mappings

    def facing(self, roles: Roles) -> Reader:
        """Return a reader of other roles that shares what is encoded."""
        return self if roles == self.roles else Reader(roles, self.cells, self.mappings)

    def table(self, data: Any, side: Side) -> Table:
        """Return a table with the column of a side; a list is that column.

        Raises:
            DataError: There is no such column.
        """
        name = self.roles.column(side)
        table = read_table(data, [name], header=name, quoting=self.roles.quoting)
        table.column(name)
        return table

    def column(self, data: Any, side: Side) -> Column:
        """Return a side's column, ready to be encoded."""
        table = self.table(data, side)
        return column_of(table, self.roles, side, table.column(self.roles.column(side)), self.mappings)

    def vectors(self, column: Column) -> Vectors:
        """Return (n, dim) unit rows of a column.

        Raises:
            DataError: Rows cannot be used; the message names them.
        """
        return self.cells.embed(column).checked(column)

    def side(self, data: Any, side: Side) -> Vectors:
        """Return (n, dim) unit rows of one side of the data."""
        return self.vectors(self.column(data, side))

    def pairs(self, pairs: Pairs) -> tuple[Vectors, Vectors]:
        """Return the unit rows of both columns of pairs."""
        return self.vectors(pairs.query), self.vectors(pairs.response)


def sides_in(data: Any, roles: Roles) -> tuple[Side, ...]:
    """Return the sides whose columns a table has.

    Raises:
        DataError: It has neither.
    """
    table = read_table(data, [roles.query, roles.response], quoting=roles.quoting)
    sides = tuple(side for side in SIDES if roles.column(side) in table.columns)
    if not sides:
        known = ", ".join(map(repr, table.names))
        raise DataError(
            f"{table.origin} has neither column {roles.query!r} nor {roles.response!r}; it has {known}; of one column "
            "alone say which side it is: signature='query' or 'response'"
        )
    return sides


def facing(roles: Roles, query_data: Any, response_data: Any) -> Roles:
    """Return the roles with the sides as the tables have them.

    A table of queries that holds only what was declared as the response exchanges the sides; so does a table of
    responses that holds only the query column, where no query data say otherwise. Of lists only those say a side that
    hold nothing but images, and series that have the name of a column.
    """
    if query_data is not None:
        return roles.swapped() if _only(query_data, "response", roles) else roles
    return roles.swapped() if response_data is not None and _only(response_data, "query", roles) else roles


def _only(data: Any, side: Side, roles: Roles) -> bool:
    """Whether data hold the column of this side and not that of the other."""
    if is_column(data):
        named = getattr(data, "name", None) in (roles.query, roles.response)
        return data.name == roles.column(side) if named else roles.kind(side) == "image" and _only_images(data, roles)
    table = read_table(data, [roles.query, roles.response], quoting=roles.quoting)
    return set(table.columns) == {roles.column(side)}


def _only_images(column: Any, roles: Roles) -> bool:
    cells = read_table(column, ["cells"], header="cells").column("cells")
    return roles.mixed and all(_kind_of(cell) == "image" for cell in cells)


def is_column(data: Any) -> bool:
    """Whether data are one column alone, such as a list or a series, and neither a table nor the path of one."""
    if isinstance(data, Mapping | str | Path):
        return False
    return not hasattr(data, "columns") and not hasattr(data, "column_names")


def side_of_column(data: Any, roles: Roles) -> Side:
    """Return the side of a column alone: that whose name a series has, else that of the kind that its cells are.

    Cells are images where they are image files by name or lie on disk, bytes, PIL images or arrays; other texts are
    texts. Where both sides are of one kind it is the query.

    Raises:
        DataError: The cells are of both kinds, or of neither.
    """
    named = next((side for side in SIDES if getattr(data, "name", None) == roles.column(side)), None)
    if named is not None or not roles.mixed:
        return named or "query"
    cells = read_table(data, ["cells"], header="cells").column("cells")
    kinds = {_kind_of(cell) for cell in cells}
    if len(kinds) > 1 or None in kinds:
        raise DataError(
            f"the cells of the {type(data).__name__} are not all texts or all images; say signature='query' or "
            "signature='response'"
        )
    return roles.side_of_kind("image" if "image" in kinds else "text")


def _kind_of(cell: Any) -> Kind | None:
    if isinstance(cell, str):
        is_image = all_image_paths([cell.rstrip("; ")]) or cell.startswith("data:image/") or _is_file(cell)
        return "image" if is_image else "text"
    return "image" if isinstance(cell, Path | bytes | bytearray | np.ndarray | Image.Image) else None


def _is_file(text: str) -> bool:
    with suppress(OSError, ValueError):
        return Path(text).is_file()
    return False


def side_to_classify(data: Any, roles: Roles) -> Side:
    """Return which side data without a signature is: that of its one column; a list is images where there are any.

    Raises:
        DataError: The data has both columns, or neither.
    """
    if is_column(data):
        return roles.side_of_kind("image")
    sides = sides_in(data, roles)
    if len(sides) > 1:
        raise DataError(
            f"the data has both columns, {roles.query!r} and {roles.response!r}; give one, or say which: signature=..."
        )
    return sides[0]
