"""Ranks by counting: whatever the blocks, the threads and the vectors, they are those of sorting exact scores."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import evaluation.exact_ranks
from evaluation.exact_ranks import ranks_both_ways, ranks_by_counting
from evaluation.ranks import Relevance


def by_sorting(queries: np.ndarray, base: np.ndarray, relevance: Relevance) -> list[float]:
    """Ranks from exact scores, one line at a time, equal scores by lower row."""
    ranks = np.empty((len(queries), len(base)))
    for line, query in zip(ranks, queries, strict=True):
        scores = (base.astype(np.float64) * query.astype(np.float64)).sum(axis=1)
        line[np.argsort(-scores, kind="stable")] = np.arange(1, len(base) + 1)
    return ranks[relevance.query, relevance.item].tolist()


def random_pairs(rng: np.random.Generator, left: int, right: int, many: int) -> Relevance:
    return Relevance.from_rows(rng.integers(0, left, many), rng.integers(0, right, many), left)


def all_equal(rng: np.random.Generator) -> Any:
    return np.ones((90, 5)), np.ones((40, 5))


def with_doubles(rng: np.random.Generator) -> Any:
    left, right = rng.standard_normal((12, 6)), rng.standard_normal((7, 6))
    return left[rng.integers(0, 12, 90)], right[rng.integers(0, 7, 40)]


def in_a_narrow_cone(rng: np.random.Generator) -> Any:
    return tuple(rng.standard_normal(6) + 1e-6 * rng.standard_normal((n, 6)) for n in (90, 40))


def huge(rng: np.random.Generator) -> Any:
    return 1e25 * rng.standard_normal((90, 6)), 1e12 * rng.standard_normal((40, 6))


def tiny(rng: np.random.Generator) -> Any:
    return 1e-25 * rng.standard_normal((90, 6)), 1e-25 * rng.standard_normal((40, 6))


def half_precision(rng: np.random.Generator) -> Any:
    return tuple(rng.standard_normal((n, 6)).astype(np.float16) for n in (90, 40))


def wholes(rng: np.random.Generator) -> Any:
    return tuple(rng.integers(-1, 2, (n, 6)).astype(np.float32) for n in (90, 40))


def zeros_among_others(rng: np.random.Generator) -> Any:
    left, right = rng.standard_normal((90, 6)), rng.standard_normal((40, 6))
    left[::3], right[::2] = 0, 0
    return left, right


KINDS = (all_equal, with_doubles, in_a_narrow_cone, huge, tiny, half_precision, wholes, zeros_among_others)


@pytest.mark.parametrize("blocks", [(1, 1, 1, 1), (50, 3, 7, 2), (1 << 22, 1 << 12, 1 << 17, 8)])
@pytest.mark.parametrize("kind", KINDS)
def test_ranks_are_those_of_sorting(kind: Any, blocks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in zip(("_BLOCK_VALUES", "_BLOCK_COLUMNS", "_STRIP_VALUES", "_THREADS"), blocks, strict=True):
        monkeypatch.setattr(evaluation.exact_ranks, name, value)
    rng = np.random.default_rng(0)
    left, right = kind(rng)
    there = random_pairs(rng, 90, 40, 160)
    back = there.flipped(40)
    expected = by_sorting(left, right, there), by_sorting(right, left, back)
    assert ranks_by_counting(left, right, there).tolist() == expected[0]
    assert tuple(ranks.tolist() for ranks in ranks_both_ways(left, right, there)) == expected


@given(
    left=arrays(np.float32, (7, 3), elements=st.integers(-2, 2).map(float)),
    right=arrays(np.float32, (5, 3), elements=st.integers(-2, 2).map(float)),
    pairs=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 4)), min_size=1, max_size=20),
)
def test_ties_are_ranked_by_lower_row_both_ways(left: Any, right: Any, pairs: list[tuple[int, int]]) -> None:
    rows = np.array(pairs)
    there = Relevance.from_rows(rows[:, 0], rows[:, 1], 7)
    ranks = ranks_both_ways(left, right, there)
    assert ranks[0].tolist() == by_sorting(left, right, there)
    assert ranks[1].tolist() == by_sorting(right, left, there.flipped(5))


def test_scores_apart_by_the_last_digits_of_float64_are_in_their_order() -> None:
    left, right = np.zeros((1, 40)), np.tile(np.random.default_rng(0).standard_normal(40), (6, 1))
    left[0, 0] = 1
    right[:, 0] = 1 + np.array([0, 3, 1, 5, 4, 2]) * 2.0**-52
    there = Relevance.from_rows(np.zeros(6, dtype=int), np.arange(6), 1)
    assert ranks_by_counting(left, right, there).tolist() == [6, 3, 5, 1, 2, 4]


def test_neighbours_within_the_rounding_of_float32_are_in_their_order() -> None:
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((40, 512)), rng.standard_normal((1, 512)) + 3e-8 * rng.standard_normal((300, 512))
    # Two far ones keep the middle of all away from the others.
    right[:2] *= -50
    there = random_pairs(rng, 40, 300, 100)
    assert ranks_by_counting(left, right, there).tolist() == by_sorting(left, right, there)


def test_many_relevant_items_a_query_are_ranked_too() -> None:
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((6, 4)), rng.standard_normal((300, 4))
    there = random_pairs(rng, 6, 300, 900)
    ranks = ranks_both_ways(left, right, there)
    assert ranks[0].tolist() == by_sorting(left, right, there)
    assert ranks[1].tolist() == by_sorting(right, left, there.flipped(300))


def test_queries_without_relevant_items_and_an_empty_side_are_fine() -> None:
    nothing = Relevance.from_rows(np.zeros(0, dtype=int), np.zeros(0, dtype=int), 3)
    assert ranks_by_counting(np.eye(3), np.eye(3), nothing).tolist() == []
    assert [len(ranks) for ranks in ranks_both_ways(np.eye(3), np.empty((0, 3)), nothing)] == [0, 0]


def test_equal_vectors_take_no_longer_than_others() -> None:
    rng = np.random.default_rng(0)
    there = Relevance.from_rows(np.arange(2000), np.arange(2000) // 4, 2000)

    def seconds(left: np.ndarray, right: np.ndarray) -> float:
        started = time.process_time()
        ranks_both_ways(left, right, there)
        return time.process_time() - started

    usual = seconds(rng.standard_normal((2000, 64)), rng.standard_normal((500, 64)))
    assert seconds(np.ones((2000, 64)), np.ones((500, 64))) < 4 * usual + 0.2
