"""A text file with one text a line."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import pyarrow as pa

from ...errors import SourceError
from ..item import Item, Rejection, one_line, text_item

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BOM = b"\xef\xbb\xbf"


def open_bytes(path: Path) -> BinaryIO:
    """The bytes of a file, unpacked when its name ends in `.gz`; the caller closes it."""
    return io.BufferedReader(_Unpacked(path)) if path.suffix.lower() == ".gz" else path.open("rb")


class _Unpacked(io.RawIOBase):
    """A gzipped file whose damage is an `OSError`, as that of any other file is; `gzip` lets zlib's own error out."""

    def __init__(self, path: Path) -> None:
        self._file = gzip.open(path, "rb")  # noqa: SIM115 - `close` closes it

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read unpacked bytes."""
        try:
            return self._file.readinto(buffer)
        except zlib.error as error:
            raise gzip.BadGzipFile(str(error)) from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Line number (from 1) and bytes of every line that is not blank, without its end and the file's BOM."""
    with open_bytes(path) as file:
        for number, line in enumerate(file, start=1):
            text = line.removeprefix(BOM) if number == 1 else line
            if text.strip():
                yield number, text.rstrip(b"\r\n")


class LinesSource:
    """The lines of a text file as texts `NAME#0`, `NAME#1`, ...; blank lines do not count.

    Raises:
        SourceError: The file has no line with text in it.
    """

    def __init__(self, path: Path) -> None:
        self.root = path.parent
        self.name = f"text file {path.name}"
        self.notes: tuple[str, ...] = ()
        self.metadata_schema = pa.schema([])
        self._path = path
        try:
            first = next(read_lines(path), None)
        except (OSError, EOFError) as error:
            raise SourceError(f"text file {str(path)!r} cannot be read: {one_line(error)}") from error
        if first is None:
            raise SourceError(f"text file {str(path)!r} holds no text: write one text a line")

    def items(self) -> Iterator[Item | Rejection]:
        """One text a line, in the order of the file."""
        name = self._path.name
        try:
            for number, (line, text) in enumerate(read_lines(self._path)):
                item = Item(
                    item_id=f"{name}#{number}",
                    collection="texts",
                    content="",
                    uri=name,
                    location=f"line {line} of {name}",
                )
                yield text_item(item, text)
        except (OSError, EOFError) as error:
            raise SourceError(f"{name} cannot be read to its end: {one_line(error)}; make a new copy") from error
