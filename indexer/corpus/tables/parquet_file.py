"""Tables written as Parquet, read a row group's slice at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import repeat
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import SourceError
from ..item import one_line, shown
from ..layouts.lines import check_regular
from .column_types import from_file, is_binary, keepable, to_values
from .columns import BadRecord, Record, Roles

# Image files may stand in the cells: 256 of them are a few tens of MB.
BATCH_ROWS = 256
# A damaged file can also give names and texts that are not UTF-8.
PARQUET_ERRORS = (pa.ArrowException, OSError, UnicodeDecodeError)


class ParquetFile:
    """A `.parquet` file. Its own schema gives the metadata types; an image column may hold bytes.

    As one part of several (`kinds`) it may lack rows and columns: the types of metadata are then those that all parts
    have in common.

    Raises:
        SourceError: It is no Parquet file, is cut short, or has no rows.
    """

    word = "row"

    def __init__(self, path: Path, kinds: Mapping[str, pa.DataType] | None = None) -> None:
        self._path = path
        self._schema, rows = read_schema(path)
        self._kinds = kinds
        self.notes: tuple[str, ...] = ()
        self.columns: tuple[str, ...] = tuple(kinds if kinds is not None else self._schema.names)
        if not rows and kinds is None:
            raise SourceError(f"{path.name} has columns and no rows")

    def schema(self, roles: Roles) -> pa.Schema:
        """The file's own types; lists and structs become JSON text."""
        kept = self._kept(roles)
        if self._kinds is None:
            return keepable(self._schema, kept)
        return pa.schema([(name, self._kinds[column]) for column, name in kept.items()])

    def records(self, roles: Roles) -> Iterator[Record | BadRecord]:
        """Every row; cells of role columns come as the file has them."""
        kept = self._kept(roles)
        columns = list(dict.fromkeys((*roles.raw, *kept)))
        there = [column for column in columns if column in self._schema.names]
        number = 0
        try:
            with pq.ParquetFile(self._path) as file:
                for batch in file.iter_batches(BATCH_ROWS, columns=there, use_threads=False):
                    lists = {name: self._values(batch[name], name, raw=name in roles.raw) for name in there}
                    lists |= {name: [None] * len(batch) for name in columns if name not in lists}
                    rows = zip(*lists.values(), strict=True) if lists else repeat((), len(batch))
                    for row in rows:
                        number += 1
                        yield Record(number=number, values=dict(zip(lists, row, strict=True)))
        except PARQUET_ERRORS as error:
            raise SourceError(
                f"{self._path.name} is damaged after row {number}: {one_line(error)}; make a new copy"
            ) from error

    def unkept(self, roles: Roles) -> tuple[str, ...]:
        """Metadata columns of bytes, which have no place in a catalog."""
        return tuple(column for column in roles.metadata if column in self._bytes)

    @property
    def _bytes(self) -> frozenset[str]:
        if self._kinds is not None:
            return frozenset(name for name, kind in self._kinds.items() if is_binary(kind))
        return frozenset(field.name for field in self._schema if is_binary(field.type))

    def _kept(self, roles: Roles) -> dict[str, str]:
        unkept = self.unkept(roles)
        return {column: name for column, name in roles.metadata.items() if column not in unkept}

    def _values(self, column: pa.Array, name: str, *, raw: bool) -> list[Any]:
        where = f"column {name!r} of {self._path.name}"
        # A role cell keeps its odd bytes, so that the item can be rejected for them.
        if raw:
            return to_values(column, "surrogateescape", where)
        kept = from_file(column)
        if self._kinds is not None and kept.type != self._kinds[name]:
            kept = kept.cast(self._kinds[name])
        return to_values(kept, "replace", where)


def read_schema(path: Path) -> tuple[pa.Schema, int]:
    """The columns of a Parquet file and how many rows it has.

    Raises:
        SourceError: It is no Parquet file, or has two columns of one name.
    """
    try:
        check_regular(path)
        with pq.ParquetFile(path) as file:
            schema, rows = file.schema_arrow, int(file.metadata.num_rows)
    except PARQUET_ERRORS as error:
        raise SourceError(f"{path.name} cannot be read as Parquet: {one_line(error)}; make a new copy") from error
    twice = [name for name, count in Counter(schema.names).items() if count > 1]
    if twice:
        raise SourceError(f"{path.name} has two columns called {shown(twice[0])!r}; rename one")
    return schema, rows
