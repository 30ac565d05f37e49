"""Tables written as JSON lines, or as one array."""

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


def write(path: Path, *lines: bytes) -> Path:
    path.write_bytes(b"\n".join(lines))
    return path


def rejections(path: Path) -> list[tuple[str, str]]:
    return [(one.item_id, one.reason) for one in open_source(path).items() if isinstance(one, Rejection)]


def schema(path: Path, *values: Any) -> pa.DataType:
    path.write_text("\n".join(json.dumps({"text": "x", "v": value}) for value in values), encoding="utf-8")
    return open_source(path).metadata_schema.field("v").type


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "x"', "not_json"),
        (b"\x80\x81", "not_utf8"),
        (b'["text"]', "not_an_object"),
        (b"null", "not_an_object"),
        (b"[" * 100_000, "not_json"),
    ],
)
def test_a_line_that_is_no_object_is_rejected_with_its_number(tmp_path: Path, line: bytes, reason: str) -> None:
    path = write(tmp_path / "t.jsonl", b'{"text": "a"}', line, b'{"text": "b"}')
    assert rejections(path) == [("line-2", reason)]
    assert [one.item_id for one in open_source(path).items() if isinstance(one, Item)] == ["row-1", "row-3"]


def test_blank_lines_count_as_lines_and_as_nothing_else(tmp_path: Path) -> None:
    path = write(tmp_path / "t.ndjson", b"", b'{"text": "a"}', b"  ", b'{"text": "b"}', b"")
    assert [one.item_id for one in open_source(path).items()] == ["row-2", "row-4"]


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    assert len(list(open_source(write(tmp_path / "t.jsonl", b'\xef\xbb\xbf{"text": "a"}')).items())) == 1


@pytest.mark.parametrize("content", [b"", b"\n\n", b"not json\nat all", b"[1]"])
def test_a_file_without_any_object_is_an_error(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(SourceError, match=r"t\.jsonl holds no JSON object"):
        open_source(write(tmp_path / "t.jsonl", content))


def test_a_zipped_file_that_is_cut_short_is_an_error(tmp_path: Path) -> None:
    lines = b"".join(json.dumps({"text": str(n**7)}).encode() + b"\n" for n in range(5000))
    (tmp_path / "t.jsonl.gz").write_bytes(gzip.compress(lines)[:-100])
    with pytest.raises(SourceError, match="cannot be read to its end"):
        open_source(tmp_path / "t.jsonl.gz")


def test_an_array_of_objects_is_a_table_too(tmp_path: Path) -> None:
    path = write(tmp_path / "t.json", b'[{"image": "a.jpg", "caption": ["x", "y"]}, 7]')
    entries = list(open_source(path).items())
    assert [entry.item_id for entry in entries] == ["a.jpg", "a.jpg#0", "a.jpg#1", "entry-2"]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ((1, 2, None), pa.int64()),
        ((1, 2.5), pa.float64()),
        ((True, False), pa.bool_()),
        ((True, 1), pa.string()),
        (("a", 1), pa.string()),
        ((2**63, 1), pa.uint64()),
        ((2**63, -1), pa.string()),
        ((2**64,), pa.string()),
        ((2**53 + 1, -1), pa.int64()),
        ((2**53 + 1, 0.5), pa.string()),
        (([1],), pa.string()),
        (({"a": 1},), pa.string()),
        ((None,), pa.string()),
        (("2024-01-01",), pa.string()),
    ],
)
def test_types_are_found_over_all_lines(tmp_path: Path, values: tuple[Any, ...], kind: pa.DataType) -> None:
    assert schema(tmp_path / "t.jsonl", *values) == kind


def test_nested_and_mixed_values_become_json_text(tmp_path: Path) -> None:
    values = ({"a": [1, "é"]}, 3, True, "plain", None)
    schema(tmp_path / "t.jsonl", *values)
    found = [one.metadata["v"] for one in open_source(tmp_path / "t.jsonl").items() if isinstance(one, Item)]
    assert found == ['{"a": [1, "é"]}', "3", "true", "plain", None]


def test_half_a_surrogate_pair_in_metadata_is_replaced(tmp_path: Path) -> None:
    (item,) = open_source(write(tmp_path / "t.jsonl", b'{"text": "x", "v": "a\\ud800"}')).items()
    assert isinstance(item, Item)
    assert item.metadata == {"v": "a?"}


def test_metadata_values_fit_the_schema(tmp_path: Path) -> None:
    schema(tmp_path / "t.jsonl", 1, 2.5, None)
    source = open_source(tmp_path / "t.jsonl")
    rows = [one.metadata for one in source.items() if isinstance(one, Item)]
    assert pa.Table.from_pylist(rows, source.metadata_schema)["v"].to_pylist() == [1.0, 2.5, None]


def test_columns_that_only_some_lines_have_are_null_elsewhere(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", b'{"text": "a"}', b'{"text": "b", "late": 1}')
    source = open_source(path, SourceOptions(text="text"))
    assert [one.metadata for one in source.items() if isinstance(one, Item)] == [{"late": None}, {"late": 1}]
