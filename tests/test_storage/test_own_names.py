"""`within_km`, `current_date` and `current_timestamp` in filters, here and in the process for costly ones."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from small_index import tables

from storage.catalog import Catalog, write_catalog
from storage.errors import SearchParameterError
from storage.filtering.cost import is_plain

ROWS = 400
NOW = datetime.now()
EARTH_KM = 6371.0088


def places() -> np.ndarray:
    """Degrees north and east (n, 2): all over the earth, at both poles and on both sides of the date line."""
    rng = np.random.default_rng(4)
    north, east = rng.uniform(-90, 90, ROWS), rng.uniform(-180, 180, ROWS)
    north[:4], east[:4] = (90, -90, 0, 0), (17, 17, 179.95, -179.95)
    north[4:60], east[4:60] = 48.2 + rng.normal(0, 0.05, 56), 16.4 + rng.normal(0, 0.05, 56)
    return np.stack([north, east], axis=1)


def on_sphere(degrees: np.ndarray) -> np.ndarray:
    north, east = np.radians(degrees).T
    return np.stack([np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north)], axis=1)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    """Photographs at those places, one an hour back from now; of every tenth neither is known."""
    images = tables(ROWS)["images"].drop_columns(["latitude", "longitude", "taken_at"])
    unknown = np.arange(ROWS) % 10 == 9
    for column, name in enumerate(("latitude", "longitude")):
        images = images.append_column(name, pa.array(places()[:, column], mask=unknown))
    taken = [NOW - timedelta(hours=row) for row in range(ROWS)]
    images = images.append_column("taken_at", pa.array(taken, pa.timestamp("us"), mask=unknown))
    path = tmp_path_factory.mktemp("places") / "c.duckdb"
    write_catalog(path, **{**tables(ROWS), "images": images})
    with Catalog.open(path) as opened:
        yield opened


def found(catalog: Catalog, where: str) -> list[int]:
    return catalog.filter_rows("images", where).tolist()


@pytest.mark.parametrize(
    ("north", "east", "km"),
    [(48.2, 16.4, 5), (48.2, 16.4, 2), (90, 0, 300), (-90, 120, 2000), (0, 180, 20), (0, -180, 20), (-20, 150, 9000)],
)
def test_what_lies_within_a_distance_is_found_anywhere_on_earth(
    catalog: Catalog, north: float, east: float, km: float
) -> None:
    chord = np.linalg.norm(on_sphere(places()) - on_sphere(np.array([[north, east]])), axis=1)
    near = 2 * EARTH_KM * np.arcsin(np.minimum(chord / 2, 1)) <= km
    expected = [row for row in range(ROWS) if near[row] and row % 10 != 9]
    where = f"within_km(latitude, longitude, {north}, {east}, {km})"
    assert found(catalog, where) == expected
    assert expected
    # In the process for filters that could cost much it is the same.
    assert found(catalog, f"regexp_matches(item_id, '.') AND {where}") == expected
    assert found(catalog, f"NOT {where}") == [row for row in range(ROWS) if not near[row] and row % 10 != 9]


def test_a_place_may_be_an_expression_and_what_is_no_place_is_unknown(catalog: Catalog) -> None:
    assert found(catalog, "within_km(latitude + 0.0, -(-longitude), 90 - 41.8, 16.4 + 360 - 360, 2 * 2.5)")
    assert found(catalog, "within_km(latitude + 200, longitude, 1, 2, 30000)") == []
    assert found(catalog, "WITHIN_KM(latitude, longitude, NULL, 2, 30000)") == []
    assert found(catalog, "caption ILIKE 'caption-1%' AND within_km(latitude, longitude, 0, 0, 30000)")[0] == 1
    with pytest.raises(SearchParameterError, match=r"within_km takes five values.*4 are given"):
        found(catalog, "within_km(latitude, longitude, 48.2, 16.4)")


def test_days_and_hours_back_from_now_are_found(catalog: Catalog) -> None:
    assert found(catalog, "taken_at > current_timestamp - INTERVAL 5 HOUR") == [0, 1, 2, 3, 4]
    midnight = NOW.replace(hour=0, minute=0, second=0, microsecond=0)
    back = [row for row in range(ROWS) if row % 10 != 9 and NOW - timedelta(hours=row) >= midnight - timedelta(days=3)]
    assert found(catalog, "taken_at >= current_date - INTERVAL 3 DAY") == back
    assert found(catalog, "regexp_matches(item_id, '.') AND taken_at >= CURRENT_DATE - INTERVAL '3 days'") == back
    day = f"DATE '{midnight - timedelta(days=3):%Y-%m-%d}'"
    assert found(catalog, f"taken_at BETWEEN {day} AND current_date + INTERVAL 1 DAY") == back
    hours = math.floor((NOW - midnight + timedelta(days=3)).total_seconds() / 3600)
    assert found(catalog, f"taken_at > TIMESTAMP '{NOW - timedelta(hours=hours, seconds=1)}'") == back


def test_a_column_called_like_the_clock_is_meant_by_its_name(tmp_path: Path) -> None:
    images = tables(3)["images"].append_column("current_date", pa.array(["a", "b", "c"]))
    write_catalog(tmp_path / "c", **{**tables(3), "images": images})
    with Catalog.open(tmp_path / "c") as catalog:
        assert found(catalog, "\"current_date\" = 'b'") == [1]


@pytest.mark.parametrize(
    "where",
    [
        "within_km(latitude, longitude, 48.2, 16.4, 5)",
        "taken_at > current_date - INTERVAL 30 DAY",
        "taken_at > current_timestamp - INTERVAL '2 hours'",
        "taken_at >= DATE '2024-06-01' AND within_km(latitude, longitude, 48.2, 16.4, 5)",
    ],
)
def test_places_and_dates_are_plain_filters(catalog: Catalog, where: str) -> None:
    assert is_plain(catalog.parse_predicate(where))


def test_an_interval_of_a_column_is_not(catalog: Catalog) -> None:
    assert not is_plain(catalog.parse_predicate("taken_at > current_date - INTERVAL (width) DAY"))
