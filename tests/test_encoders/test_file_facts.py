"""What an image file says of itself becomes facts; what cannot be true is nothing, and costs no image."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from PIL import features
from PIL.TiffImagePlugin import IFDRational
from stamped import TAKEN, VIENNA, exif, iptc, saved, with_iptc, xmp

from encoders import decode_image
from encoders.file_facts import plausible
from encoders.file_facts.exif import exif_facts, exif_fields
from encoders.file_facts.facts import file_facts
from encoders.file_facts.iptc import iptc_facts
from encoders.file_facts.xmp import xmp_facts, xmp_properties
from storage.schema import LATER_COLUMNS


def facts(data: bytes) -> dict[str, Any]:
    """The facts of a file as it is decoded, without those that are not known."""
    info = decode_image(data).info
    return {name: value for name in LATER_COLUMNS if (value := getattr(info, name)) is not None}


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_every_format_that_holds_exif_tells_when_where_and_how(format: str) -> None:
    if format == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    data = saved(format, exif=exif())
    known = facts(data)
    assert (known.pop("latitude"), known.pop("longitude")) == pytest.approx(VIENNA, abs=1e-5)
    assert known == {
        "taken_at": TAKEN,
        "taken_at_offset": 120,
        "altitude": 171.0,
        "camera": "NIKON D750",
        "lens": "50.0 mm f/1.8",
        "focal_length": 50.0,
        "f_number": 2.8,
        "iso": 400,
        "exposure": 0.004,
    }


def test_exif_is_found_behind_what_formats_put_before_it() -> None:
    block = exif().tobytes().removeprefix(b"Exif\0\0")
    for before in (b"", b"Exif\0\0", bytes(4), bytes(4) + b"Exif\0\0"):
        assert file_facts({"exif": before + block})["taken_at"] == TAKEN


def test_xmp_tells_what_people_wrote_in_attributes_and_lists() -> None:
    subject = (
        "<dc:subject><rdf:Bag><rdf:li>dog</rdf:li><rdf:li> snow </rdf:li><rdf:li>dog</rdf:li></rdf:Bag></dc:subject>"
    )
    title = '<dc:title><rdf:Alt><rdf:li xml:lang="x-default">A dog &amp; snow</rdf:li></rdf:Alt></dc:title>'
    packet = xmp('xmp:Rating="4" exif:GPSLatitude="33,51.5S" exif:GPSLongitude="151,12,30E"', subject + title)
    known = facts(saved(xmp=packet))
    assert known == {
        "rating": 4,
        "keywords": ("dog", "snow"),
        "title": "A dog & snow",
        "latitude": pytest.approx(-33.858333, abs=1e-6),
        "longitude": pytest.approx(151.208333, abs=1e-6),
    }


def test_iptc_tells_what_news_agencies_write() -> None:
    block = iptc(
        (5, b"Schnee"), (25, b"dog"), (25, "H\u00fctte".encode("latin-1")), (55, b"20240601"), (60, b"123045-0530")
    )
    assert facts(with_iptc(saved(), block)) == {
        "title": "Schnee",
        "keywords": ("dog", "H\u00fctte"),
        "taken_at": datetime(2024, 6, 1, 12, 30, 45),
        "taken_at_offset": -330,
    }


def test_the_camera_counts_for_when_and_people_for_words() -> None:
    packet = xmp('photoshop:DateCreated="2020-01-02T03:04:05+09:00" xmp:Rating="5" aux:Lens="other"')
    tags = exif(main={0x4746: 2, 0x9C9B: "windows\0".encode("utf-16-le")})
    known = facts(with_iptc(saved(exif=tags, xmp=packet), iptc((5, b"agency"), (55, b"19990101"))))
    assert (known["taken_at"], known["taken_at_offset"], known["lens"]) == (TAKEN, 120, "50.0 mm f/1.8")
    assert (known["rating"], known["title"]) == (5, "agency")
    # A date that cannot be true leaves the word to the next block, with its own zone.
    known = facts(saved(exif=exif("0000:00:00 00:00:00"), xmp=packet))
    assert (known["taken_at"], known["taken_at_offset"]) == (datetime(2020, 1, 2, 3, 4, 5), 540)


@pytest.mark.parametrize(
    ("entries", "missing"),
    [
        ({"taken": "0000:00:00 00:00:00"}, "taken_at"),
        ({"taken": "2024:13:45 99:99:99"}, "taken_at"),
        ({"taken": "    :  :     :  :  "}, "taken_at"),
        ({"gps": {2: (IFDRational(1000, 1),) * 3}}, "latitude"),
        ({"gps": {2: (IFDRational(1, 0),) * 3}}, "latitude"),
        ({"at": (0.0, 0.0)}, "longitude"),
        ({"gps": {6: IFDRational(1, 0)}}, "altitude"),
        ({"fields": {0x829A: IFDRational(0, 0)}}, "exposure"),
        ({"fields": {0x920A: IFDRational(0, 1)}}, "focal_length"),
        ({"fields": {0x829D: "wide open"}}, "f_number"),
        ({"fields": {0x8827: 0}}, "iso"),
        ({"fields": {0xA434: "\0\0"}}, "lens"),
        ({"main": {0x4746: 9_999}}, "rating"),
    ],
)
def test_a_value_that_cannot_be_true_is_missing_and_the_others_are_there(entries: Any, missing: str) -> None:
    known = facts(saved(exif=exif(**entries)))
    assert missing not in known
    assert known["camera"] == "NIKON D750"


@pytest.mark.parametrize(
    ("make", "model", "camera"),
    [
        ("Canon", "Canon EOS R5", "Canon EOS R5"),
        ("NIKON CORPORATION", "NIKON Z 9", "NIKON Z 9"),
        ("Apple", "iPhone 15 Pro", "Apple iPhone 15 Pro"),
        ("OLYMPUS IMAGING CORP.  ", "E-M10", "OLYMPUS E-M10"),
        ("EASTMAN KODAK COMPANY", "KODAK Z1275", "KODAK Z1275"),
        ("FUJIFILM\0garbage", None, "FUJIFILM"),
        (None, "X100V", "X100V"),
        ("", "", None),
    ],
)
def test_a_camera_says_its_maker_once(make: str | None, model: str | None, camera: str | None) -> None:
    assert plausible.camera(make, model) == camera


def test_a_time_without_a_zone_has_none_and_one_with_any_zone_keeps_the_wall_clock() -> None:
    assert plausible.moment("2024-06-15T14:30:00Z") == (datetime(2024, 6, 15, 14, 30), 0)
    assert plausible.moment("2024:06:15 14:30:00") == (datetime(2024, 6, 15, 14, 30), None)
    assert plausible.moment("2024:06:15 14:30:00", "5", "-09:30") == (datetime(2024, 6, 15, 14, 30, 0, 500_000), -570)
    assert plausible.moment("2024:06:15 14:30:00", None, "+99:00") == (datetime(2024, 6, 15, 14, 30), None)
    assert plausible.moment("2024-06-15") == (datetime(2024, 6, 15), None)
    assert plausible.moment("in June") is plausible.moment(b"2024:06:15 14:30:00") is None


def test_text_of_any_charset_is_one_line_without_what_no_terminal_should_see() -> None:
    assert plausible.text(b"Leica\0rubbish") == "Leica"
    assert plausible.text(b"H\xfctte\x1b[31m\n red") == "H\u00fctte[31m red"
    assert plausible.text("\u202ea" + "b" * 9_999) == "a" + "b" * 499
    assert plausible.text(7) is None


def test_directories_that_name_themselves_end() -> None:
    entries = [struct.pack("<HHII", tag, 4, 1, 8) for tag in (0x8769, 0x8825)] * 30
    block = b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + struct.pack("<I", 8)
    assert exif_fields(block) == {}
    assert exif_fields(block[:9]) == exif_fields(b"MM") == {}


def test_what_a_field_claims_beyond_its_block_is_not_there() -> None:
    entry = struct.pack("<HHII", 0x010F, 2, 2**32 - 1, 8)
    assert exif_fields(b"II*\0" + struct.pack("<IH", 8, 65_535) + entry) == {}


@pytest.mark.parametrize(
    "document",
    [
        '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><x>&b;</x>',
        '<!DOCTYPE x SYSTEM "file:///etc/passwd"><x/>',
        "<a>" * 10_000,
        '<?xml version="1.0" encoding="no-such-code"?><x/>',
        "<x>\0</x>",
        "",
    ],
)
def test_xml_that_unfolds_fetches_or_nests_is_left_unread(document: str) -> None:
    assert xmp_properties(document.encode()) == {}


def test_of_a_damaged_packet_what_stands_before_the_damage_counts() -> None:
    assert xmp_properties(xmp('xmp:Rating="3"', "<dc:title>A</dc:title>")[:-30]) == {
        "xmp:Rating": ["3"],
        "dc:title": ["A"],
    }


def test_megabytes_of_metadata_cost_no_image() -> None:
    packet = xmp('xmp:Rating="3"', "<dc:title>" + "a" * 3_000_000 + "</dc:title>")
    known = file_facts({"xmp": packet, "photoshop": {0x0404: b"\x1c\x02\x19\x00\x01a" * 900_000}})
    assert (known["rating"], known["keywords"]) == (3, ("a",))


def test_damaged_metadata_gives_facts_in_their_ranges_or_none() -> None:
    chance = random.Random(5)
    subject = "<dc:subject><rdf:Bag><rdf:li>dog</rdf:li></rdf:Bag></dc:subject>"
    tags = exif(main={0x4746: 4, 0x9C9B: "title\0".encode("utf-16-le")}).tobytes()
    # Each reader by itself: beside the others a fault of one would be passed over.
    readers: dict[Callable[[bytes], dict[str, Any]], bytes] = {
        lambda data: exif_facts(exif_fields(data)): tags,
        lambda data: xmp_facts(xmp_properties(data)): xmp('xmp:Rating="4"', subject),
        iptc_facts: iptc((5, b"x"), (25, b"y"), (55, b"20200101"), (60, b"010203+0100")),
    }
    kinds = {"taken_at": datetime, "camera": str, "lens": str, "title": str, "keywords": tuple}
    read = 0
    for _ in range(3_000):
        reader, whole = chance.choice(list(readers.items()))
        data = bytearray(whole)
        for _ in range(chance.choice((1, 3, 20))):
            data[chance.randrange(len(data))] = chance.randrange(256)
        known = reader(bytes(data[: chance.choice((len(data), chance.randrange(len(data) + 1)))]))
        assert known.keys() <= LATER_COLUMNS
        for column, value in known.items():
            assert isinstance(value, kinds.get(column, int | float))
        assert abs(known.get("latitude", 0)) <= 90
        read += bool(known)
    assert read > 500


def test_a_title_of_numbers_that_are_no_bytes_is_none() -> None:
    assert exif_facts({"xp_title": (70_000, -1, None), "model": b"X100V"}) == {"camera": "X100V"}
