"""One row of a table, whatever file it came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from .columns import Roles


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One row: its number from 1 on (the line of a JSONL file) and its cells by column of the file."""

    number: int
    values: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class BadRecord:
    """A row that could not be read, and why."""

    number: int
    reason: str
    detail: str


class RecordFile(Protocol):
    """A table file. Its role columns come raw (bytes are not decoded), its metadata columns typed.

    Attributes:
        columns: The names of all columns, in the order of the file.
        word: What one record is called in messages: `row`, `line` or `entry`.
    """

    @property
    def columns(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def word(self) -> str: ...  # noqa: D102

    def schema(self, roles: Roles) -> pa.Schema:
        """Types of the metadata columns, found over the whole file; columns that no catalog can hold are left out."""
        ...

    def records(self, roles: Roles) -> Iterator[Record | BadRecord]:
        """Every row in file order, with at least the columns that `roles` names."""
        ...
