"""Rankings by item ids as tables have them: texts, tuples, whole numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation import evaluate_ranking

RANKED = [[2, 0, 1], [1, 3, -1], [3, 2, 0]]
RELEVANT: list[Any] = [{0, 9}, [1], {2: 2.0, 0: 1.0, 3: 0.0}]


def named(value: int) -> str | None:
    return None if value == -1 else f"photos/{value}.jpg"


@pytest.mark.parametrize("name", [named, lambda value: None if value == -1 else ("set", value)])
def test_ids_of_any_kind_give_the_figures_of_row_numbers(name: Any) -> None:
    wanted = evaluate_ranking(np.array(RANKED), RELEVANT, (1, 2, 3))
    ranked = [[name(item) for item in row] for row in RANKED]
    relevant = [
        {name(item): gain for item, gain in items.items()} if isinstance(items, dict) else [name(i) for i in items]
        for items in RELEVANT
    ]
    assert evaluate_ranking(ranked, relevant, (1, 2, 3)) == wanted
    # Without padding, as searches give fewer hits.
    assert evaluate_ranking([[item for item in row if item] for row in ranked], relevant, (1, 2, 3)) == wanted


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_texts_in_arrays_and_lists_of_whole_numbers_too(data: st.DataObject) -> None:
    ranked = data.draw(st.lists(st.lists(st.integers(0, 20), min_size=4, max_size=4), min_size=1, max_size=5))
    truth = data.draw(st.lists(st.sets(st.integers(0, 20), min_size=1), min_size=len(ranked), max_size=len(ranked)))
    wanted = evaluate_ranking(np.array(ranked), truth, (1, 4))
    assert evaluate_ranking(ranked, truth, (1, 4)) == wanted
    texts = [{str(item) for item in items} for items in truth]
    assert evaluate_ranking(np.array(ranked).astype(str), texts, (1, 4)) == wanted
    assert evaluate_ranking(np.array(ranked).astype(str).astype(object), texts, (1, 4)) == wanted


@pytest.mark.parametrize(
    ("ranked", "relevant", "message"),
    [
        ([["a"]], [[1]], "relevant holds ids of type int and ranked_ids of type str, so none is found; give whole"),
        (np.array([[1]]), [["1"]], "relevant holds ids of type str and ranked_ids of type int"),
        ([["a"]], [[0.5]], "relevant item 0.5 of query 0 is of type float; give whole numbers, texts or tuples"),
        ([["a"], [["b"]]], [["a"], ["b"]], r"ranked id \['b'\] of query 1 is of type list"),
        ([["a"]], [[None]], "relevant item None of query 0 stands for no item; leave it out"),
        ([["a"]], [["b"], ["c"]], "1 rankings and 2 lists"),
        (["ab"], [["a"]], "ranked_ids holds 'ab', which is no list"),
        ("ab", [["a"]], "ranked_ids is of type str; give a list of ids for each query"),
        (np.array([[0.5]]), [[1]], r"dtype float64 and shape \(1, 1\), and is no \(nq, m\) array of ids"),
    ],
)
def test_ids_that_cannot_be_compared_are_told(ranked: Any, relevant: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate_ranking(ranked, relevant, (1,))
