"""Tables written as Parquet, read a row group's slice at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import SourceError
from ..item import one_line
from ..layouts.lines import check_regular
from .cells import from_file, is_binary, keepable, to_values
from .columns import BadRecord, Record, Roles

# Image files may stand in the cells: 256 of them are a few tens of MB.
BATCH_ROWS = 256
# A damaged file can also give names and texts that are not UTF-8.
PARQUET_ERRORS = (pa.ArrowException, OSError, UnicodeDecodeError)


class ParquetFile:
    """A `.parquet` file. Its own schema gives the metadata types; an image column may hold bytes.

    Raises:
        SourceError: It is no Parquet file, is cut short, or has no rows.
    """

    word = "row"

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            check_regular(path)
            with pq.ParquetFile(path) as file:
                self._schema: pa.Schema = file.schema_arrow
                rows = file.metadata.num_rows
        except PARQUET_ERRORS as error:
            raise SourceError(f"{path.name} cannot be read as Parquet: {one_line(error)}; make a new copy") from error
        self.columns: tuple[str, ...] = tuple(self._schema.names)
        twice = [name for name, count in Counter(self.columns).items() if count > 1]
        if twice:
            raise SourceError(f"{path.name} has two columns called {twice[0]!r}; rename one")
        if not rows:
            raise SourceError(f"{path.name} has columns and no rows")

    def schema(self, roles: Roles) -> pa.Schema:
        """The file's own types; lists and structs become JSON text."""
        return keepable(self._schema, self._kept(roles))

    def records(self, roles: Roles) -> Iterator[Record | BadRecord]:
        """Every row; cells of role columns come as the file has them."""
        kept = self._kept(roles)
        columns = list(dict.fromkeys((*roles.raw, *kept)))
        number = 0
        try:
            with pq.ParquetFile(self._path) as file:
                for batch in file.iter_batches(BATCH_ROWS, columns=columns, use_threads=False):
                    for values in _rows(batch, kept, roles):
                        number += 1
                        yield Record(number=number, values=values)
        except PARQUET_ERRORS as error:
            raise SourceError(
                f"{self._path.name} is damaged after row {number}: {one_line(error)}; make a new copy"
            ) from error

    def unkept(self, roles: Roles) -> tuple[str, ...]:
        """Metadata columns of bytes, which have no place in a catalog."""
        return tuple(column for column in roles.metadata if is_binary(self._schema.field(column).type))

    def _kept(self, roles: Roles) -> dict[str, str]:
        unkept = self.unkept(roles)
        return {column: name for column, name in roles.metadata.items() if column not in unkept}


def _rows(batch: pa.RecordBatch, kept: dict[str, str], roles: Roles) -> Iterator[dict[str, Any]]:
    lists = {name: _values(batch[name], raw=name in roles.raw) for name in batch.schema.names}
    yield from (dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True))


def _values(column: pa.Array, *, raw: bool) -> list[Any]:
    # A role cell keeps its odd bytes, so that the item can be rejected for them.
    return to_values(column, "surrogateescape") if raw else to_values(from_file(column), "replace")
