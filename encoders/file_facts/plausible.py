"""Values of image metadata as a catalog may hold them: what cannot be true is None, and nothing here raises.

Cameras write dates of zeros, positions without a fix as 0, 0 and ratios over 0; editors write what they like.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

_MOST_CHARACTERS = 500
_MOST_KEYWORDS = 500
_YEARS = range(1800, 2200)
_MOST_OFFSET = 14 * 60  # minutes; Kiribati is 14 hours ahead of UTC
_MOMENT = re.compile(
    r"(\d{4})[:./-](\d\d?)[:./-](\d\d?)(?:[T ]+(\d\d?):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?)?[ ]*(Z|[+-]\d\d:?\d\d)?"
)
_OFFSET = re.compile(r"(Z)|([+-])(\d\d):?(\d\d)")
# Words of a company's name that a photographer leaves out.
_COMPANY = frozenset(
    [
        "ag",
        "camera",
        "co",
        "co.",
        "co.,ltd.",
        "co.,ltd",
        "company",
        "corp",
        "corp.",
        "corporation",
        "imaging",
        "inc",
        "inc.",
        "ltd",
        "ltd.",
    ]
)


class Moment(NamedTuple):
    """A time as a camera wrote it: the clock on its wall, and how many minutes that is ahead of UTC, where known."""

    time: datetime
    offset: int | None


def moment(value: object, fraction: object = None, offset: object = None) -> Moment | None:
    """Return the time that a text says, as EXIF (`2024:06:01 12:30:45`) or ISO 8601 writes it.

    Args:
        value: The text. One without a time of day is midnight.
        fraction: The digits of a fraction of a second, where they stand apart.
        offset: The offset from UTC, as `+02:00`, where it stands apart.
    """
    found = _MOMENT.fullmatch(value.strip(" \0")) if isinstance(value, str) else None
    if found is None:
        return None
    year, month, day, hour, minute, second, digits, zone = found.groups()
    apart = fraction.strip(" \0") if isinstance(fraction, str) else ""
    digits = digits or (apart if apart.isascii() and apart.isdecimal() else "")
    try:
        time = datetime(*(int(part or 0) for part in (year, month, day, hour, minute, second)))  # type: ignore[arg-type]
    except ValueError:
        return None
    if time.year not in _YEARS:
        return None
    return Moment(time.replace(microsecond=int(digits[:6].ljust(6, "0"))), offset_minutes(zone or offset))


def offset_minutes(value: object) -> int | None:
    """Return `+02:00` as minutes ahead of UTC."""
    found = _OFFSET.fullmatch(value.strip(" \0")) if isinstance(value, str) else None
    if found is None:
        return None
    if found[1]:
        return 0
    minutes = int(found[3]) * 60 + int(found[4])
    if minutes > _MOST_OFFSET or int(found[4]) > 59:
        return None
    return -minutes if found[2] == "-" else minutes


def number(value: object, least: float, most: float) -> float | None:
    """Return a number that lies in a range, its ends included."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if least <= value <= most else None  # NaN lies in none


def positive(value: object, most: float) -> float | None:
    """Return a number above 0 and at most `most`."""
    known = number(value, 0, most)
    return known or None


def whole(value: object, least: int, most: int) -> int | None:
    """Return a number that lies in a range, rounded to a whole one."""
    known = number(value, least, most)
    return None if known is None else round(known)


def place(latitude: object, longitude: object) -> tuple[float, float] | None:
    """Return degrees of latitude and longitude; 0, 0 is what a camera writes that does not know where it is."""
    north, east = number(latitude, -90, 90), number(longitude, -180, 180)
    return None if north is None or east is None or (north, east) == (0, 0) else (north, east)


def text(value: object) -> str | None:
    """Return text on one line without control characters, at most 500 characters; from bytes as UTF-8, else Latin-1."""
    if isinstance(value, bytes):
        value = _decoded(value[: 4 * _MOST_CHARACTERS].split(b"\0", 1)[0])
    if not isinstance(value, str):
        return None
    if len(value) <= _MOST_CHARACTERS and value.isascii() and value.isprintable():
        return " ".join(value.split()) or None
    words = value[: 4 * _MOST_CHARACTERS].split("\0", 1)[0].split()
    line = "".join(sign for sign in " ".join(words) if unicodedata.category(sign)[0] != "C")
    return line[:_MOST_CHARACTERS].strip() or None


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def keywords(values: Iterable[object]) -> tuple[str, ...] | None:
    """Return words without those that come twice, at most 500 of them; None for none."""
    known = dict.fromkeys(word for word in map(text, values) if word)
    return tuple(known)[:_MOST_KEYWORDS] or None


def camera(make: object, model: object) -> str | None:
    """Return maker and model as one name that says the maker once: `Canon` and `Canon EOS R5` are a `Canon EOS R5`."""
    maker, name = text(make), text(model)
    if maker is None or name is None:
        return maker or name
    words = maker.split()
    if name.split()[0].casefold() in (word.casefold().rstrip(",") for word in words):
        return name
    while len(words) > 1 and words[-1].casefold() in _COMPANY:
        words.pop()
    return f"{' '.join(words).rstrip(',')} {name}"
