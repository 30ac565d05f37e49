"""Tables written as CSV, as they come out of spreadsheets and data frames."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexer.corpus import Item, SourceOptions, open_source
from indexer.corpus.item import Rejection
from indexer.errors import SourceError


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode("utf-8") if isinstance(text, str) else text)
    return path


def read(path: Path, **options: Any) -> list[Item | Rejection]:
    return list(open_source(path, SourceOptions(**options)).items())


def contents(entries: list[Item | Rejection]) -> list[Any]:
    return [entry.content for entry in entries if isinstance(entry, Item) and entry.collection == "texts"]


def test_rows_of_image_and_caption_as_automm_writes_them(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", ",caption,image\n0,one dog,a.jpg\n1,a dog,a.jpg\n2,a cat,b.jpg;c.jpg\n")
    assert [entry.item_id for entry in read(path)] == ["a.jpg", "a.jpg#0", "a.jpg#1", "b.jpg", "c.jpg", "b.jpg#0"]


def test_quoted_line_ends_quotes_and_commas_survive(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", 'text,n\n"two\nlines, ""quoted""",1\r\nplain,2\n')
    assert contents(read(path)) == ['two\nlines, "quoted"', "plain"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_counted_in_the_header(tmp_path: Path, delimiter: str) -> None:
    path = write(tmp_path / "t.csv", delimiter.join(["image", "caption"]) + "\n" + delimiter.join(["a.jpg", "x"]))
    assert [entry.item_id for entry in read(path)] == ["a.jpg", "a.jpg#0"]


def test_the_delimiter_can_be_given(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "image;other,caption\na;b.jpg,x\n")
    assert contents(read(path, text="caption", delimiter=",")) == ["x"]


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", b"\xef\xbb\xbfimage,caption\na.jpg,x\n")
    assert open_source(path).name == "table t.csv (image=image, text=caption)"
    assert len(read(path)) == 2


def test_names_that_look_like_numbers_keep_their_zeros(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "id,text\n007,1\n008,true\n")
    entries = read(path, id="id", text="text")
    assert [(entry.item_id, content) for entry, content in zip(entries, contents(entries), strict=True)] == [
        ("007", "1"),
        ("008", "true"),
    ]


def test_words_that_mean_missing_elsewhere_are_captions_here(tmp_path: Path) -> None:
    assert contents(read(write(tmp_path / "t.csv", "text,n\nNA,1\nnull,2\nNone,3\n"))) == ["NA", "null", "None"]


def test_metadata_types_are_found_over_the_whole_file(tmp_path: Path) -> None:
    rows = "".join(f"x,{n},{n / 2},2024-01-01,true,z\n" for n in range(1000))
    path = write(tmp_path / "t.csv", "text,n,price,day,new,late\n" + rows + "x,,0.25,,,5\n")
    assert open_source(path).metadata_schema == pa.schema(
        [("n", pa.int64()), ("price", pa.float64()), ("day", pa.date32()), ("new", pa.bool_()), ("late", pa.string())]
    )


def test_a_metadata_cell_that_is_not_utf8_is_kept_with_a_replacement(tmp_path: Path) -> None:
    (item,) = read(write(tmp_path / "t.csv", b"text,brand\nx,caf\xe9\n"))
    assert isinstance(item, Item)
    assert item.metadata == {"brand": "caf\ufffd"}


def test_a_caption_that_is_not_utf8_is_rejected_and_its_image_stays(tmp_path: Path) -> None:
    entries = read(write(tmp_path / "t.csv", b"image,caption\na.jpg,caf\xe9\nb.jpg,fine\n"))
    assert [(entry.item_id, isinstance(entry, Item)) for entry in entries] == [
        ("a.jpg", True),
        ("a.jpg#0", False),
        ("b.jpg", True),
        ("b.jpg#0", True),
    ]


def test_an_image_path_that_is_not_utf8_is_rejected(tmp_path: Path) -> None:
    (rejected,) = read(write(tmp_path / "t.csv", b"image,n\ncaf\xe9.jpg,1\n"))
    assert isinstance(rejected, Rejection)
    assert rejected.reason == "not_utf8"


def test_an_empty_caption_is_rejected(tmp_path: Path) -> None:
    _, rejected = read(write(tmp_path / "t.csv", "image,caption\na.jpg,\n"))
    assert isinstance(rejected, Rejection)
    assert rejected.reason == "empty_text"


def test_a_row_of_too_many_cells_is_rejected_in_its_place(tmp_path: Path) -> None:
    entries = read(write(tmp_path / "t.csv", "text,n\na,1\nb,2,3\nc,3\nd\n"))
    assert [entry.item_id for entry in entries] == ["row-1", "row-2", "row-3", "row-4"]
    rejected = [entry for entry in entries if isinstance(entry, Rejection)]
    assert [entry.reason for entry in rejected] == ["wrong_cell_count"] * 2
    assert rejected[0].detail == "row 2 of t.csv has 3 cells where the header has 2"


def test_a_split_is_picked_beside_columns_of_other_types(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "text,split,n\none,train,1\ntwo,test,2\n")
    (item,) = read(path, splits=("test",))
    assert isinstance(item, Item)
    assert (item.content, item.split, item.metadata) == ("two", "test", {"n": 2})


def test_columns_and_cells_beyond_ascii_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "Bild,Größe,标题\nä.jpg,groß,一只狗\n")
    image, text = read(path, image="Bild", text="标题")
    assert isinstance(image, Item)
    assert (image.item_id, image.metadata) == ("ä.jpg", {"Größe": "groß"})
    assert isinstance(text, Item)
    assert text.content == "一只狗"


def test_a_row_of_too_many_cells_that_is_not_utf8_is_counted_too(tmp_path: Path) -> None:
    entries = read(write(tmp_path / "t.csv", b"text,n\na,1\ncaf\xe9,2,3\nb,2\n"))
    assert [(entry.item_id, type(entry)) for entry in entries] == [
        ("row-1", Item),
        ("row-2", Rejection),
        ("row-3", Item),
    ]


def test_a_role_column_can_be_metadata_as_well(tmp_path: Path) -> None:
    (item,) = read(write(tmp_path / "t.csv", "text,id\nx,007\n"), text="text", id="id", metadata=("id",))
    assert isinstance(item, Item)
    assert (item.item_id, item.metadata) == ("007", {"id": "007"})


def test_a_tab_separated_table_may_hold_commas(tmp_path: Path) -> None:
    assert contents(read(write(tmp_path / "t.tsv", "text\ta,b,c\none, two\t1\n"))) == ["one, two"]


def test_a_zipped_table_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(b"text,n\nx,1\n"))
    assert contents(read(path)) == ["x"]


def test_a_cell_longer_than_a_megabyte_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "text,n\n" + "x" * 3_000_000 + ",1\n")
    assert [len(text) for text in contents(read(path))] == [3_000_000]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no header"),
        (b"\xef\xbb\xbf", "has no header"),
        (b"x" * 200_000, "the header of t.csv has 200000 characters"),
        (b"text,n\n", "has a header and no rows"),
        (b"text,n,n\nx,1,2\n", "names column 'n' more than once"),
        ("text,n\nx,1\n".encode("utf-16"), "is not UTF-8 text"),
        (b"te\xe9xt,n\nx,1\n", "is not UTF-8 text"),
    ],
)
def test_a_broken_table_is_one_clear_error(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(SourceError, match=rf"t\.csv .*{message}|{message}"):
        read(write(tmp_path / "t.csv", content), text="text")


def test_a_zipped_table_that_is_cut_short_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(b"text,n\n" + b"some words,1\n" * 10000)[:-20])
    with pytest.raises(SourceError, match=r"t\.csv\.gz cannot be read"):
        read(path)


# Controls and format characters alone are no caption, and a cell of them is rejected.
letters = st.characters(
    exclude_categories=("Cs", "Cc", "Cf", "Zl", "Zp"), include_characters="\n\t", exclude_characters="\u3164"
)
cell = st.text(letters, min_size=1, max_size=30)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(cell, cell), min_size=1, max_size=15))
def test_whatever_python_writes_as_csv_comes_back(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    path = tmp_path / "t.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["text", "key"])
        writer.writerows(rows)
    expected = [text.strip().strip("\ufeff\0").strip() for text, _ in rows]
    entries = read(path, text="text", metadata=())
    assert [entry.content if isinstance(entry, Item) else "" for entry in entries] == expected


@pytest.mark.parametrize(
    "rows",
    [
        'a.jpg,"one\nb.jpg,two\nc.jpg,three\n',
        'a.jpg,one\nb.jpg,"two\nc.jpg,three',
        '"a.jpg,one\nb.jpg,two\nc.jpg,three\n',
    ],
)
def test_a_quote_that_is_never_closed_is_an_error_and_not_one_long_cell(tmp_path: Path, rows: str) -> None:
    path = tmp_path / "open.csv"
    path.write_text("image,text\n" + rows, encoding="utf-8")
    with pytest.raises(SourceError, match=r"(is never closed|check its quotes)"):
        list(open_source(path).items())


@pytest.mark.parametrize(
    "last", ['"two\nlines"', '"two\nlines"\n', '"two\nlines"\r\n\r\n', '"says ""so""\nand goes"\n', '5" wide\n']
)
def test_quoted_line_ends_at_the_end_of_a_table_are_fine(tmp_path: Path, last: str) -> None:
    path = tmp_path / "closed.csv"
    path.write_bytes(f"image,text\na.jpg,one\nb.jpg,{last}".encode())
    texts = [item.content for item in open_source(path).items() if item.collection == "texts"]
    assert len(texts) == 2
