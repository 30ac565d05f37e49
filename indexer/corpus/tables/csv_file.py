"""Tables written as CSV: any of four delimiters, quoted line ends, a BOM, gzip."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv

from ...errors import SourceError
from ..item import one_line, shown
from ..layouts.lines import BOM, open_bytes
from .column_types import exact_numbers, from_file, keepable
from .columns import BadRecord, Record, Roles
from .csv_quotes import read_quotes

DELIMITERS = ",;\t|"
MAX_HEADER = 100_000
MAX_PREAMBLE = 100
BLOCK_BYTES = 32 * 2**20
BATCH_ROWS = 8192
QUOTINGS = ("auto", "csv", "none")
# Spreadsheets write the delimiter into a line of its own.
_SEPARATOR_LINE = re.compile(r'\s*"?sep=([^\w"])"?\s*$', re.IGNORECASE)


class CsvFile:
    """A `.csv` or `.tsv` file, also gzipped, with a header row.

    Types of metadata columns are inferred over the whole file. Rows are held in memory as Arrow columns while they
    are read, so a file needs about its own size. Arrow is told that the file is Latin-1, in which every byte is a
    character: so a cell that is not UTF-8 neither stops it nor changes, and its row is found out here.

    Lines before the header are left out: blank ones, `sep=;`, and comments that start with `#`. `quoting` says whether
    quotes are CSV's: `csv` and `none` decide it, `auto` looks whether they would swallow rows.

    Raises:
        SourceError: The header cannot be read, is not UTF-8, or names a column twice.
    """

    word = "row"

    def __init__(self, path: Path, delimiter: str | None = None, quoting: str = "auto") -> None:
        self._path = path
        if delimiter is not None and (len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n'):
            raise SourceError(f"delimiter {delimiter!r} cannot separate cells; give one character such as ';' or a tab")
        if quoting not in QUOTINGS:
            raise SourceError(f"quoting {quoting!r} is unknown; give one of {', '.join(QUOTINGS)}")
        self._quoting = quoting
        self._skipped, header, written = _header_line(path, quotes=quoting != "none")
        text = _decoded_header(header, path)
        self._delimiter = delimiter or written or _sniff(text)
        self.columns = tuple(name.strip() for name in self._split_header(text))
        # By name: the bytes of the header cell, as Latin-1, which is how Arrow is made to see the whole file.
        self._written = dict(zip(self.columns, self._split_header(header.decode("latin-1")), strict=True))
        twice = [name for name, count in Counter(self.columns).items() if count > 1 and name]
        if twice:
            raise SourceError(f"{path.name} names column {shown(twice[0])!r} more than once in its header; rename one")
        self._table: pa.Table | None = None
        self._bad: list[BadRecord] = []
        self.notes: tuple[str, ...] = ()
        if self._skipped:
            self.notes = (f"{self._skipped} lines before the header of {path.name} are left out",)

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
            quotes = self._has_quotes()
            # Inference would turn an id "007" into 7.
            raw = {self._written[column]: pa.string() for column in roles.raw}
            kept = [self._written[column] for column in dict.fromkeys((*roles.raw, *roles.metadata, self.columns[-1]))]
            table = self._parsed(raw, kept, quotes)
            if not len(table) and not self._bad:
                raise SourceError(f"{self._path.name} has a header and no rows")
            self._table = self._with_all_digits(table, quotes)
        return self._table

    def _parsed(self, kinds: dict[str, pa.DataType], names: Sequence[str], quotes: bool) -> pa.Table:
        reading = pa_csv.ReadOptions(
            use_threads=False, block_size=BLOCK_BYTES, encoding="latin-1", skip_rows=self._skipped
        )
        parsing = pa_csv.ParseOptions(
            delimiter=self._delimiter,
            quote_char='"' if quotes else False,
            newlines_in_values=quotes,
            invalid_row_handler=self._skip,
        )
        converting = pa_csv.ConvertOptions(column_types=kinds, include_columns=names)
        try:
            return pa_csv.read_csv(self._path, reading, parsing, converting)
        except (pa.ArrowException, OSError) as error:
            if "straddling" in str(error) or "block" in str(error):
                raise SourceError(
                    f"{self._path.name} has a row of more than {BLOCK_BYTES // 2**20} MiB; split it, or use Parquet"
                ) from error
            raise SourceError(
                f"{self._path.name} cannot be read as CSV: {one_line(error)}; check its quotes"
            ) from error

    def _with_all_digits(self, table: pa.Table, quotes: bool) -> pa.Table:
        """`table` with the columns of numbers as text where a number would lose digits: those above 2^53, and 007."""
        numbers = [field.name for field in table.schema if pa.types.is_int64(field.type) or field.type == pa.float64()]
        if not numbers:
            return table
        bad = self._bad
        self._bad = []  # the second pass finds the same
        texts = self._parsed(dict.fromkeys(numbers, pa.string()), numbers, quotes)
        self._bad = bad
        for name in numbers:
            exact = exact_numbers(texts[name], table[name])
            if exact is not None:
                table = table.set_column(table.schema.get_field_index(name), name, exact)
        return table

    def _has_quotes(self) -> bool:
        """Whether quotes are read as CSV's.

        Raises:
            SourceError: One is never closed, or would swallow rows in a table that needs quoting elsewhere.
        """
        if self._quoting == "none":
            return False
        quotes = read_quotes(self._lines(), self._delimiter, self._skipped + 1)
        first, last = quotes.swallowed
        is_plain = self._delimiter == "\t" and not quotes.quoted
        if self._quoting == "auto" and is_plain and (first or quotes.unclosed or quotes.loose):
            line = first or quotes.unclosed or quotes.loose
            self.notes = (
                *self.notes,
                f"quotes in {self._path.name} are taken for signs like others, since the one in line {line} closes no "
                "cell; --quoting csv reads them as CSV does",
            )
            return False
        if first and self._quoting == "auto":
            raise SourceError(
                f"the quote that opens a cell in line {first} of {self._path.name} takes the rows up to line {last} "
                'into it; double it ("") or close it, or say --quoting none where quotes are signs like others, '
                "--quoting csv where the cell does hold these lines"
            )
        if quotes.unclosed:
            raise SourceError(
                f"a quote that opens in line {quotes.unclosed} of {self._path.name} is never closed; close it, double "
                'it ("") as a sign, or say --quoting none where quotes are signs like others'
            )
        return True

    def _lines(self) -> Iterator[str]:
        """The lines from the header on; every kind of line end is one."""
        try:
            with io.TextIOWrapper(open_bytes(self._path), encoding="latin-1", newline=None) as file:
                for number, line in enumerate(iter(partial(file.readline, BLOCK_BYTES), "")):
                    if len(line) == BLOCK_BYTES:
                        raise SourceError(
                            f"line {number + 1} of {self._path.name} is longer than {BLOCK_BYTES // 2**20} MiB; split "
                            "it, or write the table as Parquet"
                        )
                    if number >= self._skipped:
                        yield line
        except (OSError, EOFError) as error:
            raise SourceError(f"{self._path.name} cannot be read: {one_line(error)}; make a new copy") from error

    def _split_header(self, header: str) -> list[str]:
        if self._quoting == "none":
            return header.rstrip("\r\n").split(self._delimiter)
        return next(csv.reader(io.StringIO(header, newline=""), delimiter=self._delimiter))

    def _skip(self, row: Any) -> str:
        number = row.number - 1 - self._skipped
        detail = (
            f"row {number} of {self._path.name} has {row.actual_columns} cells where the header has "
            f"{row.expected_columns}"
        )
        self._bad.append(BadRecord(number=number, reason="wrong_cell_count", detail=detail))
        return "skip"


def _header_line(path: Path, *, quotes: bool) -> tuple[int, bytes, str | None]:
    """How many lines stand before the header, the header (several lines when a name is quoted), and its delimiter.

    The delimiter is None where no line such as `sep=;` tells it.
    """
    skipped, delimiter = 0, None
    try:
        with open_bytes(path) as file:
            header, following = file.readline(BLOCK_BYTES), file.readline(BLOCK_BYTES)
            while header and skipped < MAX_PREAMBLE:
                line = header.removeprefix(BOM)
                separator = _SEPARATOR_LINE.match(line.decode("latin-1"))
                if separator is None and line.strip() and not _is_comment(line, following):
                    break
                delimiter = separator[1] if separator else delimiter
                skipped, header, following = skipped + 1, following, file.readline(BLOCK_BYTES)
            while quotes and header.count(b'"') % 2 and len(header) <= MAX_HEADER and following:
                header, following = header + following, file.readline(BLOCK_BYTES)
    except (OSError, EOFError) as error:
        raise SourceError(f"{path.name} cannot be read: {one_line(error)}; make a new copy") from error
    return skipped, header, delimiter


def _is_comment(line: bytes, following: bytes) -> bool:
    """Whether a line that starts with `#` stands before a header, rather than being one such as `#id,image`."""
    if not line.startswith(b"#"):
        return False
    here, there = (max(text.count(mark.encode()) for mark in DELIMITERS) for text in (line, following))
    words = line[1:2].isspace() and (there > 0 or following.startswith(b"#"))
    return here < there or words or (here == 0 and following.startswith(b"#"))


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
