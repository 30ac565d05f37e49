"""Lines before the header of a CSV file, and numbers that keep their digits."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from indexer.corpus import Item, SourceOptions, open_source
from indexer.corpus.item import Rejection
from indexer.errors import SourceError


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def read(path: Path, **options: Any) -> list[Item | Rejection]:
    return list(open_source(path, SourceOptions(**options)).items())


SEPARATOR_LINES = ["sep=;\n", "SEP=;\r\n", '"sep=;"\n', "\ufeffsep=;\n", "\nsep=;\n# words\n"]
BEFORE = [*SEPARATOR_LINES, "\n\n", "# made by hand\n", "# 1, 2\n#\n"]


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
def test_lines_before_the_header_are_left_out(tmp_path: Path, before: str, name: str) -> None:
    data = f"{before}image;caption\n0.jpg;zero\n1.jpg\n".encode()
    path = write(tmp_path / name, gzip.compress(data) if name.endswith(".gz") else data)
    image, text, rejected = read(path)
    assert isinstance(text, Item)
    assert (image.item_id, text.content) == ("0.jpg", "zero")
    assert isinstance(rejected, Rejection)
    assert rejected.detail.startswith("row 2 of t.csv")
    assert f"{before.count(chr(10))} lines before the header of {path.name} are left out" in open_source(path).notes


@pytest.mark.parametrize("header", ["#id,image,caption", "#,image,caption"])
def test_a_header_may_start_with_a_hash(tmp_path: Path, header: str) -> None:
    path = write(tmp_path / "t.csv", f"{header}\n1,0.jpg,zero\n")
    assert open_source(path).metadata_schema.names == [header.split(",")[0]]


def test_a_delimiter_of_its_own_line_may_be_any(tmp_path: Path) -> None:
    (text,) = read(write(tmp_path / "t.csv", "sep=~\ntext~n\na,b;c~1\n"))
    assert isinstance(text, Item)
    assert (text.content, text.metadata) == ("a,b;c", {"n": 1})


@pytest.mark.parametrize("line", ["sep=a", 'sep="', "sep=;;", "sep="])
def test_a_line_that_names_no_separator_is_a_header(tmp_path: Path, line: str) -> None:
    path = write(tmp_path / "t.csv", f"{line}\nx\n")
    with pytest.raises(SourceError, match=r"no column of a known name|cannot be read"):
        open_source(path)


def test_quotes_are_judged_after_the_lines_before_the_header(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", 'sep=,\nimage,caption\n0.jpg,"open\n1.jpg,close"\n')
    with pytest.raises(SourceError, match=r"in line 3 of t\.csv takes the rows up to line 4"):
        read(path)


@pytest.mark.parametrize(
    ("cells", "kind", "expected"),
    [
        (["9007199254740993", str(2**64 - 1), "5"], pa.uint64(), [2**53 + 1, 2**64 - 1, 5]),
        (["9007199254740993", "", "-1"], pa.int64(), [2**53 + 1, None, -1]),
        ([str(2**64), "1", ""], pa.string(), [str(2**64), "1", None]),
        (["-1", str(2**63)], pa.float64(), [-1.0, 2.0**63]),
        (["-1", str(2**63 + 1)], pa.string(), ["-1", str(2**63 + 1)]),
        (["9007199254740993", "0.5"], pa.string(), ["9007199254740993", "0.5"]),
        (["9007199254740992", "0.5"], pa.float64(), [2.0**53, 0.5]),
        (["1e300", "0.5", "NA"], pa.float64(), [1e300, 0.5, None]),
        (["0123", "7"], pa.string(), ["0123", "7"]),
        (["1e400", "0.5"], pa.string(), ["1e400", "0.5"]),
        (["0", "0.5", "-0"], pa.float64(), [0.0, 0.5, -0.0]),
        (["1", "20"], pa.int64(), [1, 20]),
    ],
)
def test_numbers_keep_their_digits(tmp_path: Path, cells: list[str], kind: pa.DataType, expected: list[Any]) -> None:
    path = write(tmp_path / "t.csv", "text,n\n" + "".join(f"x,{cell}\n" for cell in cells))
    source = open_source(path)
    assert source.metadata_schema == pa.schema([("n", kind)])
    assert [one.metadata["n"] for one in source.items() if isinstance(one, Item)] == expected


def test_numbers_of_json_keep_their_digits(tmp_path: Path) -> None:
    rows = [{"text": "x", "n": 2**64 - 1, "m": 2**53 + 1}, {"text": "y", "n": 1, "m": 0.5}]
    path = write(tmp_path / "t.jsonl", "\n".join(map(json.dumps, rows)))
    found = [one.metadata for one in read(path) if isinstance(one, Item)]
    assert found == [{"n": 2**64 - 1, "m": "9007199254740993"}, {"n": 1, "m": "0.5"}]
