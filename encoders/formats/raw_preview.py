"""The JPEG that a camera puts into its RAW file: what it shows on its own screen, mostly of full size.

The sensor's data itself is never developed. Every maker keeps the preview elsewhere, but each as one whole JPEG, so the
largest one in the file is taken.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image

from ..avif import boxes
from ..errors import ImageError

RAW = "RAW"
# Olympus, Panasonic, Fujifilm and Canon; all others are TIFF, whose tags tell.
_STARTS = (b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FUJIFILMCCD-RAW")
_CR3 = b"ftypcrx "
# By the tag that points to them in EXIF, the directories of the photograph and of the place.
_CANON = {0x8769: b"CMT2", 0x8825: b"CMT4"}
_TIFF = (b"II*\0", b"MM\0*")
_SUB_DIRECTORIES, _PHOTOMETRIC, _DNG_VERSION = 330, 262, 50706
# Samples of a colour filter array, and such as were made linear.
_SENSOR_DATA = (32803, 34892)
_MOST_DIRECTORIES, _MOST_TAGS, _MOST_CANDIDATES, _MOST_SEGMENTS = 16, 1000, 4096, 200
_JPEG_START = re.compile(rb"\xff\xd8\xff")
_BASELINE_TO_PROGRESSIVE = (0xC0, 0xC1, 0xC2)
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True)
class Preview:
    """A preview: the bytes that start with it, and the EXIF of the RAW file, empty where there is none."""

    jpeg: bytes
    exif: bytes


def is_raw(data: bytes) -> bool:
    """Return whether these are the bytes of a RAW file; never raises."""
    if data.startswith(_STARTS) or data[4:12] == _CR3:
        return True
    if not data.startswith(_TIFF):
        return False
    try:
        return data[8:10] == b"CR" or any(
            tag == _DNG_VERSION or (tag == _PHOTOMETRIC and value in _SENSOR_DATA) for tag, value in _tags(data)
        )
    except struct.error:
        return False


def raw_preview(data: bytes) -> Preview:
    """Return the largest JPEG in a RAW file.

    Raises:
        ImageError: With `unsupported_format`, there is none.
    """
    sizes = ((_jpeg_pixels(data, match.start()), -match.start()) for match in _candidates(data))
    pixels, start = max(sizes, default=(0, 0))
    if not pixels:
        raise ImageError("unsupported_format", "a RAW file without a JPEG preview; develop it and save it as JPEG")
    return Preview(data[-start:], _exif(data))


def _candidates(data: bytes) -> Iterator[re.Match[bytes]]:
    for count, match in enumerate(_JPEG_START.finditer(data)):
        if count == _MOST_CANDIDATES:
            return
        yield match


def _jpeg_pixels(data: bytes, start: int) -> int:
    """Return the pixels of the JPEG that starts there; 0 where it is none that can be shown, as a lossless one."""
    offset = start + 2
    for _ in range(_MOST_SEGMENTS):
        head = data[offset : offset + 10]
        if len(head) < 10 or head[0] != 0xFF:
            return 0
        if head[1] in _FRAMES:
            height, width, bands = struct.unpack(">HHB", head[5:10])
            shown = head[1] in _BASELINE_TO_PROGRESSIVE and head[4] == 8 and bands in (1, 3)
            return height * width if shown else 0
        offset += 2 + int.from_bytes(head[2:4], "big")
    return 0


def _exif(data: bytes) -> bytes:
    """Return the tags of the file as EXIF: a RAW file in TIFF is one, whatever its maker writes in place of 42."""
    if data[4:12] == _CR3:
        tags = _canon_tags(data)
    elif data.startswith((b"II", b"MM")):
        tags = (b"II*\0" if data.startswith(b"II") else b"MM\0*") + data[4:]
    else:
        tags = b""
    return b"Exif\0\0" + tags if tags else b""


def _canon_tags(data: bytes) -> bytes:
    """Return the directories of a CR3 as one, of which each lies in a box of its own; what is damaged is not there."""
    try:
        (movie,) = (body for kind, body in boxes(memoryview(data)) if kind == b"moov")
        makers = next(body for kind, body in boxes(movie) if kind == b"uuid")
        lying = {kind: bytes(body) for kind, body in boxes(makers[16:])}
    except (struct.error, ValueError, StopIteration):
        return b""
    first = lying.get(b"CMT1", b"")
    try:
        whole = _directory(first)
        for pointer, box in _CANON.items():
            whole.get_ifd(pointer).update(_directory(lying.get(box, b"")))
        return whole.tobytes().removeprefix(b"Exif\0\0")
    except (OSError, SyntaxError, ValueError, LookupError, TypeError, AttributeError, EOFError, struct.error):
        return first


def _directory(data: bytes) -> Image.Exif:
    read = Image.Exif()
    read.load(data)
    return read


def _tags(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield number and first value of the tags of the first directory and those below it."""
    order = "<" if data.startswith(b"II") else ">"
    (first,) = struct.unpack_from(f"{order}I", data, 4)
    below: list[int] = []
    for tag, kind, count, place in _entries(data, first, order):
        if tag == _SUB_DIRECTORIES:
            (where,) = struct.unpack_from(f"{order}I", data, place)
            start = place if count == 1 else where
            below = list(struct.unpack_from(f"{order}{min(count, _MOST_DIRECTORIES)}I", data, start))
        yield tag, _value(data, order, kind, place)
    for directory in below:
        for tag, kind, _, place in _entries(data, directory, order):
            yield tag, _value(data, order, kind, place)


def _entries(data: bytes, offset: int, order: str) -> Iterator[tuple[int, int, int, int]]:
    """Yield number, type and count of each tag of a directory, and where its value or its offset stands."""
    (count,) = struct.unpack_from(f"{order}H", data, offset)
    for place in range(offset + 2, offset + 2 + 12 * min(count, _MOST_TAGS), 12):
        yield (*struct.unpack_from(f"{order}HHI", data, place), place + 8)


def _value(data: bytes, order: str, kind: int, place: int) -> int:
    value: int = struct.unpack_from(f"{order}{'H' if kind == 3 else 'I'}", data, place)[0]
    return value
