"""Captions that stand nested in a cell, and values that are no caption."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from indexer.corpus import EmbeddingFiles, EmbeddingOptions, EmbeddingSource, Item, SourceOptions, open_source
from indexer.corpus.item import Rejection
from indexer.errors import SourceError

Entries = list[Item | Rejection]


def read(path: Path, **options: Any) -> Entries:
    return list(open_source(path, SourceOptions(**options)).items())


def parquet(path: Path, captions: Any, kind: pa.DataType | None = None) -> Path:
    pq.write_table(pa.table({"image": ["a.jpg"], "captions": pa.array([captions], kind)}), path)
    return path


def texts(entries: Entries) -> list[Any]:
    return [one.content for one in entries if isinstance(one, Item) and one.collection == "texts"]


def reasons(entries: Entries) -> list[str]:
    return [one.reason for one in entries if isinstance(one, Rejection)]


TWO = ["a red card", "a white ball"]
NESTED = [
    TWO,
    {"raw": TWO, "sentid": [1, 2]},
    {"caption": TWO[0], "captions": TWO} | {"caption": TWO},
    [{"caption": TWO[0], "id": 1}, {"caption": TWO[1], "id": 2}],
    [{"raw": TWO[0], "tokens": ["a", "red"]}, {"raw": TWO[1], "tokens": ["a"]}],
    [[TWO[0]], [TWO[1]]],
    [{"text": [TWO[0]]}, {"text": [TWO[1]]}],
    {"sentences": [{"raw": TWO[0]}, {"raw": TWO[1]}]},
]


@pytest.mark.parametrize("cell", NESTED)
def test_nested_captions_are_captions_in_parquet_and_json(tmp_path: Path, cell: Any) -> None:
    assert texts(read(parquet(tmp_path / "t.parquet", cell))) == TWO
    (tmp_path / "t.jsonl").write_text(json.dumps({"image": "a.jpg", "captions": cell}), encoding="utf-8")
    assert texts(read(tmp_path / "t.jsonl")) == TWO


@pytest.mark.parametrize("cell", NESTED)
def test_nested_captions_written_as_json_into_a_cell_are_captions(tmp_path: Path, cell: Any) -> None:
    assert texts(read(parquet(tmp_path / "t.parquet", json.dumps(cell)))) == TWO
    quoted = json.dumps(cell).replace('"', '""')
    (tmp_path / "t.csv").write_text(f'image,captions\na.jpg,"{quoted}"\n', encoding="utf-8")
    assert texts(read(tmp_path / "t.csv")) == TWO


@pytest.mark.parametrize("kind", [pa.list_(pa.string()), pa.large_list(pa.large_string()), pa.list_view(pa.string())])
def test_lists_of_every_arrow_form_are_captions(tmp_path: Path, kind: pa.DataType) -> None:
    assert texts(read(parquet(tmp_path / "t.parquet", TWO, kind))) == TWO


def test_a_map_is_read_as_an_object(tmp_path: Path) -> None:
    kind = pa.map_(pa.string(), pa.string())
    assert texts(read(parquet(tmp_path / "t.parquet", [("lang", "en"), ("caption", "one")], kind))) == ["one"]
    (refused,) = (
        one for one in read(parquet(tmp_path / "u.parquet", [("en", "one")], kind)) if isinstance(one, Rejection)
    )
    assert refused.reason == "not_a_text"
    assert refused.detail.endswith("an object without a key such as 'caption', 'text' or 'raw'; its keys: 'en'")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("['Two young guys.', \"it's a dog\"]", ["Two young guys.", "it's a dog"]),
        ("['one' 'two'\n 'three']", ["one", "two", "three"]),
        ("['say \\'so\\'', 'caf\\xe9']", ["say 'so'", "café"]),
    ],
)
def test_a_list_as_python_writes_it_is_captions(tmp_path: Path, written: str, expected: list[str]) -> None:
    assert texts(read(parquet(tmp_path / "t.parquet", written))) == expected


@pytest.mark.parametrize("words", ["[a man] rides", "[1, 2]", "{smile}", "['unfinished", "[sic]", '["open'])
def test_words_in_brackets_stay_words(tmp_path: Path, words: str) -> None:
    assert texts(read(parquet(tmp_path / "t.parquet", words))) == [words]


@pytest.mark.parametrize("cell", [{"tokens": ["a", "red"]}, [{"en": "a red card"}], {"a": {"b": "c"}}])
def test_what_holds_no_caption_is_refused_and_its_image_stays(tmp_path: Path, cell: Any) -> None:
    entries = read(parquet(tmp_path / "t.parquet", cell))
    assert isinstance(entries[0], Item)
    assert (texts(entries), reasons(entries)) == ([], ["not_a_text"])


@pytest.mark.parametrize("cell", [[101, 2023, 102], [0.5, None], [[1, 2], [3, 4]]])
def test_a_list_of_numbers_is_one_rejection(tmp_path: Path, cell: Any) -> None:
    entries = read(parquet(tmp_path / "t.parquet", cell))
    assert (texts(entries), reasons(entries)) == ([], ["not_a_text"])
    (tmp_path / "t.jsonl").write_text(json.dumps({"image": cell, "caption": "x"}), encoding="utf-8")
    rejected, text = read(tmp_path / "t.jsonl")
    assert isinstance(rejected, Rejection)
    assert (rejected.item_id, rejected.reason) == ("row-1", "numbers")
    assert rejected.detail.startswith("the image in line 1 of t.jsonl is a list of numbers")
    assert isinstance(text, Item)


def test_deep_nesting_ends_in_a_rejection(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"image":"a","caption":' + "[" * 60 + '"x"' + "]" * 60 + "}", encoding="utf-8")
    assert reasons(read(tmp_path / "t.jsonl")) == ["not_a_text"]


@pytest.mark.parametrize("cell", [float("nan"), None])
def test_nan_is_no_caption_and_no_image(tmp_path: Path, cell: float | None) -> None:
    assert [type(one) for one in read(parquet(tmp_path / "t.parquet", cell, pa.float64()))] == [Item]
    (tmp_path / "t.jsonl").write_text('{"image": NaN, "caption": NaN}\n{"image": "a", "caption": ["x", NaN]}', "utf-8")
    entries = read(tmp_path / "t.jsonl")
    assert reasons(entries) == ["missing_value", "missing_value"]
    assert texts(entries) == ["x"]


@pytest.mark.parametrize("words", ["\u200b\u2060", "\ufeff", "\u00ad", "\u3164", "\u2800", "\u200e\u200f", "\ufe0f"])
def test_characters_that_do_not_show_are_no_caption(tmp_path: Path, words: str) -> None:
    assert reasons(read(parquet(tmp_path / "t.parquet", words))) == ["empty_text"]


@pytest.mark.parametrize("words", ["\u2764\ufe0f", "\U0001f468\u200d\U0001f469", "犬", "…", "ㅋㅋ"])
def test_signs_and_letters_are_a_caption(tmp_path: Path, words: str) -> None:
    assert texts(read(parquet(tmp_path / "t.parquet", words))) == [words]


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        (pa.float64(), [1.0, None], "1"),
        (pa.float32(), [7.0, None], "7"),
        (pa.float64(), [1.5, None], "1.5"),
        (pa.float64(), [9007199254740992.0, None], "9007199254740992"),
        (pa.uint64(), [2**64 - 1, None], "18446744073709551615"),
    ],
)
def test_ids_of_a_column_with_a_gap_have_no_point(
    tmp_path: Path, kind: pa.DataType, values: list[Any], expected: str
) -> None:
    table = {"id": pa.array(values, kind), "image": ["a.jpg", "b.jpg"]}
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    first, second = read(tmp_path / "t.parquet", id="id", image="image")
    assert isinstance(first, Item)
    assert first.item_id == expected
    assert isinstance(second, Rejection)
    assert second.reason == "missing_id"


def test_a_list_of_paths_may_be_written_as_json(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('image,caption\n"[""a.jpg"", ""b.jpg""]",both\n', encoding="utf-8")
    assert [one.item_id for one in read(tmp_path / "t.csv")] == ["a.jpg", "b.jpg", "a.jpg#0"]


def test_captions_beside_vectors_are_one_text_each(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.eye(2, dtype=np.float32))
    pq.write_table(pa.table({"caption": [["one"], ["two"]]}), tmp_path / "one.parquet")
    files = EmbeddingFiles(vectors=tmp_path / "v.npy", table=tmp_path / "one.parquet")
    (chunk,) = EmbeddingSource(EmbeddingOptions(texts=files)).chunks("texts")
    assert chunk.captions == ["one", "two"]
    pq.write_table(pa.table({"caption": [["one", "more"], ["two"]]}), tmp_path / "two.parquet")
    with pytest.raises(SourceError, match=r"a caption of two\.parquet is a list of 2 texts; give each vector one text"):
        EmbeddingSource(
            EmbeddingOptions(texts=EmbeddingFiles(vectors=tmp_path / "v.npy", table=tmp_path / "two.parquet"))
        )
