"""Text files of a corpus, opened with care and read line by line, and the layout of one text a line."""

from __future__ import annotations

import errno
import gzip
import io
import os
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import pyarrow as pa

from ...errors import SourceError
from ..item import MAX_TEXT_BYTES, Item, Rejection, one_line, text_item

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BOM = b"\xef\xbb\xbf"
# A line of JSON may hold an image in base64; one line of the longest such files is still far below this.
MAX_RECORD_BYTES = 128 * 2**20
# A file that must be held whole. COCO's largest captions have a tenth of it.
MAX_WHOLE_BYTES = 2 * 2**30
# Past so much of one line the file is none of lines.
_MAX_SKIP = 256 * 2**20
_KINDS = {stat.S_IFDIR: "folder", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}


def check_regular(path: Path) -> None:
    """Refuse what is no regular file: reading a pipe may wait for ever, and a device may have no end.

    Raises:
        OSError: It is none, or is not there.
    """
    _check_kind(path.stat().st_mode, path)


def open_bytes(path: Path) -> BinaryIO:
    """The bytes of a regular file, unpacked when its name ends in `.gz`; the caller closes it.

    Raises:
        OSError: It cannot be read, or is a pipe, a device or a folder.
    """
    if path.suffix.lower() == ".gz":
        return io.BufferedReader(_Unpacked(path))
    return io.BufferedReader(open_regular(path))


def open_regular(path: Path) -> io.FileIO:
    """A regular file, unbuffered and as it stands on disk.

    Raises:
        OSError: It cannot be read, or is a pipe, a device or a folder.
    """
    # Asked before, since opening a device can have an effect, and once more of what was opened, without waiting for it.
    check_regular(path)
    file = io.FileIO(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)))
    try:
        _check_kind(os.fstat(file.fileno()).st_mode, path)
    except OSError:
        file.close()
        raise
    return file


def _check_kind(mode: int, path: Path) -> None:
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "device")
        raise OSError(errno.EINVAL, f"it is a {kind}, not a regular file", str(path))


class _Unpacked(io.RawIOBase):
    """A gzipped file whose damage is an `OSError`, as that of any other file is; `gzip` lets zlib's own error out."""

    def __init__(self, path: Path) -> None:
        self._packed = open_regular(path)
        self._file = gzip.GzipFile(fileobj=self._packed)

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
        self._packed.close()
        super().close()


def read_whole(path: Path, max_bytes: int = MAX_WHOLE_BYTES) -> bytes:
    """All bytes of a file, without its BOM.

    Raises:
        OSError: It cannot be read, or has more than `max_bytes` bytes once unpacked.
    """
    with open_bytes(path) as file:
        size = path.stat().st_size
        # The size of a packed file says nothing, so that it is read up to the limit.
        data = b"" if size > max_bytes else file.read(max_bytes + 1)
    if max(size, len(data)) > max_bytes:
        raise OSError(errno.EFBIG, f"it has more than {max_bytes} bytes", str(path))
    return data.removeprefix(BOM)


def bounded_lines(file: BinaryIO, max_bytes: int) -> Iterator[bytes]:
    """Every line with its end; of a line that is too long only the start, still too long with a BOM taken off.

    Raises:
        OSError: A line is so long that the file is none of lines.
    """
    cut = max_bytes + len(BOM) + 1
    while line := file.readline(cut):
        if len(line) == cut and not line.endswith(b"\n"):
            _skip_line(file)
        yield line


def _skip_line(file: BinaryIO) -> None:
    skipped = 0
    while (part := file.readline(MAX_TEXT_BYTES)) and not part.endswith(b"\n"):
        skipped += len(part)
        if skipped > _MAX_SKIP:
            raise OSError(errno.EFBIG, f"a line of it has more than {_MAX_SKIP} bytes")


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Line number (from 1) and bytes of every line that is not blank, without its end and the file's BOM.

    Of a line above `MAX_TEXT_BYTES` comes the first part, which is still too long for a text.
    """
    with open_bytes(path) as file:
        for number, line in enumerate(bounded_lines(file, MAX_TEXT_BYTES), start=1):
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
