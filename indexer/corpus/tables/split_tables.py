"""A folder of `train.csv`, `val.csv` and `test.csv` with columns `image` and `caption`, as AutoMM's Flickr30K has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from ...errors import SourceError
from ..item import Item, Rejection, SourceOptions
from .columns import IMAGE_NAMES, TEXT_NAMES, first_of
from .csv_file import CsvFile
from .table import TableSource

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
