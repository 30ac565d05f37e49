"""The structure of a JPEG XL file, as far as its size and the choice of what is decoded need (ISO 18181)."""

from __future__ import annotations

import struct

from ..avif import boxes

_CODESTREAM = b"\xff\x0a"
# What is decoded, and what a catalog wants to know. Left out above all is `jbrd`, by which a JPEG is made again as it
# was: it would have to be decoded as well, by rules of its own.
_KEPT = (b"JXL ", b"ftyp", b"jxll", b"jxlc", b"jxlp", b"Exif", b"xml ")
_RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}
_SIZE_BITS = (9, 13, 18, 30)


def decodable(data: bytes) -> bytes:
    """Return the file with the boxes that count; a bare codestream as it is.

    Raises:
        ValueError: Its boxes cannot be read; `struct.error` where one is cut short.
    """
    if data.startswith(_CODESTREAM):
        return data
    kept = [(kind, body) for kind, body in boxes(memoryview(data)) if kind in _KEPT]
    return b"".join(struct.pack(">I4s", len(body) + 8, kind) + body for kind, body in kept)


def pixels(data: bytes) -> int:
    """Return the pixels of the image by the header of its codestream.

    Raises:
        ValueError: There is none.
    """
    bits = _Bits(_codestream(data)[2:16])
    eighths = bits.take(1)

    def length() -> int:
        return 8 * (bits.take(5) + 1) if eighths else bits.take(_SIZE_BITS[bits.take(2)]) + 1

    height = length()
    ratio = bits.take(3)
    width = height * _RATIOS[ratio][0] // _RATIOS[ratio][1] if ratio else length()
    return width * height


def _codestream(data: bytes) -> bytes:
    if data.startswith(_CODESTREAM):
        return data
    start = b""
    for kind, body in boxes(memoryview(data)):
        if kind in (b"jxlc", b"jxlp"):
            start += bytes(body[4 if kind == b"jxlp" else 0 :][:16])
        if len(start) >= 16:
            break
    if not start.startswith(_CODESTREAM):
        raise ValueError("no codestream")
    return start


class _Bits:
    """The bits of a header, the lowest of each byte first."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "little")

    def take(self, count: int) -> int:
        """Return the next bits as a number."""
        taken = self._value & ((1 << count) - 1)
        self._value >>= count
        return taken
