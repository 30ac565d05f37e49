"""The lexical index: terms of many scripts, BM25 by its formula, and a file that can do nothing but be read."""

from __future__ import annotations

import json
import math
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import CorruptIndexError, StorageError
from storage.lexical import build_inverted
from storage.lexical.build_inverted import write_inverted_index
from storage.lexical.inverted_index import InvertedIndex, idf
from storage.lexical.terms import terms

TEXTS = [
    "A red car in front of a house .",
    "Red door, red wall",
    "SKU-1234 blue car",
    "",
    "the Café at 3.5 km, IMG_0042.jpg",
    "白い犬が雪の中を走る",
    "une voiture rouge",
    "красный Ёж и ёлка",
]


def written(path: Path, texts: list[str | None], rows: np.ndarray | None = None, count: int | None = None) -> Path:
    row_ids = np.arange(len(texts)) if rows is None else rows
    write_inverted_index(path, count or len(texts), [(row_ids, pa.chunked_array([pa.array(texts, pa.string())]))])
    return path


@pytest.fixture
def index(tmp_path: Path) -> InvertedIndex:
    return InvertedIndex.open(written(tmp_path / "words.safetensors", TEXTS))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SKU-1234", ["sku", "1234", "sku1234"]),
        ("IMG_0042.jpg", ["img", "0042", "img0042", "jpg"]),
        ("3.5 km, end.", ["3", "5", "3.5", "km", "end"]),
        ("dog's", ["dog", "s", "dogs"]),
        ("Café CRÈME ﬁne ＦＵＬＬ１２", ["cafe", "creme", "fine", "full12"]),
        ("Straße Ёж", ["strasse", "еж"]),
        ("مَرحبا", ["مرحبا"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("白い犬", ["白", "い", "犬", "白い", "い犬"]),
        ("강아지", ["강", "아", "지", "강아", "아지"]),
        ("สุนัข", ["ส", "ุ", "น", "ั", "ข", "สุ", "ุน", "นั", "ัข"]),
        ("iPhone 犬cat", ["iphone", "犬", "cat"]),
        ("?! -- _ \0 🙂", []),
        ("x" * 100, ["x" * 64]),
    ],
)
def test_terms_of_many_scripts(text: str, expected: list[str]) -> None:
    assert terms(text) == expected


@given(st.text(max_size=60))
def test_any_text_has_terms_that_it_is_found_by(text: str) -> None:
    found = terms(text)
    assert all(0 < len(term) <= 64 and not term.isspace() for term in found)
    assert found == [term for word in text.split() for term in terms(word)]


@pytest.mark.parametrize(
    ("words", "rows"),
    [
        ("SKU-1234", [2]),
        ("sku_1234", [2]),
        ("1234", [2]),
        ("img 0042", [4]),
        ("CAFE", [4]),
        ("red car", [0, 1, 2]),
        ("犬", [5]),
        ("雪の中", [5]),
        ("ежик ЁЛКА", [7]),
        ('car" OR (NEAR * ^red:', [0, 1, 2]),
        ("zebra", []),
    ],
)
def test_words_find_the_texts_that_have_them_best_first(index: InvertedIndex, words: str, rows: list[int]) -> None:
    matches = index.search(words)
    order = np.argsort(-matches.scores, kind="stable")
    assert matches.rows[order].tolist() == rows


def test_the_scores_are_bm25_by_its_formula(index: InvertedIndex) -> None:
    counts = [Counter(terms(text)) for text in TEXTS]
    lengths = [sum(count.values()) for count in counts]
    mean = sum(lengths) / len(lengths)
    words = "red car a"
    matches = index.search(words)
    for row, score, covered in zip(*matches, strict=True):
        expected = rare = 0.0
        for term in terms(words):
            df, tf = sum(term in count for count in counts), counts[row][term]
            weight = math.log(1 + (len(TEXTS) - df + 0.5) / (df + 0.5))
            expected += weight * tf * 2.2 / (tf + 1.2 * (0.25 + 0.75 * lengths[row] / mean))
            rare += weight if tf else 0
        assert (score, covered) == (pytest.approx(expected, rel=2e-3), pytest.approx(rare, rel=1e-5))
    assert index.idf("red zebra")["zebra"] == pytest.approx(idf(1, len(TEXTS)))


def test_coverage_is_the_share_of_the_idf_of_all_words(index: InvertedIndex) -> None:
    rows = np.array([2, 0, 5])
    weights = index.idf("red zebra")
    having = {row for row, text in enumerate(TEXTS) if "red" in terms(text)}
    expected = [weights["red"] / sum(weights.values()) if row in having else 0 for row in rows]
    assert index.coverage("red ZEBRA red", rows).tolist() == pytest.approx(expected, rel=1e-5)
    assert index.coverage(TEXTS[2], rows)[0] == pytest.approx(1)
    assert index.coverage("", rows).tolist() == index.coverage("zebra", rows).tolist() == [0, 0, 0]
    assert index.coverage("red", rows[:0]).tolist() == []


def test_rows_that_may_count_are_those_of_a_filter(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    vocabulary = [f"w{number}" for number in range(200)]
    texts: list[str | None] = [" ".join(rng.choice(vocabulary, 5)) for _ in range(4000)]
    index = InvertedIndex.open(written(tmp_path / "words", texts))
    every = index.search("w1 w2")
    assert every.rows.tolist() == [row for row, text in enumerate(texts) if {"w1", "w2"} & set(str(text).split())]
    among = np.arange(0, 4000, 7)
    assert index.search("w1 w2", among).rows.tolist() == sorted(set(every.rows.tolist()) & set(among.tolist()))
    assert len(index.search("w1", among[:0]).rows) == 0


def test_all_texts_of_a_row_count_and_equal_texts_give_equal_bytes(tmp_path: Path) -> None:
    rows = np.array([1, 0, 1, 2])
    texts = ["red", "blue", "car", None]
    index = InvertedIndex.open(written(tmp_path / "a", texts, rows, 4))
    assert index.search("car").rows.tolist() == index.search("red").rows.tolist() == [1]
    write_inverted_index(
        tmp_path / "b", 4, [(rows[2:], pa.chunked_array([texts[2:]])), (rows[:2], pa.chunked_array([texts[:2]]))]
    )
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with pytest.raises(StorageError, match="File exists"):
        written(tmp_path / "a", ["x"])


def test_texts_without_any_term_give_an_index_that_finds_nothing(tmp_path: Path) -> None:
    index = InvertedIndex.open(written(tmp_path / "a", ["...", None]))
    index.check()
    assert (index.term_count, index.search("red").rows.tolist()) == (0, [])


def header_and_body(path: Path) -> tuple[dict, bytes]:  # type: ignore[type-arg]
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def write(path: Path, header: object, body: bytes) -> None:
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda head: head.update(terms={**head["terms"], "data_offsets": [0, 1 << 60]}), "its tensor terms is of U8"),
        (lambda head: head["rows"].update(dtype="F64"), "its tensor rows is of F64"),
        (lambda head: head["rows"].update(data_offsets=[-8, 0]), "its tensor rows"),
        (lambda head: head["rows"].update(data_offsets="ab"), "its tensor rows"),
        (lambda head: head.pop("shares"), "it has the tensors"),
        (lambda head: head.update(more=head["terms"]), "it has the tensors"),
        (lambda head: head.update(__metadata__={"rows": "9" * 30}), "rows"),
        (lambda head: head.update(__metadata__=[]), "is no lexical index"),
    ],
)
def test_a_header_that_this_format_does_not_write_is_refused(tmp_path: Path, change: object, message: str) -> None:
    path = written(tmp_path / "words", TEXTS)  # type: ignore[arg-type]
    header, body = header_and_body(path)
    change(header)  # type: ignore[operator]
    write(path, header, body)
    with pytest.raises(CorruptIndexError, match=message):
        InvertedIndex.open(path)


@pytest.mark.parametrize(
    ("moved", "cut", "message"),
    [
        ((), -1, "its tensor terms"),
        ((), 1, "1 bytes too many"),
        ((("shares", 1, -2), ("terms", 0, -2)), 0, "do not have the same lengths"),
        ((("row_ends", 1, -8), ("rows", 0, -8)), 0, "do not have the same lengths"),
        ((("terms", 1, -1),), -1, "its term_ends end at"),
    ],
)
def test_tensors_that_do_not_fit_each_other_are_refused(
    tmp_path: Path, moved: tuple[tuple[str, int, int], ...], cut: int, message: str
) -> None:
    path = written(tmp_path / "words", TEXTS)  # type: ignore[arg-type]
    header, body = header_and_body(path)
    for name, side, by in moved:
        header[name]["data_offsets"][side] += by
    write(path, header, body + b"x" * cut if cut >= 0 else body[:cut])
    with pytest.raises(CorruptIndexError, match=message):
        InvertedIndex.open(path)


@pytest.mark.parametrize("data", [b"", b"x", b"\xff" * 64, (8).to_bytes(8, "little") + b"[" * 8])
def test_what_is_no_safetensors_file_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "words").write_bytes(data)
    with pytest.raises(CorruptIndexError, match="is no lexical index"):
        InvertedIndex.open(tmp_path / "words")


@pytest.mark.parametrize(
    ("tensor", "value"), [("rows", 0xFF), ("row_ends", 0x7F), ("term_ends", 0xFF), ("shares", 0xFF)]
)
def test_entries_that_lie_are_refused_when_they_are_read(tmp_path: Path, tensor: str, value: int) -> None:
    path = written(tmp_path / "words", TEXTS)  # type: ignore[arg-type]
    header, body = header_and_body(path)
    start, stop = header[tensor]["data_offsets"]
    kept = 8 if tensor.endswith("ends") else 0  # the last end is compared when the file is opened
    changed = body[:start] + bytes([value]) * (stop - start - kept) + body[stop - kept :]
    write(path, header, changed)
    index = InvertedIndex.open(path)
    with pytest.raises(CorruptIndexError, match="is no lexical index"):
        index.check()
    words = "red car 犬"
    if tensor == "shares":
        with pytest.raises(CorruptIndexError, match="names rows that are not there"):
            index.search(words)
    with suppress(CorruptIndexError):
        assert index.search(words).rows.max(initial=0) < len(TEXTS)
    with suppress(CorruptIndexError):
        assert 0 <= index.coverage(words, np.arange(len(TEXTS))).max() <= 1


@pytest.mark.parametrize(("slices", "chunk"), [(1, 1 << 16), (2, 3), (7, 2), (1000, 1)])
def test_bytes_are_the_same_however_much_is_looked_at_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slices: int, chunk: int
) -> None:
    texts = [*TEXTS * 4, "a a a a b", None, "zz a"]
    rows = np.arange(len(texts)) // 3
    expected = written(tmp_path / "expected", texts, rows, 20).read_bytes()
    monkeypatch.setattr(build_inverted, "_SLICE", slices)
    monkeypatch.setattr(build_inverted, "_CHUNK", chunk)
    monkeypatch.setattr(build_inverted, "_RANGE", slices)
    monkeypatch.setattr(build_inverted, "_SAMPLES", chunk)
    assert written(tmp_path / "found", texts, rows, 20).read_bytes() == expected


@pytest.mark.parametrize("texts", [[], [None, None], ["", " ", "."]])
def test_an_index_without_words_finds_nothing(tmp_path: Path, texts: list[str | None]) -> None:
    index = InvertedIndex.open(written(tmp_path / "words.safetensors", texts, count=3))
    assert len(index.search("red").rows) == 0
