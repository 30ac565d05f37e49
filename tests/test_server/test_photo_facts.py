"""The page and the API show what photographs say of themselves, and their order in time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from html import unescape
from typing import Any

import pytest
from colour import ColourEncoder
from served_index import Served, serving
from stamped import exif, saved, xmp

from indexer import build_index
from searcher.render.photo_facts import Fact, photo_facts

DAYS = {"a": datetime(2024, 6, 15, 14, 30), "b": datetime(2023, 1, 2, 3, 4), "c": datetime(2025, 7, 8, 9, 10)}


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Three dated photographs, the last in Sydney, and one that says nothing; each with a caption."""
    folder = tmp_path_factory.mktemp("album")
    words = xmp("", "<dc:subject><rdf:Bag><rdf:li>snow</rdf:li><rdf:li>dog</rdf:li></rdf:Bag></dc:subject>")
    for number, (name, day) in enumerate(DAYS.items()):
        tags = exif(day, (-33.8568, 151.2153) if name == "c" else (48.2082, 16.3738))
        (folder / f"{name}.jpg").write_bytes(saved(colour=(200, 40 + number, 30), exif=tags, xmp=words))
    (folder / "d.jpg").write_bytes(saved(colour=(200, 60, 30)))
    for name in "abcd":
        (folder / f"{name}.txt").write_text("a red square\n")
    index = folder.with_name("album.index")
    build_index(folder, index, encoder=ColourEncoder())
    with serving(index, encoder=ColourEncoder()) as served:
        yield served


def page(album: Served, path: str) -> str:
    answer = album.get(path, headers={"accept": "text/html"})
    assert answer.status_code == 200, answer.text
    return unescape(answer.text)


def test_details_are_words_that_people_read(album: Served) -> None:
    shown = page(album, "/?item=c.jpg")
    assert "<dt>taken</dt><dd>8 July 2025, 09:10 (UTC+02:00)</dd>" in shown
    place = "https://www.openstreetmap.org/?mlat=-33.85680&mlon=151.21530#map=15/-33.85680/151.21530"
    assert f'<a href="{place}" rel="noreferrer"' in shown
    assert ">33.85680° S, 151.21530° E, 171 m</a>" in shown
    assert "<dt>exposure</dt><dd>1/250 s, f/2.8, ISO 400, 50 mm</dd>" in shown
    assert "<dt>keywords</dt><dd>snow, dog</dd>" in shown
    assert "<dt>f_number</dt>" not in shown


def test_hits_of_the_api_carry_the_columns(album: Served) -> None:
    where = "taken_at >= DATE '2024-06-01' AND within_km(latitude, longitude, 48.2, 16.4, 5)"
    (hit,) = album.ask(text="a red square", where=where)["hits"]
    assert (hit["item_id"], hit["taken_at"], hit["taken_at_offset"]) == ("a.jpg", "2024-06-15T14:30:00.250000", 120)
    assert (hit["keywords"], hit["exposure"], hit["camera"]) == (["snow", "dog"], 0.004, "NIKON D750")
    assert album.ask(text="a red square", where="taken_at > current_date + INTERVAL 100 YEAR")["hits"] == []


@pytest.mark.parametrize(("sort", "order"), [("taken_at", "bacd"), ("-taken_at", "cabd")])
def test_hits_are_sorted_by_date(album: Served, sort: str, order: str) -> None:
    hits = album.ask(text="a red square", sort=sort)["hits"]
    assert [hit["item_id"][0] for hit in hits] == list(order)
    assert sorted(hit["rank"] for hit in hits) == [1, 2, 3, 4]
    answer = album.post("/search", json={"queries": [{"text": "a red square", "sort": sort}]}).json()["answers"][0]
    assert [hit["item_id"][0] for hit in answer["hits"]] == list(order)


def test_the_page_offers_the_newest_first_and_leaves_texts_as_they_are(album: Served) -> None:
    shown = page(album, "/?q=a+red+square&sort=-taken_at")
    assert 'name="sort" value="-taken_at" checked' in shown
    assert [shown.index(f'data-item="images:{name}.jpg"') for name in "cabd"] == sorted(
        shown.index(f'data-item="images:{name}.jpg"') for name in "abcd"
    )
    assert "Matching texts" in page(album, "/?item=a.jpg&sort=-taken_at")
    assert 'name="sort"' not in page(album, "/?q=a+red+square&into=texts")


def test_where_files_lie_is_nothing_to_sort_by(album: Served) -> None:
    answer = album.get("/search", params={"text": "red", "sort": "uri"})
    assert answer.status_code == 400
    assert "sort names no column 'uri'" in answer.json()["error"]


@pytest.mark.parametrize(
    ("entry", "facts"),
    [
        ({"exposure": 2.5}, [Fact("exposure", "2.5 s")]),
        ({"exposure": 0.5, "iso": 100}, [Fact("exposure", "0.5 s, ISO 100")]),
        ({"taken_at": DAYS["b"], "taken_at_offset": -210}, [Fact("taken", "2 January 2023, 03:04 (UTC-03:30)")]),
        ({"rating": -1}, [Fact("rating", "rejected")]),
        # Columns of the user's own.
        ({"taken_at": "once", "rating": "fine", "latitude": "north", "longitude": 7.0, "keywords": "a b"}, []),
        ({"latitude": 95.0, "longitude": 7.0, "rating": 9, "exposure": None}, []),
    ],
)
def test_values_of_any_kind_are_shown_or_left_alone(entry: dict[str, Any], facts: list[Fact]) -> None:
    assert photo_facts(entry)[0] == facts
