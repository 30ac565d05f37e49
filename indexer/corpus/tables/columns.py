"""Which column of a table plays which role, and how metadata columns are called in the catalog."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Protocol

import pyarrow as pa

from storage.catalog import RESERVED_NAMES

from ...errors import SourceError
from ..item import SourceOptions, shown

# Guessed only by these exact names, in this order of preference.
IMAGE_NAMES = ("image", "image_path", "filepath", "path", "file_name")
TEXT_NAMES = ("caption", "captions", "text", "title")
MAX_COLUMNS = 1000


@dataclass(frozen=True, kw_only=True)
class Roles:
    """The column of each role, by its name in the file.

    `metadata` maps the file's names to the catalog's; `others` are columns that are read as they stand.
    """

    image: str | None = None
    text: str | None = None
    id: str | None = None
    split: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    others: tuple[str, ...] = ()

    @property
    def raw(self) -> tuple[str, ...]:
        """The columns that are not metadata, each once."""
        named = (self.image, self.text, self.id, self.split, *self.others)
        return tuple(dict.fromkeys(name for name in named if name is not None))

    def __str__(self) -> str:
        """The roles as `image=photo, text=title`, for names and messages."""
        named = (("image", self.image), ("text", self.text), ("id", self.id), ("split", self.split))
        return ", ".join(f"{role}={column}" for role, column in named if column is not None)


def choose_roles(columns: Sequence[str], options: SourceOptions, location: str, *, guess: bool = True) -> Roles:
    """The role of each column, as named in `options` or, when neither image nor text is named, by exact names.

    Without `guess` a table needs neither images nor texts.

    Raises:
        SourceError: A named column is not there, no column could be guessed, or a split was asked for without a column.
    """
    named = (options.image, options.text, options.id, options.split_column, *(options.metadata or ()))
    for name in named:
        if name is not None and name not in columns:
            raise SourceError(_no_such_column(name, columns, location))
    image, text = options.image, options.text
    if guess and image is None and text is None:
        image, text = first_of(columns, IMAGE_NAMES), first_of(columns, TEXT_NAMES)
    if guess and image is None and text is None:
        raise SourceError(
            f"{location} has no column of a known name; name the image column, the text column or both "
            f"(--image, --text). Its columns: {listed(columns)}"
        )
    split = options.split_column or ("split" if "split" in columns and "split" not in (image, text) else None)
    if options.splits and split is None:
        raise SourceError(f"{location} has no column 'split'; name the split column. Its columns: {listed(columns)}")
    kept = options.metadata
    if kept is None:
        kept = tuple(name for name in columns if name not in (image, text, options.id, split))
    return Roles(image=image, text=text, id=options.id, split=split, metadata=catalog_names(kept, location))


def catalog_names(columns: Iterable[str], location: str) -> dict[str, str]:
    """Catalog names by file names: reserved ones get `_meta`, ones that differ only in case a number, unnamed go.

    Raises:
        SourceError: There are more than 1,000 columns.
    """
    names: dict[str, str] = {}
    taken = set(RESERVED_NAMES)
    for column in columns:
        if not column.strip():
            continue
        name = f"{column}_meta" if column.lower() in RESERVED_NAMES else column
        base, number = name, 1
        while name.lower() in taken:
            number += 1
            name = f"{base}_{number}"
        taken.add(name.lower())
        names[column] = name
    if len(names) > MAX_COLUMNS:
        raise SourceError(
            f"{location} has {len(names)} metadata columns, at most {MAX_COLUMNS} fit; name those to keep"
        )
    return names


def renamed(names: dict[str, str]) -> tuple[str, ...]:
    """A note for each metadata column that the catalog calls otherwise than the file."""
    return tuple(
        f"column {shown(old)!r} is called {shown(new)!r} in the index" for old, new in names.items() if old != new
    )


def first_of(columns: Sequence[str], names: Sequence[str]) -> str | None:
    """The first of `names` that is a column; None when none is."""
    return next((name for name in names if name in columns), None)


def _no_such_column(name: str, columns: Sequence[str], location: str) -> str:
    lowered = {column.lower(): column for column in columns}
    close = get_close_matches(name.lower(), list(lowered), n=1, cutoff=0.6)
    hint = f"; did you mean {shown(lowered[close[0]])!r}?" if close else "."
    return f"{location} has no column {shown(name)!r}{hint} Its columns: {listed(columns)}"


def listed(columns: Sequence[str]) -> str:
    """The names of columns as they stand in a message: the first of many, the start of long ones."""
    names = ", ".join(repr(shown(column)) for column in columns[:30])
    return f"{names}, and {len(columns) - 30} more" if len(columns) > 30 else names or "none"


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
        notes: One line each on what was decided about the file; all are there once a row has been read.
    """

    @property
    def columns(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def word(self) -> str: ...  # noqa: D102

    @property
    def notes(self) -> tuple[str, ...]: ...  # noqa: D102

    def schema(self, roles: Roles) -> pa.Schema:
        """Types of the metadata columns, found over the whole file; columns that no catalog can hold are left out."""
        ...

    def records(self, roles: Roles) -> Iterator[Record | BadRecord]:
        """Every row in file order, with at least the columns that `roles` names."""
        ...
