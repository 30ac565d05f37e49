"""The EXIF fields that a catalog has columns for, read from a block or from a whole TIFF file.

Three directories are looked at, each once and none that another names: a loop leads nowhere, and what a field claims
beyond its block is not there.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any

from . import plausible

# A directory of a camera has some 60 entries.
_MOST_ENTRIES = 500
_MOST_NUMBERS = 4
_MOST_BYTES = 1 << 20  # an XMP packet in a TIFF
_TEXT_BYTES = 2_048
# Of each type that is read: bytes of one value, and the letter of `struct` of its parts.
_TYPES = {
    1: (1, "B"),
    3: (2, "H"),
    4: (4, "I"),
    5: (8, "I"),
    6: (1, "b"),
    8: (2, "h"),
    9: (4, "i"),
    10: (8, "i"),
    13: (4, "I"),
}
_ORDERS = {b"II": "<", b"MM": ">"}
_ENTRIES = {order: struct.Struct(order + "HHI4s") for order in "<>"}
_BYTES = (2, 7)  # ASCII and undefined
_RATIOS = (5, 10)

_SENSITIVITY_ELSEWHERE = 65535
_MAIN = {
    0x010F: "make",
    0x0110: "model",
    0x4746: "rating",
    0x9C9B: "xp_title",
    0x9C9E: "xp_keywords",
    0x02BC: "xmp",
    0x83BB: "iptc",
    0x8769: "exif_at",
    0x8825: "gps_at",
}
_EXIF = {
    0x829A: "exposure",
    0x829D: "f_number",
    0x8827: "sensitivity",
    0x8832: "exposure_index",
    0x8833: "iso_speed",
    0x9003: "taken",
    0x9004: "digitized",
    0x9010: "offset",
    0x9011: "taken_offset",
    0x9012: "digitized_offset",
    0x9291: "taken_fraction",
    0x9292: "digitized_fraction",
    0x920A: "focal_length",
    0xA434: "lens",
}
_GPS = {1: "south", 2: "latitude", 3: "west", 4: "longitude", 5: "below", 6: "altitude"}
_BLOBS = ("xmp", "iptc", "xp_title", "xp_keywords")

Fields = dict[str, Any]


def exif_fields(data: bytes) -> Fields:
    """Return the fields of an EXIF block, or of a TIFF file, by our names for them, as they stand there.

    Numbers come as tuples, texts and the rest as bytes. What is damaged is not there.
    """
    # Before it stand `Exif` and two zeros, four bytes, both or nothing, by format and by who wrote it.
    start = next((at for at in (0, 4, 6, 10) if data[at : at + 2] in _ORDERS), None)
    if start is None or len(data) < start + 8:
        return {}
    block = _Block(data, start, _ORDERS[data[start : start + 2]])
    fields = dict(block.directory(block.number(4, "I"), _MAIN))
    for pointer, wanted in (("exif_at", _EXIF), ("gps_at", _GPS)):
        at = fields.pop(pointer, None)
        if isinstance(at, tuple) and isinstance(at[0], int):
            fields |= block.directory(at[0], wanted)
    return fields


class _Block:
    """Bytes whose offsets count from a start, in one byte order."""

    def __init__(self, data: bytes, start: int, order: str) -> None:
        self._data, self._start, self._order = data, start, order
        self._length = len(data) - start

    def number(self, at: int, letter: str) -> int:
        value: int = struct.unpack_from(self._order + letter, self._data, self._start + at)[0]
        return value

    def directory(self, at: int, wanted: Mapping[int, str]) -> Iterator[tuple[str, Any]]:
        """Yield the wanted fields of the directory at an offset."""
        if not 8 <= at <= self._length - 2:
            return
        entries = min(self.number(at, "H"), (self._length - at - 2) // 12, _MOST_ENTRIES)
        first = self._start + at + 2
        for tag, kind, count, inline in _ENTRIES[self._order].iter_unpack(self._data[first : first + 12 * entries]):
            name = wanted.get(tag)
            if name is not None:
                value = self._value(kind, count, inline, _MOST_BYTES if name in _BLOBS else _TEXT_BYTES)
                if value:
                    yield name, value

    def _value(self, kind: int, count: int, inline: bytes, most_bytes: int) -> tuple[Any, ...] | bytes | None:
        if kind in _BYTES or (kind == 1 and count > _MOST_NUMBERS):
            return self._bytes(count, inline) if count <= most_bytes else None
        if kind not in _TYPES or not count:
            return None
        size, letter = _TYPES[kind]
        count = min(count, _MOST_NUMBERS)
        data = self._bytes(size * count, inline)
        if data is None:
            return None
        parts = struct.unpack(f"{self._order}{count * (2 if kind in _RATIOS else 1)}{letter}", data)
        return _ratios(parts) if kind in _RATIOS else parts

    def _bytes(self, length: int, inline: bytes) -> bytes | None:
        if length <= 4:
            return inline[:length]
        at: int = struct.unpack(self._order + "I", inline)[0]
        if at + length > self._length:
            return None
        return self._data[self._start + at : self._start + at + length]


def _ratios(parts: tuple[int, ...]) -> tuple[float | None, ...]:
    return tuple(over / under if under else None for over, under in zip(parts[::2], parts[1::2], strict=True))


def exif_facts(fields: Fields) -> Fields:
    """Return the columns that EXIF fields have values for."""
    facts = {
        **_when(fields),
        **_where(fields),
        "camera": plausible.camera(fields.get("make"), fields.get("model")),
        "lens": plausible.text(fields.get("lens")),
        "focal_length": plausible.positive(_first(fields, "focal_length"), 100_000),
        "f_number": plausible.positive(_first(fields, "f_number"), 1_000),
        "iso": _iso(fields),
        "exposure": plausible.positive(_first(fields, "exposure"), 86_400),
        "rating": plausible.whole(_first(fields, "rating"), 1, 5),
        "title": plausible.text(_wide(fields, "xp_title")),
        "keywords": plausible.keywords((_wide(fields, "xp_keywords") or "").split(";")),
    }
    return {name: value for name, value in facts.items() if value is not None}


def _when(fields: Fields) -> Fields:
    for name in ("taken", "digitized"):
        values = (fields.get(name), fields.get(f"{name}_fraction"), fields.get(f"{name}_offset", fields.get("offset")))
        if (known := plausible.moment(*map(_ascii, values))) is not None:
            return {"taken_at": known.time, "taken_at_offset": known.offset}
    return {}


def _where(fields: Fields) -> Fields:
    north, east = (_degrees(fields.get(name)) for name in ("latitude", "longitude"))
    signs = (_sign(fields, "south", b"S"), _sign(fields, "west", b"W"))
    known = None if north is None or east is None else plausible.place(north * signs[0], east * signs[1])
    height = plausible.number(_first(fields, "altitude"), -100_000, 100_000)
    if height is not None and _first(fields, "below") == 1:
        height = -height
    return ({} if known is None else {"latitude": known[0], "longitude": known[1]}) | {"altitude": height}


def _degrees(value: object) -> float | None:
    """Degrees, minutes and seconds as degrees; minutes and seconds may be missing."""
    if not isinstance(value, tuple) or value[0] is None:
        return None
    shares = zip(value[:3], (1, 60, 3600), strict=False)
    return float(sum((part or 0) / share for part, share in shares))


def _sign(fields: Fields, name: str, negative: bytes) -> int:
    value = fields.get(name)
    return -1 if isinstance(value, bytes) and value[:1].upper() == negative else 1


def _iso(fields: Fields) -> int | None:
    value = _first(fields, "sensitivity")
    if value in (None, 0, _SENSITIVITY_ELSEWHERE):
        value = _first(fields, "exposure_index") or _first(fields, "iso_speed")
    return plausible.whole(value, 1, 100_000_000)


def _first(fields: Fields, name: str) -> object:
    value = fields.get(name)
    return value[0] if isinstance(value, tuple) else None


def _ascii(value: object) -> str | None:
    return value.decode("latin-1") if isinstance(value, bytes) else None


def _wide(fields: Fields, name: str) -> str | None:
    """What Windows writes: UTF-16, little-endian whatever the block is."""
    value = fields.get(name)
    if isinstance(value, tuple):  # so short that it looks like numbers
        value = bytes(one for one in value if isinstance(one, int) and 0 <= one < 256)
    return value.decode("utf-16-le", "replace").split("\0", 1)[0] if isinstance(value, bytes) else None
