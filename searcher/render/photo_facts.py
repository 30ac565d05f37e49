"""What an image file says of itself, as people read it: a date, a place with a map behind it, 1/250 s."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

Entry = Mapping[str, Any]

# A map that shows a place for anybody; nothing is loaded from it before somebody follows the link.
_MAP = "https://www.openstreetmap.org/?mlat={0:.5f}&mlon={1:.5f}#map=15/{0:.5f}/{1:.5f}"


class Fact(NamedTuple):
    """One line of the details of an item: a name, what is said, and where more of it is."""

    name: str
    value: str
    link: str = ""


def photo_facts(entry: Entry) -> tuple[list[Fact], frozenset[str]]:
    """Return the facts of a photograph, and the columns of the catalog that they say.

    A column of the user's with one of these names and values of another type is left alone.
    """
    facts: list[Fact] = []
    said: set[str] = set()
    for columns, make in _MAKERS.items():
        if (fact := make(entry)) is not None:
            facts.append(fact)
            said.update(columns)
    return facts, frozenset(said)


def _taken(entry: Entry) -> Fact | None:
    taken, offset = entry.get("taken_at"), entry.get("taken_at_offset")
    if not isinstance(taken, datetime):
        return None
    zone = ""
    if isinstance(offset, int):
        hours, minutes = divmod(abs(offset), 60)
        zone = f" (UTC{'-' if offset < 0 else '+'}{hours:02}:{minutes:02})"
    return Fact("taken", f"{taken.day} {taken:%B %Y, %H:%M}{zone}")


def _place(entry: Entry) -> Fact | None:
    north, east, height = (entry.get(name) for name in ("latitude", "longitude", "altitude"))
    if not isinstance(north, float) or not isinstance(east, float) or not (abs(north) <= 90 and abs(east) <= 180):
        return None
    text = f"{abs(north):.5f}° {'S' if north < 0 else 'N'}, {abs(east):.5f}° {'W' if east < 0 else 'E'}"
    text += f", {height:.0f} m" if isinstance(height, float) else ""
    return Fact("place", text, _MAP.format(north, east))


def _exposure(entry: Entry) -> Fact | None:
    seconds, aperture, iso, length = (entry.get(name) for name in ("exposure", "f_number", "iso", "focal_length"))
    parts = [
        _seconds(seconds) if isinstance(seconds, float) else "",
        f"f/{aperture:.3g}" if isinstance(aperture, float) else "",
        f"ISO {iso}" if isinstance(iso, int) else "",
        f"{length:.4g} mm" if isinstance(length, float) else "",
    ]
    text = ", ".join(filter(None, parts))
    return Fact("exposure", text) if text else None


def _seconds(value: float) -> str:
    """`1/250 s`, as cameras show it, and `2.5 s` from a third on."""
    return f"1/{1 / value:.0f} s" if 0 < value < 0.3 else f"{value:.2g} s"


def _rating(entry: Entry) -> Fact | None:
    stars = entry.get("rating")
    if not isinstance(stars, int) or stars not in (-1, 1, 2, 3, 4, 5):
        return None
    return Fact("rating", "rejected" if stars < 0 else f"{stars} of 5")


def _keywords(entry: Entry) -> Fact | None:
    words = entry.get("keywords")
    return Fact("keywords", ", ".join(words)) if isinstance(words, list) and words else None


def _as_it_is(name: str) -> Callable[[Entry], Fact | None]:
    return lambda entry: Fact(name, str(entry[name])) if isinstance(entry.get(name), str) else None


# What each line says, by the columns that it stands for.
_MAKERS: Mapping[tuple[str, ...], Callable[[Entry], Fact | None]] = {
    ("title",): _as_it_is("title"),
    ("taken_at", "taken_at_offset"): _taken,
    ("latitude", "longitude", "altitude"): _place,
    ("camera",): _as_it_is("camera"),
    ("lens",): _as_it_is("lens"),
    ("exposure", "f_number", "iso", "focal_length"): _exposure,
    ("rating",): _rating,
    ("keywords",): _keywords,
}
