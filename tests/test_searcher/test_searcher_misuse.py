"""What is wrong with a query, a filter or an option is said in one line that names it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from searcher import FilterError, QueryError, Searcher, SearchError
from searcher.errors import ParameterError
from searcher.hits import table
from searcher.render.html_gallery import render_gallery
from storage.catalog import Catalog
from storage.errors import SearchParameterError
from storage.where import check_predicate


def test_the_broken_one_of_several_query_pictures_is_named(searcher: Searcher, corpus: Any, tmp_path: Path) -> None:
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0" + b"x" * 100)
    with pytest.raises(QueryError, match=r"the query image 'torn.jpg' cannot be used: corrupt.*; search with"):
        searcher.image_to_text([corpus.picture(0), tmp_path / "torn.jpg"])


def test_vectors_of_several_lengths_are_refused(searcher: Searcher) -> None:
    ragged: Any = [[1.0] * 64, [1.0] * 63]
    with pytest.raises(QueryError, match=r"the query vectors are no array.*; give an array \(n, 64\)"):
        searcher.search_vectors("images", ragged)


def test_one_vector_may_stand_alone(searcher: Searcher) -> None:
    assert searcher.search_vectors("images", np.ones(64), 3)[0].shape == (1, 3)


@pytest.mark.parametrize("version", ["1", 1.0, True])
def test_a_version_is_a_whole_number(corpus: Any, version: Any) -> None:
    with pytest.raises(ParameterError, match=r"^version is .*; give a whole number or None$"):
        Searcher.open(corpus.index, version=version)


def test_an_unknown_way_to_verify_is_refused(corpus: Any) -> None:
    how: Any = "fast"
    with pytest.raises(ParameterError, match="verify is 'fast'; choose one of full, size"):
        Searcher.open(corpus.index, verify=how)


def test_something_that_is_no_encoder_is_refused(corpus: Any) -> None:
    thing: Any = 3
    with pytest.raises(SearchError, match="encoder is 3, of type int; give an Encoder, a text or None"):
        Searcher.open(corpus.index, encoder=thing)


@pytest.mark.parametrize("where", ["my col = 3", "select > 2", "width > 3 and AT < '2020-01-01'"])
def test_a_column_that_needs_quotes_is_told(searcher: Searcher, where: str) -> None:
    parse = _catalog(searcher).parse_predicate
    with pytest.raises(SearchParameterError, match=r'; the column "(my col|select|at)" must stand in double quotes$'):
        check_predicate(where, ["my col", "select", "at", "width"], parse)


@pytest.mark.parametrize("where", ["width >", "'my col' = = 3", '"select" >'])
def test_columns_that_were_written_well_are_not_blamed(searcher: Searcher, where: str) -> None:
    with pytest.raises(SearchParameterError, match="is not SQL") as caught:
        check_predicate(where, ["my col", "select", "width"], _catalog(searcher).parse_predicate)
    assert "double quotes" not in str(caught.value)


def test_a_filter_that_is_no_unicode_is_refused(searcher: Searcher) -> None:
    with pytest.raises(FilterError, match="is not Unicode text: surrogates not allowed; decode it first"):
        searcher.text_to_image("red", where="owner = '\udcff'")


def test_a_file_name_that_is_no_unicode_leaves_results_unicode(searcher: Searcher, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"c\xff.png")
    try:
        Image.new("RGB", (4, 4), "red").save(path)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert searcher.image_to_image(path, 1).to_json()["query"] == "c\N{REPLACEMENT CHARACTER}.png"


def test_a_query_of_100_kb_does_not_flood_the_screen(searcher: Searcher) -> None:
    hits = searcher.text_to_image("red " * 25_000, 1)
    assert len(table([hits])) < 1_000
    assert render_gallery([hits]).count("red ") < 2_000


def _catalog(searcher: Searcher) -> Catalog:
    return searcher._version.catalog
