"""A catalog is written and read below folders of any name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from small_index import tables

from storage.catalog import Catalog, write_catalog
from storage.errors import StorageError

NAMES = (
    "a?b",
    "a?access_mode=read_write",
    "a#b",
    "50%20",
    "back\\slash",
    "it's",
    'say "hi"',
    " spaces ",
    "line\nend",
    "ünï 日本",
    "*[x]{y}",
    "~",
    "semi;colon",
    "sqlite:x",
    ":memory:",
    os.fsdecode(b"not\xffunicode"),
)


@pytest.mark.parametrize("name", NAMES)
def test_a_catalog_below_an_odd_name_is_written_and_read(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    write_catalog(folder / "catalog.duckdb", **tables(20))
    assert [entry.name for entry in folder.iterdir()] == ["catalog.duckdb"]
    assert [entry.name for entry in tmp_path.iterdir()] == [name]
    with Catalog.open(folder / "catalog.duckdb") as catalog:
        (folder / "catalog.duckdb").unlink()
        assert catalog.filter_rows("images", "width >= 180").tolist() == [18, 19]
        assert catalog.table("images").num_rows == 20


def test_a_link_to_a_folder_of_an_odd_name_is_no_other(tmp_path: Path) -> None:
    (tmp_path / "a?b").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a?b")
    write_catalog(tmp_path / "link" / "catalog.duckdb", **tables(3))
    with Catalog.open(tmp_path / "link" / "catalog.duckdb") as catalog:
        assert catalog.counts["images"] == 3


def test_a_catalog_below_an_odd_name_is_written_once(tmp_path: Path) -> None:
    folder = tmp_path / "a?b"
    folder.mkdir()
    write_catalog(folder / "c.duckdb", **tables(3))
    with pytest.raises(StorageError, match="exists already"):
        write_catalog(folder / "c.duckdb", **tables(3))
