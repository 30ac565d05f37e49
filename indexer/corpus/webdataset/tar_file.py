"""The members of a tar archive and where their bytes lie; nothing is unpacked to disk.

Python's own `tarfile` ends silently at the first damaged header and reads a long-name header whole, whatever size it
claims. Here damage is an error with a place, and every header is small. Formats: ustar, GNU and pax (POSIX.1-2001).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import ContentError
from ..item import LazyBytes
from ..layouts.lines import open_regular

BLOCK = 512
# GNU and pax headers that carry a long name have some hundred bytes.
MAX_LONG_HEADER = 64 * 1024
# Shards have thousands of members; this many take about 400 MB of memory while their shard is read.
MAX_HEADERS = 1_000_000
# What may follow the end mark: padding to a tape's record.
_TAIL = 64 * 1024

_REGULAR = (b"0", b"\0", b"7")
_KINDS = {
    b"1": "hard link",
    b"2": "symbolic link",
    b"3": "character device",
    b"4": "block device",
    b"5": "folder",
    b"6": "fifo",
    b"S": "sparse file",
}
_WITHOUT_DATA = (b"1", b"2", b"3", b"4", b"5", b"6")
REGULAR, FOLDER = "file", "folder"


@dataclass(frozen=True, slots=True)
class TarMember(LazyBytes):
    """The bytes of one member: `size` of them at `offset` of the archive as it was at `mtime_ns`."""

    path: Path
    offset: int
    size: int
    mtime_ns: int

    def read(self, max_bytes: int) -> bytes:
        """Return the member's bytes; the archive is opened for each call, so any thread may."""
        if self.size > max_bytes:
            raise ContentError("too_large", f"the member has more bytes than the limit: {self.size} > {max_bytes}")
        try:
            with open_regular(self.path) as file:
                data = _at(file.fileno(), self.offset, self.size)
        except OSError as error:
            raise ContentError("unreadable", f"cannot read {self.path.name}: {error.strerror}") from error
        if len(data) != self.size:
            raise ContentError("truncated", f"{self.path.name} became shorter while it was read")
        return data

    @property
    def identity(self) -> Any:
        """Where it lies, and when the archive was written."""
        return [self.offset, self.size, self.mtime_ns]

    @property
    def state(self) -> tuple[int, int]:
        """The member's bytes and the archive's modification time."""
        return self.size, self.mtime_ns

    def is_unchanged(self, file_bytes: int | None, mtime_ns: int | None) -> bool:
        """Whether the member has as many bytes, in an archive that was not written since."""
        return self.state == (file_bytes, mtime_ns)


@dataclass(frozen=True, slots=True)
class TarEntry:
    """One member: its name as it is written, `file`, `folder` or what else it is, and its bytes."""

    name: str
    kind: str
    content: TarMember


@dataclass(slots=True)
class _Ahead:
    """What GNU and pax headers say about the member that follows them."""

    name: bytes | None = None
    size: int | None = None
    sparse: bool = False


@dataclass(slots=True)
class _Walk:
    """One pass over the headers of an archive."""

    fd: int
    path: Path
    length: int
    mtime_ns: int
    ahead: _Ahead = field(default_factory=_Ahead)

    def entries(self) -> Iterator[TarEntry]:
        offset = 0
        for _ in range(MAX_HEADERS):
            block = _at(self.fd, offset, BLOCK)
            if not any(block) and len(block) == BLOCK:
                return self._check_tail(offset)
            if len(block) < BLOCK:
                lost = "it is empty" if not self.length else f"it ends at byte {self.length} without an end mark"
                raise ContentError("truncated", f"{self.path.name}: {lost}; make a new copy")
            kind, size = _checked(block, f"byte {offset} of {self.path.name}")
            if kind in (b"L", b"K", b"x", b"g"):
                self._take_long(kind, self._long(offset, size))
                offset = _next(offset + BLOCK, size)
                continue
            entry, offset = self._entry(block, kind, size, offset)
            yield entry
        raise ContentError("too_many_members", f"{self.path.name} has more than {MAX_HEADERS:,} members; split it")

    def _entry(self, block: bytes, kind: bytes, size: int, offset: int) -> tuple[TarEntry, int]:
        ahead, self.ahead = self.ahead, _Ahead()
        start = offset + BLOCK
        if kind == b"S":
            start = self._after_map(block, start)
        raw = _name(block) if ahead.name is None else ahead.name
        name = raw.split(b"\0", 1)[0].decode("utf-8", "surrogateescape") if ahead.name is None else _text(raw)
        size = size if ahead.size is None else ahead.size
        if kind in _WITHOUT_DATA:
            size = 0
        if start + size > self.length:
            raise ContentError(
                "truncated",
                f"member {name[:200]!a} at byte {offset} of {self.path.name} claims {size} bytes and "
                f"{max(0, self.length - start)} are left; make a new copy",
            )
        content = TarMember(self.path, start, size, self.mtime_ns)
        return TarEntry(name, _word(kind, name, ahead.sparse), content), _next(start, size)

    def _long(self, offset: int, size: int) -> bytes:
        location = f"the long header at byte {offset} of {self.path.name}"
        if size > MAX_LONG_HEADER:
            raise ContentError(
                "header_too_large", f"{location} claims {size} bytes, at most {MAX_LONG_HEADER} are read"
            )
        data = _at(self.fd, offset + BLOCK, size)
        if len(data) < size:
            raise ContentError("truncated", f"{location} is cut short; make a new copy")
        return data

    def _take_long(self, kind: bytes, data: bytes) -> None:
        if kind == b"L":
            self.ahead.name = data.rstrip(b"\0")
        if kind not in (b"x", b"g"):
            return
        fields = _pax(data, self.path.name)
        if kind == b"g":
            if fields.keys() & {b"path", b"size"}:
                raise ContentError("damaged", f"{self.path.name} gives all its members one name or one size")
            return
        self.ahead.name = fields.get(b"path", self.ahead.name)
        self.ahead.sparse = any(key.startswith(b"GNU.sparse") for key in fields)
        if b"size" in fields:
            self.ahead.size = _decimal(fields[b"size"], self.path.name)

    def _after_map(self, block: bytes, offset: int) -> int:
        """The blocks of a GNU sparse map that follow a header; the last one says that none is left."""
        more = block[482]
        while more and offset < self.length:
            following = _at(self.fd, offset, BLOCK)
            more = following[504] if len(following) == BLOCK else 0
            offset += BLOCK
        return offset

    def _check_tail(self, offset: int) -> None:
        if any(_at(self.fd, offset, _TAIL)):
            raise ContentError(
                "trailing_data",
                f"{self.path.name} goes on after its end mark at byte {offset}; joined archives are to be unjoined",
            )


def tar_entries(path: Path) -> Iterator[TarEntry]:
    """Every member of an archive, in its order.

    Raises:
        ContentError: The archive cannot be read, is damaged, cut short or no tar; after the members up to there.
    """
    try:
        with open_regular(path) as file:
            status = os.fstat(file.fileno())
            yield from _Walk(file.fileno(), path, status.st_size, status.st_mtime_ns).entries()
    except OSError as error:
        raise ContentError("unreadable", f"{path.name} cannot be read: {error.strerror}") from error


def _at(fd: int, offset: int, size: int) -> bytes:
    """`size` bytes at `offset`, fewer only at the end of the file; in one call as a rule."""
    data = os.pread(fd, size, offset)
    while len(data) < size and (more := os.pread(fd, size - len(data), offset + len(data))):
        data += more
    return data


def _next(start: int, size: int) -> int:
    return start + (size + BLOCK - 1) // BLOCK * BLOCK


def _checked(block: bytes, location: str) -> tuple[bytes, int]:
    """The kind and the size in a header whose checksum is right."""
    written = _octal(block[148:156])
    if written is None or written != sum(block) - sum(block[148:156]) + 8 * ord(" "):
        what = "no tar archive" if location.startswith("byte 0 ") else "damaged: no tar header is there"
        hint = "; a compressed archive is to be unpacked to .tar first" if block[:2] == b"\x1f\x8b" else ""
        raise ContentError("damaged", f"{location} is {what}{hint}")
    size = _number(block[124:136])
    if size is None or size < 0:
        raise ContentError("damaged", f"{location} holds a header with no sensible size: {block[124:136]!r}")
    return block[156:157], size


def _number(cell: bytes) -> int | None:
    """A number in octal digits, or in GNU's base 256 when the first byte is 0x80; negative ones begin with 0xff."""
    return int.from_bytes(cell[1:], "big") if cell[0] == 0x80 else _octal(cell)


def _octal(cell: bytes) -> int | None:
    digits = cell.strip(b" \0")
    if not digits:
        return 0
    return int(digits, 8) if all(48 <= digit <= 55 for digit in digits) else None


def _decimal(digits: bytes, name: str) -> int:
    if not digits.isdigit() or len(digits) > 19:
        raise ContentError("damaged", f"{name} holds a header with the size {digits[:40]!r}")
    return int(digits)


def _name(block: bytes) -> bytes:
    name = block[:100].split(b"\0", 1)[0]
    prefix = block[345:500].split(b"\0", 1)[0] if block[257:265] == b"ustar\x0000" else b""
    return prefix + b"/" + name if prefix else name


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _word(kind: bytes, name: str, sparse: bool) -> str:
    if sparse:
        return "sparse file"
    if kind in _REGULAR:
        # Before ustar a folder was a file whose name ends so.
        return FOLDER if name.endswith("/") else REGULAR
    return _KINDS.get(kind, f"member of unknown type {kind!a}")


def _pax(data: bytes, name: str) -> dict[bytes, bytes]:
    """The records `LENGTH KEY=VALUE` of a pax header, each with its line end; LENGTH counts the whole record."""
    fields: dict[bytes, bytes] = {}
    start = 0
    while start < len(data) and data[start] != 0:
        digits, space, _ = data[start : start + 8].partition(b" ")
        end = start + int(digits) if space and digits.isdigit() else 0
        key, equals, value = data[start + len(digits) + 1 : end].partition(b"=")
        if not equals or end > len(data) or not value.endswith(b"\n"):
            raise ContentError("damaged", f"{name} holds a pax header that cannot be read")
        fields[key], start = value[:-1], end
    return fields
