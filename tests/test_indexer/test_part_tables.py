"""Folders and patterns of Parquet shards as one corpus."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from colour import ColourEncoder, paint

from indexer import build_index
from indexer.corpus import Item, SourceOptions, open_source
from indexer.corpus.file_pattern import natural_key
from indexer.corpus.item import Rejection
from indexer.corpus.tables.table_folder import split_in_name
from indexer.errors import SourceError
from storage.errors import DuplicateItemError

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def put(path: Path, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def embedded(folder: Path, path: Path, *colours: str, **columns: Any) -> None:
    cells = [{"bytes": paint(folder / "one.png", colour).read_bytes(), "path": None} for colour in colours]
    (folder / "one.png").unlink()
    put(path, image=pa.array(cells, STRUCT), text=[f"a {colour} square" for colour in colours], **columns)


def read(path: Path, **options: Any) -> list[Item | Rejection]:
    return list(open_source(path, SourceOptions(**options)).items())


def contents(entries: list[Item | Rejection]) -> list[Any]:
    return [one.content for one in entries if isinstance(one, Item)]


def test_a_clone_of_a_hub_is_one_corpus_with_its_splits(tmp_path: Path) -> None:
    data = tmp_path / "hub" / "data"
    embedded(tmp_path, data / "train-00000-of-00002.parquet", "red", "blue")
    embedded(tmp_path, data / "train-00001-of-00002.parquet", "green")
    embedded(tmp_path, data / "validation-00000-of-00001.parquet", "yellow")
    (tmp_path / "hub" / "README.md").write_text("words", encoding="utf-8")
    (tmp_path / "hub" / ".git").mkdir()
    (tmp_path / "hub" / ".git" / "old.parquet").write_bytes(b"no Parquet")
    entries = read(tmp_path / "hub")
    images = [one for one in entries if isinstance(one, Item) and one.collection == "images"]
    assert [(one.item_id, one.split) for one in images] == [
        ("data/train-00000-of-00002.parquet#row-1", "train"),
        ("data/train-00000-of-00002.parquet#row-2", "train"),
        ("data/train-00001-of-00002.parquet#row-1", "train"),
        ("data/validation-00000-of-00001.parquet#row-1", "validation"),
    ]
    assert images[2].location == "row 1 of data/train-00001-of-00002.parquet"
    assert images[2].uri == images[2].item_id
    chosen = read(tmp_path / "hub", splits=("validation",))
    assert [one.content for one in chosen[1:] if isinstance(one, Item)] == ["a yellow square"]
    with pytest.raises(SourceError, match=r"no rows of split 'test'; its splits: train \(3\), validation \(1\)"):
        read(tmp_path / "hub", splits=("test",))
    report = build_index(tmp_path / "hub", tmp_path / "out", encoder=ColourEncoder())
    assert (report.manifest.counts.images, report.manifest.counts.texts, report.manifest.counts.pairs) == (4, 4, 4)


@pytest.mark.parametrize("pattern", ["data/*.parquet", "data/part-{1..10}.parquet", "**/*.parquet"])
def test_a_pattern_names_several_parts(tmp_path: Path, pattern: str) -> None:
    for number in range(1, 11):
        put(tmp_path / "data" / f"part-{number}.parquet", text=[f"text {number}"])
    found = contents(read(tmp_path / pattern))
    assert sorted(found) == sorted(f"text {number}" for number in range(1, 11))
    assert contents(read(tmp_path / "data"))[-1] == "text 10"


def test_a_pattern_that_fits_nothing_says_so(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no Parquet file fits .*quote the pattern"):
        open_source(tmp_path / "*.parquet")


def test_rows_of_one_path_are_joined_over_all_parts(tmp_path: Path) -> None:
    put(tmp_path / "t" / "0.parquet", image=["im/a.jpg"], caption=["one"])
    put(tmp_path / "t" / "1.parquet", image=["./im/a.jpg", "b.jpg"], caption=["two", "three"])
    entries = read(tmp_path / "t")
    assert [one.item_id for one in entries] == ["im/a.jpg", "im/a.jpg#0", "im/a.jpg#1", "b.jpg", "b.jpg#0"]


def test_an_id_in_two_parts_is_an_error_that_names_both(tmp_path: Path) -> None:
    for name in ("0", "1"):
        put(tmp_path / "t" / f"{name}.parquet", id=[5], image=["a.jpg"])
    with pytest.raises(DuplicateItemError, match=r"id '5' stands in row 1 of 0\.parquet and row 1 of 1\.parquet"):
        read(tmp_path / "t", id="id", image="image")


def test_parts_have_the_types_in_common_that_lose_nothing(tmp_path: Path) -> None:
    put(tmp_path / "t" / "0.parquet", text=["a"], n=pa.array([1], pa.int8()), m=pa.nulls(1), big=pa.array([2**53 + 1]))
    put(tmp_path / "t" / "1.parquet", text=["b"], n=pa.array([2**40]), m=[1.5], big=[0.5], late=["x"])
    put(tmp_path / "t" / "2.parquet", **{name: pa.array([], pa.string()) for name in ("text", "late")})
    source = open_source(tmp_path / "t")
    assert [one.metadata for one in source.items() if isinstance(one, Item)] == [
        {"n": 1, "m": None, "big": "9007199254740993", "late": None},
        {"n": 2**40, "m": 1.5, "big": "0.5", "late": "x"},
    ]
    assert "column 'late' is missing in 1 of 3 files, and null there" in source.notes


def test_a_part_of_another_table_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "t" / "0.parquet", image=["a.jpg"], caption=["one"])
    put(tmp_path / "t" / "licenses.parquet", license=["CC0"])
    with pytest.raises(SourceError, match=r"licenses\.parquet has no column 'image', which other .*by a pattern"):
        open_source(tmp_path / "t")


def test_parts_without_any_row_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "t" / "0.parquet", text=pa.array([], pa.string()))
    with pytest.raises(SourceError, match=r"1 Parquet files of .* have no rows"):
        open_source(tmp_path / "t")


def test_a_folder_of_images_stays_one_whatever_parquet_stands_there(tmp_path: Path) -> None:
    put(tmp_path / "t" / "0.parquet", image=["a.jpg"])
    (tmp_path / "t" / "sub").mkdir()
    paint(tmp_path / "t" / "sub" / "a.png", "red")
    assert [one.item_id for one in read(tmp_path / "t")] == ["sub/a.png"]


def test_a_pipe_among_the_parts_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "t" / "0.parquet", text=["a"])
    os.mkfifo(tmp_path / "t" / "1.parquet")
    with pytest.raises(SourceError, match="it is a pipe, not a regular file"):
        open_source(tmp_path / "t")


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train-00000-of-00002.parquet", "train"),
        ("data/test_clean-00000-of-00001-0123abcd.parquet", "test_clean"),
        ("default/validation/0000.parquet", "validation"),
        ("train.parquet", "train"),
        ("flickr_dev_3.parquet", "dev"),
        ("0000.parquet", None),
        ("trainer.parquet", None),
    ],
)
def test_the_split_stands_in_the_name(name: str, split: str | None) -> None:
    assert split_in_name(name) == split


def test_natural_order_knows_signs_that_are_no_digits() -> None:
    assert sorted(["a10", "a²", "a2", "10"], key=natural_key) == ["10", "a2", "a10", "a²"]
