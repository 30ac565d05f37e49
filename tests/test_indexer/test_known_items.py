"""What an update knows of the current version: found by id and by checksum, and small."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pytest
from small_index import tables

from indexer.encode.known_items import KnownItem, KnownItems
from storage import IndexVersion
from storage.catalog import Catalog, write_catalog

ROWS = 20_000


def known_items(path: Path, images: pa.Table) -> KnownItems:
    write_catalog(path, **{**tables(0), "images": images})
    with Catalog.open(path) as catalog:
        version = SimpleNamespace(catalog=catalog, manifest=SimpleNamespace(build={}))
        return KnownItems(cast(IndexVersion, version), "images")


def with_column(images: pa.Table, name: str, values: list[Any]) -> pa.Table:
    place = images.column_names.index(name)
    return images.set_column(place, name, pa.array(values, images.schema.field(name).type))


@pytest.fixture(scope="module")
def images() -> pa.Table:
    rows = range(ROWS)
    images = with_column(tables(ROWS)["images"], "sha256", [f"{row:064x}" for row in rows])
    images = with_column(images, "uri", [f"folder of photographs/photo {row:07}.jpg" for row in rows])
    return with_column(images, "file_bytes", [None if row % 7 == 0 else row for row in rows])


def test_each_item_is_found_by_its_id_and_its_checksum(tmp_path: Path, images: pa.Table) -> None:
    known = known_items(tmp_path / "c.duckdb", images)
    for row, expected in enumerate(images.slice(0, 300).to_pylist()):
        item = known.of_id(expected["item_id"])
        assert isinstance(item, KnownItem)
        assert (item.row_id, item.uri) == (row, expected["uri"])
        facts = item.info
        assert (facts.width, facts.sha256, facts.file_bytes) == (
            expected["width"],
            expected["sha256"],
            expected["file_bytes"],
        )
        assert known.of_sha256(expected["sha256"]) == item
    assert known.of_id("nowhere") is None
    assert known.of_sha256("f" * 64) is None


def test_sizes_are_those_of_files(tmp_path: Path, images: pa.Table) -> None:
    known = known_items(tmp_path / "c.duckdb", images)
    assert [size for size in (None, 0, 1, 6, 7, 8, ROWS - 2, ROWS) if known.has_size(size)] == [1, 6, 8, ROWS - 2]


def test_of_equal_checksums_the_last_is_taken(tmp_path: Path, images: pa.Table) -> None:
    same = with_column(images.slice(0, 50), "sha256", ["0" * 64] * 50)
    item = known_items(tmp_path / "c.duckdb", same).of_sha256("0" * 64)
    assert item is not None
    assert item.row_id == 49


def test_nothing_is_known_of_an_empty_collection(tmp_path: Path) -> None:
    known = known_items(tmp_path / "c.duckdb", tables(0)["images"])
    assert known.of_id("a") is None
    assert known.of_sha256("a") is None
    assert not known.has_size(1)


def test_a_million_items_take_less_than_300_mb(tmp_path: Path, images: pa.Table) -> None:
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    known = known_items(tmp_path / "c.duckdb", images)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert known.of_id("item_id-5") is not None
    assert (pa.total_allocated_bytes() - before + held) / ROWS < 300
