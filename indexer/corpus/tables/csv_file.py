"""Tables written as CSV: any of four delimiters, quoted line ends, a BOM, gzip."""

from __future__ import annotations

import csv
import io
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv

from ...errors import SourceError
from ..item import one_line
from ..layouts.lines import open_bytes
from .column_types import from_file, keepable
from .columns import BadRecord, Record, Roles

DELIMITERS = ",;\t|"
MAX_HEADER = 100_000
BLOCK_BYTES = 32 * 2**20
BATCH_ROWS = 8192


class CsvFile:
    """A `.csv` or `.tsv` file, also gzipped, with a header row.

    Types of metadata columns are inferred over the whole file. Rows are held in memory as Arrow columns while they
    are read, so a file needs about its own size. Arrow is told that the file is Latin-1, in which every byte is a
    character: so a cell that is not UTF-8 neither stops it nor changes, and its row is found out here.

    Raises:
        SourceError: The header cannot be read, is not UTF-8, or names a column twice.
    """

    word = "row"

    def __init__(self, path: Path, delimiter: str | None = None) -> None:
        self._path = path
        if delimiter is not None and (len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n'):
            raise SourceError(f"delimiter {delimiter!r} cannot separate cells; give one character such as ';' or a tab")
        header = _header_line(path)
        text = _decoded_header(header, path)
        self._delimiter = delimiter or _sniff(text)
        self.columns = tuple(name.strip() for name in _split_header(text, self._delimiter))
        # By name: the bytes of the header cell, as Latin-1, which is how Arrow is made to see the whole file.
        written = _split_header(header.decode("latin-1"), self._delimiter)
        self._written = dict(zip(self.columns, written, strict=True))
        twice = [name for name, count in Counter(self.columns).items() if count > 1 and name]
        if twice:
            raise SourceError(f"{path.name} names column {twice[0]!r} more than once in its header; rename one")
        self._table: pa.Table | None = None
        self._bad: list[BadRecord] = []
        self._unclosed = 0

    def schema(self, roles: Roles) -> pa.Schema:
        """Types over the whole file: int64, float64, bool, dates, timestamps, else string."""
        table = self._load(roles)
        return keepable(table.schema, {self._written[column]: name for column, name in roles.metadata.items()})

    def records(self, roles: Roles) -> Iterator[Record | BadRecord]:
        """Every row that is not blank; role columns come as bytes. A row with too few or too many cells is bad."""
        table = self._load(roles)
        bad = iter(self._bad)
        waiting, number = next(bad, None), 1
        for values in self._rows(table, roles):
            while waiting is not None and waiting.number == number:
                yield waiting
                waiting, number = next(bad, None), number + 1
            yield Record(number=number, values=values)
            number += 1
        while waiting is not None:
            yield waiting
            waiting = next(bad, None)

    def _rows(self, table: pa.Table, roles: Roles) -> Iterator[dict[str, Any]]:
        names = {written: name for name, written in self._written.items()}
        typed = {self._written[column] for column in roles.metadata if column not in roles.raw}
        written = [self._written[column] for column in dict.fromkeys((*roles.raw, *roles.metadata))]
        for batch in table.select(written).to_batches(max_chunksize=BATCH_ROWS):
            lists = {
                names[name]: _typed(batch[name]) if name in typed else _raw(batch[name]) for name in batch.schema.names
            }
            yield from (dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True))

    def _load(self, roles: Roles) -> pa.Table:
        if self._table is None:
            self._bad = []
            # Inference would turn an id "007" into 7.
            raw = {self._written[column]: pa.string() for column in roles.raw}
            kept = [self._written[column] for column in dict.fromkeys((*roles.raw, *roles.metadata, self.columns[-1]))]
            try:
                self._table = pa_csv.read_csv(
                    self._path,
                    read_options=pa_csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES, encoding="latin-1"),
                    parse_options=pa_csv.ParseOptions(
                        delimiter=self._delimiter, newlines_in_values=True, invalid_row_handler=self._skip
                    ),
                    convert_options=pa_csv.ConvertOptions(column_types=raw, include_columns=kept),
                )
            except (pa.ArrowException, OSError) as error:
                raise SourceError(
                    f"{self._path.name} cannot be read as CSV: {one_line(error)}; check its quotes"
                ) from error
            if self._unclosed:
                raise SourceError(self._open_quote(self._unclosed))
            if not len(self._table) and not self._bad:
                raise SourceError(f"{self._path.name} has a header and no rows")
            self._refuse_open_quote(self._table.column(self._written[self.columns[-1]]))
        return self._table

    def _refuse_open_quote(self, last_column: pa.ChunkedArray) -> None:
        """A quote that is never closed makes one cell of all that follows: rows would be lost without a word."""
        cell = last_column[-1].as_py() if len(last_column) else None
        if isinstance(cell, str) and "\n" in cell:
            with open_bytes(self._path) as file:
                tail = deque(iter(lambda: file.read(BLOCK_BYTES), b""), maxlen=1)[0].rstrip()
            # A cell whose quote is closed is followed by that quote.
            if tail.endswith(cell.rstrip().encode("latin-1")[-len(tail) :]):
                raise SourceError(self._open_quote(len(last_column) + len(self._bad)))

    def _open_quote(self, row: int) -> str:
        return f"a quote that opens in row {row} of {self._path.name} is never closed; close it, or double it as a sign"

    def _skip(self, row: Any) -> str:
        number = row.number - 1
        if "\n" in row.text.strip() and row.text.count('"') % 2:
            self._unclosed = number
        detail = (
            f"row {number} of {self._path.name} has {row.actual_columns} cells where the header has "
            f"{row.expected_columns}"
        )
        self._bad.append(BadRecord(number=number, reason="wrong_cell_count", detail=detail))
        return "skip"


def _header_line(path: Path) -> bytes:
    """The first record, which may span several lines when a name is quoted."""
    try:
        with open_bytes(path) as file:
            header = file.readline(BLOCK_BYTES)
            while header.count(b'"') % 2 and len(header) < BLOCK_BYTES and (more := file.readline(BLOCK_BYTES)):
                header += more
    except (OSError, EOFError) as error:
        raise SourceError(f"{path.name} cannot be read: {one_line(error)}; make a new copy") from error
    return header


def _decoded_header(header: bytes, path: Path) -> str:
    try:
        text = header.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        why = one_line(error)
        raise SourceError(f"the header of {path.name} is not UTF-8 text: {why}; save the file as UTF-8") from error
    if not text.strip():
        raise SourceError(f"{path.name} has no header: its first line must name the columns")
    if len(text) > MAX_HEADER:
        raise SourceError(f"the header of {path.name} has {len(text)} characters; its first line must name the columns")
    return text


def _raw(column: pa.Array) -> list[bytes | None]:
    return [None if cell is None else cell.encode("latin-1") for cell in column.to_pylist()]


def _typed(column: pa.Array) -> list[Any]:
    cells = from_file(column).to_pylist()
    if not pa.types.is_string(column.type):
        return cells if isinstance(cells, list) else [*cells]
    return [cell and (cell if cell.isascii() else cell.encode("latin-1").decode("utf-8", "replace")) for cell in cells]


def _sniff(header: str) -> str:
    """The delimiter that stands most often in the header outside quotes; a comma when none does."""
    unquoted = "".join(header.split('"')[::2])
    return max(DELIMITERS, key=unquoted.count)


def _split_header(header: str, delimiter: str) -> list[str]:
    return next(csv.reader(io.StringIO(header, newline=""), delimiter=delimiter))
