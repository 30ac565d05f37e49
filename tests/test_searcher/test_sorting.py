"""The best hits in the order of a column: the same hits, other places."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from searcher import Searcher
from searcher.errors import ParameterError, SearchError
from searcher.request import parse_request


def test_the_best_hits_are_found_as_ever_and_shown_in_order(searcher: Searcher) -> None:
    plain = searcher.text_to_image("a red door", 20)
    oldest, newest = (searcher.text_to_image("a red door", 20, sort=sort) for sort in ("stars", "-stars"))
    assert {hit.item_id for hit in oldest} == {hit.item_id for hit in plain}
    assert [hit.metadata["stars"] for hit in oldest] == sorted(hit.metadata["stars"] for hit in plain)
    assert [hit.metadata["stars"] for hit in newest] == sorted((hit.metadata["stars"] for hit in plain), reverse=True)
    for hits in (oldest, newest):
        by_rank = sorted(hits, key=lambda hit: hit.rank)
        assert [hit.item_id for hit in by_rank] == [hit.item_id for hit in plain]
        np.testing.assert_array_equal(hits.scores, [hit.score for hit in hits])
        assert hits.item_ids.tolist() == [hit.item_id for hit in hits]
        # Equal ones stay in the order of their scores.
        assert all(a.rank < b.rank for a, b in pairwise(hits) if a.metadata["stars"] == b.metadata["stars"])
    assert newest.to_json()["sort"] == "-stars"


def test_what_has_no_value_comes_last_either_way(searcher: Searcher) -> None:
    for sort in ("owner", "-owner"):
        owners = [hit.metadata["owner"] for hit in searcher.text_to_image("a red door", 30, sort=sort)]
        known = [owner for owner in owners if owner is not None]
        assert owners == [*sorted(known, reverse=sort[0] == "-"), *[None] * (30 - len(known))]


def test_pages_are_sorted_each_by_itself(searcher: Searcher) -> None:
    whole = searcher.text_to_image("a red door", 20)
    second = searcher.text_to_image("a red door", 10, offset=10, sort="Width")
    assert {hit.item_id for hit in second} == {hit.item_id for hit in whole[10:]}
    assert [hit.metadata["width"] for hit in second] == sorted(hit.metadata["width"] for hit in whole[10:])


def test_the_column_comes_back_with_the_columns_that_were_chosen(searcher: Searcher) -> None:
    hits = searcher.text_to_image("a red door", 5, sort="-width", columns=["height"])
    assert all(hit.metadata.keys() == {"height", "width"} for hit in hits)
    widths = [hit.metadata["width"] for hit in hits]
    assert widths == sorted(widths, reverse=True)


def test_hits_that_were_ranked_again_are_sorted_after_that(searcher: Searcher) -> None:
    def by_height(_: Any, hits: Any) -> list[float]:
        return [hit.metadata["height"] for hit in hits]

    best = searcher.text_to_image("a red door", 8, rerank=by_height)
    hits = searcher.text_to_image("a red door", 8, rerank=by_height, sort="item_id")
    assert [hit.item_id for hit in hits] == sorted(hit.item_id for hit in best)


def test_sorting_goes_with_several_queries_and_requests(searcher: Searcher) -> None:
    several = searcher.text_to_image(["a red door", "a blue boat"], 6, sort="width")
    alone = [searcher.text_to_image(text, 6, sort="width") for text in ("a red door", "a blue boat")]
    assert [[hit.item_id for hit in hits] for hits in several] == [[hit.item_id for hit in hits] for hits in alone]
    request = parse_request({"text": "a red door", "k": "6", "sort": "width"})
    assert (request.k, request.sort) == (6, "width")
    assert [hit.item_id for hit in searcher.search(request)] == [hit.item_id for hit in alone[0]]


def test_what_cannot_be_sorted_by_is_refused(searcher: Searcher, corpus: Any) -> None:
    with pytest.raises(SearchError, match="sort names no column '-taken'; images have row_id, "):
        searcher.text_to_image("red", sort="-taken")
    with pytest.raises(SearchError, match="sort names no column 'width'; texts have"):
        searcher.image_to_text(corpus.picture(0), sort="width")
    with pytest.raises(ParameterError, match="sort='width' is for hits, which search returns"):
        searcher.search_vectors("images", corpus.images[0], 5, sort="width")
    with pytest.raises(ParameterError, match="sort is 7, of type int; give a text or None"):
        searcher.text_to_image("red", sort=7)  # type: ignore[arg-type]
