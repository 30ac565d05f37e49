"""What cannot be searched with is refused in one line that says why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from searcher import EncoderMismatchError, QueryError, Searcher
from searcher.query_encoder import unit_rows
from storage.errors import TwinlensError


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        (np.zeros(64), "query vector 0 is all zeros, so it points nowhere"),
        (np.full(64, np.nan), "query vector 0 has a value that is not finite"),
        (np.full(64, np.inf), "query vector 0 has a value that is not finite"),
        (np.ones(63), r"a query vector has shape \(63,\); this index takes \(64,\)"),
        (np.ones((2, 2, 64)), r"a query array has shape \(2, 2, 64\); give one vector \(dim,\) or several"),
        (np.array(["a"] * 64), "are of type <U1; give numbers"),
        (np.ones(64, dtype=complex), "are of type complex128; give numbers"),
    ],
)
def test_a_vector_that_points_nowhere_is_refused(searcher: Searcher, vector: np.ndarray, message: str) -> None:
    with pytest.raises(QueryError, match=message):
        searcher.text_to_image(vector)


def test_the_bad_vector_of_a_batch_is_named(searcher: Searcher, corpus: Any) -> None:
    vectors = corpus.images[:5].copy()
    vectors[3] = 0
    with pytest.raises(QueryError, match="query vector 3 is all zeros"):
        searcher.search_vectors("images", vectors, 3)
    with pytest.raises(QueryError, match=r"have shape \(5, 63\); this index takes \(n, 64\)"):
        searcher.search_vectors("images", vectors[:, 1:], 3)
    with pytest.raises(QueryError, match="are no array"):
        unit_rows([[1.0], [1.0, 2.0]], 2)


@pytest.mark.parametrize("text", ["", "   ", "x" * 100_001])
def test_a_text_without_words_is_refused(searcher: Searcher, text: str) -> None:
    with pytest.raises(QueryError, match="give 1 to 100,000 with words"):
        searcher.text_to_image(text)


def test_a_text_that_is_not_unicode_is_refused(searcher: Searcher) -> None:
    with pytest.raises(QueryError, match="is not Unicode text"):
        searcher.text_to_image("red \ud800")


@pytest.mark.parametrize("query", [b"red", Path("red.jpg"), 3, None, 0.5])
def test_a_text_direction_takes_text_or_vectors(searcher: Searcher, query: Any) -> None:
    with pytest.raises(QueryError, match="searches with text or a vector, and a query is of type"):
        searcher.text_to_image(query)


def test_an_image_direction_takes_pictures_or_vectors(searcher: Searcher) -> None:
    with pytest.raises(QueryError, match="a PIL image or a vector, and a query is of type int"):
        searcher.image_to_text([3])


@pytest.mark.parametrize("name", ["nowhere.jpg", "", ".", "a\0b.jpg", "x" * 5000])
def test_a_missing_picture_is_named(searcher: Searcher, name: str) -> None:
    with pytest.raises(QueryError, match=r"there is no query image at|cannot be read"):
        searcher.image_to_text(name)


@pytest.mark.parametrize(
    "url", ["http://localhost/a.jpg", "HTTPS://example.org/a.jpg", "file:///a.jpg", "s3://a/b.jpg"]
)
def test_nothing_is_fetched(searcher: Searcher, url: str) -> None:
    with pytest.raises(QueryError, match="is a URL, and nothing is fetched; save the image and give its path"):
        searcher.image_to_text(url)


def test_a_file_that_is_no_picture_is_refused(searcher: Searcher, tmp_path: Path) -> None:
    (tmp_path / "notes.jpg").write_text("not a picture")
    with pytest.raises(QueryError, match=r"'notes.jpg' cannot be used: not_an_image: no known image"):
        searcher.image_to_text(tmp_path / "notes.jpg")


def test_another_encoder_is_refused_and_both_are_named(corpus: Any, other_encoder: Any) -> None:
    with pytest.raises(EncoderMismatchError, match=r"'test-colours' \(fingerprint c{64}\).*'test-colours' .* d{64}\)"):
        Searcher.open(corpus.index, encoder=other_encoder)


def test_a_refused_encoder_leaves_the_index_closed(corpus: Any, other_encoder: Any) -> None:
    for _ in range(3):
        with pytest.raises(EncoderMismatchError, match="build the index again"):
            Searcher.open(corpus.index, encoder=other_encoder)


def test_an_index_of_ready_vectors_says_what_it_lacks(wide: Searcher) -> None:
    with pytest.raises(
        QueryError, match=r"does not know its encoder; pass encoder= \(--encoder\), or search by vector"
    ):
        wide.text_to_image("a red door")


def test_an_encoder_of_another_dim_is_refused(wide_index: Path, encoder: Any) -> None:
    with pytest.raises(EncoderMismatchError, match="has vectors of 16 values, and the encoder 'test-colours' gives 64"):
        Searcher.open(wide_index, encoder=encoder)


def test_an_encoder_that_nobody_has_is_refused_at_the_first_text(corpus: Any) -> None:
    with Searcher.open(corpus.index) as searcher:
        assert len(searcher.text_to_image(corpus.texts[0], 3)) == 3
        with pytest.raises(TwinlensError, match="test-colours"):
            searcher.text_to_image("a red door")


def test_a_text_is_encoded_once(searcher: Searcher, encoder: Any) -> None:
    first = searcher.text_to_image("a red door", 3)
    again = searcher.text_to_image(["a red door", "a red door"], 3)
    assert encoder.encoded == 1
    assert again[1].row_ids.tolist() == first.row_ids.tolist()


def test_only_the_last_texts_are_remembered(searcher: Searcher, encoder: Any) -> None:
    searcher.text_to_image([f"red {number}" for number in range(1500)], 1)
    searcher.text_to_image("red 1499", 1)
    assert encoder.encoded == 1500
    searcher.text_to_image("red 0", 1)
    assert encoder.encoded == 1501


@given(arrays(np.float64, (3, 5), elements=st.floats(-1e300, 1e300, allow_nan=False)))
def test_whatever_is_finite_and_not_zero_becomes_a_unit_vector(vectors: np.ndarray) -> None:
    vectors[:, 0] = 1e-200
    lengths = np.linalg.norm(unit_rows(vectors, 5), axis=1)
    np.testing.assert_allclose(lengths, 1, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 2, 7])
@pytest.mark.parametrize("dim", [1, 5, 8, 65, 512])
def test_units_are_the_same_however_they_come(rows: int, dim: int) -> None:
    vectors = np.random.default_rng(dim).standard_normal((rows, dim)).astype(np.float32) * np.float32(40)
    wide = vectors.astype(np.float64)
    expected = (wide / np.sqrt((wide * wide).sum(axis=1, keepdims=True))).astype(np.float32)
    every_other = np.repeat(vectors, 2, axis=1)[:, ::2]
    for form in (vectors, np.asfortranarray(vectors), every_other, wide, vectors.tolist()):
        np.testing.assert_allclose(unit_rows(form, dim), expected, rtol=1e-7)
    np.testing.assert_array_equal(unit_rows(vectors[0], dim), unit_rows(vectors, dim)[:1])
    np.testing.assert_allclose(unit_rows(vectors.astype(">f4"), dim), expected, rtol=1e-7)


@pytest.mark.parametrize("factor", [1e-30, 1e-7, 1e18, 1e38])
def test_float32_of_any_length_is_a_direction(factor: float) -> None:
    vectors = np.array([[3, 0, 4], [0, 0, 1]], dtype=np.float32)
    scaled = unit_rows(vectors * np.float32(factor / 4), 3)
    np.testing.assert_allclose(scaled, [[0.6, 0, 0.8], [0, 0, 1]], rtol=1e-6)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_float32_that_is_not_finite_is_named(wrong: float) -> None:
    vectors = np.ones((3, 9), dtype=np.float32)
    vectors[1, 8] = wrong
    with pytest.raises(QueryError, match="query vector 1 has a value that is not finite"):
        unit_rows(vectors, 9)
