"""Tables of images and captions: each format, each layout, and what is wrong with broken ones."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from training import ExamplesError, read_captions

ROWS = [
    {"image": "a.jpg", "captions": ["a dog", "1984"], "split": "train"},
    {"image": "b.jpg", "captions": ["null"], "split": "train"},
    {"image": "c.jpg", "captions": ["a cat, asleep"], "split": "dev"},
]


def write(path: Path) -> Path:
    """Write the rows in the format of the name; CSV and TSV with one caption a row."""
    flat = [{**row, "captions": caption} for row in ROWS for caption in row["captions"]]
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), "utf-8")
    elif path.suffix == ".parquet":
        pa.parquet.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        sign = "\t" if path.suffix == ".tsv" else ","
        lines = [sign.join(f'"{row[name]}"' for name in row) for row in flat]
        path.write_text("\n".join([sign.join(ROWS[0]), *lines]), "utf-8")
    return path


@pytest.mark.parametrize("name", ["t.jsonl", "t.parquet", "t.csv", "t.tsv"])
def test_every_format_gives_the_same_examples(name: str, tmp_path: Path) -> None:
    table = write(tmp_path / name)
    train = read_captions(table, split="train")
    assert list(train.images) == [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    assert [list(texts) for texts in train.captions] == [["a dog", "1984"], ["null"]]
    assert len(read_captions(table)) == 3


def test_parquet_may_hold_the_bytes_of_the_files(tmp_path: Path) -> None:
    rows = [
        {"photo": {"bytes": b"abc", "path": None}, "words": "a dog"},
        {"photo": {"bytes": b"de", "path": None}, "words": "b"},
    ]
    pa.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    assert list(read_captions(tmp_path / "t.parquet", "photo", "words").images) == [b"abc", b"de"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image": "photo"}, r"t\.jsonl has no column 'photo'; its columns are image, captions, split$"),
        ({"text": "words"}, r"no column 'words'; its columns are image, captions, split$"),
        ({"split": "val"}, r"no rows of split 'val'; it has dev, train$"),
    ],
)
def test_a_wrong_name_is_told_the_right_ones(options: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ExamplesError, match=message):
        read_captions(write(tmp_path / "t.jsonl"), **options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"'t\.jsonl' is empty; give one JSON object a line"),
        ('{"image": "a.jpg", "captions": []}', r"row 1 of t\.jsonl has an empty caption"),
        ('{"image": "a.jpg", "captions": " "}', r"row 1 of t\.jsonl has an empty caption"),
        ('{"image": "", "captions": "a"}', r"row 1 of t\.jsonl has no image"),
        ('{"image": "a.jpg", "captions": "a"}\n{"image"', r"'t\.jsonl', line 2 is no JSON"),
        ("[1]", r"'t\.jsonl', line 1 is a list; give one JSON object a line"),
    ],
)
def test_a_broken_line_is_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text(text, "utf-8")
    with pytest.raises(ExamplesError, match=message) as caught:
        read_captions(tmp_path / "t.jsonl")
    assert "\n" not in str(caught.value)


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExamplesError, match=r"there is no file '.*gone\.csv'"):
        read_captions(tmp_path / "gone.csv")
    (tmp_path / "t.xlsx").write_bytes(b"PK")
    with pytest.raises(ExamplesError, match=r"is no table file; give one of \.csv, \.tsv"):
        read_captions(tmp_path / "t.xlsx")
    (tmp_path / "t.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(ExamplesError, match=r"'t\.parquet' is no Parquet file: "):
        read_captions(tmp_path / "t.parquet")
