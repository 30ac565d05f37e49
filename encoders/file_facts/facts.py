"""From the bytes of an image file to those columns of a catalog that its metadata has values for.

Of a fact that several blocks state one counts:

- when, where and with what it was taken: EXIF, which the camera wrote, then XMP, then IPTC;
- title, keywords and rating, which people write: XMP, then IPTC, then EXIF (where Windows writes them).

What cannot be true is passed over, so that the next block counts. Nothing here raises: no metadata costs an image.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from .exif import exif_facts, exif_fields
from .iptc import iptc_facts
from .xmp import xmp_facts, xmp_properties

_BY_PEOPLE = ("title", "keywords", "rating")
# Facts that are one: of two blocks the one that has the first counts for both.
_TOGETHER = (("taken_at", "taken_at_offset"), ("latitude", "longitude", "altitude"))
_PHOTOSHOP_IPTC = 0x0404
# The last three are what RAW files begin with that are a TIFF but for that.
_TIFF = (b"II*\0", b"MM\0*", b"IIRO", b"IIRS", b"IIU\0")


def file_facts(info: Mapping[Any, Any], data: bytes = b"") -> dict[str, Any]:
    """Return facts of one image by the names of the columns; those that are not known are not there.

    Args:
        info: What Pillow keeps of an opened and loaded file: `exif`, `xmp` and `photoshop` are looked at.
        data: The bytes of the file, which are looked at where it is a TIFF, as many RAW files are.
    """
    fields = _read(exif_fields, _bytes(info.get("exif")))
    if data.startswith(_TIFF):
        fields |= _read(exif_fields, data)
    resources = info.get("photoshop")
    packet = _bytes(info.get("xmp")) or _bytes(fields.get("xmp"))
    block = _bytes(resources.get(_PHOTOSHOP_IPTC)) if isinstance(resources, dict) else b""
    exif, iptc = _read(exif_facts, fields), _read(iptc_facts, block or _bytes(fields.get("iptc")))
    xmp = _read(xmp_facts, _read(xmp_properties, packet))
    if not xmp and not iptc:
        return exif
    by_camera: dict[str, Any] = {}
    for facts in (exif, xmp, iptc):
        taken = {name for group in _TOGETHER if group[0] in by_camera for name in group}
        by_camera |= {name: value for name, value in facts.items() if name not in by_camera and name not in taken}
    by_people = {name: facts[name] for facts in (exif, iptc, xmp) for name in _BY_PEOPLE if name in facts}
    return by_camera | by_people


def _read(reader: Callable[[Any], dict[str, Any]], block: Any) -> dict[str, Any]:
    """Return what a reader makes of a block: nothing where there is none, or where its damage is of an unknown kind."""
    if block:
        with suppress(ValueError, LookupError, TypeError, ArithmeticError, struct.error):
            return reader(block)
    return {}


def _bytes(value: object) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "replace")
    return value if isinstance(value, bytes) else b""
