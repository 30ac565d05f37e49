"""What a film's container tells of when, where and with what it was taken, as telephones write it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from . import plausible

# By our names: the keys of QuickTime as Apple and Android write them. The first that is plausible counts.
_KEYS = {
    "local": ("com.apple.quicktime.creationdate",),
    "universal": ("creation_time",),
    "place": ("com.apple.quicktime.location.ISO6709", "location", "location-eng"),
    "make": ("com.apple.quicktime.make", "com.android.manufacturer", "make"),
    "model": ("com.apple.quicktime.model", "com.android.model", "model"),
    "title": ("title", "com.apple.quicktime.title"),
}
FILM_KEYS = frozenset(key for keys in _KEYS.values() for key in keys)
"""Keys of a container that facts are made of."""
# ISO 6709: degrees north, degrees east, metres above the sea.
_PLACE = re.compile(r"([+-]\d{1,2}(?:\.\d+)?)([+-]\d{1,3}(?:\.\d+)?)([+-]\d+(?:\.\d+)?)?")
# What a container counts its seconds from: no date at all.
_NO_YEARS = (1904, 1970)


def film_facts(told: Mapping[str, str], seconds: float) -> dict[str, Any]:
    """Return facts of the frame that a film shows after so many seconds; those that are not known are not there.

    The date in a container is that of UTC, with the offset 0, unless the telephone wrote its own clock beside it.
    """
    found = {name: [told[key] for key in keys if key in told] for name, keys in _KEYS.items()}
    facts = {
        **_when([*found["local"], *found["universal"]], seconds),
        **_where(found["place"]),
        "camera": plausible.camera(next(iter(found["make"]), None), next(iter(found["model"]), None)),
        "title": plausible.text(next(iter(found["title"]), None)),
    }
    return {name: value for name, value in facts.items() if value is not None}


def _when(texts: list[str], seconds: float) -> dict[str, Any]:
    for text in texts:
        began = plausible.moment(text)
        if began is not None and began.time.year not in _NO_YEARS:
            return {"taken_at": began.time + timedelta(seconds=seconds), "taken_at_offset": began.offset}
    return {}


def _where(texts: list[str]) -> dict[str, Any]:
    for text in texts:
        match = _PLACE.match(text)
        known = None if match is None else plausible.place(float(match[1]), float(match[2]))
        if match is not None and known is not None:
            height = plausible.number(float(match[3]), -100_000, 100_000) if match[3] else None
            return {"latitude": known[0], "longitude": known[1], "altitude": height}
    return {}
