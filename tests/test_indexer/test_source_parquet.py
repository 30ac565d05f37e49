"""Tables written as Parquet, with images in their cells or beside them."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from indexer.corpus import Item, Source, SourceOptions, open_source
from indexer.corpus.item import Rejection
from indexer.errors import SourceError


def write(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def items(source: Source) -> list[Item]:
    return [entry for entry in source.items() if isinstance(entry, Item)]


def test_image_files_in_cells_are_items_of_bytes(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", image=[b"\xff\xd8one", b"\xff\xd8two"], caption=["x", "y"])
    first, text, second, _ = items(open_source(path))
    assert (first.item_id, first.content, first.uri) == ("row-1", b"\xff\xd8one", "t.parquet#row-1")
    assert (text.item_id, text.image_ids) == ("row-1#0", ("row-1",))
    assert second.item_id == "row-2"


def test_an_id_column_names_image_files_in_cells(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", image=[b"\xff\xd8"], key=[7])
    (item,) = items(open_source(path, SourceOptions(image="image", id="key")))
    assert (item.item_id, item.uri) == ("7", "t.parquet#7")


def test_image_structs_of_bytes_and_path_are_read(tmp_path: Path) -> None:
    cells = [{"bytes": b"\xff\xd8", "path": "a.jpg"}, {"bytes": None, "path": "b.jpg"}]
    first, second = items(open_source(write(tmp_path / "t.parquet", image=cells)))
    assert (first.item_id, first.content) == ("a.jpg", b"\xff\xd8")
    assert (second.item_id, second.content) == ("b.jpg", tmp_path / "b.jpg")


@pytest.mark.parametrize("cell", [None, b""])
def test_a_cell_without_bytes_is_a_missing_image(tmp_path: Path, cell: bytes | None) -> None:
    path = write(tmp_path / "t.parquet", image=pa.array([cell, b"\xff"], pa.binary()))
    rejected, _ = open_source(path).items()
    assert isinstance(rejected, Rejection)
    assert rejected.reason == "missing_value"


def test_lists_of_paths_and_captions_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", image=[["a.jpg", "b.jpg"]], captions=[["x", "y"]])
    assert [item.item_id for item in items(open_source(path))] == ["a.jpg", "b.jpg", "a.jpg#0", "a.jpg#1"]


def test_the_files_own_types_are_kept(tmp_path: Path) -> None:
    when = dt.datetime(2024, 5, 6, 7, 8, 9, 123456)
    columns = {
        "n": pa.array([1], pa.int16()),
        "half": pa.array([0.5], pa.float16()),
        "price": pa.array([Decimal("1.50")], pa.decimal128(9, 2)),
        "when": pa.array([when], pa.timestamp("ns")),
        "day": pa.array([when.date()]),
        "kind": pa.array(["x"]).dictionary_encode(),
        "tags": pa.array([["a", "b"]]),
        "place": pa.array([{"lat": 1.5}]),
        "nothing": pa.nulls(1),
        "big": pa.array(["y"], pa.large_string()),
    }
    source = open_source(write(tmp_path / "t.parquet", text=["x"], **columns))
    kinds = "int16 float decimal128(9, 2) timestamp[us] date32[day] string string string string string"
    assert " ".join(map(str, source.metadata_schema.types)) == kinds
    (item,) = items(source)
    assert [*item.metadata.values()] == [
        1,
        0.5,
        Decimal("1.50"),
        when,
        when.date(),
        "x",
        '["a", "b"]',
        '{"lat": 1.5}',
        None,
        "y",
    ]
    assert pa.Table.from_pylist([dict(item.metadata)], source.metadata_schema).num_rows == 1


def test_other_columns_of_bytes_are_left_out_and_said(tmp_path: Path) -> None:
    source = open_source(write(tmp_path / "t.parquet", text=["x"], thumbnail=[b"\xff"]))
    assert source.metadata_schema.names == []
    assert any("'thumbnail' holds bytes" in note for note in source.notes)
    assert items(source)[0].metadata == {}


def test_rows_over_many_row_groups_keep_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"text": [f"text {n}" for n in range(1000)]}), path, row_group_size=100)
    assert [item.item_id for item in items(open_source(path))] == [f"row-{n}" for n in range(1, 1001)]


def test_a_split_is_picked(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", text=["x", "y"], split=["train", "test"])
    assert [item.content for item in items(open_source(path, SourceOptions(splits=("test",))))] == ["y"]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet at all"])
def test_a_file_that_is_no_parquet_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.parquet").write_bytes(content)
    with pytest.raises(SourceError, match=r"t\.parquet cannot be read as Parquet"):
        open_source(tmp_path / "t.parquet")


def test_damage_inside_a_file_is_one_clear_error(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", text=[f"text {n}" for n in range(5000)])
    damaged = bytearray(path.read_bytes())
    damaged[4:400] = b"\xff" * 396
    path.write_bytes(damaged)
    with pytest.raises(SourceError, match=r"t\.parquet is damaged after row"):
        list(open_source(path).items())


def test_a_file_without_rows_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="has columns and no rows"):
        open_source(write(tmp_path / "t.parquet", text=pa.array([], pa.string())))
