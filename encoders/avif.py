"""What an AVIF codes: boxes of ISO 14496-12 around the units of AV1, read as far as the cost of decoding needs."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from .errors import ImageError

MOST_FRAMES = 4
"""Of one image in an AVIF, which has up to four layers; further ones are decoded and never shown."""
_MOST_IMAGES = 4
"""Colour, alpha, a gain map and a preview may each have as many pixels as an image may."""
_SEQUENCE_HEADER = 1
_HEADER_BYTES = 512  # 32 operating points with all that may belong to them
_HOLDERS = {b"moov", b"trak", b"mdia", b"minf", b"stbl"}
_FRAME_UNITS = (3, 6)
# A grid of 89 megapixels in cells of 64 x 64, the smallest allowed, has 22,000 of them.
_MOST_BOXES = 50_000


def check_frames(data: bytes, max_pixels: int) -> None:
    """Check how many frames each image of an AVIF codes, and how large: the container may say something else.

    Raises:
        ImageError: With `too_slow`, `too_many_pixels` or `corrupt`.
    """
    try:
        images = list(_coded_images(memoryview(data)))
        if sum(len(image) for image in images) > len(data):
            raise ImageError("too_slow", "an AVIF whose images use the same bytes again and again; save it anew")
        coded = [frames_and_pixels(image) for image in images]
    except (struct.error, IndexError, ValueError) as error:
        raise ImageError("corrupt", f"the boxes of this AVIF cannot be read: {error}") from error
    frames = max((count for count, _ in coded), default=0)
    if frames > MOST_FRAMES:
        raise ImageError(
            "too_slow", f"an AVIF with {frames} or more frames in one image; at most {MOST_FRAMES} are decoded"
        )
    pixels = [count for _, count in coded]
    if max(pixels, default=0) > max_pixels or sum(pixels) > _MOST_IMAGES * max_pixels:
        raise ImageError(
            "too_many_pixels",
            f"an AVIF that codes {sum(pixels)} pixels, {max(pixels)} in one image; the limit is {max_pixels}",
        )


def frames_and_pixels(units: bytes) -> tuple[int, int]:
    """Return how many frames one image codes, at most one more than are allowed, and the most pixels of one."""
    offset = frames = pixels = 0
    while offset < len(units) and frames <= MOST_FRAMES:
        head = units[offset]
        kind, sized = (head >> 3) & 15, head & 2
        offset += 2 if head & 4 else 1
        size, offset = _leb128(units, offset) if sized else (len(units) - offset, offset)
        frames += kind in _FRAME_UNITS
        if kind == _SEQUENCE_HEADER:
            pixels = max(pixels, _sequence_pixels(units[offset : offset + size]))
        offset += size
    return frames, pixels


def _sequence_pixels(header: bytes) -> int:
    """Return the pixels of the largest frame that a sequence header allows (AV1 specification, section 5.5.1)."""
    bits = _Bits(header)
    bits.take(4)  # profile, still picture
    if bits.take(1):  # a reduced header
        bits.take(5)
    else:
        delay_bits = _skip_timing(bits)
        delayed = bits.take(1)
        for _ in range(bits.take(5) + 1):
            _skip_operating_point(bits, delay_bits, bool(delayed))
    width_bits, height_bits = bits.take(4) + 1, bits.take(4) + 1
    return (bits.take(width_bits) + 1) * (bits.take(height_bits) + 1)


def _skip_timing(bits: _Bits) -> int:
    """Read over the timing, and return how long the delays of the decoder model are; 0 where there is none."""
    if not bits.take(1):
        return 0
    bits.take(64)
    if bits.take(1):
        bits.skip_uvlc()
    if not bits.take(1):
        return 0
    delay_bits = bits.take(5) + 1
    bits.take(42)
    return delay_bits


def _skip_operating_point(bits: _Bits, delay_bits: int, delayed: bool) -> None:
    bits.take(12)
    if bits.take(5) > 7:
        bits.take(1)
    if delay_bits and bits.take(1):
        bits.take(2 * delay_bits + 1)
    if delayed and bits.take(1):
        bits.take(4)


class _Bits:
    """The bits of a header, one after the other."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data[:_HEADER_BYTES], "big"), 8 * min(len(data), _HEADER_BYTES)

    def take(self, count: int) -> int:
        """Return the next bits as a number."""
        self._left -= count
        if self._left < 0:
            raise ValueError("a sequence header that ends early")
        return (self._value >> self._left) & ((1 << count) - 1)

    def skip_uvlc(self) -> None:
        """Read over a number of variable length."""
        zeros = 0
        while not self.take(1):
            zeros += 1
        if zeros < 32:
            self.take(zeros)


def _leb128(units: bytes, offset: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 56, 7):
        byte = units[offset]
        offset += 1
        value |= (byte & 127) << shift
        if byte < 128:
            break
    return value, offset


def boxes(view: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Yield kind and content of each box, one after the other.

    Raises:
        ValueError: A box has no possible size, or there are too many; `struct.error` where one ends early.
    """
    offset = 0
    for _ in range(_MOST_BOXES):
        if offset + 8 > len(view):
            return
        size, kind = struct.unpack_from(">I4s", view, offset)
        head = 8
        if size == 1:
            (size,), head = struct.unpack_from(">Q", view, offset + 8), 16
        size = size or len(view) - offset
        if size < head:
            raise ValueError(f"a box of {size} bytes")
        yield kind, view[offset + head : offset + size]
        offset += size
    raise ValueError(f"more than {_MOST_BOXES} boxes in one")


def _coded_images(view: memoryview) -> Iterator[bytes]:
    """Yield the AV1 units of each image item, and of the first sample of each track."""
    for kind, body in boxes(view):
        if kind == b"meta":
            yield from _items(view, dict(boxes(body[4:])))
        elif kind == b"moov":
            for table in _sample_tables(body):
                yield _first_sample(view, table)


def _sample_tables(view: memoryview) -> Iterator[dict[bytes, memoryview]]:
    for kind, body in boxes(view):
        if kind == b"stbl":
            yield dict(boxes(body))
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
    for kind, body in boxes(info[4 + (2 if len(info) and info[0] == 0 else 4) :]):
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

    def __init__(self, body: memoryview, offset: int) -> None:
        self._body, self._place = body, offset

    def take(self, size: int) -> int:
        piece = self._body[self._place : self._place + size]
        if len(piece) < size:
            raise ValueError("a table that ends early")
        self._place += size
        return int.from_bytes(piece, "big")
