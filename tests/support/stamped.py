"""Photographs with metadata as cameras and editors write it."""

from __future__ import annotations

import io
import struct
from datetime import datetime
from typing import Any

from PIL import Image
from PIL.TiffImagePlugin import IFDRational, ImageFileDirectory_v2

VIENNA = (48.2082, 16.3738)
TAKEN = datetime(2024, 6, 15, 14, 30, 0, 250_000)
XMP = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/"
 xmlns:exif="http://ns.adobe.com/exif/1.0/" xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/"
 xmlns:aux="http://ns.adobe.com/exif/1.0/aux/" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" {attributes}>{elements}
</rdf:Description></rdf:RDF></x:xmpmeta>"""


def exif(
    taken: datetime | str | None = TAKEN,
    at: tuple[float, float] | None = VIENNA,
    *,
    make: str = "NIKON CORPORATION",
    model: str = "NIKON D750",
    main: dict[int, Any] | None = None,
    fields: dict[int, Any] | None = None,
    gps: dict[int, Any] | None = None,
) -> Image.Exif:
    """EXIF of a camera in Vienna; `main`, `fields` and `gps` are further entries of its three directories."""
    tags = Image.Exif()
    tags[0x010F], tags[0x0110] = make, model
    for tag, value in (main or {}).items():
        tags[tag] = value
    told = tags.get_ifd(0x8769)
    if taken is not None:
        told[0x9003] = taken if isinstance(taken, str) else taken.strftime("%Y:%m:%d %H:%M:%S")
        told |= {0x9011: "+02:00", 0x9291: "25"}
    told |= {0x829A: IFDRational(1, 250), 0x829D: IFDRational(28, 10), 0x8827: 400, 0x920A: IFDRational(50, 1)}
    told |= {0xA434: "50.0 mm f/1.8", **(fields or {})}
    place = tags.get_ifd(0x8825)
    if at is not None:
        north, east = at
        place |= {1: "N" if north >= 0 else "S", 2: _degrees(north), 3: "E" if east >= 0 else "W", 4: _degrees(east)}
        place |= {5: b"\0", 6: IFDRational(171, 1)}
    place |= gps or {}
    return tags


def _degrees(value: float) -> tuple[IFDRational, ...]:
    hundredths = round(abs(value) * 360_000)
    return (
        IFDRational(hundredths // 360_000, 1),
        IFDRational(hundredths // 6_000 % 60, 1),
        IFDRational(hundredths % 6_000, 100),
    )


def saved(format: str = "JPEG", colour: tuple[int, int, int] = (200, 40, 30), **options: Any) -> bytes:
    """A small image file of one colour."""
    file = io.BytesIO()
    if format == "TIFF" and "exif" in options:
        tags = options.pop("exif")
        whole = ImageFileDirectory_v2()
        for tag, value in {**tags, 0x8769: dict(tags.get_ifd(0x8769)), 0x8825: dict(tags.get_ifd(0x8825))}.items():
            whole[tag] = value
        options["tiffinfo"] = whole
    Image.new("RGB", (48, 32), colour).save(file, format, **options)
    return file.getvalue()


def xmp(attributes: str = "", elements: str = "") -> bytes:
    """An XMP packet."""
    return XMP.format(attributes=attributes, elements=elements).encode()


def varieties() -> dict[str, tuple[str, dict[str, object]]]:
    """Files full of metadata for fuzzing: mode and options by a name that begins with the format."""
    words = xmp(
        'xmp:Rating="4"', "<dc:subject><rdf:Bag><rdf:li>dog</rdf:li><rdf:li>snow</rdf:li></rdf:Bag></dc:subject>"
    )
    told = {"exif": exif().tobytes(), "xmp": words}
    return {f"{format} with metadata": ("RGB", dict(told)) for format in ("JPEG", "WEBP")}


def iptc(*fields: tuple[int, bytes]) -> bytes:
    """An IPTC block of these fields of record 2."""
    return b"".join(struct.pack(">BBBH", 0x1C, 2, number, len(value)) + value for number, value in fields)


def with_iptc(jpeg: bytes, block: bytes) -> bytes:
    """A JPEG file with an IPTC block, in the resource where Photoshop puts it."""
    resource = b"8BIM" + struct.pack(">HHI", 0x0404, 0, len(block)) + block + b"\0" * (len(block) % 2)
    body = b"Photoshop 3.0\0" + resource
    return jpeg[:2] + b"\xff\xed" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]
