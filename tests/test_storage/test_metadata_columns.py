"""NaN in a column of the user's is stored as missing; what is missing passes no comparison."""

from __future__ import annotations

import math
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_index import tables

from storage.catalog import Catalog, write_catalog
from storage.metadata_columns import nan_as_null

NAN = math.nan
NESTED: dict[pa.DataType, list[Any]] = {
    pa.float64(): [1.0, NAN, None, math.inf],
    pa.list_(pa.float32()): [[1.0, NAN], None, [], [NAN]],
    pa.large_list(pa.list_(pa.float64())): [[[1.0, NAN], None], None, []],
    pa.list_(pa.float64(), 2): [[1.0, NAN], None, [None, 2.0]],
    pa.struct({"a": pa.float64(), "b": pa.string()}): [{"a": NAN, "b": "x"}, None, {"a": 2.0, "b": None}],
    pa.map_(pa.string(), pa.float64()): [[("a", NAN)], None, [("b", 1.0), ("c", NAN)]],
    pa.list_(pa.struct({"x": pa.list_(pa.float64())})): [[{"x": [NAN, 1.0]}, None], None, [{"x": None}]],
    pa.list_(pa.string()): [["nan"], None, [None]],
}


def scrubbed(value: Any) -> Any:
    """The same value with None for NaN, by plain Python."""
    if isinstance(value, list | tuple):
        return type(value)(map(scrubbed, value))
    if isinstance(value, dict):
        return {name: scrubbed(part) for name, part in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


@pytest.mark.parametrize("kind", NESTED, ids=str)
@given(start=st.integers(0, 9), length=st.integers(0, 9))
def test_nan_becomes_null_however_deep_and_nothing_else_changes(kind: pa.DataType, start: int, length: int) -> None:
    array = pa.array(NESTED[kind] * 3, kind).slice(start, length)
    changed = nan_as_null(array)
    changed.validate(full=True)
    assert changed.type == kind
    assert changed.to_pylist() == scrubbed(array.to_pylist())


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("nan") / "c.duckdb"
    images = tables(4)["images"].append_column("price", pa.chunked_array([[10.0, NAN], [math.inf, None]]))
    images = images.append_column("half", pa.array([1.0, NAN, 2.0, NAN], pa.float16()))
    images = images.append_column("marks", pa.array([[1.0, NAN], [NAN], [9.0], None]))
    write_catalog(path, **{**tables(4), "images": images})
    with Catalog.open(path) as opened:
        yield opened


EXPECTED = {
    "price > 5": [0, 2],
    "not price > 5": [],
    "price <= 5 or price > 5": [0, 2],
    "price is null": [1, 3],
    "price = 'inf'": [2],
    "isnan(price)": [],
    "half >= 1": [0, 2],
    "list_max(marks) > 5": [2],
    "list_max(marks) < 5": [0],
    "price / 0 > 5": [],
    "width / (row_id - row_id) > 0": [],
    "width % 0 >= 0": [],
}


@pytest.mark.parametrize("where", EXPECTED)
def test_what_is_missing_passes_no_comparison(catalog: Catalog, where: str) -> None:
    assert catalog.filter_rows("images", where).tolist() == EXPECTED[where]


def test_the_rows_say_so_too(catalog: Catalog) -> None:
    assert [row["price"] for row in catalog.rows("images", range(4))] == [10.0, None, math.inf, None]
