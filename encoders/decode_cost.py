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

from .errors import ImageError

MOST_SCANS = 100
"""Of a JPEG; usual encoders write up to 14. libtiff has the same limit for JPEG within TIFF."""
MOST_FRAMES = 4
"""Of one image in an AVIF, which has up to four layers; further ones are decoded and never shown."""
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
        _check_frames(data)


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


def _starts(data: bytes, most: int) -> int:
    """Return how often the bytes of a scan's marker stand in the data, previews included, counted to most + 1."""
    return sum(1 for _ in islice(re.finditer(_START_OF_SCAN, data), most + 1))


def _check_scans(data: bytes) -> None:
    scans = 0
    for count, marker in enumerate(_segments(data)):
        scans += marker == _START_OF_SCAN[1]
        if scans > MOST_SCANS or count > _MOST_SEGMENTS:
            what = "scans" if scans > MOST_SCANS else "segments"
            most = MOST_SCANS if scans > MOST_SCANS else _MOST_SEGMENTS
            raise ImageError("too_slow", f"a JPEG with more than {most} {what}; save it anew")


def _segments(data: bytes) -> Iterator[int]:
    """Yield the marker of each segment of the first image of a file."""
    place = 2
    while (found := _MARKER.search(data, place)) is not None:
        place, marker = found.end(), data[found.end() - 1]
        if marker == 0xD9:  # the end; what follows are further images
            return
        yield marker
        length = int.from_bytes(data[place : place + 2], "big")
        place += length


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
    (place,) = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, 8 if big else 4)
    entry, entries = struct.Struct(f"{order}HH{'Q8x' if big else 'I4x'}"), f"{order}{'Q' if big else 'H'}"
    (tags,) = struct.unpack_from(entries, data, place)
    place += struct.calcsize(entries)
    for _ in range(min(tags, 65536)):
        tag, _, count = entry.unpack_from(data, place)
        place += entry.size
        if tag in _PIECE_TAGS:
            yield count


def _check_tiles(image: Image.Image, data: bytes, max_pixels: int) -> None:
    tags: Any = getattr(image, "tag_v2")  # noqa: B009
    width, length = tags.get(_TILE_WIDTH), tags.get(_TILE_LENGTH)
    if isinstance(width, int) and isinstance(length, int) and width * length > max_pixels:
        tile = f"a tile of {width} x {length}"
        raise ImageError("too_many_pixels", f"{tile} is more than the limit of {max_pixels} pixels")
    if tags.get(_COMPRESSION) in _JPEG_IN_TIFF:
        most = _FEW_SCANS * max(len(tags.get(tag, ())) for tag in _PIECE_TAGS)
        if _starts(data, most) > most:
            raise ImageError("too_slow", "a TIFF with many scans in its JPEG; save it anew")


# --- AVIF: boxes of ISO 14496-12 around the units of AV1 ---

_HOLDERS = {b"moov", b"trak", b"mdia", b"minf", b"stbl"}
_FRAME_UNITS = (3, 6)
# A grid of 89 megapixels in cells of 64 x 64, the smallest allowed, has 22,000 of them.
_MOST_BOXES = 50_000


def _check_frames(data: bytes) -> None:
    try:
        images = list(_coded_images(memoryview(data)))
    except (struct.error, IndexError, ValueError) as error:
        raise ImageError("corrupt", f"the boxes of this AVIF cannot be read: {error}") from error
    if sum(len(image) for image in images) > len(data):
        raise ImageError("too_slow", "an AVIF whose images use the same bytes again and again; save it anew")
    for image in images:
        frames = _frames(image)
        if frames > MOST_FRAMES:
            raise ImageError(
                "too_slow", f"an AVIF with {frames} or more frames in one image; at most {MOST_FRAMES} are decoded"
            )


def _frames(units: bytes) -> int:
    """Return how many frames are coded in the units of one image, at most one more than are allowed."""
    place = frames = 0
    while place < len(units) and frames <= MOST_FRAMES:
        head = units[place]
        frames += (head >> 3) & 15 in _FRAME_UNITS
        place += 2 if head & 4 else 1
        if not head & 2:  # without a size the unit is the rest
            break
        size, place = _leb128(units, place)
        place += size
    return frames


def _leb128(units: bytes, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 56, 7):
        byte = units[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            break
    return value, place


def _boxes(view: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    place = 0
    for _ in range(_MOST_BOXES):
        if place + 8 > len(view):
            return
        size, kind = struct.unpack_from(">I4s", view, place)
        head = 8
        if size == 1:
            (size,), head = struct.unpack_from(">Q", view, place + 8), 16
        size = size or len(view) - place
        if size < head:
            raise ValueError(f"a box of {size} bytes")
        yield kind, view[place + head : place + size]
        place += size
    raise ValueError(f"more than {_MOST_BOXES} boxes in one")


def _coded_images(view: memoryview) -> Iterator[bytes]:
    """Yield the AV1 units of each image item, and of the first sample of each track."""
    for kind, body in _boxes(view):
        if kind == b"meta":
            yield from _items(view, dict(_boxes(body[4:])))
        elif kind == b"moov":
            for table in _sample_tables(body):
                yield _first_sample(view, table)


def _sample_tables(view: memoryview) -> Iterator[dict[bytes, memoryview]]:
    for kind, body in _boxes(view):
        if kind == b"stbl":
            yield dict(_boxes(body))
        elif kind in _HOLDERS:
            yield from _sample_tables(body)


def _first_sample(view: memoryview, table: dict[bytes, memoryview]) -> bytes:
    sizes = table.get(b"stsz", memoryview(bytes(16)))
    one_size, _ = struct.unpack_from(">II", sizes, 4)
    size = one_size or struct.unpack_from(">I", sizes, 12)[0]
    wide = b"co64" in table
    (start,) = struct.unpack_from(">Q" if wide else ">I", table[b"co64" if wide else b"stco"], 8)
    return bytes(view[start : start + size])


def _items(view: memoryview, meta: dict[bytes, memoryview]) -> Iterator[bytes]:
    coded = _coded_items(meta.get(b"iinf", memoryview(b"")))
    inner = meta.get(b"idat", memoryview(b""))
    for item, within, extents in _locations(meta.get(b"iloc", memoryview(b""))):
        if item not in coded:
            continue
        source = inner if within else view
        if sum(size or len(source) for _, size in extents) > len(view):
            raise ImageError("too_slow", "an AVIF whose images use the same bytes again and again; save it anew")
        yield b"".join(source[start : start + size if size else None] for start, size in extents)


def _coded_items(info: memoryview) -> set[int]:
    """Return the numbers of the items that are AV1."""
    coded = set()
    for kind, body in _boxes(info[4 + (2 if len(info) and info[0] == 0 else 4) :]):
        if kind == b"infe" and len(body) >= 12:
            wide = body[0] >= 3
            (number,) = struct.unpack_from(">I" if wide else ">H", body, 4)
            name = bytes(body[10:14] if wide else body[8:12])
            coded |= {number} if name == b"av01" else set()
    return coded


def _locations(body: memoryview) -> Iterator[tuple[int, bool, list[tuple[int, int]]]]:
    """Yield the number of each item, whether it lies within the meta box, and its pieces as offset and size."""
    if not len(body):
        return
    version, fields = body[0], _Fields(body, 4)
    sizes = fields.take(2)
    offset_size, length_size, base_size = sizes >> 12, (sizes >> 8) & 15, (sizes >> 4) & 15
    index_size, pieces = sizes & 15 if version else 0, 0
    for _ in range(fields.take(4 if version == 2 else 2)):
        number = fields.take(4 if version == 2 else 2)
        within = bool(version) and fields.take(2) & 15 == 1
        fields.take(2)
        base = fields.take(base_size)
        extents: list[tuple[int, int]] = []
        pieces += (count := fields.take(2))
        if pieces > _MOST_BOXES:
            raise ValueError(f"items of more than {_MOST_BOXES} pieces")
        for _ in range(count):
            fields.take(index_size)
            extents.append((base + fields.take(offset_size), fields.take(length_size)))
        yield number, within, extents


class _Fields:
    """Numbers of given sizes, one after the other."""

    def __init__(self, body: memoryview, place: int) -> None:
        self._body, self._place = body, place

    def take(self, size: int) -> int:
        piece = self._body[self._place : self._place + size]
        if len(piece) < size:
            raise ValueError("a table that ends early")
        self._place += size
        return int.from_bytes(piece, "big")
