from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from evaluation import Bootstrap, evaluate_ranking, evaluate_within, exact_top_k


def without_own(vectors: np.ndarray) -> np.ndarray:
    """Full rankings of each row among the others, by sorting."""
    ranked = exact_top_k(vectors, vectors, len(vectors))[0]
    return np.array([line[line != row] for row, line in enumerate(ranked)])


def others(groups: list[int]) -> list[set[int]]:
    return [{i for i, label in enumerate(groups) if label == own} - {row} for row, own in enumerate(groups)]


@given(
    vectors=arrays(np.float32, (9, 3), elements=st.integers(-1, 1).map(float)),
    groups=st.lists(st.integers(0, 3), min_size=9, max_size=9),
)
def test_every_row_asks_for_the_others_of_its_group(vectors: np.ndarray, groups: list[int]) -> None:
    expected = evaluate_ranking(without_own(vectors), others(groups), (1, 5))
    assert evaluate_within(vectors, groups, (1, 5)) == expected


def test_captions_that_are_given_twice_find_each_other_and_not_themselves() -> None:
    vectors = np.repeat(np.eye(3), 2, axis=0)
    assert evaluate_within(vectors, [0, 0, 1, 1, 2, 2], (1,))["R@1"] == 1
    assert evaluate_within(vectors, [0, 1, 1, 2, 2, 0], (1,))["R@1"] == 0


def test_rows_alone_in_their_group_are_counted_as_left_out() -> None:
    figures = evaluate_within(np.eye(4), [7, 7, 8, 9], (1,))
    assert (figures["queries"], figures["left_out"]) == (2, 2)


def test_a_sample_of_the_queries_asks_the_whole_collection() -> None:
    vectors, groups = np.random.default_rng(0).standard_normal((60, 8)), np.arange(60) // 5
    sample = np.array([41, 3, 17])
    ranked, relevant = without_own(vectors)[sample], [others(groups.tolist())[row] for row in sample]
    assert evaluate_within(vectors, groups, (1, 10), queries=sample) == evaluate_ranking(ranked, relevant, (1, 10))


def test_the_queries_of_one_group_are_resampled_together() -> None:
    rng = np.random.default_rng(0)
    vectors, groups = rng.standard_normal((40, 8)), np.arange(40) // 4
    expected = evaluate_ranking(without_own(vectors), others(groups.tolist()), (1,), Bootstrap(), clusters=groups)
    assert evaluate_within(vectors, groups, (1,), bootstrap=Bootstrap()) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vectors": np.ones(4)}, r"vectors of shape \(4,\)"),
        ({"groups": [0, 0]}, r"groups of shape \(2,\).* must be 4 integers"),
        ({"groups": [0.0, 0.0, 1.0, 1.0]}, "float64"),
        ({"vectors": np.eye(1), "groups": [0]}, "1 vectors have no other"),
        ({"vectors": np.full((4, 2), np.inf)}, "row vector 0 holds NaN or infinite"),
        ({"k": (4,)}, "k=4 does not lie between 1 and the 3 other rows"),
        ({"groups": [0, 1, 2, 3]}, "nothing to measure"),
        ({"queries": [4]}, "query 4 is no row; the rows are 0 to 3"),
        ({"queries": [0.5]}, "must be row numbers"),
        ({"queries": [1, 1]}, "comes twice"),
    ],
)
def test_what_cannot_be_asked_is_refused(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"vectors": np.eye(4), "groups": [0, 0, 1, 1], "k": (1,)} | change
    with pytest.raises(ValueError, match=message):
        evaluate_within(**arguments)
