"""What cannot be matched is said in one line that names the place and the next step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from colour import ColourEncoder
from matching import Painted

from matcher import DataError, Matcher, MatcherError
from storage.errors import TwinlensError


def told(error: BaseException) -> str:
    message = str(error)
    assert isinstance(error, TwinlensError)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"caption": ["a"], "photo": ["b"]}, "the data has no column 'image'; it has 'caption', 'photo'"),
        ({"caption": ["a", "b"], "image": ["c"]}, "columns differ in length: 'caption' has 2 values, 'image' has 1"),
        ({"caption": [], "image": []}, "the data is empty; give at least one row"),
        ({}, "the data has no columns"),
        ({"caption": "a dog", "image": ["c"]}, "column 'caption' is the one value 'a dog'; put it in a list"),
        ({"caption": 3, "image": ["c"]}, "column 'caption' is of type int; give a list of values"),
        (["a"], "the data is a list without column names"),
        (3, "the data is of type int; give a pandas, Polars or Arrow table"),
        ("nowhere.csv", "there is no file 'nowhere.csv'"),
        ("a dog in the snow", "'a dog in the snow' is no table; expected one of .csv, .tsv, .parquet"),
        ("a dog in the snow", "put single items into a list"),
    ],
)
def test_data_that_is_no_table_of_pairs(data: Any, message: str, matcher: Matcher) -> None:
    with pytest.raises(DataError) as caught:
        matcher.match(data)
    assert message in told(caught.value)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("", "the text '' is empty"),
        ("  \n", "is empty"),
        (None, "there is no text"),
        (float("nan"), "there is no text"),
        (7, "the cell is int '7' and no text"),
        (["two", "texts"], "the cell is a list of 2 texts"),
    ],
)
def test_rows_without_a_text_are_listed(cell: Any, message: str, matcher: Matcher, painted: Painted) -> None:
    texts: list[Any] = list(painted.captions)
    texts[5] = cell
    with pytest.raises(DataError) as caught:
        matcher.extract_embedding({"caption": texts})
    assert "column 'caption' is declared text, and 1 of its 24 rows cannot be used: row 5: " in told(caught.value)
    assert message in told(caught.value)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("missing.png", "no file at 'missing.png'"),
        ("https://example.org/a.jpg", "is a URL, and nothing is fetched"),
        ("", "names no image"),
        (";;", "names no image"),
        (None, "there is no image"),
        (b"no picture", "no known image starts with"),
        (b"", "the cell b'' names no image"),
        (3.5, "of type float"),
        (np.zeros((4, 4, 3)), "the array is float64 of shape (4, 4, 3)"),
        (np.zeros((3, 4, 4, 1), np.uint8), "the array is uint8 of shape (3, 4, 4, 1)"),
        ("data:image/png;base64,@@", "is no base64"),
        ("a\0b.png", "holds a NUL"),
    ],
)
def test_rows_without_a_picture_are_listed(cell: Any, message: str, matcher: Matcher, painted: Painted) -> None:
    images: list[Any] = list(painted.images)
    images[3] = cell
    with pytest.raises(DataError) as caught:
        matcher.extract_embedding({"image": images})
    assert "column 'image' is declared image, and 1 of its 24 rows cannot be used: row 3: " in told(caught.value)
    assert message in told(caught.value)


def test_a_column_of_wrong_paths_lists_the_first_rows_and_counts_all(matcher: Matcher) -> None:
    with pytest.raises(DataError) as caught:
        matcher.extract_embedding({"image": [f"no/{row}.jpg" for row in range(50)]})
    message = told(caught.value)
    assert "50 of its 50 rows cannot be used: row 0: no file at 'no/0.jpg'; row 1:" in message
    assert "and 47 more" in message
    assert "or is the column text?" in message


def test_one_bad_picture_of_several_spoils_its_row(matcher: Matcher, painted: Painted) -> None:
    with pytest.raises(DataError, match=r"row 0: no file at 'gone\.png'"):
        matcher.extract_embedding({"image": [f"{painted.images[0]};gone.png"]})


def test_a_column_of_file_names_is_no_column_of_texts(encoder: ColourEncoder, painted: Painted) -> None:
    matcher = Matcher(query="image", response="caption", encoder=encoder)
    with pytest.raises(DataError, match=r"'image' is declared text, and all of it are names of image files.*image"):
        matcher.extract_embedding({"image": painted.images})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"query": "x", "response": "x"}, "column 'x' has two roles"),
        ({"label": "image"}, "column 'image' has two roles"),
        ({"query": ""}, "query='' is no column name"),
        ({"query": ["caption"]}, "query is ['caption'], of type list; give a text"),
        ({"query_type": "audio"}, "query_type is 'audio'; choose one of text, image"),
    ],
)
def test_roles_that_contradict_each_other(options: dict[str, Any], message: str) -> None:
    with pytest.raises(MatcherError) as caught:
        Matcher(**options)
    assert message in told(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"query_data": ["a"], "query_embeddings": np.eye(48)}, "query_data and query_embeddings are both given"),
        (
            {"query_data": ["a"], "response_data": ["b"], "response_embeddings": np.eye(48)},
            "response_data and response_emb",
        ),
        ({"response_embeddings": np.eye(48)}, "there is nothing to search with"),
        ({"query_data": ["a"]}, "there is nothing to search in"),
        ({"query_data": ["a"], "response_embeddings": np.eye(5)}, "queries have 48 dimensions and responses 5"),
        ({"query_data": ["a"], "response_embeddings": np.eye(48), "top_k": 0}, "top_k=0 is no number of hits"),
        ({"query_data": ["a"], "response_embeddings": np.eye(48), "similarity": "l2"}, "similarity='l2' is unknown"),
        ({"query_data": ["a"], "response_embeddings": np.eye(48), "index": "x"}, "responses and an index are both"),
        ({"query_data": ["a"], "response_embeddings": np.eye(48), "query_chunk_size": 0}, "query_chunk_size=0"),
    ],
)
def test_searches_that_contradict_themselves(options: dict[str, Any], message: str, matcher: Matcher) -> None:
    with pytest.raises(MatcherError) as caught:
        matcher.semantic_search(**options)
    assert message in told(caught.value)


@pytest.mark.parametrize(
    ("labels", "match_label", "message"),
    [
        ([1] * 24, None, "all 24 pairs are labelled a match; give pairs of both kinds"),
        ([0] * 24, None, "all 24 pairs are labelled no match"),
        (["same"] * 24, None, "column 'label' holds 'same', neither 0 nor 1"),
        ([1, 0, None] * 8, None, "row 2 has no label"),
        ([0, 1] * 12, "yes", "no row of column 'label' has match_label='yes'; it has '0', '1'"),
    ],
)
def test_labels_that_say_nothing(
    labels: list[Any], match_label: Any, message: str, painted: Painted, encoder: ColourEncoder
) -> None:
    matcher = Matcher(encoder=encoder, label="label", match_label=match_label)
    with pytest.raises(MatcherError) as caught:
        matcher.calibrate(painted.pairs | {"label": labels})
    assert message in told(caught.value)


def test_labels_may_be_numbers_truths_or_words(painted: Painted, encoder: ColourEncoder) -> None:
    forms: list[tuple[list[Any], Any]] = [([0, 1] * 12, None), ([False, True] * 12, None), (["0", "1.0"] * 12, None)]
    for labels, match_label in [*forms, (["neutral", "entailed"] * 12, "entailed"), ([1, 0] * 12, 0)]:
        matcher = Matcher(encoder=encoder, label="label", match_label=match_label)
        assert matcher.calibrate(painted.pairs | {"label": labels}).measured["matches"] == 12


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "a.csv has no header: its first line must name the columns"),
        ("a.csv", b"caption,image\na,b,c\n", "row 0: row 1 of a.csv has 3 cells where the header has 2"),
        ("a.csv", b"caption,image\n\xff,b\n", "row 0: row 1 of a.csv is not UTF-8"),
        ("a.csv", b'caption,image\n"a,b\nc,d\n', "a quote that opens in line 2 of a.csv is never closed"),
        ("a.csv", b"caption,image\n", "a.csv has a header and no rows"),
        ("a.csv", b"photo,words\na,b\n", "'a.csv' has no column 'caption'; it has 'photo', 'words'"),
        ("a.jsonl", b'{"caption": "a", "image": "b"}\n{', "row 1: line 2 of a.jsonl is not JSON"),
        ("a.jsonl", b"[1]\n", "line 1 of a.jsonl is a JSON list, not an object; expected one object a line"),
        ("a.jsonl", b"", "a.jsonl holds no JSON object: it is empty; expected one object a line"),
        ("a.json", b'{"caption": ["a"]}', "holds a JSON dict; expected a list"),
        ("a.parquet", b"no parquet", "a.parquet cannot be read as Parquet"),
    ],
)
def test_damaged_tables_are_told(name: str, content: bytes, message: str, matcher: Matcher, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        matcher.calibrate(tmp_path / name)
    assert message in told(caught.value)


def test_options_of_candidates_without_candidates_are_refused(painted: Painted, matcher: Matcher) -> None:
    with pytest.raises(TypeError, match="takes 'templates' with candidates only"):
        matcher.predict(painted.pairs, templates=["a {}"])


def test_two_forms_of_embeddings_exclude_each_other(painted: Painted, matcher: Matcher) -> None:
    with pytest.raises(MatcherError, match="as_tensor and as_arrow exclude each other"):
        matcher.extract_embedding({"image": painted.images}, as_tensor=True, as_arrow=True)


@pytest.mark.parametrize("threshold", [-0.1, 1.5, float("nan"), "high"])
def test_a_threshold_is_a_probability(threshold: Any, painted: Painted, matcher: Matcher) -> None:
    with pytest.raises(MatcherError, match="is no probability; give a number from 0 to 1"):
        matcher.match(painted.pairs, threshold=threshold)
