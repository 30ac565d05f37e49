"""What decoding an image may cost: bounds checked before it, and a clock that ends it.

The cost of most files is that of their pixels and bytes, which have limits of their own. What is looked for here costs
more: a pass over all pixels for some bytes (a JPEG's scans, frames that an AVIF never shows), pieces far larger or far
more than the image (a TIFF's tiles), and parts that Pillow reads byte by byte in Python.
"""

from __future__ import annotations

import io
import re
import struct
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

from PIL import Image

from .avif import check_frames
from .errors import ImageError

MOST_SCANS = 100
"""Of a JPEG; usual encoders write up to 14. libtiff has the same limit for JPEG within TIFF."""
MOST_TIFF_PIECES = 100_000
"""Strips or tiles of a TIFF: each costs microseconds and a hundred bytes."""
_FEW_SCANS = 16
_START_OF_SCAN = b"\xff\xda"
# A marker that stands in the coded data of a scan: anything but an escaped 0xFF, a restart or filling.
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)
_MOST_SEGMENTS = 100_000


# A smaller file costs seconds only by the structure that `check_cost` looks at, and reads of plain bytes cost less.
_SMALL_FILE = 128 * 1024


def timed(data: bytes, seconds: float) -> io.BytesIO:
    """Return the bytes of a file as Pillow is to read them."""
    return io.BytesIO(data) if len(data) <= _SMALL_FILE else TimedFile(data, seconds)


class TimedFile(io.BytesIO):
    """The bytes of a file, which can no longer be read when its time is over.

    Pillow reads in pieces of 64 KiB and decodes each before it reads the next one, so this ends a decoder between two
    pieces. Counted is what this thread computes, not what it waits for: a busy machine rejects no other images.

    Attributes:
        piece: The most bytes that are given at once. For a JPEG of many scans this ends before the next scan, so that
            the clock is looked at between two of them; a decoder in Python is quadratic in what it is given.
    """

    def __init__(self, data: bytes, seconds: float, *, piece: int | None = None) -> None:
        super().__init__(data)
        self.piece = piece
        self._seconds = seconds
        self._look, self._end = time.monotonic() + seconds, time.thread_time() + seconds

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next bytes, up to the next scan of a JPEG that has many.

        Raises:
            ImageError: With `too_slow`.
        """
        # The clock of a thread is a call to the system, that of the wall is none.
        if time.monotonic() > self._look and time.thread_time() > self._end:
            limit = f"the limit of {self._seconds:g} seconds of one core"
            raise ImageError("too_slow", f"decoding takes longer than {limit}")
        if self.piece is None:
            return super().read(size)
        data = super().read(self.piece if size is None or size < 0 else min(size, self.piece))
        if (scan := data.find(_START_OF_SCAN, 1)) > 0:
            self.seek(scan - len(data), io.SEEK_CUR)
            return data[:scan]
        return data


def check_cost(image: Image.Image, data: bytes, max_pixels: int, seconds: float) -> None:
    """Check what an opened file that was not yet decoded would cost, by its own structure.

    Raises:
        ImageError: With `too_slow`, or `too_many_pixels`.
    """
    if image.format in ("JPEG", "MPO"):
        if not _has_one_scan(image, data) and _starts(data, _FEW_SCANS) > _FEW_SCANS:
            _check_scans(data)
            _read_in_pieces(image, data, seconds)
    elif image.format == "PPM" and image.tile[0][0] == "ppm_plain":  # type: ignore[attr-defined]
        _read_in_pieces(image, data, seconds)
    elif image.format == "TIFF":
        _check_tiles(image, data, max_pixels)
    elif image.format == "AVIF":
        check_frames(data, max_pixels)


_PIECE = 8192


def _read_in_pieces(image: Any, data: bytes, seconds: float) -> None:
    file = TimedFile(data, seconds, piece=_PIECE)
    file.seek(image.fp.tell())
    image.fp = file


def _has_one_scan(image: Any, data: bytes) -> bool:
    """Return whether the first scan of a JPEG is known to be the only one that is decoded: sequential, of all bands."""
    end, bands = image.fp.tell(), image.layers
    return not image.info.get("progressive") and data[end - 2 * bands - 6 : end - 2 * bands - 3] == bytes(
        (0, 2 * bands + 6, bands)
    )


def _starts(data: bytes, limit: int) -> int:
    """Return how often the bytes of a scan's marker stand in the data, previews included, counted to most + 1."""
    return sum(1 for _ in islice(re.finditer(_START_OF_SCAN, data), limit + 1))


def _check_scans(data: bytes) -> None:
    scans = 0
    for count, marker in enumerate(_segments(data)):
        scans += marker == _START_OF_SCAN[1]
        if scans > MOST_SCANS or count > _MOST_SEGMENTS:
            what = "scans" if scans > MOST_SCANS else "segments"
            limit = MOST_SCANS if scans > MOST_SCANS else _MOST_SEGMENTS
            raise ImageError("too_slow", f"a JPEG with more than {limit} {what}; save it anew")


def _segments(data: bytes) -> Iterator[int]:
    """Yield the marker of each segment of the first image of a file."""
    offset = 2
    while (match := _MARKER.search(data, offset)) is not None:
        offset, marker = match.end(), data[match.end() - 1]
        if marker == 0xD9:  # the end; what follows are further images
            return
        yield marker
        length = int.from_bytes(data[offset : offset + 2], "big")
        offset += length


_TIFF_STARTS = (b"II*\0", b"MM\0*", b"MM*\0", b"II\0*", b"MM\0+", b"II+\0")
_TILE_WIDTH, _TILE_LENGTH = 322, 323
_PIECE_TAGS = (273, 279, 324, 325)  # offsets and sizes of strips, and of tiles
_COMPRESSION, _JPEG_IN_TIFF = 259, (6, 7)


def check_pieces(data: bytes) -> None:
    """Check how many strips or tiles a TIFF has, before it is opened: Pillow lists them all then, seconds for millions.

    Raises:
        ImageError: With `too_slow`.
    """
    if data[:4] not in _TIFF_STARTS:
        return
    try:
        pieces = max(_counts(data), default=0)
    except struct.error:  # no such directory; Pillow says so
        return
    if pieces > MOST_TIFF_PIECES:
        raise ImageError("too_slow", f"a TIFF of {pieces} pieces; at most {MOST_TIFF_PIECES} are read: save it anew")


def _counts(data: bytes) -> Iterator[int]:
    """Yield the counts of the tags that list strips or tiles in the first directory of a TIFF."""
    order, big = "<" if data[:2] == b"II" else ">", b"+" in data[2:4]
    (offset,) = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, 8 if big else 4)
    entry, entries = struct.Struct(f"{order}HH{'Q8x' if big else 'I4x'}"), f"{order}{'Q' if big else 'H'}"
    (tags,) = struct.unpack_from(entries, data, offset)
    offset += struct.calcsize(entries)
    for _ in range(min(tags, 65536)):
        tag, _, count = entry.unpack_from(data, offset)
        offset += entry.size
        if tag in _PIECE_TAGS:
            yield count


def _check_tiles(image: Image.Image, data: bytes, max_pixels: int) -> None:
    tags: Any = getattr(image, "tag_v2")  # noqa: B009
    width, length = tags.get(_TILE_WIDTH), tags.get(_TILE_LENGTH)
    if isinstance(width, int) and isinstance(length, int) and width * length > max_pixels:
        tile = f"a tile of {width} x {length}"
        raise ImageError("too_many_pixels", f"{tile} is more than the limit of {max_pixels} pixels")
    if tags.get(_COMPRESSION) in _JPEG_IN_TIFF:
        limit = _FEW_SCANS * max(len(tags.get(tag, ())) for tag in _PIECE_TAGS)
        if _starts(data, limit) > limit:
            raise ImageError("too_slow", "a TIFF with many scans in its JPEG; save it anew")
