"""Several files that are one table: Parquet parts, as data set hubs have them, or a CSV file for each split."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pyarrow as pa

from encoders.images import IMAGE_SUFFIXES

from ...errors import SourceError
from ..file_pattern import natural_key
from ..item import Item, Rejection, SourceOptions, printable
from ..layouts.walk import kept_paths
from .column_types import common_type, is_binary
from .columns import IMAGE_NAMES, TEXT_NAMES, first_of, listed
from .csv_file import CsvFile
from .parquet_file import ParquetFile, read_schema
from .seen_rows import SeenRows, check_splits
from .table import TablePart, TableSource

PARQUET_SUFFIX = ".parquet"
# Folders with these are of another kind, whatever Parquet files stand beside them.
_OTHERS = (*IMAGE_SUFFIXES, ".tar")
_SHARD = re.compile(r"(?P<split>.+)-\d+-of-\d+(-[0-9a-f]+)?")
_SPLITS = frozenset(("train", "training", "validation", "valid", "val", "dev", "test", "testing", "eval", "evaluation"))


def parquet_parts(folder: Path, exclude: Sequence[str] = ()) -> list[Path]:
    """The Parquet files below a folder, 2 before 10; none where images or tar shards are there, too.

    Left out are hidden files and folders, those of systems, and what fits a pattern of `exclude`.
    """
    parts: list[Path] = []
    for base, folders, files in os.walk(folder):
        folders[:] = sorted(path.name for path in kept_paths(folder, (Path(base, one) for one in folders), exclude))
        kept = kept_paths(folder, (Path(base, one) for one in files), exclude)
        if any(path.name.lower().endswith(_OTHERS) for path in kept):
            return []
        parts.extend(path for path in kept if path.name.lower().endswith(PARQUET_SUFFIX))
    return sorted(parts, key=lambda path: natural_key(path.relative_to(folder).as_posix()))


class PartTables:
    """The rows of several Parquet files of the same columns, one file after another.

    Rows that have no id of their own are `FILE#row-N`. The split of an item is that of the split column, else what
    the file's name tells: `train-00000-of-00002.parquet`, `validation/0000.parquet`. A metadata column has the type
    that all files have in common, and is null where a file lacks it.

    Raises:
        SourceError: A file cannot be read, lacks a column of images, texts or ids that others have, or no row is of
            the requested splits.
    """

    def __init__(self, corpus: Path, folder: Path, paths: Sequence[Path], options: SourceOptions) -> None:
        self.root = options.root or folder
        schemas = {path: read_schema(path) for path in paths}
        if not any(rows for _, rows in schemas.values()):
            raise SourceError(f"the {len(paths)} Parquet files of {str(corpus)!r} have no rows")
        kinds = _common_kinds([schema for schema, _ in schemas.values()])
        named = replace(options, layout="table", root=self.root)
        self._tables = []
        for path in paths:
            name = printable(path.relative_to(folder).as_posix())
            part = TablePart(name=name, file=ParquetFile(path, kinds), split=split_in_name(name))
            self._tables.append(TableSource(path, named, part))
        first = self._tables[0]
        for path, table in zip(paths, self._tables, strict=True):
            _check_columns(path, schemas[path][0], table)
        self.metadata_schema = first.metadata_schema
        self.name = f"table {printable(corpus.name)} of {len(paths)} Parquet files ({first.roles})"
        self._lacking = _lacking([schema for schema, _ in schemas.values()], tuple(first.roles.metadata))
        self._seen = SeenRows()
        if options.splits:
            counts: Counter[str] = Counter()
            for table in self._tables:
                counts.update(table.count_splits())
            check_splits(options.splits, counts, self.name)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was decided at opening, and what the last pass over the rows has met."""
        return (*self._tables[0].notes, *self._lacking, *self._seen.notes())

    def items(self) -> Iterator[Item | Rejection]:
        """File by file, in the order of their names or of the pattern."""
        self._seen = SeenRows()
        for table in self._tables:
            yield from table.read(self._seen)


def split_in_name(name: str) -> str | None:
    """The split that the path of a shard tells; None where it tells none."""
    path = PurePosixPath(name)
    if match := _SHARD.fullmatch(path.stem):
        return match["split"]
    words = [word for word in re.split(r"[^A-Za-z]+", path.stem) if word.lower() in _SPLITS]
    folders = [part for part in path.parts[:-1] if part.lower() in _SPLITS]
    return next(iter((*words, *reversed(folders))), None)


def _common_kinds(schemas: Sequence[pa.Schema]) -> dict[str, pa.DataType]:
    """A type for each column of any file, in the order in which they first appear; bytes in one are bytes in all."""
    kinds: dict[str, list[pa.DataType]] = {}
    for schema in schemas:
        for field in schema:
            kinds.setdefault(field.name, []).append(field.type)
    return {name: pa.binary() if any(map(is_binary, types)) else common_type(types) for name, types in kinds.items()}


def _check_columns(path: Path, schema: pa.Schema, table: TableSource) -> None:
    roles = table.roles
    missing = [name for name in (roles.image, roles.text, roles.id) if name is not None and name not in schema.names]
    if missing:
        raise SourceError(
            f"{path.name} has no column {missing[0]!r}, which other Parquet files beside it have; name the files that "
            f"belong together by a pattern such as 'train-*.parquet'. Its columns: {listed(schema.names)}"
        )


def _lacking(schemas: Sequence[pa.Schema], columns: Sequence[str]) -> tuple[str, ...]:
    counts = {name: sum(name not in schema.names for schema in schemas) for name in columns}
    return tuple(
        f"column {name!r} is missing in {count} of {len(schemas)} files, and null there"
        for name, count in counts.items()
        if count
    )


SPLITS = ("train", "val", "dev", "test")


def split_tables(folder: Path) -> dict[str, Path]:
    """The tables of a folder that are named for a split and hold images and captions, by split."""
    paths = {split: folder / f"{split}.csv" for split in SPLITS}
    return {split: path for split, path in paths.items() if path.is_file() and _holds_captions(path)}


class SplitTables:
    """The rows of one table a split; `metadata` names the columns to keep, and by default none is kept.

    Raises:
        SourceError: There is no table of a split that was requested, or a table cannot be read.
    """

    def __init__(self, folder: Path, options: SourceOptions) -> None:
        tables = split_tables(folder)
        missing = sorted(set(options.splits) - tables.keys())
        if missing or not tables:
            problem = f"no table of split {missing[0]!r}" if missing else "no tables of splits with images and captions"
            raise SourceError(f"folder {str(folder)!r} has {problem}; its splits: {', '.join(tables) or 'none'}")
        self.root = options.root or folder
        # The other column that AutoMM has is a row number, which means nothing here.
        plain = replace(options, layout="table", splits=(), metadata=options.metadata or (), root=self.root)
        self._tables = {
            split: TableSource(path, plain)
            for split, path in tables.items()
            if not options.splits or split in options.splits
        }
        self.name = f"tables {', '.join(f'{split}.csv' for split in self._tables)} of {folder.name}"
        self.metadata_schema = _common_schema(self._tables)

    @property
    def notes(self) -> tuple[str, ...]:
        """The notes of all tables, each once."""
        return tuple(dict.fromkeys(note for table in self._tables.values() for note in table.notes))

    def items(self) -> Iterator[Item | Rejection]:
        """Table by table in the order train, val, dev, test; the split of an item is its table's."""
        for split, table in self._tables.items():
            for entry in table.items():
                yield replace(entry, split=split) if isinstance(entry, Item) else entry


def _holds_captions(path: Path) -> bool:
    try:
        columns = CsvFile(path, None).columns
    except SourceError:
        return False
    return first_of(columns, IMAGE_NAMES) is not None and first_of(columns, TEXT_NAMES) is not None


def _common_schema(tables: dict[str, TableSource]) -> pa.Schema:
    schemas = [table.metadata_schema for table in tables.values()]
    for table, schema in zip(tables, schemas, strict=True):
        if schema != schemas[0]:
            raise SourceError(f"the metadata columns of {table}.csv differ from those of {next(iter(tables))}.csv")
    return schemas[0]
