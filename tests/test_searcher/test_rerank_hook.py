"""A function of the caller's own ranks the best hits again, and what it returns is checked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from searcher import Query, Searcher, SearchError, SearchRequest
from searcher.hits import Hits


def by_number(query: Any, hits: Hits) -> np.ndarray:
    """The higher the number at the end of an item id the better."""
    return np.array([int(hit.item_id[4:]) for hit in hits])


def test_the_hundred_best_are_ranked_by_the_function_and_pages_fit_together(searcher: Searcher) -> None:
    best = searcher.text_to_image("a red door", 100)
    expected = sorted(best, key=lambda hit: -int(hit.item_id[4:]))
    pages = [searcher.text_to_image("a red door", 10, offset=start, rerank=by_number) for start in (0, 10)]
    shown = [hit for page in pages for hit in page]
    assert [hit.item_id for hit in shown] == [hit.item_id for hit in expected[:20]]
    assert [hit.rank for hit in shown] == list(range(1, 21))
    assert [hit.rerank_score for hit in shown] == [float(hit.item_id[4:]) for hit in shown]
    assert {hit.item_id: hit.score for hit in shown}.items() <= {hit.item_id: hit.score for hit in best}.items()
    assert pages[1].scores.tolist() == [hit.score for hit in pages[1]]
    assert pages[1].row_ids.tolist() == [int(hit.item_id[4:]) for hit in pages[1]]
    assert pages[0].to_json()["hits"][0]["rerank_score"] == shown[0].rerank_score


def test_it_is_called_once_a_query_with_the_query_as_it_was_given(searcher: Searcher, corpus: Any) -> None:
    asked: list[tuple[Any, int]] = []

    def note(query: Any, hits: Hits) -> list[float]:
        asked.append((query, len(hits)))
        return [0.0] * len(hits)

    both = searcher.text_to_image(["red", "a blue sky"], 3, rerank=note)
    assert asked == [("red", 100), ("a blue sky", 100)]
    assert both[0].item_ids.tolist() == searcher.text_to_image("red", 3).item_ids.tolist(), (
        "equal scores keep the order"
    )
    picture = corpus.picture(3)
    searcher.image_to_text(picture, 2, where="item_id IN ('txt-1', 'txt-2')", rerank=note)
    composed = Query.text("red") + Query.item("img-3")
    searcher.search(composed, k=2, into="images", rerank=note)
    searcher.search([SearchRequest(words="img-4", k=2)], rerank=note)
    searcher.text_to_image("red", 3, where="stars = 77", rerank=note)
    assert asked[2:] == [(picture, 2), (composed.parts, 100), ("img-4", 100)]


def test_words_floors_and_copies_go_with_it(searcher: Searcher) -> None:
    floor = float(searcher.text_to_image("a red door", 30).scores[-1])
    options: dict[str, Any] = {"min_score": floor, "collapse": True, "words": "red"}
    plain, again = (searcher.text_to_image("a red door", 50, **options, **more) for more in ({}, {"rerank": by_number}))
    assert set(again.item_ids) == set(plain.item_ids)
    numbers = [int(item[4:]) for item in again.item_ids]
    assert numbers == sorted(numbers, reverse=True)


@pytest.mark.parametrize(
    ("rerank", "message"),
    [
        (7, "rerank=7 is of type int; give a function of the query and its hits"),
        (lambda query, hits: None, r"rerank returned scores of shape \(\) for 100 hits; return 100 finite numbers"),
        (lambda query, hits: [0.0], r"rerank returned scores of shape \(1,\) for 100 hits"),
        (lambda query, hits: np.zeros((100, 1)), r"rerank returned scores of shape \(100, 1\) for 100 hits"),
        (lambda query, hits: ["best"] * 100, r"rerank returned \['best', .*, which are no numbers"),
        (lambda query, hits: [*range(99), float("nan")], "rerank returned nan for hit 100"),
        (lambda query, hits: [float("inf"), *range(99)], "rerank returned inf for hit 1"),
    ],
)
def test_what_are_no_scores_is_refused(searcher: Searcher, rerank: Any, message: str) -> None:
    with pytest.raises(SearchError, match=message):
        searcher.text_to_image("red", 5, rerank=rerank)


def test_tensors_are_scores_too_and_an_error_of_the_function_is_its_own(searcher: Searcher) -> None:
    hits = searcher.text_to_image("red", 5, rerank=lambda query, hits: torch.arange(len(hits), dtype=torch.bfloat16))
    assert hits[0].rerank_score == 99
    with pytest.raises(ZeroDivisionError):
        searcher.text_to_image("red", 5, rerank=lambda query, hits: 1 // 0)
    with pytest.raises(SearchError, match=r"rerank orders hits by its own scores, and diversity=0.3 by how unlike"):
        searcher.text_to_image("red", 5, rerank=by_number, diversity=0.3)
