"""The XMP properties that a catalog has columns for: what Lightroom, digiKam, darktable and phones write.

XMP is XML, and hostile XML makes parsers fetch files or unfold gigabytes. A document type, which all of that needs,
ends the reading, and so do more bytes, elements or levels than an honest packet has; what was read before counts.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from xml.parsers import expat

from . import plausible

_MOST_BYTES = 1 << 20
_MOST_ELEMENTS = 20_000  # Photoshop keeps a history in it
_MOST_DEPTH = 50
_MOST_VALUES = 1_000
_MOST_CHARACTERS = 2_000

# Of each namespace the prefix that it usually has, and the properties that are wanted.
_SPACES = {
    "http://ns.adobe.com/exif/1.0/": (
        "exif",
        "DateTimeOriginal DateTimeDigitized GPSLatitude GPSLongitude GPSAltitude GPSAltitudeRef ExposureTime FNumber"
        " FocalLength ISOSpeedRatings",
    ),
    "http://cipa.jp/exif/1.0/": ("exifEX", "PhotographicSensitivity LensModel"),
    "http://ns.adobe.com/exif/1.0/aux/": ("aux", "Lens"),
    "http://ns.adobe.com/tiff/1.0/": ("tiff", "Make Model"),
    "http://ns.adobe.com/xap/1.0/": ("xmp", "Rating CreateDate"),
    "http://ns.adobe.com/photoshop/1.0/": ("photoshop", "DateCreated"),
    "http://purl.org/dc/elements/1.1/": ("dc", "title subject"),
}
# By the names that the parser gives.
_WANTED = {
    f"{space} {name}": f"{prefix}:{name}" for space, (prefix, names) in _SPACES.items() for name in names.split()
}

Properties = dict[str, list[str]]


class _EndOfReadingError(Exception):
    """The packet is larger than an honest one, or has a document type."""


class _Reader:
    """Collects the values of wanted properties, which stand in attributes, in elements, or in lists within them."""

    def __init__(self) -> None:
        self.found: Properties = {}
        self._elements = self._depth = 0
        self._text: list[str] = []
        self._within, self._from = "", 0

    def start(self, name: str, attributes: list[str]) -> None:
        self._elements += 1
        self._depth += 1
        if self._elements > _MOST_ELEMENTS or self._depth > _MOST_DEPTH:
            raise _EndOfReadingError
        if self._within:
            self._text.clear()
        elif name in _WANTED:
            self._within, self._from = _WANTED[name], self._depth
            self._text.clear()
        for position in range(0, len(attributes), 2):
            if attributes[position] in _WANTED:
                self._add(_WANTED[attributes[position]], attributes[position + 1])

    def end(self, _: str) -> None:
        if self._within:
            self._add(self._within, "".join(self._text))
            self._text.clear()
            if self._depth == self._from:
                self._within = ""
        self._depth -= 1

    def text(self, data: str) -> None:
        if self._within and len(self._text) < _MOST_VALUES:
            self._text.append(data[:_MOST_CHARACTERS])

    def _add(self, name: str, value: str) -> None:
        values = self.found.setdefault(name, [])
        if value.strip() and len(values) < _MOST_VALUES:
            values.append(value.strip()[:_MOST_CHARACTERS])


def xmp_properties(data: bytes) -> Properties:
    """Return the values of the wanted properties of an XMP packet, by prefix and name; of a damaged one the first."""
    reader = _Reader()
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = parser.ordered_attributes = True
    parser.StartElementHandler, parser.EndElementHandler = reader.start, reader.end
    parser.CharacterDataHandler = reader.text
    parser.StartDoctypeDeclHandler = _refuse
    parser.EntityDeclHandler = _refuse
    parser.ExternalEntityRefHandler = _refuse
    # ValueError and LookupError: an encoding that Python has not.
    with suppress(expat.ExpatError, _EndOfReadingError, ValueError, LookupError):
        parser.Parse(data[:_MOST_BYTES].strip(b"\0 \t\r\n"), True)
    return reader.found


def _refuse(*_: object) -> int:
    raise _EndOfReadingError


def xmp_facts(properties: Properties) -> dict[str, Any]:
    """Return the columns that XMP properties have values for."""
    first = {name: values[0] for name, values in properties.items() if values}
    sensitivity = first.get("exifEX:PhotographicSensitivity", first.get("exif:ISOSpeedRatings"))
    facts = {
        **_when(first),
        **_where(first),
        "camera": plausible.camera(first.get("tiff:Make"), first.get("tiff:Model")),
        "lens": plausible.text(first.get("exifEX:LensModel", first.get("aux:Lens"))),
        "focal_length": plausible.positive(_ratio(first.get("exif:FocalLength")), 100_000),
        "f_number": plausible.positive(_ratio(first.get("exif:FNumber")), 1_000),
        "iso": plausible.whole(_ratio(sensitivity), 1, 100_000_000),
        "exposure": plausible.positive(_ratio(first.get("exif:ExposureTime")), 86_400),
        "rating": plausible.whole(_ratio(first.get("xmp:Rating")), -1, 5) or None,  # 0 is unrated
        "title": plausible.text(first.get("dc:title")),
        "keywords": plausible.keywords(properties.get("dc:subject", ())),
    }
    return {name: value for name, value in facts.items() if value is not None}


def _when(first: dict[str, str]) -> dict[str, Any]:
    for name in ("exif:DateTimeOriginal", "photoshop:DateCreated", "exif:DateTimeDigitized", "xmp:CreateDate"):
        if (known := plausible.moment(first.get(name))) is not None:
            return {"taken_at": known.time, "taken_at_offset": known.offset}
    return {}


def _where(first: dict[str, str]) -> dict[str, Any]:
    known = plausible.place(_degrees(first.get("exif:GPSLatitude")), _degrees(first.get("exif:GPSLongitude")))
    height = plausible.number(_ratio(first.get("exif:GPSAltitude")), -100_000, 100_000)
    if height is not None and first.get("exif:GPSAltitudeRef") == "1":
        height = -height
    return ({} if known is None else {"latitude": known[0], "longitude": known[1]}) | {"altitude": height}


def _degrees(value: str | None) -> float | None:
    """`48,12.5N` and `48,12,30N` as degrees."""
    if not value or value[-1].upper() not in "NSEW":
        return None
    try:
        parts = [float(part) for part in value[:-1].split(",")]
    except ValueError:
        return None
    degrees = sum(part / share for part, share in zip(parts[:3], (1, 60, 3600), strict=False))
    return -degrees if value[-1].upper() in "SW" else degrees


def _ratio(value: str | None) -> float | None:
    """`28/10` and `2.8` as a number."""
    over, _, under = (value or "").partition("/")
    try:
        return float(over) / float(under or 1)
    except (ValueError, ZeroDivisionError, OverflowError):
        return None
