"""The IPTC fields (IIM version 4) that a catalog has columns for: what news agencies and older editors write."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from . import plausible

_MOST_BYTES = 1 << 20
_MOST_FIELDS = 5_000
_MARKER = 0x1C
_TITLE, _KEYWORD, _DATE, _TIME = (2, 5), (2, 25), (2, 55), (2, 60)
_WANTED = frozenset({_TITLE, _KEYWORD, _DATE, _TIME})


def iptc_facts(data: bytes) -> dict[str, Any]:
    """Return the columns that an IPTC block has values for; what follows damage is not read."""
    held: dict[tuple[int, int], list[bytes]] = {}
    for key, value in _fields(data[:_MOST_BYTES]):
        if key in _WANTED:
            held.setdefault(key, []).append(value)
    facts = {
        **_when(held),
        "title": plausible.text(held.get(_TITLE, [b""])[0]),
        "keywords": plausible.keywords(held.get(_KEYWORD, ())),
    }
    return {name: value for name, value in facts.items() if value is not None}


def _fields(data: bytes) -> Iterator[tuple[tuple[int, int], bytes]]:
    at = 0
    for _ in range(_MOST_FIELDS):
        if at + 5 > len(data) or data[at] != _MARKER:
            return
        record, field, length = struct.unpack_from(">BBH", data, at + 1)
        if length > 0x7FFF or at + 5 + length > len(data):  # a length of its own length is for pictures
            return
        yield (record, field), data[at + 5 : at + 5 + length]
        at += 5 + length


def _when(held: dict[tuple[int, int], list[bytes]]) -> dict[str, Any]:
    """`20240601` and `123045+0200`."""
    day, time = (held.get(key, [b""])[0].decode("latin-1") for key in (_DATE, _TIME))
    clock = f"{time[:2]}:{time[2:4]}:{time[4:6]}" if time[:6].isdecimal() else "00:00:00"
    known = plausible.moment(f"{day[:4]}:{day[4:6]}:{day[6:8]} {clock}", None, time[6:])
    return {} if known is None else {"taken_at": known.time, "taken_at_offset": known.offset}
