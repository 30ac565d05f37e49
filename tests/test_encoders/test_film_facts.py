"""When, where and with what a film was taken, by what its container tells."""

from __future__ import annotations

from datetime import datetime

import pytest

from encoders.file_facts.film import film_facts

APPLE = "com.apple.quicktime."


def test_a_frame_was_taken_when_the_film_began_and_its_seconds_later() -> None:
    told = {f"{APPLE}creationdate": "2024-07-01T23:59:58+0200", "creation_time": "2024-07-01T21:59:59.000000Z"}
    assert film_facts(told, 3.5) == {"taken_at": datetime(2024, 7, 2, 0, 0, 1, 500_000), "taken_at_offset": 120}
    del told[f"{APPLE}creationdate"]
    assert film_facts(told, 0) == {"taken_at": datetime(2024, 7, 1, 21, 59, 59), "taken_at_offset": 0}


@pytest.mark.parametrize("date", ["1904-01-01T00:00:00.000000Z", "1970-01-01T00:00:00Z", "yesterday", "", "2024-13-01"])
def test_a_date_that_is_none_is_not_told(date: str) -> None:
    assert film_facts({"creation_time": date}, 1) == {}


def test_places_cameras_and_titles() -> None:
    told = {
        "location": "-33.8568+151.2153/",
        "com.android.manufacturer": "Google",
        "com.android.model": "Pixel 9",
        "title": " The harbour\n",
    }
    known = {"latitude": -33.8568, "longitude": 151.2153, "camera": "Google Pixel 9", "title": "The harbour"}
    assert film_facts(told, 0) == known
    place = {f"{APPLE}location.ISO6709": "+48.2082+016.3738-003.5/"}
    assert film_facts(place, 0) == {"latitude": 48.2082, "longitude": 16.3738, "altitude": -3.5}


@pytest.mark.parametrize("place", ["+00.0000+000.0000/", "+99.0000+016.0000/", "Vienna", ""])
def test_a_place_that_is_none_is_not_told(place: str) -> None:
    assert film_facts({"location": place}, 0) == {}
