"""Whether the quotes of a CSV file are CSV's own: a stray one that opens a cell would swallow the rows after it.

In CSV a quote at the start of a cell opens it, and the cell goes on over line ends up to the next single quote. Files
of captions are often written without any quoting, so that `"hello he said` opens a cell by accident and the rows up
to the next quote would become one cell. Both look alike to a parser; here is told which it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from encoders.images import IMAGE_SUFFIXES

_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?$")
_RUNS = re.compile(r"\d+|[^\W\d_]+")
# A cell that holds more lines than these is judged by the first of them.
MAX_JUDGED = 1000
MAX_SHAPE = 200


@dataclass(slots=True)
class Quotes:
    """What the quotes of a file say; lines count from 1, and 0 stands for none.

    Attributes:
        swallowed: First and last line of the first cell that would hold rows of the table.
        unclosed: The line where a quote opens a cell that nothing closes.
        loose: The first line with something between a closing quote and the end of its cell.
        quoted: The first line that CSV's quoting alone explains.
    """

    swallowed: tuple[int, int] = (0, 0)
    unclosed: int = 0
    loose: int = 0
    quoted: int = 0


def read_quotes(lines: Iterable[str], delimiter: str, first: int = 1) -> Quotes:
    """Judge the quotes of a table by its lines from the header on, which is line `first` of the file."""
    quotes = Quotes()
    columns = -1
    for record in _records(lines, delimiter, first):
        if columns < 0:
            columns = record.separators
            continue
        if not record.is_closed:
            quotes.unclosed = record.first
        elif record.is_swallowed(delimiter, columns):
            quotes.swallowed = (
                quotes.swallowed if quotes.swallowed[0] else (record.first, record.first + record.count - 1)
            )
        elif record.has_rest:
            quotes.loose = quotes.loose or record.first
        elif record.count > 1 or record.is_quoted(columns):
            quotes.quoted = quotes.quoted or record.first
    return quotes


@dataclass(slots=True)
class _Record:
    """One record as CSV has it.

    Attributes:
        first: The number of its first line.
        lines: Its lines, or the first of them.
        count: How many lines it has.
        opened: The cell of the first line that stays open at its end.
        separators: Those that stand outside quotes.
        is_closed: A quote closes its last cell.
        has_rest: Something stands between a closing quote and the end of its cell.
        has_doubled: A cell in quotes holds a doubled quote.
        has_separator: A cell in quotes holds a separator.
    """

    first: int
    lines: list[str]
    count: int = 1
    opened: int = 0
    separators: int = 0
    is_closed: bool = True
    has_rest: bool = False
    has_doubled: bool = False
    has_separator: bool = False

    def is_quoted(self, columns: int) -> bool:
        """Whether the line would be another one without CSV's quoting."""
        return self.separators == columns and (self.has_doubled or self.has_separator)

    def is_swallowed(self, delimiter: str, columns: int) -> bool:
        """Whether a cell over several lines holds rows of its own rather than words."""
        if self.count == 1:
            return False
        return self.has_rest or _Alike(self, delimiter, columns).share() > 0.5


class _Alike:
    """Compares the lines of one cell with the row around it."""

    def __init__(self, record: _Record, delimiter: str, columns: int) -> None:
        self._rows = [line.rstrip("\n").split(delimiter) for line in record.lines]
        self._opened = record.opened
        self._columns = columns
        # A tab or a bar stands in hardly any text.
        self._rare = delimiter in "\t|" and columns > 0

    def share(self) -> float:
        """The share of the lines that look like rows; 0 where fewer than two do."""
        counted = [row for row in self._rows if len(row) == self._columns + 1]
        if len(counted) < 2 or not self._columns:
            return 0.0
        rows = [row for row in counted if self._fits(row)]
        return len(rows) / len(self._rows) if len(rows) > 1 else 0.0

    def _fits(self, row: list[str]) -> bool:
        """Whether a cell of the row is of the kind that the real row has in the same column."""
        first, last = self._rows[0], self._rows[-1]
        before = range(min(self._opened, len(row), len(first)))
        after = [at for at in range(self._opened + 1, len(row)) if len(last) == len(row)]
        pairs = [(row[at], first[at]) for at in before] + [(row[at], last[at]) for at in after]
        if self._rare:
            # The separators are evidence; where the real cell is a word, any will do.
            return all(_same_kind(one, other) or not _is_typed(other) for one, other in pairs)
        return bool(pairs) and all(_same_kind(one, other) for one, other in pairs)


def _same_kind(one: str, other: str) -> bool:
    """Two names of images, two numbers, or two keys of one shape such as `AB-12` and `C-345`; never two words."""
    shapes = [_shape(cell) for cell in (one, other)]
    return _is_typed(one) and shapes[0] == shapes[1]


def _is_typed(cell: str) -> bool:
    """Whether a cell is of a kind that can be told: the name of an image, a number, a key with digits."""
    return "9" in _shape(cell)


def _shape(cell: str) -> str:
    """What cells of one kind have in common; empty for words of several parts."""
    cell = cell.strip().strip('"')
    if cell.lower().endswith(IMAGE_SUFFIXES):
        return "9.image"
    if _NUMBER.match(cell):
        return "9"
    if len(cell) > MAX_SHAPE or any(letter.isspace() for letter in cell):
        return ""
    return _RUNS.sub(lambda run: "9" if run[0][0].isdigit() else "a", cell)


def _records(lines: Iterable[str], delimiter: str, first: int) -> Iterator[_Record]:
    """The records that quotes have a part in, and before them the header."""
    record: _Record | None = None
    for number, line in enumerate(lines, start=first):
        if record is not None:
            record.count += 1
            if len(record.lines) < MAX_JUDGED:
                record.lines.append(line)
            is_open = _scan(record, line, delimiter, is_open=True)
        elif '"' in line or number == first:
            record = _Record(number, [line])
            is_open = _scan(record, line, delimiter, is_open=False)
        else:
            continue
        if not is_open:
            yield record
            record = None
    if record is not None:
        record.is_closed = False
        yield record


def _scan(record: _Record, line: str, delimiter: str, *, is_open: bool) -> bool:
    """Take note of a line that starts in an open cell or at a new one; whether a cell stays open at its end."""
    at = 0
    while True:
        if is_open or line.startswith('"', at):
            start = at if is_open else at + 1
            end = _closing(record, line, start)
            if end < 0:
                record.opened = record.separators if record.count == 1 else record.opened
                return True
            record.has_separator |= delimiter in line[start:end]
            at, is_open = end + 1, False
        else:
            end = -1
        stop = line.find(delimiter, at)
        if end >= 0 and line[at : stop if stop >= 0 else len(line)].strip():
            record.has_rest = True
        if stop < 0:
            return False
        record.separators += 1
        at = stop + 1


def _closing(record: _Record, line: str, at: int) -> int:
    """Where the quote stands that closes a cell; -1 when none does."""
    while (at := line.find('"', at)) >= 0 and line.startswith('"', at + 1):
        record.has_doubled = True
        at += 2
    return at
