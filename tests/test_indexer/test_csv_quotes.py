"""Quotes in CSV files that would swallow rows, and those that hold a cell of several lines together."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexer.corpus import Item, SourceOptions, open_source
from indexer.corpus.item import Rejection
from indexer.corpus.tables.csv_quotes import read_quotes
from indexer.errors import SourceError
from training.examples import read_captions
from twinlens.commands.match import match


def write(path: Path, text: str) -> Path:
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def read(path: Path, **options: Any) -> list[Item | Rejection]:
    return list(open_source(path, SourceOptions(**options)).items())


def captions(path: Path, **options: Any) -> list[Any]:
    return [one.content for one in read(path, **options) if isinstance(one, Item) and one.collection == "texts"]


UNQUOTED = {
    "closed where the next quote opens": ['"hello he said', "one", '"bye" two', "three"],
    "closed at the end of a row": ['"hello', "one", 'bye"', "three"],
    "never closed": ["one", '"hello he said', "two", "three"],
    "in one row alone": ['"hello'],
    "no row swallowed, quotes lost": ['"bye" two', "one"],
    "many rows": ['"start', *(f"row {n}" for n in range(3000)), 'end"', "after"],
}


@pytest.mark.parametrize("name", ["t.tsv", "t.tsv.gz"])
@pytest.mark.parametrize("rows", UNQUOTED.values(), ids=UNQUOTED)
def test_a_tsv_without_quoting_loses_no_row_and_no_sign(tmp_path: Path, rows: list[str], name: str) -> None:
    text = "image\tcaption\n" + "".join(f"{n}.jpg\t{row}\n" for n, row in enumerate(rows))
    path = write(tmp_path / name, text)
    assert captions(path) == rows
    source = open_source(path)
    line = next(n for n, row in enumerate(rows, start=2) if row.startswith('"'))
    assert any(f"since the one in line {line} closes no cell; --quoting csv" in note for note in source.notes)


@pytest.mark.parametrize("rows", [rows for name, rows in UNQUOTED.items() if "lost" not in name])
@pytest.mark.parametrize("delimiter", [",", ";", "|"])
def test_a_csv_whose_quotes_swallow_rows_is_refused_with_the_line(
    tmp_path: Path, rows: list[str], delimiter: str
) -> None:
    text = f"image{delimiter}caption\n" + "".join(f"{n}.jpg{delimiter}{row}\n" for n, row in enumerate(rows))
    path = write(tmp_path / "t.csv", text)
    line = next(n for n, row in enumerate(rows, start=2) if row.startswith('"'))
    with pytest.raises(SourceError, match=rf"in line {line} of t\.csv .*--quoting none where quotes are signs"):
        read(path)
    assert captions(path, quoting="none") == rows


def test_a_tsv_that_needs_quoting_elsewhere_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "t.tsv", 'image\tcaption\n0.jpg\t"a ""red"" card"\n1.jpg\t"open\n2.jpg\ttwo"\n3.jpg\tx\n')
    with pytest.raises(SourceError, match=r"in line 3 of t\.tsv takes the rows up to line 4 into it"):
        read(path)
    assert captions(path, quoting="csv") == ['a "red" card', "open\n2.jpg\ttwo", "x"]


LEGITIMATE = [
    'image,caption\na.jpg,"two\nlines"\nb.jpg,one\n',
    'image,caption\na.jpg,"Dear Sir,\nthank you, bye"\nb.jpg,one\n',
    'image,caption\na.jpg,"red,\n\nblue,\ngreen"\nb.jpg,one\n',
    'caption,image\n"Dear Sir,\nthank you",a.jpg\none,b.jpg\n',
    'image\tcaption\na.jpg\t"two\nlines"\nb.jpg\tone\n',
    'caption\timage\n"two\nlines"\ta.jpg\none\tb.jpg\n',
    'image,caption\na.jpg,"two\nlines" \nb.jpg,one\n',
    '"image"\t"caption"\n"3.jpg"\t"he said\n\tred"\n"b.jpg"\t"one"\n',
    '"image","caption"\n"2.jpg","1\n,1"\n"b.jpg","one"\n',
]


@pytest.mark.parametrize("text", LEGITIMATE)
def test_a_cell_of_several_lines_stays_one(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / ("t.tsv" if "\t" in text else "t.csv"), text)
    first, second = captions(path)
    assert "\n" in first
    assert second == "one"


def test_rows_of_ids_and_numbers_are_told_from_words() -> None:
    swallowed = 'key,text\nAB-1,"open\nAB-22,close"\nAB-3,x\n'
    assert read_quotes(io.StringIO(swallowed), ",").swallowed == (2, 3)
    assert read_quotes(io.StringIO('key,text\nred,"big\nblue,small"\n'), ",").swallowed == (0, 0)
    assert read_quotes(io.StringIO('text,n\n"open,1\nclose",2\nx,3\n'), ",").swallowed == (2, 3)


def test_what_pandas_and_python_write_is_read_as_written(tmp_path: Path) -> None:
    rows = [(f"{n}.jpg", text) for n, text in enumerate(['say "hi"', "a\tb", "two\nlines", '"quoted"', "plain"])]
    for delimiter, name in ((",", "t.csv"), ("\t", "t.tsv")):
        with (tmp_path / name).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, delimiter=delimiter).writerows([("image", "caption"), *rows])
        assert captions(tmp_path / name) == [text for _, text in rows]


def test_old_line_ends_are_lines_too() -> None:
    swallowed = 'image\tcaption\r0.jpg\t"open\r1.jpg\tone\r2.jpg\tclose"\r'
    assert read_quotes(io.StringIO(swallowed, newline=None), "\t").swallowed == (2, 4)


def test_the_option_reaches_fitting_and_matching(tmp_path: Path, photos: Path) -> None:
    images = sorted(photos.rglob("*.png"))[:2]
    text = "image\tcaption\n" + "\n".join(f'{image}\t"words {n}' for n, image in enumerate(images))
    path = write(tmp_path / "t.csv", text)
    train = read_captions(path, options=SourceOptions(quoting="none"))
    assert train.captions == [['"words 0'], ['"words 1']]
    assert any("quotes in t.csv are taken for signs" in note for note in read_captions(path).notes)
    options = ["--image", "image", "--text", "caption", "--encoder", "lite", "--uncalibrated", "--output", "json"]
    done = CliRunner().invoke(match, [str(path), *options], standalone_mode=False)
    assert done.exception is None
    assert [row["caption"] for row in json.loads(done.stdout)] == ['"words 0', '"words 1']
    assert "quotes in t.csv are taken for signs like others" in done.stderr


words = st.lists(
    st.sampled_from(['"', '""', "a", "red dog", ",", '"quoted"', 'end"', '"start', "x.jpg", "it's"]), max_size=6
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(words.map("".join), min_size=1, max_size=8), delimiter=st.sampled_from("\t;"))
def test_no_row_is_lost_whatever_quotes_a_file_without_quoting_has(
    tmp_path: Path, rows: list[str], delimiter: str
) -> None:
    lines = "".join(f"{n}.jpg{delimiter}{row}\n" for n, row in enumerate(rows))
    path = write(tmp_path / "t.tsv", f"image{delimiter}caption\n{lines}")
    try:
        images = [one.item_id for one in read(path, delimiter=delimiter) if one.collection == "images"]
    except SourceError as error:
        assert "--quoting none" in str(error)  # noqa: PT017
    else:
        assert images == [f"{n}.jpg" for n in range(len(rows))]


def test_an_unknown_quoting_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="quoting 'all' is unknown; give one of auto, csv, none"):
        open_source(write(tmp_path / "t.csv", "text\nx\n"), SourceOptions(quoting="all"))
    with pytest.raises(SourceError, match="a text file of lines has no quoting 'none'"):
        open_source(write(tmp_path / "t.txt", "x\n"), SourceOptions(quoting="none"))
