"""A table of images, texts or both: CSV, Parquet, JSONL."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...errors import ContentError, SourceError
from ..image_paths import ImagePaths
from ..item import Item, Rejection, SourceOptions, one_line, printable, shown, text_item
from ..layouts.folder import TABLE_SUFFIXES
from ..remote.fetch import Fetcher, WebImage, WebLimits
from ..remote.url import parse_url, without_credentials
from .cells import ImageCell, image_cells, plain, text_cells
from .column_types import json_text
from .columns import BadRecord, Record, RecordFile, Roles, choose_roles, renamed
from .csv_file import CsvFile
from .json_file import JsonFile
from .parquet_file import ParquetFile
from .seen_rows import SeenRows, check_splits

_PROBLEMS = {
    "url": "is a URL, and nothing is fetched unless it is allowed: give --allow-urls, or download it and name the file",
    "not_base64": "comes with an image that is not in base64: write it as data:image/png;base64,...",
    "numbers": "is a list of numbers: write images as files, PNG or JPEG for instance, into the column",
    "invalid_path": "holds a NUL byte, which no file name can",
    "not_utf8": "is not UTF-8: rename the file, or save the table as UTF-8",
    "remote_file": "is a file: URL of another machine: copy the file here, or name it by http(s)",
    "not_a_path": "is no path but rather base64: write an image as data:image/png;base64,...",
}


def table_suffix(path: Path) -> str:
    """The suffix that says which kind of table a file is, `.gz` put aside; empty when it is none."""
    suffix = Path(path.stem).suffix if path.suffix.lower() == ".gz" else path.suffix
    return suffix.lower() if suffix.lower() in TABLE_SUFFIXES else ""


def open_records(path: Path, delimiter: str | None = None, quoting: str = "auto") -> RecordFile:
    """The rows of a table file, whatever kind it is.

    Raises:
        SourceError: Its suffix is unknown, or the file is not what its suffix says.
    """
    match table_suffix(path):
        case ".csv":
            return CsvFile(path, delimiter, quoting)
        case ".tsv":
            return CsvFile(path, delimiter or "\t", quoting)
        case ".parquet":
            return ParquetFile(path)
        case ".jsonl" | ".ndjson":
            return JsonFile(path)
        case ".json":
            return JsonFile(path, array=True)
        case _:
            raise SourceError(f"{str(path)!r} is no table; expected one of {', '.join(TABLE_SUFFIXES)}")


@dataclass(frozen=True, kw_only=True)
class Cells:
    """Columns of a table file, row by row as they stand in it; cells of CSV are text.

    Attributes:
        names: All columns of the file.
        columns: Those that were asked for and are there.
        rows: How many rows there are, bad ones included.
        bad: For each row that could not be read, counted from 0, the reason; its cells are None.
        notes: One line each on what was decided about the file.
    """

    names: tuple[str, ...]
    columns: dict[str, list[Any]]
    rows: int
    bad: dict[int, str]
    notes: tuple[str, ...] = ()


def read_columns(path: Path, names: Sequence[str], quoting: str = "auto") -> Cells:
    """Return columns of a table file, whatever kind it is, held in memory.

    Raises:
        SourceError: There is no such file, its suffix is unknown, or the file is not what its suffix says.
    """
    if table_suffix(path) and not path.is_file():
        raise SourceError(f"there is no file {str(path)!r}; give the path of a table")
    file = open_records(path, quoting=quoting)
    columns: dict[str, list[Any]] = {name: [] for name in names if name in file.columns}
    # Without any of the columns the rows are still counted.
    records = file.records(Roles(others=tuple(columns) or file.columns[:1]))
    bad: dict[int, str] = {}
    rows = 0
    for row, record in enumerate(records):
        rows += 1
        values: Mapping[str, Any] = {}
        try:
            if isinstance(record, BadRecord):
                bad[row] = record.detail
            else:
                values = _csv_texts(record.values) if isinstance(file, CsvFile) else record.values
        except UnicodeDecodeError as error:
            bad[row] = f"{file.word} {record.number} of {path.name} is not UTF-8: {one_line(error)}"
        for name, cells in columns.items():
            cells.append(values.get(name))
    return Cells(names=file.columns, columns=columns, rows=rows, bad=bad, notes=file.notes)


def _csv_texts(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: cell.decode("utf-8") if isinstance(cell, bytes) else cell for name, cell in values.items()}


@dataclass(frozen=True, kw_only=True)
class TablePart:
    """One file of a table that is spread over several.

    Attributes:
        name: The file below the corpus, for ids and messages.
        file: Its rows, in the types that all parts have in common.
        split: The split that its name tells; None where it tells none, or a column does.
    """

    name: str
    file: RecordFile
    split: str | None = None


class TableSource:
    """The images and texts that the rows of a table name.

    With an id column each row is one thing: its image is `ID` (`ID#0`, ... when the cell names several), its texts
    are `ID#0`, ... and a second row of the same id is an error. Without one, or when the image column is the id
    column, an image's path is its id, rows that repeat a path, however they spell it, bring it more captions, and its
    metadata is that of the first row. A text with no image is `ID`, or `row-N` without an id column (`FILE#row-N` in
    one part of several). Metadata goes to images and texts.

    Raises:
        SourceError: The file cannot be read, a column is not there, or no row is of the requested splits.
    """

    def __init__(self, path: Path, options: SourceOptions, part: TablePart | None = None) -> None:
        self._file = part.file if part else open_records(path, options.delimiter, options.quoting)
        self._name = part.name if part else path.name
        self._in_parts = part is not None
        self._rows_are = f"{part.name}#row" if part else "row"
        self._part_split = part.split if part else None
        # The split may stand in the names of the parts.
        chosen = options if part is None else replace(options, splits=())
        self._roles = choose_roles(self._file.columns, chosen, self._name)
        self._keyed = self._roles.id is not None and self._roles.id != self._roles.image
        self._splits = frozenset(options.splits)
        limits = WebLimits(allow_private=options.allow_private)
        self._fetcher = Fetcher(limits) if options.allow_urls else None
        self.root = options.root if options.root is not None else path.parent
        self._paths = ImagePaths(self.root)
        self.metadata_schema = self._file.schema(self._roles)
        names = frozenset(self.metadata_schema.names)
        self._kept = [(column, name) for column, name in self._roles.metadata.items() if name in names]
        self.name = f"table {self._name} ({self._roles})"
        self._opening_notes = self._notes(options)
        self._seen = SeenRows()
        if self._splits and part is None:
            check_splits(self._splits, self.count_splits(), self._name)

    @property
    def roles(self) -> Roles:
        """The columns that are read."""
        return self._roles

    @property
    def notes(self) -> tuple[str, ...]:
        """What was decided at opening, and what the last pass over the rows has met."""
        return (*self._opening_notes, *self._seen.notes())

    def items(self) -> Iterator[Item | Rejection]:
        """Row by row: its images where they are new, then its texts."""
        self._seen = SeenRows()
        yield from self.read(self._seen)

    def read(self, state: SeenRows) -> Iterator[Item | Rejection]:
        """The rows as `items` gives them, after others that `state` remembers."""
        for record in self._file.records(self._roles):
            if isinstance(record, BadRecord):
                yield self._item(f"{self._file.word}-{record.number}", record.number).rejected(
                    "read", record.reason, record.detail
                )
            elif not self._splits or self._split_of(record) in self._splits:
                yield from self._row(record, state)

    def count_splits(self) -> Counter[str]:
        """How many rows there are of each split."""
        seen: Counter[str] = Counter()
        # The split column alone: other cells may hold image files.
        only = replace(self._roles, image=None, text=None, id=None, metadata={})
        for record in self._file.records(only):
            if isinstance(record, Record):
                seen[self._split_of(record) or "(none)"] += 1
        return seen

    def _split_of(self, record: Record) -> str | None:
        return plain(record.values.get(self._roles.split)) if self._roles.split else self._part_split

    def _row(self, record: Record, state: SeenRows) -> Iterator[Item | Rejection]:
        base = self._item(f"{self._rows_are}-{record.number}", record.number, record)
        if not self._keyed:
            yield from self._contents(base, record, state)
            return
        key = plain(record.values.get(self._roles.id or ""))
        if key is None:
            detail = f"{base.location} has no id in column {self._roles.id!r}"
            for entry in self._contents(base, record, state):
                yield entry if isinstance(entry, Rejection) else entry.rejected("read", "missing_id", detail)
            return
        state.claim(key, record.number, self._file.word, self._name)
        yield from self._contents(_with_id(base, key), record, state)

    def _contents(self, base: Item, record: Record, state: SeenRows) -> Iterator[Item | Rejection]:
        """The row's images, then its texts; the first image's path names the texts where there is no id column."""
        if self._roles.image is None:
            yield from self._texts(base, record, state, (), alone=True)
            return
        images = list(self._images(base, record, state))
        if not self._keyed:
            images = [state.told_apart(image, record.number) for image in images]
        described = tuple(dict.fromkeys(image.item_id for image in images if isinstance(image, Item)))
        for image in images:
            if self._keyed or state.is_new(image.item_id):
                yield image
        named = base if self._keyed or not images else _with_id(base, images[0].item_id)
        yield from self._texts(named, record, state, described, alone=False)

    def _images(self, base: Item, record: Record, state: SeenRows) -> Iterator[Item | Rejection]:
        in_file = isinstance(self._file, ParquetFile)
        value = record.values.get(self._roles.image or "")
        cells = image_cells(value, bytes_are_files=in_file, names_in=self._paths.names_in)
        if not cells:
            yield base.rejected("read", "missing_value", f"no image in column {self._roles.image!r} of {base.location}")
        for number, cell in enumerate(cells):
            suffix = f"#{number}" if len(cells) > 1 else ""
            yield self._image(base, cell, f"{base.item_id}{suffix}", state)

    def _image(self, base: Item, cell: ImageCell, key: str, state: SeenRows) -> Item | Rejection:
        path = printable(cell.path or "")
        if cell.data is not None:
            uri = path or (key if self._in_parts else f"{self._name}#{key}")
            return _with_id(base, key if self._keyed or not path else path, content=cell.data, uri=uri)
        if cell.problem == "url":
            return self._web_image(base, path, key)
        problem = cell.problem or ("" if path == cell.path else "not_utf8")
        if problem:
            item = _with_id(base, key if self._keyed or not path else path)
            what = f"the path {shown(path)!r}" if path else "the image"
            return item.rejected("read", problem, f"{what} in {base.location} {_PROBLEMS[problem]}")
        file = self._paths.find(path)
        if file.respelt:
            state.note_respelt(path, base.location)
        key = key if self._keyed else state.first_spelling(path, file.uri)
        return _with_id(base, key, content=file.path, uri=file.uri)

    def _web_image(self, base: Item, url: str, key: str) -> Item | Rejection:
        url_shown = without_credentials(url)
        item = _with_id(base, key if self._keyed else url_shown, uri=url_shown)
        if self._fetcher is None:
            return item.rejected("read", "url", f"the path {shown(url_shown)!r} in {base.location} {_PROBLEMS['url']}")
        try:
            parse_url(url)
        except ContentError as error:
            return item.rejected("read", error.reason, f"{error.detail}, in {base.location}")
        return replace(item, content=WebImage(url, self._fetcher))

    def _texts(
        self, base: Item, record: Record, state: SeenRows, described: tuple[str, ...], *, alone: bool
    ) -> Iterator[Item | Rejection]:
        texts = text_cells(record.values.get(self._roles.text or ""))
        if alone and not texts:
            yield text_item(_as_text(base, base.item_id, described), None)
        for text in texts:
            key = base.item_id if alone and len(texts) == 1 else f"{base.item_id}#{state.next_text(base.item_id)}"
            yield text_item(_as_text(base, key, described), text)

    def _item(self, key: str, number: int, record: Record | None = None) -> Item:
        values: Mapping[str, Any] = record.values if record is not None else {}
        return Item(
            item_id=key,
            collection="texts" if self._roles.image is None else "images",
            content="",
            uri=self._name,
            location=f"{self._file.word} {number} of {self._name}",
            split=self._split_of(record) if record is not None else self._part_split,
            metadata={name: _decoded(values.get(column)) for column, name in self._kept},
        )

    def _notes(self, options: SourceOptions) -> tuple[str, ...]:
        guessed = options.image is None and options.text is None
        taken = (f"no columns were named: took {self._roles} by name",) if guessed else ()
        unkept = self._file.unkept(self._roles) if isinstance(self._file, ParquetFile) else ()
        left = tuple(f"column {column!r} holds bytes and is not kept in the index" for column in unkept)
        return (*self._file.notes, *taken, *renamed(self._roles.metadata), *left)


def _with_id(item: Item, key: str, *, content: Path | bytes | str = "", uri: str | None = None) -> Item:
    return Item(
        item_id=key,
        collection=item.collection,
        content=content,
        uri=item.uri if uri is None else uri,
        location=item.location,
        split=item.split,
        metadata=item.metadata,
    )


def _as_text(base: Item, key: str, described: tuple[str, ...]) -> Item:
    return Item(
        item_id=key,
        collection="texts",
        content="",
        uri=base.uri,
        location=base.location,
        split=base.split,
        image_ids=described,
        metadata=base.metadata,
    )


def _decoded(value: Any) -> Any:
    """A metadata cell; a column that also plays a role comes raw."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return json_text(value) if isinstance(value, list | dict) else value
