"""A table of images, texts or both: CSV, Parquet, JSONL."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from storage.errors import DuplicateItemError

from ...errors import ContentError, SourceError
from ..item import Item, Rejection, SourceOptions, one_line, printable, text_item, uri_of
from ..layouts.folder import TABLE_SUFFIXES
from ..remote.fetch import Fetcher, WebImage, WebLimits
from ..remote.url import parse_url, without_credentials
from .cells import ImageCell, image_cells, plain, text_cells
from .columns import BadRecord, Record, RecordFile, Roles, choose_roles, renamed
from .csv_file import CsvFile
from .json_file import JsonFile
from .parquet_file import ParquetFile

_PROBLEMS = {
    "url": "is a URL, and nothing is fetched unless it is allowed: give --allow-urls, or download it and name the file",
    "not_base64": "comes with an image that is not in base64: write it as data:image/png;base64,...",
    "invalid_path": "holds a NUL byte, which no file name can",
    "not_utf8": "is not UTF-8: rename the file, or save the table as UTF-8",
}


def table_suffix(path: Path) -> str:
    """The suffix that says which kind of table a file is, `.gz` put aside; empty when it is none."""
    suffix = Path(path.stem).suffix if path.suffix.lower() == ".gz" else path.suffix
    return suffix.lower() if suffix.lower() in TABLE_SUFFIXES else ""


def open_records(path: Path, delimiter: str | None = None) -> RecordFile:
    """The rows of a table file, whatever kind it is.

    Raises:
        SourceError: Its suffix is unknown, or the file is not what its suffix says.
    """
    match table_suffix(path):
        case ".csv":
            return CsvFile(path, delimiter)
        case ".tsv":
            return CsvFile(path, delimiter or "\t")
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
    """

    names: tuple[str, ...]
    columns: dict[str, list[Any]]
    rows: int
    bad: dict[int, str]


def read_columns(path: Path, names: Sequence[str], delimiter: str | None = None) -> Cells:
    """Return columns of a table file, whatever kind it is, held in memory.

    Raises:
        SourceError: There is no such file, its suffix is unknown, or the file is not what its suffix says.
    """
    if table_suffix(path) and not path.is_file():
        raise SourceError(f"there is no file {str(path)!r}; give the path of a table")
    file = open_records(path, delimiter)
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
    return Cells(names=file.columns, columns=columns, rows=rows, bad=bad)


def _csv_texts(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: cell.decode("utf-8") if isinstance(cell, bytes) else cell for name, cell in values.items()}


class TableSource:
    """The images and texts that the rows of a table name.

    With an id column each row is one thing: its image is `ID` (`ID#0`, ... when the cell names several), its texts
    are `ID#0`, ... and a second row of the same id is an error. Without one, or when the image column is the id
    column, an image's path is its id, rows that repeat a path bring it more captions, and its metadata is that of
    the first row. A text with no image is `ID`, or `row-N` without an id column. Metadata goes to images and texts.

    Raises:
        SourceError: The file cannot be read, a column is not there, or no row is of the requested splits.
    """

    def __init__(self, path: Path, options: SourceOptions) -> None:
        self._path = path
        self._file = open_records(path, options.delimiter)
        self._roles = choose_roles(self._file.columns, options, path.name)
        self._keyed = self._roles.id is not None and self._roles.id != self._roles.image
        self._splits = frozenset(options.splits)
        limits = WebLimits(allow_private=options.allow_private)
        self._fetcher = Fetcher(limits) if options.allow_urls else None
        self.root = options.root if options.root is not None else path.parent
        self.metadata_schema = self._file.schema(self._roles)
        names = frozenset(self.metadata_schema.names)
        self._kept = [(column, name) for column, name in self._roles.metadata.items() if name in names]
        self.name = f"table {path.name} ({self._roles})"
        self.notes = self._notes(options)
        if self._splits:
            self._check_splits()

    def items(self) -> Iterator[Item | Rejection]:
        """Row by row: its images where they are new, then its texts."""
        state = _Seen()
        for record in self._file.records(self._roles):
            if isinstance(record, BadRecord):
                yield self._item(f"{self._file.word}-{record.number}", record.number).rejected(
                    "read", record.reason, record.detail
                )
            elif not self._splits or plain(record.values.get(self._roles.split or "")) in self._splits:
                yield from self._row(record, state)

    def _row(self, record: Record, state: _Seen) -> Iterator[Item | Rejection]:
        base = self._item(f"row-{record.number}", record.number, record)
        if not self._keyed:
            yield from self._contents(base, record, state)
            return
        key = plain(record.values.get(self._roles.id or ""))
        if key is None:
            detail = f"{base.location} has no id in column {self._roles.id!r}"
            for entry in self._contents(base, record, state):
                yield entry if isinstance(entry, Rejection) else entry.rejected("read", "missing_id", detail)
            return
        state.claim(key, record.number, self._file.word, self._path)
        yield from self._contents(_with_id(base, key), record, state)

    def _contents(self, base: Item, record: Record, state: _Seen) -> Iterator[Item | Rejection]:
        """The row's images, then its texts; the first image's path names the texts where there is no id column."""
        if self._roles.image is None:
            yield from self._texts(base, record, state, (), alone=True)
            return
        images = list(self._images(base, record))
        if not self._keyed:
            images = [state.told_apart(image, record.number) for image in images]
        described = tuple(image.item_id for image in images if isinstance(image, Item))
        for image in images:
            if self._keyed or state.is_new(image.item_id):
                yield image
        named = base if self._keyed or not images else _with_id(base, images[0].item_id)
        yield from self._texts(named, record, state, described, alone=False)

    def _images(self, base: Item, record: Record) -> Iterator[Item | Rejection]:
        in_file = isinstance(self._file, ParquetFile)
        cells = image_cells(record.values.get(self._roles.image or ""), bytes_are_files=in_file)
        if not cells:
            yield base.rejected("read", "missing_value", f"no image in column {self._roles.image!r} of {base.location}")
        for number, cell in enumerate(cells):
            suffix = f"#{number}" if len(cells) > 1 else ""
            yield self._image(base, cell, f"{base.item_id}{suffix}")

    def _image(self, base: Item, cell: ImageCell, key: str) -> Item | Rejection:
        path = printable(cell.path or "")
        if cell.data is not None:
            uri = path or f"{self._path.name}#{key}"
            return _with_id(base, key if self._keyed or not path else path, content=cell.data, uri=uri)
        if cell.problem == "url":
            return self._web_image(base, path, key)
        problem = cell.problem or ("" if path == cell.path else "not_utf8")
        if problem:
            item = _with_id(base, key if self._keyed or not path else path)
            return item.rejected("read", problem, f"the path {path!r} in {base.location} {_PROBLEMS[problem]}")
        content = self.root / path
        return _with_id(base, key if self._keyed else path, content=content, uri=uri_of(content, self.root))

    def _web_image(self, base: Item, url: str, key: str) -> Item | Rejection:
        shown = without_credentials(url)
        item = _with_id(base, key if self._keyed else shown, uri=shown)
        if self._fetcher is None:
            return item.rejected("read", "url", f"the path {shown!r} in {base.location} {_PROBLEMS['url']}")
        try:
            parse_url(url)
        except ContentError as error:
            return item.rejected("read", error.reason, f"{error.detail}, in {base.location}")
        return replace(item, content=WebImage(url, self._fetcher))

    def _texts(
        self, base: Item, record: Record, state: _Seen, described: tuple[str, ...], *, alone: bool
    ) -> Iterator[Item | Rejection]:
        texts = text_cells(record.values.get(self._roles.text or ""))
        if alone and not texts:
            yield text_item(_as_text(base, base.item_id, described), None)
        for text in texts:
            key = base.item_id if alone and len(texts) == 1 else f"{base.item_id}#{state.next_text(base.item_id)}"
            yield text_item(_as_text(base, key, described), text)

    def _item(self, key: str, number: int, record: Record | None = None) -> Item:
        values = record.values if record is not None else {}
        return Item(
            item_id=key,
            collection="texts" if self._roles.image is None else "images",
            content="",
            uri=self._path.name,
            location=f"{self._file.word} {number} of {self._path.name}",
            split=plain(values.get(self._roles.split)) if self._roles.split else None,
            metadata={name: _decoded(values.get(column)) for column, name in self._kept},
        )

    def _check_splits(self) -> None:
        seen: Counter[str] = Counter()
        # The split column alone: other cells may hold image files.
        only = replace(self._roles, image=None, text=None, id=None, metadata={})
        for record in self._file.records(only):
            if isinstance(record, Record):
                seen[plain(record.values.get(self._roles.split or "")) or "(none)"] += 1
        missing = sorted(self._splits - seen.keys())
        if missing:
            known = ", ".join(f"{name} ({count})" for name, count in seen.most_common(10))
            raise SourceError(f"{self._path.name} has no rows of split {missing[0]!r}; its splits: {known}")

    def _notes(self, options: SourceOptions) -> tuple[str, ...]:
        guessed = options.image is None and options.text is None
        taken = (f"no columns were named: took {self._roles} by name",) if guessed else ()
        unkept = self._file.unkept(self._roles) if isinstance(self._file, ParquetFile) else ()
        left = tuple(f"column {column!r} holds bytes and is not kept in the index" for column in unkept)
        return (*taken, *renamed(self._roles.metadata), *left)


class _Seen:
    """What one pass over the rows has to remember."""

    def __init__(self) -> None:
        self._rows: dict[str, int] = {}
        self._images: set[str] = set()
        self._files: dict[str, dict[bytes, str]] = {}
        self._texts: Counter[str] = Counter()

    def claim(self, key: str, number: int, word: str, path: Path) -> None:
        first = self._rows.setdefault(key, number)
        if first != number:
            raise DuplicateItemError(
                f"id {key!r} stands in {word} {first} and {word} {number} of {path.name}; make the ids unique, "
                "or leave the id column out so that rows of one image path are joined"
            )

    def is_new(self, image_id: str) -> bool:
        known = image_id in self._images
        self._images.add(image_id)
        return not known

    def told_apart(self, image: Item | Rejection, number: int) -> Item | Rejection:
        """The image, with its row in the id where an earlier file of the same name had other bytes."""
        if isinstance(image, Rejection) or not isinstance(image.content, bytes):
            return image
        digest, known = hashlib.sha256(image.content).digest(), self._files.setdefault(image.item_id, {})
        if digest not in known:
            key = f"{image.item_id}#row-{number}" if known else image.item_id
            known[digest] = f"{key}.{len(known)}" if key in known.values() else key
        return replace(image, item_id=known[digest])

    def next_text(self, base: str) -> int:
        self._texts[base] += 1
        return self._texts[base] - 1


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
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, list | dict) else value
