"""The sides of the data to unit vectors, for one task: declared columns in, each distinct content encoded once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from encoders import Encoder

from .embed import CellEncoder, Column, Vectors
from .errors import DataError
from .pairs import Pairs, column_of
from .roles import SIDES, Roles, Side
from .tables import IdMappings, Table, read_table


class Reader:
    """Reads columns as the roles declare them and encodes them.

    Attributes:
        roles: Which column plays which part.
        cells: What encodes, and remembers what it has encoded.
        mappings: What ids in the columns stand for.
    """

    def __init__(self, roles: Roles, encoder: Encoder, mappings: IdMappings | None = None) -> None:
        self.roles = roles
        self.cells = CellEncoder(encoder)
        self.mappings = mappings

    def table(self, data: Any, side: Side) -> Table:
        """Return a table with the column of a side; a list is that column.

        Raises:
            DataError: There is no such column.
        """
        name = self.roles.column(side)
        table = read_table(data, [name], header=name)
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
        DataError: It has neither, or is a list, whose side nobody has named.
    """
    if isinstance(data, list | tuple):
        raise DataError("the data is a list without a column name; say signature='query' or signature='response'")
    table = read_table(data, [roles.query, roles.response])
    found = tuple(side for side in SIDES if roles.column(side) in table.columns)
    if not found:
        known = ", ".join(map(repr, table.names))
        raise DataError(f"{table.place} has neither column {roles.query!r} nor {roles.response!r}; it has {known}")
    return found


def side_to_classify(data: Any, roles: Roles) -> Side:
    """Return which side data without a signature is: that of its one column; a list is pictures where there are any.

    Raises:
        DataError: The data has both columns, or neither.
    """
    if not isinstance(data, Mapping | str) and not hasattr(data, "columns") and not hasattr(data, "column_names"):
        return roles.side_of_kind("image")
    found = sides_in(data, roles)
    if len(found) > 1:
        raise DataError(
            f"the data has both columns, {roles.query!r} and {roles.response!r}; give one, or say which: signature=..."
        )
    return found[0]
